"""Decoding with little to do between the weights: a Llama's weights as steps of few rows want them.

Reading a prefix is arithmetic and goes through the modules. A step that adds a few ids reads every weight for little
arithmetic, so what counts is how fast the weights pass and what else is done a step:

- q, k and v are one matrix, gate and up another; rotary angles come from a table.
- Each matrix lies as oneDNN wants it (`codec.nn.packed`), or else (in, out), which the usual libraries read faster for
  few rows than (out, in); and for one row it is a weighted sum of its rows: FBGEMM's kernel for that
  (``embedding_bag``) reads faster than the general product does.
- Or 8-bit weights with a scale a row of the layer, the products in bfloat16: a quarter of the bytes. Weights that were
  stored so (`tts.checkpoint`) lose nothing by it but 0.2 % in their scale.

These are copies: the modules keep their weights, names and all. `Packed.fits` tells whether they are still the same.

Shapes: B batch, T new positions, N = B * T rows, S cached and new positions, K heads of keys, G query heads for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.attention import KVCache, KVSlots, KVTable, rope
from codec.nn.packed import PackedLinear, laid_out, product
from tts.lm.compiled import TOO_MANY, Compiled, in_8_bits

if TYPE_CHECKING:
    from tts.lm.llama import Llama

Precision = Literal["float32", "int8"]
"""Of the weights in steps, and of what they are multiplied with: float32, or int8 with bfloat16."""

MOST_ROWS = 64
"""Above, the modules are as fast."""

Matrix = Callable[[Tensor], Tensor]
"""(N, in) -> (N, out), the weights of the norm before it included."""


class _Layer(NamedTuple):
    qkv: Matrix
    out: Matrix
    gate_up: Matrix
    down: Matrix


class Packed:
    """A Llama for steps.

    Args:
        llama: whose weights to take.
        precision: of the matrices.
        compiled: whether steps of one row are compiled, see `tts.lm.compiled`.
    """

    def __init__(self, llama: Llama, precision: Precision = "float32", *, compiled: bool = False) -> None:
        self.precision, config = precision, llama.config
        self.compiled = Compiled(llama, precision) if compiled else None
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.theta = config.hidden_size // self.heads, config.rope_theta
        self.dim, self.eps = config.hidden_size, config.rms_norm_eps
        self._made_from = _marks(llama)
        self.embedding = llama.model.embed_tokens.weight.detach()
        self.layers = []
        for layer in cast(Any, llama.model.layers):
            a, m = layer.self_attn, layer.mlp
            self.layers.append(
                _Layer(
                    matrix([a.q_proj, a.k_proj, a.v_proj], precision, layer.input_layernorm.weight),
                    matrix([a.o_proj], precision),
                    matrix([m.gate_proj, m.up_proj], precision, layer.post_attention_layernorm.weight),
                    matrix([m.down_proj], precision),
                )
            )
        self.head = matrix([llama.lm_head], precision, llama.model.norm.weight)
        self._grow(512)

    def _grow(self, positions: int) -> None:
        """The tables of so many positions: places (P,), cosines and signed sines (P, 1, 2, D / 2)."""
        self._places = torch.arange(positions, device=self.embedding.device)
        cos, sin = rope(self._places, self.head_dim, self.theta)
        sin[:, : self.head_dim // 2] *= -1
        self._cos, self._sin = (table.view(positions, 1, 2, -1) for table in (cos, sin))

    def fits(self, llama: Llama, precision: Precision, *, compiled: bool = False) -> bool:
        """Whether these are still that model's weights in that precision, for steps of that kind."""
        same = (self.precision, self.compiled is not None) == (precision, compiled)
        return same and self._made_from == _marks(llama)

    def step(
        self, ids: Tensor, caches: Sequence[KVCache] | KVTable, pads: Tensor | None, *, last_only: bool
    ) -> Tensor:
        """What `Llama.forward` gives for new ids (B, T) behind filled caches."""
        b, t = ids.shape
        seen: Tensor | None = None
        layers: Sequence[KVCache] | Sequence[KVSlots]
        if isinstance(caches, KVTable):
            layers = caches.ahead(t)
            turns, places = layers[0].places, self._upto(layers[0].end)
            seen = places <= turns[..., None]
        else:
            layers, past = caches, caches[0].length
            if self.compiled is not None and b == 1 and t < TOO_MANY and pads is None:
                return self.compiled.step(ids, caches, last_only=last_only)
            places = self._upto(past + t)
            new = places[past:]
            turns = new if pads is None else (new - pads[:, None]).clamp(min=0)
            if t > 1 or pads is not None:
                seen = (places <= new[:, None])[None]
                if pads is not None:
                    # a padding position sees itself, so that its softmax has something to sum
                    seen = (seen & (places >= pads[:, None, None])) | (places == new[:, None])
        mask, cos, sin = self._mask(seen), self._cos[turns], self._sin[turns]
        heads, kv, groups = self.heads, self.kv_heads, self.heads // self.kv_heads
        x = F.embedding(ids, self.embedding).view(b * t, self.dim)
        for i, layer in enumerate(self.layers):
            h = layer.qkv(self._normed(x)).view(b, t, heads + 2 * kv, 2, -1)
            turned = h[:, :, : heads + kv]
            turned = torch.addcmul(turned * cos, turned.flip(3), sin).flatten(3)
            v = h[:, :, heads + kv :].flatten(3)
            keys, values = layers[i].append(turned[:, :, heads:].transpose(1, 2), v.transpose(1, 2))
            # the query heads of one key head are so many queries of it: nothing is repeated
            q = turned[:, :, :heads].view(b, t, kv, groups, -1).permute(0, 2, 3, 1, 4)
            y = F.scaled_dot_product_attention(q.reshape(b, kv, groups * t, -1), keys, values, attn_mask=mask)
            y = y.view(b, kv, groups, t, -1).permute(0, 3, 1, 2, 4)
            x = x + layer.out(y.reshape(b * t, -1))
            gate, up = layer.gate_up(self._normed(x)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        if last_only:
            x, t = x.view(b, t, -1)[:, -1], 1
        logits: Tensor = self.head(self._normed(x)).view(b, t, -1)
        return logits

    def _upto(self, positions: int) -> Tensor:
        """The places of so many positions."""
        if positions > len(self._places):
            self._grow(2 * positions)
        return self._places[:positions]

    def _mask(self, seen: Tensor | None) -> Tensor | None:
        """What each query sees, (B or 1, T, S) bool, as attention adds it, (B or 1, 1, G * T, S)."""
        if seen is None:
            return None
        # made once: attention would make it of bool in every layer
        mask = torch.zeros_like(seen, dtype=self.embedding.dtype).masked_fill_(~seen, -torch.inf)
        return mask[:, None].repeat(1, 1, self.heads // self.kv_heads, 1)

    def _normed(self, x: Tensor) -> Tensor:
        """Rows of mean square 1; the weights of the norm are in the matrix behind it."""
        if x.shape[0] > 1:
            return F.rms_norm(x, (self.dim,), None, self.eps)
        scale: float = (float(torch.dot(x[0], x[0])) / self.dim + self.eps) ** -0.5
        return x * scale


def in_use(llama: Llama) -> bool:
    """Whether the model is run as it is: not trained, not compiled or exported, in its own precision."""
    return not (
        llama.training
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
    )


def packable(llama: Llama) -> bool:
    """Whether its layers are plain ones in float32: without adapters, not quantised, not parted among processes."""
    return all(type(one) in (nn.Linear, PackedLinear) for one in _linear(llama)) and all(
        type(p) is nn.Parameter and p.dtype == torch.float32 and not p.is_inference()
        for p in llama.parameters()
    )


def matrix(layers: Sequence[nn.Linear], precision: Precision, norm: Tensor | None = None) -> Matrix:
    """Linear layers without bias and of the same input, side by side, behind the weights (in,) of a norm."""
    with torch.inference_mode(False), torch.no_grad():
        weight = torch.cat([layer.weight for layer in layers])
        if precision == "int8":
            try:
                return _int8(weight, norm)
            except (AttributeError, RuntimeError, NotImplementedError):
                pass  # this torch, or this device, has no such product
        return _float32(weight if norm is None else weight * norm)


def _float32(weight: Tensor) -> Matrix:
    """Products with a weight (out, in)."""
    rows, packed = weight.t().contiguous(), laid_out(weight)
    all_rows = torch.arange(len(rows), device=rows.device)
    start = torch.zeros(1, dtype=torch.long, device=rows.device)
    sums = rows.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")

    def times(x: Tensor) -> Tensor:
        if sums and x.shape[0] == 1:
            return torch.embedding_bag(rows, all_rows, start, False, 0, False, x[0])[0]
        return torch.mm(x, rows) if packed is None else product(x, packed, None)

    return times


def _int8(weight: Tensor, norm: Tensor | None) -> Matrix:
    """Products with a weight (out, in) in 8 bits, each row with a scale of its own.

    Raises:
        AttributeError, RuntimeError, NotImplementedError: the product, which torch does not promise, is not there.
    """
    whole, scale = in_8_bits(weight)
    whole, scale = whole.contiguous(), scale.bfloat16()

    def times(x: Tensor) -> Tensor:
        x = x if norm is None else x * norm
        return torch._weight_int8pack_mm(x.bfloat16(), whole, scale).float()

    times(weight.new_zeros(1, weight.shape[1]))
    return times


def _linear(llama: Llama) -> list[nn.Module]:
    found: list[nn.Module] = [llama.lm_head]
    for layer in cast(Any, llama.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        found += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        found += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return found


def _marks(llama: Llama) -> list[tuple[int, int]]:
    """What changes where weights do: where they lie, and how often they were written in place."""
    return [(p.data_ptr(), p._version) for p in llama.parameters()]
