"""The LM's decoder against transformers' LlamaForCausalLM, and against itself in steps and in batches."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM

from tts.lm.llama import Llama, LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=50,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    rope_theta=5_000.0,
)


def lively(config: LlamaConfig = CONFIG) -> Llama:
    """A Llama with weights large enough for attention and norms to matter."""
    llama = Llama(config).eval()
    for parameter in llama.parameters():
        torch.nn.init.normal_(parameter, mean=0.5 if parameter.ndim == 1 else 0.0, std=0.2)
    return llama


@pytest.mark.parametrize("kv_heads", [6, 2, 1])
@torch.no_grad()
def test_logits_equal_transformers(kv_heads: int) -> None:
    config = dataclasses.replace(CONFIG, num_key_value_heads=kv_heads)
    mine = lively(config)
    theirs = LlamaForCausalLM(TheirConfig(**dataclasses.asdict(config), tie_word_embeddings=False)).eval()
    theirs.load_state_dict(mine.state_dict(), strict=True)
    ids = torch.randint(50, (2, 40))
    logits = mine(ids)
    assert logits.std() > 0.5
    torch.testing.assert_close(logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sizes", [[1] * 12, [7, 1, 1, 3], [5, 7]])
@torch.no_grad()
def test_with_caches_in_steps_equals_the_whole(sizes: list[int]) -> None:
    llama, ids = lively(), torch.randint(50, (2, 12))
    caches = llama.new_caches(capacity=2)
    parts = [llama(piece, caches) for piece in ids.split(sizes, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), llama(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_no_position_sees_a_later_one() -> None:
    llama, ids = lively(), torch.randint(50, (1, 12))
    changed = ids.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 50
    before, after = llama(ids), llama(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert (before[:, 8:] - after[:, 8:]).abs().amax(-1).min() > 1e-2


@torch.no_grad()
def test_last_only_is_the_last_position() -> None:
    llama, ids = lively(), torch.randint(50, (2, 12))
    torch.testing.assert_close(llama(ids, last_only=True), llama(ids)[:, -1:])


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows with padding on their left, (B, T), and its width, (B,)."""
    width = max(len(row) for row in rows)
    pads = torch.tensor([width - len(row) for row in rows])
    return torch.stack([torch.cat([torch.full((width - len(row),), 49), row]) for row in rows]), pads


@pytest.mark.parametrize("sizes", [[15], [9, 1, 1, 4], [1] * 15])
@torch.no_grad()
def test_a_left_padded_row_equals_the_row_alone(sizes: list[int]) -> None:
    llama = lively()
    rows = [torch.randint(50, (n,)) for n in (15, 4, 9, 1)]
    ids, pads = padded(rows)
    caches = llama.new_caches(capacity=4)
    logits = torch.cat([llama(piece, caches, pads=pads) for piece in ids.split(sizes, dim=1)], 1)
    torch.testing.assert_close(logits, llama(ids, pads=pads), atol=1e-4, rtol=1e-4)
    for row, pad, mine in zip(rows, pads.tolist(), logits, strict=True):
        torch.testing.assert_close(mine[pad:], llama(row[None])[0], atol=1e-4, rtol=1e-4)
    assert logits.isfinite().all()
