"""codec.nn.attention against transformers' rotary code, attention written out by hand, and itself in steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRotaryEmbedding, apply_rotary_pos_emb

from codec.nn.attention import Attention, KVCache, KVRows, KVTable, SwiGLU, rope, rotate

# ----------------------------------------------------------------------------------------------------- cache


def test_cache_returns_all_that_was_appended_while_it_grows() -> None:
    cache = KVCache(capacity=2)
    k, v = torch.randn(2, 3, 11, 4), torch.randn(2, 3, 11, 4)
    end = 0
    for size in (1, 1, 1, 5, 3):
        start, end = end, end + size
        all_k, all_v = cache.append(k[:, :, start:end], v[:, :, start:end])
        assert cache.length == end
        assert torch.equal(all_k, k[:, :, :end]) and torch.equal(all_v, v[:, :, :end])
    assert cache.capacity == 16  # doubled from 2, never more than needed


def test_cache_writes_in_place_until_it_is_full() -> None:
    cache = KVCache(capacity=4)
    one = torch.ones(1, 1, 1, 2)
    places = [cache.append(one, one)[0].data_ptr() for _ in range(5)]
    assert len(set(places[:4])) == 1 and places[4] != places[3]


def test_cache_copies_are_independent_both_ways() -> None:
    cache = KVCache(capacity=4)
    a, b, c = (torch.full((1, 1, 1, 2), x) for x in (1.0, 2.0, 3.0))
    cache.append(a, a)
    other = cache.copy()
    from_cache, _ = cache.append(b, b)
    from_other, _ = other.append(c, c)
    assert from_cache[0, 0, :, 0].tolist() == [1, 2]
    assert from_other[0, 0, :, 0].tolist() == [1, 3]
    assert KVCache().copy().length == 0


def test_cache_copy_repeats_one_row_to_a_batch() -> None:
    cache = KVCache(capacity=4)
    cache.append(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    rows = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 1, 4)
    k, _ = cache.copy(batch=5).append(rows, rows)
    assert k[:, 0, :, 0].tolist() == [[1, 1, 1, i] for i in range(5)]


# ----------------------------------------------------------------------------------------------------- rotary


@pytest.mark.parametrize("theta", [10_000.0, 500.0])
def test_rotary_positions_equal_transformers(theta: float) -> None:
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, rope_theta=theta, max_position_embeddings=4096
    )
    q, k = torch.randn(2, 4, 7, 16), torch.randn(2, 4, 7, 16)
    positions = torch.tensor([[0, 1, 2, 3, 50, 800, 2001], [5, 6, 7, 8, 9, 10, 11]])
    their_cos, their_sin = LlamaRotaryEmbedding(config)(q, positions)

    cos, sin = rope(positions[:, None], 16, theta)

    # a float32 frequency is off by so many radians after 2000 positions
    torch.testing.assert_close(cos[:, 0], their_cos, atol=2e-4, rtol=0)
    torch.testing.assert_close(sin[:, 0], their_sin, atol=2e-4, rtol=0)
    their_q, their_k = apply_rotary_pos_emb(q, k, cos[:, 0], sin[:, 0])
    torch.testing.assert_close(rotate(q, cos, sin), their_q)
    torch.testing.assert_close(rotate(k, cos, sin), their_k)


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at_q: int, at_k: int) -> float:
        q_turned, k_turned = (rotate(x, *rope(torch.tensor([p]), 8)) for x, p in ((q, at_q), (k, at_k)))
        torch.testing.assert_close(q_turned.norm(), q.norm())
        return float((q_turned * k_turned).sum())

    assert score(3, 0) == pytest.approx(score(103, 100), abs=1e-4)
    assert score(3, 0) != pytest.approx(score(4, 0), abs=1e-3)


# -------------------------------------------------------------------------------------------------- attention


def by_hand(layer: Attention, x: Tensor, mask: Tensor | None) -> Tensor:
    """The layer's output from its weights, one head after another, without SDPA."""
    cos, sin = rope(torch.arange(x.shape[1]), layer.head_dim)
    heads = []
    for h in range(layer.heads):
        shared = h // (layer.heads // layer.kv_heads)
        rows = slice(h * layer.head_dim, (h + 1) * layer.head_dim)
        kv_rows = slice(shared * layer.head_dim, (shared + 1) * layer.head_dim)
        q = rotate(x @ layer.q_proj.weight[rows].T, cos, sin)
        k = rotate(x @ layer.k_proj.weight[kv_rows].T, cos, sin)
        scores = q @ k.transpose(1, 2) / math.sqrt(layer.head_dim)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        heads.append(scores.softmax(-1) @ (x @ layer.v_proj.weight[kv_rows].T))
    return torch.cat(heads, dim=-1) @ layer.o_proj.weight.T


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("masking", ["none", "causal", "mask"])
@torch.no_grad()
def test_attention_equals_the_formula(kv_heads: int | None, masking: str) -> None:
    layer, x = Attention(32, 4, kv_heads), torch.randn(2, 9, 32)
    cos, sin = rope(torch.arange(9), 8)
    mask = {
        "none": None,
        "causal": torch.ones(9, 9).tril().bool(),
        "mask": (torch.rand(9, 9) < 0.5) | torch.eye(9).bool(),
    }[masking]
    given = {"mask": mask[None, None]} if masking == "mask" and mask is not None else {}
    torch.testing.assert_close(
        layer(x, cos, sin, causal=masking == "causal", **given), by_hand(layer, x, mask), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("sizes", [[1] * 9, [4, 1, 1, 3]])
@torch.no_grad()
def test_attention_in_steps_with_a_cache_equals_the_whole(sizes: list[int]) -> None:
    layer, x = Attention(32, 4, 2), torch.randn(2, 9, 32)
    cos, sin = rope(torch.arange(9), 8)
    causal = torch.ones(9, 9).tril().bool()
    cache, parts, end = KVCache(capacity=2), [], 0
    for size in sizes:
        start, end = end, end + size
        new = slice(start, end)
        parts.append(layer(x[:, new], cos[new], sin[new], mask=causal[None, None, new, :end], cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1), layer(x, cos, sin, causal=True), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_swiglu_equals_transformers() -> None:
    theirs = LlamaMLP(LlamaConfig(hidden_size=16, intermediate_size=40, num_attention_heads=2))
    mine = SwiGLU(16, 40)
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(mine(x), theirs(x))


@pytest.mark.parametrize("sizes", [None, [5, 1, 3]])
@pytest.mark.parametrize("kv_heads", [None, 2])
@torch.no_grad()
def test_streams_of_other_lengths_in_one_batch_see_what_they_see_alone(
    kv_heads: int | None, sizes: list[int] | None
) -> None:
    layer, rows = Attention(32, 4, kv_heads), 2
    pasts = [torch.randn(rows, n, 32) for n in (9, 4, 70)]
    alone, together = ([KVCache(capacity=4) for _ in pasts] for _ in range(2))
    for past, one, other in zip(pasts, alone, together, strict=True):
        for cache in (one, other):
            layer(past, *rope(torch.arange(past.shape[1]), 8), cache=cache)

    x = torch.randn(len(pasts), rows, 5, 32)
    starts = torch.tensor([cache.length for cache in alone]).repeat_interleave(rows)
    angles = rope(starts[:, None, None] + torch.arange(5), 8)
    found = layer(x.flatten(0, 1), *angles, cache=KVRows(together, sizes)).view_as(x)

    for own, cache, out, size in zip(x, alone, found, sizes or [5, 5, 5], strict=True):
        wanted = layer(own[:, :size], *rope(cache.length + torch.arange(size), 8), cache=cache)
        torch.testing.assert_close(out[:, :size], wanted, atol=1e-5, rtol=1e-5)
    lengths = [past.shape[1] + size for past, size in zip(pasts, sizes or [5, 5, 5], strict=True)]
    assert [cache.length for cache in together] == [cache.length for cache in alone] == lengths


def test_rows_of_a_table_come_and_go() -> None:
    def filled(length: int) -> list[KVCache]:
        caches = [KVCache(capacity=2) for _ in range(2)]
        for layer, cache in enumerate(caches):
            cache.append(*(sign * (torch.rand(1, 3, length, 4) + layer) for sign in (1, -1)))
        return caches

    rows = [filled(length) for length in (5, 2, 9)]
    table = KVTable()
    for caches in rows:
        table.add(caches)
    assert table.lengths == [5, 2, 9]
    table.drop(0)  # the last one takes its place
    table.add(rows[0])
    assert table.lengths == [9, 2, 5]
    for row, caches in enumerate([rows[2], rows[1], rows[0]]):
        for mine, theirs in zip(table.row(row), caches, strict=True):
            assert all(map(torch.equal, mine.filled, theirs.filled))


def test_what_is_appended_to_a_table_stands_behind_each_row_until_it_is_taken_back() -> None:
    cache, table = KVCache(), KVTable()
    for length in (4, 2):
        cache.append(torch.ones(1, 1, length, 1), torch.ones(1, 1, length, 1))
        table.add([cache])
        cache.back_to(0)
    new = torch.tensor([[7.0, 8.0], [5.0, 6.0]]).view(2, 1, 2, 1)
    keys, values = table.ahead(2)[0].append(new, -new)
    assert keys[:, 0, :, 0].tolist() == [[1, 1, 1, 1, 7, 8], [1, 1, 5, 6, 0, 0]]
    assert values[:, 0, :, 0].tolist() == [[1, 1, 1, 1, -7, -8], [1, 1, -5, -6, 0, 0]]
    table.lengths[1] += 2  # those of the first row do not count
    (slots,) = table.ahead(1)
    assert slots.end == 5 and slots.places.tolist() == [[4], [4]]
    keys, _ = slots.append(new[:, :, :1] * 10, new[:, :, :1])
    assert keys[:, 0, :, 0].tolist() == [[1, 1, 1, 1, 70], [1, 1, 5, 6, 50]]


def test_what_is_not_filled_yet_is_a_number_for_who_writes_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *size: plain(x, *size).fill_(math.nan))
    cache, one = KVCache(capacity=4), torch.ones(1, 1, 3, 2)
    cache.append(one, one)
    for room in (1, 6):
        for buffer in cache.ahead(room):
            assert buffer.shape[2] >= 3 + room
            assert buffer[:, :, :3].eq(1).all() and buffer[:, :, 3:].eq(0).all()
    joint = KVCache.joined([(cache, 0), (KVCache.of(*(x[:, :, 2:] for x in cache.filled)), 0)], room=2)
    for buffer in joint.ahead(2):
        assert buffer[:, 0, :, 0].tolist() == [[1, 1, 1, 0, 0], [0, 0, 1, 0, 0]]
