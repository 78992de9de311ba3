"""A step of one row as one compiled function: near what the memory gives.

Eager torch spends as long between the products of a small LM as on them, and no product of its for one row reads at the
memory's speed. Written out as sums over weights and handed to ``torch.compile``, the whole step becomes one function of
plain loops, which reads every weight once and does the rest on the way. It needs a C++ compiler, and half a minute the
first time; torch keeps what was compiled on disk.

Shapes: N ids, S positions of a cache, K heads of keys, G query heads for each, D numbers of a head.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.errors import UserError
from codec.nn.attention import KVCache

if TYPE_CHECKING:
    from tts.lm.decoding import Precision
    from tts.lm.llama import Llama

CHUNK = 8192
"""Numbers for each thread from which on a loop is worth several: a layer's products are, its norms are not. With
torch's 512 a step of the embedded LM takes a fifth longer on two cores; with 32,768 twice as long."""

TOO_MANY = 4
"""New ids of a row from which on one pass over the weights for all is faster than one for each."""

USUAL = 400
"""Positions of a sentence behind a voice prompt: for so many it is decided which loops are for several threads."""

ROUND = 64
"""A step looks over so many positions, or a multiple, that they need not be counted anew every time."""

_LATER_LAYER = re.compile(r"(model\.layers|keys|values)\[[1-9]")


Buffers = tuple[Tensor, ...]
"""Keys or values of every layer, each (1, K, S, D)."""


class Weights(NamedTuple):
    """A matrix (out, in), and the scale (out,) of its rows where they are stored in 8 bits."""

    rows: Tensor
    scale: Tensor | None


class _Layer(NamedTuple):
    norm1: Tensor
    qkv: Weights
    out: Weights
    norm2: Tensor
    gate_up: Weights
    down: Weights


class _Model(NamedTuple):
    embedding: Tensor
    layers: list[_Layer]
    norm: Tensor
    head: Weights
    frequencies: Tensor  # (D / 2,)


class Compiled:
    """A Llama for steps of one row. Its first call compiles; calls may come from several threads.

    Args:
        llama: whose weights to take.
        precision: of the matrices; int8 has a scale a row, and is multiplied in float32.
    """

    def __init__(self, llama: Llama, precision: Precision) -> None:
        config = llama.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.eps = config.rms_norm_eps
        half = torch.arange(0, config.hidden_size // self.heads, 2, dtype=torch.float32)
        with torch.inference_mode(False), torch.no_grad():
            layers = []
            for layer in cast(Any, llama.model.layers):
                a, m = layer.self_attn, layer.mlp
                layers.append(
                    _Layer(
                        layer.input_layernorm.weight.detach(),
                        _weights([a.q_proj, a.k_proj, a.v_proj], precision),
                        _weights([a.o_proj], precision),
                        layer.post_attention_layernorm.weight.detach(),
                        _weights([m.gate_proj, m.up_proj], precision),
                        _weights([m.down_proj], precision),
                    )
                )
            self.model = _Model(
                llama.model.embed_tokens.weight.detach(),
                layers,
                llama.model.norm.weight.detach(),
                _weights([llama.lm_head], precision),
                config.rope_theta ** (-half / (2 * len(half))),
            )
        self._table = torch.arange(512)
        self._by_threads: dict[int, Callable[..., Tensor]] = {}

    @torch.inference_mode()
    def step(self, ids: Tensor, caches: Sequence[KVCache], *, last_only: bool) -> Tensor:
        """What `Llama.forward` gives for new ids (1, N) behind filled caches: logits (1, N or 1, V)."""
        made = []
        for one in ids[0].split(1):
            past = caches[0].length
            keys, values = zip(*(cache.ahead(1) for cache in caches), strict=True)
            places = self._places(min(past // ROUND * ROUND + ROUND, keys[0].shape[2]))
            step = self._function(places, keys + values)
            made.append(step(self.model, one, places[past : past + 1], places, keys, values))
            for cache in caches:
                cache.length += 1
        return torch.stack(made[-1:] if last_only else made)[None]

    def _places(self, count: int) -> Tensor:
        """0, 1, 2 ... of the positions that a step looks over."""
        table = self._table
        if count > len(table):
            table = self._table = torch.arange(2 * count)
        return table[:count]

    def _function(self, places: Tensor, buffers: Sequence[Tensor]) -> Callable[..., Tensor]:
        """The step for as many threads as torch has now, which are compiled in, for any number of positions."""
        threads = torch.get_num_threads()
        if threads not in self._by_threads:
            torch._dynamo.mark_dynamic(places, 0)
            for buffer in buffers:
                torch._dynamo.mark_dynamic(buffer, 2)
            self._by_threads[threads] = torch.compile(
                _stepper(self.heads, self.kv_heads, self.eps),
                fullgraph=True,
                options={
                    "cpp.threads": threads,
                    "cpp.min_chunk_size": CHUNK,
                    "guard_filter_fn": _needed,
                    "size_asserts": False,  # what the guards have seen already; a tenth of the step
                },
            )
        return self._by_threads[threads]


def prepare(llama: Llama) -> None:
    """Compile now what the first step would compile.

    Raises:
        UserError: it cannot be compiled here.
    """
    if next(llama.parameters()).device.type != "cpu":
        raise UserError("engine 'compiled' is for the CPU; leave it out, or give device cpu")
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler lacks for other devices
            caches = llama.new_caches(2 * USUAL)
            llama(torch.zeros(1, USUAL, dtype=torch.long), caches)
            llama(torch.zeros(1, 1, dtype=torch.long), caches)
    except (RuntimeError, ImportError, AttributeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"engine 'compiled' cannot be used here ({reason}); it needs a C++ compiler (g++ or "
            "clang++) and Python's headers; install them, or leave the engine out"
        ) from error


def _stepper(heads: int, kv_heads: int, eps: float) -> Callable[..., Tensor]:
    """The step to be compiled. What every row of a product reads is `held`: the compiler would otherwise work it out
    anew for each. That is an op of the compiler's own tests; there is no other that costs nothing."""
    import torch._inductor.test_operators

    held = torch.ops._inductor_test.realize
    groups, turned_heads = heads // kv_heads, heads + kv_heads

    def product(x: Tensor, weights: Weights) -> Tensor:
        sums = (weights.rows.float() * x).sum(-1)
        return sums if weights.scale is None else sums * weights.scale

    def normed(x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = held(x * (x.square().mean() + eps).rsqrt() * weight)
        return out

    def step(
        model: _Model, one: Tensor, at: Tensor, places: Tensor, keys: Buffers, values: Buffers
    ) -> Tensor:
        near = places.shape[0]  # what lies further on in the buffers is not filled
        torch._check(near <= keys[0].shape[2])
        x = F.embedding(one, model.embedding)[0]
        angles = at.float() * model.frequencies
        cos, sin = held(angles.cos()), held(angles.sin())
        seen = places <= at
        for layer, k, v in zip(model.layers, keys, values, strict=True):
            h = product(normed(x, layer.norm1), layer.qkv).view(turned_heads + kv_heads, -1)
            first, second = h[:turned_heads].chunk(2, -1)
            turned = held(torch.cat([first * cos - second * sin, second * cos + first * sin], -1))
            k.index_copy_(2, at, turned[None, heads:, None])
            v.index_copy_(2, at, h[None, turned_heads:, None])
            q = turned[:heads].view(kv_heads, groups, 1, -1)
            scores = (q * k[0, :, None, :near]).sum(-1) * q.shape[-1] ** -0.5
            share = held(scores.masked_fill(~seen, float("-inf")).softmax(-1))
            y = held((share[..., None] * v[0, :, None, :near]).sum(2).reshape(-1))
            x = held(x + product(y, layer.out))
            gate, up = product(normed(x, layer.norm2), layer.gate_up).chunk(2)
            x = held(x + product(held(F.silu(gate) * up), layer.down))
        return product(normed(x, model.norm), model.head)

    return step


def _needed(guards: Sequence[Any]) -> list[bool]:
    """Which guards to keep, that tell at every step whether what was compiled still fits: of layers, which are all
    alike, those of the first. The rest takes a fifth of the step of a small LM."""
    return [_LATER_LAYER.match(guard.name) is None for guard in guards]


def _weights(layers: Sequence[torch.nn.Linear], precision: Precision) -> Weights:
    """Linear layers without bias and of the same input, side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    return Weights(weight, None) if precision == "float32" else Weights(*in_8_bits(weight))


def in_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as whole numbers, and the scale (out,) of its rows."""
    scale = weight.abs().amax(1).clamp(min=1e-8) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale
