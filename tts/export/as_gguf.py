"""The LM as a GGUF file, which llama.cpp runs: architecture, names and vocabulary as its own converter writes them.

llama.cpp turns neighbouring numbers of a head together, transformers (and we) the two halves of it; so the rows of the
query and key matrices are laid in the other order, once, here.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from codec.errors import UserError
from tts.checkpoint import Model
from tts.export.as_transformers import POSITIONS
from tts.export.note import Note
from tts.export.vocabulary import SPECIALS, vocabulary
from tts.lm.llama import LlamaConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
KEY = "tts.note"


def export_gguf(model: Model, path: Path, *, kind: str = "f16") -> Path:
    """Write the LM of a model.

    Args:
        model: whose LM and phoneme table.
        path: of the file.
        kind: of the matrices: "f32", "f16", or "q8_0", 8 bits with a scale for every 32; norms stay in 32.

    Raises:
        UserError: the sizes do not divide into blocks of 32, which q8_0 needs.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quants

    config = model.lm.llama.config
    if kind == "q8_0" and any(size % 32 for size in (config.hidden_size, config.intermediate_size)):
        raise UserError(
            f"q8_0 takes 32 numbers at a time, which {config.hidden_size} and {config.intermediate_size} do not divide "
            "into; give --dtype f16"
        )
    types = {
        "f32": GGMLQuantizationType.F32,
        "f16": GGMLQuantizationType.F16,
        "q8_0": GGMLQuantizationType.Q8_0,
    }
    files = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
    part = path.parent / f".{uuid.uuid4().hex}.part"
    writer = GGUFWriter(part, "llama")
    _describe(writer, config, model)
    writer.add_file_type(files[kind])
    for name, weight in model.lm.llama.state_dict().items():
        values, written = _laid_out(name, weight, config), types[kind]
        if values.ndim < 2:
            written = GGMLQuantizationType.F32
        writer.add_tensor(tensor_name(name), quants.quantize(values, written), raw_dtype=written)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def tensor_name(name: str) -> str:
    """llama.cpp's name of one of the Llama's tensors."""
    stem, _, kind = name.rpartition(".")
    if stem in OUTER:
        return f"{OUTER[stem]}.{kind}"
    _, _, number, inner = stem.split(".", 3)
    return f"blk.{number}.{NAMES[inner]}.{kind}"


def _laid_out(name: str, weight: Tensor, config: LlamaConfig) -> npt.NDArray[np.float32]:
    """A tensor's numbers in the order llama.cpp has them."""
    values: npt.NDArray[np.float32] = weight.detach().cpu().float().numpy()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
        name.split(".")[-2]
    )
    if heads is None:
        return values
    halves = values.reshape(heads, 2, -1, values.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def _describe(writer: "GGUFWriter", config: LlamaConfig, model: Model) -> None:
    from gguf import TokenType

    layout = model.lm.layout
    head = config.hidden_size // config.num_attention_heads
    writer.add_name("speech tokens from phonemes")
    writer.add_string(KEY, Note.of(model).text())
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    # sentencepiece without pairs to merge: every phoneme is a piece, whatever stands in angle brackets another
    strings = vocabulary(model.symbols, layout)
    kinds = [TokenType.NORMAL] * len(strings)
    kinds[0] = TokenType.UNKNOWN
    kinds[layout.bos : layout.first_code] = [TokenType.CONTROL] * len(SPECIALS)
    kinds[layout.first_code :] = [TokenType.USER_DEFINED] * layout.codes
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(strings)
    writer.add_token_scores([0.0] * len(strings))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(layout.bos)
    writer.add_eos_token_id(layout.eos)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
