"""Attention, rotary positions, norms and feed-forward layers shared by the tokenizer, the LM and the DiT.

State is passed, never hidden: attention takes a `KVCache` and appends to it; without one, the call is the
whole sequence. Shapes: B batch, T new positions, S cached and new positions, H heads, D numbers per head.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.packed import side_by_side


class KVCache:
    """Keys and values of the positions already seen by one attention layer.

    The buffers are allocated once for `capacity` positions and doubled when full, so that a step writes in place
    and appending n positions one at a time costs O(n).
    """

    def __init__(self, capacity: int = 256) -> None:
        self.capacity = capacity
        self.length = 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None
        self._blank = False  # whether there are zeros behind what is filled

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, H, T, D) keys and values; return all of them, (B, H, S, D), as views of the buffers."""
        end = self.length + k.shape[2]
        if self._k is None or self._v is None or end > self._k.shape[2]:
            self._grow(k, end)
        assert self._k is not None and self._v is not None
        self._k.narrow(2, self.length, k.shape[2]).copy_(k)
        self._v.narrow(2, self.length, k.shape[2]).copy_(v)
        self.length = end
        return self._k.narrow(2, 0, end), self._v.narrow(2, 0, end)

    def ahead(self, positions: int) -> tuple[Tensor, Tensor]:
        """The whole buffers, (B, H, capacity, D), with room for so many positions behind `length`.

        For who writes there without a copy, and then counts them in `length`. Something must be in the cache. What is
        not filled are zeros: numbers, for what is masked is still multiplied with 0.
        """
        assert self._k is not None and self._v is not None
        if self.length + positions > self._k.shape[2]:
            self._grow(self._k, self.length + positions)
        if not self._blank:
            for buffer in (self._k, self._v):
                buffer[:, :, self.length :] = 0
            self._blank = True
        return self._k, self._v

    def _grow(self, like: Tensor, needed: int) -> None:
        while self.capacity < needed:
            self.capacity *= 2
        b, h, _, d = like.shape
        old = (self._k, self._v)
        self._k, self._v = (like.new_empty(b, h, self.capacity, d) for _ in range(2))
        self._blank = False
        for new, kept in zip((self._k, self._v), old, strict=True):
            if kept is not None:
                new[:, :, : self.length] = kept[:, :, : self.length]

    def copy(self, batch: int | None = None, *, room: int = 64) -> "KVCache":
        """An independent cache with the same contents, a batch of one repeated to `batch` rows.

        Of the buffers only what is filled is copied, with room for so many positions more.
        """
        other = KVCache(self.length + room)
        if self._k is not None and self._v is not None:
            rows = batch or self._k.shape[0]
            other._grow(self._k[:1].expand(rows, -1, -1, -1), other.capacity)
            assert other._k is not None and other._v is not None
            other._k[:, :, : self.length] = self._k[:, :, : self.length]
            other._v[:, :, : self.length] = self._v[:, :, : self.length]
        other.length = self.length
        return other

    def row(self, number: int, start: int = 0) -> "KVCache":
        """One row from position `start` on, as a view: not to be added to."""
        assert self._k is not None and self._v is not None
        view = KVCache(self.length - start)
        view._k, view._v = (x[number : number + 1, :, start : self.length] for x in (self._k, self._v))
        view.length = self.length - start
        return view

    def picked(self, rows: Sequence[int], length: int) -> "KVCache":
        """An independent cache of some rows' first `length` positions."""
        assert self._k is not None and self._v is not None
        other = KVCache(length)
        other._k, other._v = (x[list(rows), :, :length] for x in (self._k, self._v))
        other.length = length
        return other

    @classmethod
    def joined(cls, rows: Sequence[tuple["KVCache", int]], room: int) -> "KVCache":
        """One cache whose rows are rows of others, filled up on the left to the longest; the others stay as they are.

        Args:
            rows: cache and number of the row in it.
            room: positions still to come; there is space for exactly so many more.
        """
        made = cls(max(cache.length for cache, _ in rows) + room)
        made.length = made.capacity - room
        like = rows[0][0]._k
        assert like is not None
        made._k, made._v = (
            like.new_empty(len(rows), like.shape[1], made.capacity, like.shape[3]) for _ in range(2)
        )
        for i, (cache, row) in enumerate(rows):
            assert cache._k is not None and cache._v is not None
            first = made.length - cache.length
            for new, old in ((made._k, cache._k), (made._v, cache._v)):
                new[i, :, first : made.length] = old[row, :, : cache.length]
                new[i, :, :first] = 0  # as in `ahead`
        return made


class KVRows:
    """Caches of several streams as those of one batch, of any lengths: each row sees its own stream's positions.

    Nothing is copied, and no row is filled up to the length of another.

    Args:
        caches: of each stream, all with the same number of rows, which follow one another in the batch.
    """

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self.caches = caches

    def append(self, k: Tensor, v: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """As `KVCache.append`, stream by stream."""
        size = len(k) // len(self.caches)
        for cache, own_k, own_v in zip(self.caches, k.split(size), v.split(size), strict=True):
            yield cache.append(own_k, own_v)


def rope(positions: Tensor, dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each positions.shape + (dim,), float32.

    The two halves of a head rotate together, as in Llama's released code (Su et al. 2021, arXiv 2104.09864).
    """
    frequencies = theta ** (-torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim)
    angles = positions[..., None].float() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the heads of x, (B, H, T, D), by the angles of their positions, (T, D) or (B, 1, T, D)."""
    a, b = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([-b, a], dim=-1), sin).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with rotary positions and, optionally, fewer key than query heads (GQA)."""

    def __init__(self, dim: int, heads: int, kv_heads: int | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads or heads, dim // heads
        self.q_proj = nn.Linear(dim, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(dim, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(dim, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | KVRows | None = None,
    ) -> Tensor:
        """(B, T, dim) -> (B, T, dim).

        Args:
            x: inputs at the new positions.
            cos, sin: from `rope`, for the new positions.
            mask: bool, broadcastable to (B, H, T, S), True where a query may look.
            causal: look at no later position; only without a mask and a filled cache.
            cache: earlier positions, which every query sees where the mask allows; the new ones are appended. With
                `KVRows`, no mask.
        """
        b, t, _ = x.shape
        h = side_by_side(x, self.q_proj, self.k_proj, self.v_proj).view(b, t, -1, self.head_dim)
        turning, v = h.transpose(1, 2).split([self.heads + self.kv_heads, self.kv_heads], 1)
        q, k = rotate(turning, cos, sin).split([self.heads, self.kv_heads], 1)
        gqa = self.kv_heads != self.heads
        if isinstance(cache, KVRows):
            streams = zip(q.split(b // len(cache.caches)), cache.append(k, v), strict=True)
            y = torch.cat([F.scaled_dot_product_attention(own, *kv, enable_gqa=gqa) for own, kv in streams])
        else:
            if cache is not None:
                k, v = cache.append(k, v)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=gqa)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(b, t, -1))
        return out


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv 2002.05202), with Llama's names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        gate, up = side_by_side(x, self.gate_proj, self.up_proj).chunk(2, -1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out
