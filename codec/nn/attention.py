"""Attention, rotary positions, norms and feed-forward layers shared by the tokenizer, the LM and the DiT.

State is passed, never hidden: attention takes a `KVCache` and appends to it; without one, the call is the
whole sequence. Shapes: B batch, T new positions, S cached and new positions, H heads, D numbers per head.
"""

from collections.abc import Sequence
from typing import NamedTuple

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

    def back_to(self, length: int) -> None:
        """Forget all but the first positions."""
        self.length, self._blank = length, False

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

    @property
    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) as views. Something must be in the cache."""
        assert self._k is not None and self._v is not None
        return self._k.narrow(2, 0, self.length), self._v.narrow(2, 0, self.length)

    @classmethod
    def of(cls, k: Tensor, v: Tensor) -> "KVCache":
        """Keys and values (B, H, S, D) as a cache that is full; they stay where they are."""
        made = cls(k.shape[2])
        made._k, made._v, made.length = k, v, k.shape[2]
        return made

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


class KVTable:
    """The caches of all layers for sequences of any lengths, a row for each; what is appended can be taken back.

    Rows come and go. New positions stand behind those that count, and who appends tells afterwards how many of them
    count, too (`lengths`): the others are seen by nothing and written over.

    Attributes:
        lengths: of each row, positions that count.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        # keys and values, (rows, H, capacity, D), no row of them filled
        self._layers: list[tuple[Tensor, Tensor]] = []

    def add(self, caches: Sequence[KVCache]) -> None:
        """A row more, the last: a copy of the caches, one a layer, of a sequence by itself."""
        row, length = len(self.lengths), caches[0].length
        if not self._layers:
            self._layers = [(cache.filled[0][:, :, :0], cache.filled[1][:, :, :0]) for cache in caches]
        self._reserve(row + 1, length)
        for kept, cache in zip(self._layers, caches, strict=True):
            for buffer, own in zip(kept, cache.filled, strict=True):
                buffer[row, :, :length] = own[0]
        self.lengths.append(length)

    def drop(self, row: int) -> None:
        """A row less: the last one takes its place."""
        length = self.lengths.pop()
        if row < (last := len(self.lengths)):
            for kept in self._layers:
                for buffer in kept:
                    buffer[row, :, :length] = buffer[last, :, :length]
            self.lengths[row] = length

    def row(self, row: int) -> list[KVCache]:
        """Independent caches of one row, one a layer."""
        length = self.lengths[row]
        return [KVCache.of(*(x[row : row + 1, :, :length] for x in kept)).copy() for kept in self._layers]

    def ahead(self, positions: int) -> list["KVSlots"]:
        """Of each layer, what takes in so many new positions of every row."""
        count, end = len(self.lengths), max(self.lengths) + positions
        self._reserve(count, end)
        device = self._layers[0][0].device
        places = torch.tensor(self.lengths, device=device)[:, None] + torch.arange(positions, device=device)
        rows = torch.arange(count, device=device)[:, None]
        return [KVSlots(k[:count], v[:count], rows, places, end) for k, v in self._layers]

    def _reserve(self, rows: int, positions: int) -> None:
        """Have room for so much; with zeros, numbers, for what is masked is still multiplied with 0."""
        had, _, capacity, _ = self._layers[0][0].shape
        if rows <= had and positions <= capacity:
            return
        rows = had if rows <= had else 2 * rows
        positions = capacity if positions <= capacity else 2 * positions
        for layer, kept in enumerate(self._layers):
            grown = [x.new_zeros(rows, x.shape[1], positions, x.shape[3]) for x in kept]
            for new, old in zip(grown, kept, strict=True):
                new[:had, :, :capacity] = old
            self._layers[layer] = grown[0], grown[1]


class KVSlots(NamedTuple):
    """A layer of a `KVTable` for one step.

    Attributes:
        keys, values: the buffers (B, H, capacity, D).
        rows, places: (B, 1) and (B, T), where the new ones go.
        end: of the longest row then.
    """

    keys: Tensor
    values: Tensor
    rows: Tensor
    places: Tensor
    end: int

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `KVCache.append`; what stands behind a row's end has to be masked."""
        self.keys[self.rows, :, self.places] = k.transpose(1, 2)
        self.values[self.rows, :, self.places] = v.transpose(1, 2)
        return self.keys.narrow(2, 0, self.end), self.values.narrow(2, 0, self.end)


class KVRows:
    """Caches of several streams as those of one batch, of any lengths: each row sees its own stream's positions.

    Nothing is copied, and no row is filled up to the length of another.

    Args:
        caches: of each stream, all with the same number of rows, which follow one another in the batch.
        sizes: of each stream, how many of the new positions are its own; those behind are padding. None for all.
    """

    def __init__(self, caches: Sequence[KVCache], sizes: Sequence[int] | None = None) -> None:
        self.caches, self.sizes = caches, sizes

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Add keys and values (B, H, T, D) as `KVCache.append` does, stream by stream -> what the queries see."""
        rows, positions = len(q) // len(self.caches), q.shape[2]
        seen = []
        for n, (cache, *own) in enumerate(zip(self.caches, *(x.split(rows) for x in (q, k, v)), strict=True)):
            size = positions if self.sizes is None else self.sizes[n]
            own_q, own_k, own_v = own if size == positions else (x[:, :, :size] for x in own)
            keys, values = cache.append(own_k, own_v)
            y = F.scaled_dot_product_attention(own_q, keys, values, enable_gqa=q.shape[1] != k.shape[1])
            seen.append(y if size == positions else F.pad(y, (0, 0, 0, positions - size)))
        return torch.cat(seen)


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
        cache: KVCache | KVRows | KVSlots | None = None,
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
        if isinstance(cache, KVRows):
            y = cache.attend(q, k, v)
        else:
            if cache is not None:
                k, v = cache.append(k, v)
            gqa = self.kv_heads != self.heads
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
