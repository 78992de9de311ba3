"""The file holds the LM as llama.cpp reads it: numbers, their order, sizes, vocabulary. Running it: tests/engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codec.errors import UserError
from codec.nn.attention import rope, rotate
from tts.checkpoint import Model
from tts.export.note import Note

gguf = pytest.importorskip("gguf")

from tts.export.as_gguf import KEY, export_gguf, tensor_name  # noqa: E402


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return Model.load(tiny_model)


def value(reader: Any, key: str) -> Any:
    return reader.fields[key].contents()


def test_sizes_and_vocabulary(model: Model, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(export_gguf(model, tmp_path / "lm.gguf"))
    config, layout = model.lm.llama.config, model.lm.layout
    assert value(reader, "general.architecture") == "llama"
    assert value(reader, "llama.block_count") == config.num_hidden_layers
    assert value(reader, "llama.attention.head_count_kv") == config.num_key_value_heads
    assert value(reader, "llama.rope.freq_base") == config.rope_theta
    assert value(reader, "llama.attention.layer_norm_rms_epsilon") == pytest.approx(config.rms_norm_eps)
    tokens = value(reader, "tokenizer.ggml.tokens")
    assert tokens[layout.bos] == "<bos>" and tokens[layout.first_code + 12] == "<s12>"
    assert len(tokens) == layout.vocab_size and value(reader, "tokenizer.ggml.eos_token_id") == layout.eos
    Note.read(value(reader, KEY), "x").require(model, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["lm.gguf"]


@pytest.mark.parametrize(("kind", "bits"), [("f32", 0), ("f16", 11), ("q8_0", 7)])
def test_numbers_within_their_precision(model: Model, tmp_path: Path, kind: str, bits: int) -> None:
    reader = gguf.GGUFReader(export_gguf(model, tmp_path / "lm.gguf", kind=kind))
    found = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    state = model.lm.llama.state_dict()
    assert set(found) == {tensor_name(name) for name in state}
    for name, weight in state.items():
        mine, theirs = weight.numpy(), found[tensor_name(name)].reshape(weight.shape)
        if "q_proj" in name or "k_proj" in name:
            mine, theirs = np.sort(mine, 0), np.sort(theirs, 0)  # rows in another order
        error = np.abs(mine - theirs).max()
        assert error <= (np.abs(mine).max() * 2.0**-bits if bits and weight.ndim > 1 else 0), name


def test_rows_of_queries_and_keys_turn_as_neighbours(model: Model, tmp_path: Path) -> None:
    """A key, turned our way by halves and theirs by neighbours, holds the same numbers."""
    reader = gguf.GGUFReader(export_gguf(model, tmp_path / "lm.gguf", kind="f32"))
    theirs = torch.tensor(
        next(one.data for one in reader.tensors if one.name == "blk.0.attn_q.weight").copy()
    )
    config, x = model.lm.llama.config, torch.randn(32)
    head = config.hidden_size // config.num_attention_heads
    mine = (model.lm.llama.state_dict()["model.layers.0.self_attn.q_proj.weight"] @ x).view(1, -1, 1, head)
    turned = rotate(mine, *rope(torch.tensor([5]), head))
    pairs = torch.view_as_complex((theirs @ x).view(-1, head // 2, 2).contiguous())
    angles = 5 * 10_000.0 ** (-torch.arange(0, head, 2) / head)
    neighbours = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles))
    halves = neighbours.transpose(1, 2).reshape(1, -1, 1, head)
    torch.testing.assert_close(halves, turned, atol=1e-5, rtol=1e-5)


def test_q8_needs_blocks_of_32(model: Model, tmp_path: Path) -> None:
    from tts.lm.model import SpeechLM

    object.__setattr__(model, "lm", SpeechLM(symbols=len(model.symbols), hidden_size=48, num_hidden_layers=1))
    with pytest.raises(UserError, match=r"32 numbers at a time, which 48 and 1024 do not .*--dtype f16"):
        export_gguf(model, tmp_path / "lm.gguf", kind="q8_0")
    assert not list(tmp_path.iterdir())
