"""The LM as a folder that transformers, vLLM and SGLang load as it is: config, safetensors, fast tokenizer."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from codec.audio import write_whole
from tts.checkpoint import Model
from tts.export.note import FILE, Note
from tts.export.vocabulary import SPECIALS, fast_tokenizer
from tts.lm.layout import Layout
from tts.lm.llama import LlamaConfig

POSITIONS = 4096
"""The longest sequence that an engine is told to make room for: more than two minutes of speech with its prompt.
Rotary positions have no end of their own."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def export_transformers(model: Model, folder: Path, *, dtype: str = "float32") -> list[Path]:
    """Write the LM of a model; returns the files.

    Args:
        model: whose LM and phoneme table.
        folder: to write into, made where there is none.
        dtype: of the weights, a key of `DTYPES`.
    """
    layout, kind = model.lm.layout, DTYPES[dtype]
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: t.detach().cpu().to(kind).contiguous() for name, t in model.lm.llama.state_dict().items()
    }
    write_whole(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    documents: dict[str, Any] = {
        "config.json": llama_config(model.lm.llama.config, layout, dtype),
        "generation_config.json": {**_ends(layout), "do_sample": False, "max_new_tokens": POSITIONS // 2},
        "tokenizer_config.json": _tokenizer_config(),
        FILE: json.loads(Note.of(model).text()),
    }
    for name, document in documents.items():
        write_whole(folder / name, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    tokenizer = fast_tokenizer(model.symbols, layout)
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    return [folder / name for name in ("model.safetensors", "tokenizer.json", *documents)]


def llama_config(config: LlamaConfig, layout: Layout, dtype: str) -> dict[str, Any]:
    """``config.json`` of transformers' Llama."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(config),
        "head_dim": config.hidden_size // config.num_attention_heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": POSITIONS,
        "torch_dtype": dtype,
        **_ends(layout),
    }


def _ends(layout: Layout) -> dict[str, int]:
    return {"bos_token_id": layout.bos, "eos_token_id": layout.eos, "pad_token_id": 0}


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[0],
        "eos_token": SPECIALS[2],
        "pad_token": "<blank>",
        "unk_token": "<blank>",
        "extra_special_tokens": {"text_end_token": SPECIALS[1]},
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
