"""Llama's decoder, name for name, so that its weights load into transformers, vLLM and llama.cpp as they are.

RMSNorm, rotary positions, grouped-query attention and SwiGLU (Touvron et al. 2023, arXiv 2302.13971). A test
compares the logits with transformers' LlamaForCausalLM.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.attention import Attention, KVCache, KVSlots, KVTable, SwiGLU, rope
from tts.lm.decoding import MOST_ROWS, Packed, Precision, in_use, packable


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes, under the names of transformers' ``LlamaConfig``."""

    vocab_size: int
    hidden_size: int = 384
    intermediate_size: int = 1024
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        full = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
        return self.weight * full.to(x.dtype)


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm, each added to what came in."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.self_attn = Attention(dim, config.num_attention_heads, config.num_key_value_heads)
        self.mlp = SwiGLU(dim, config.intermediate_size)
        self.input_layernorm = RMSNorm(dim, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(dim, config.rms_norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: KVCache | KVSlots | None
    ) -> Tensor:
        causal = mask is None and x.shape[1] > 1
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask=mask, causal=causal, cache=cache)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Embeddings, layers and the last norm: transformers' ``model``."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """Token ids -> logits of the next id.

    Attributes:
        precision: of the weights while ids are added to filled caches, see `tts.lm.decoding`. float32 is what the
            modules give, but for rounding.
        compiled: whether steps of one row are compiled, see `tts.lm.compiled`.

    Shapes: B batch, T new positions, S cached and new positions, V vocabulary.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.precision: Precision = "float32"
        self.compiled = False
        self._packed: Packed | None = None
        self.apply(self._init)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def new_caches(self, capacity: int = 512) -> list[KVCache]:
        """Empty caches, one a layer."""
        return [KVCache(capacity) for _ in range(self.config.num_hidden_layers)]

    def _pack(self) -> None:
        """Lay the weights out for the steps to come, where they are not yet; nothing while they are in training."""
        if not (in_use(self) and packable(self)):
            self._packed = None
        elif self._packed is None or not self._packed.fits(self, self.precision, compiled=self.compiled):
            self._packed = Packed(self, self.precision, compiled=self.compiled)

    def forward(
        self,
        ids: Tensor,
        caches: list[KVCache] | KVTable | None = None,
        *,
        pads: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """(B, T) ids -> (B, T, V) logits, or (B, 1, V) of the last position.

        Args:
            ids: of the new positions.
            caches: from `new_caches`; earlier positions, to which the new ones are added. Or a table of rows of any
                lengths, where `pads` is None: what of the new ones is to count there, the caller tells it.
            pads: (B,) positions of padding on the left of each row, counted from the very first call.
            last_only: spare the output layer for all but the last position.
        """
        t, device = ids.shape[1], ids.device
        past = caches[0].length if isinstance(caches, list) else 0
        if isinstance(caches, list) and not past:
            self._pack()
        elif caches and self._packed is not None and ids.numel() <= MOST_ROWS and in_use(self):
            return self._packed.step(ids, caches, pads, last_only=last_only)
        mask = None
        layers: Sequence[KVCache] | Sequence[KVSlots] | None
        if isinstance(caches, KVTable):
            layers = slots = caches.ahead(t)
            positions = slots[0].places[:, None]
            mask = torch.arange(slots[0].end, device=device) <= positions[..., None]
        else:
            layers = caches
            positions = torch.arange(past, past + t, device=device)
            if pads is not None or (past and t > 1):
                seen = torch.arange(past + t, device=device)
                mask = (seen <= positions[:, None])[None, None]
            if pads is not None:
                assert mask is not None
                # a padding position sees itself, so that its softmax has something to sum
                own = seen == positions[:, None]
                mask = (mask & (seen >= pads[:, None, None, None])) | own
                positions = (positions[None, None, :] - pads[:, None, None]).clamp(min=0)
        cos, sin = rope(
            positions, self.config.hidden_size // self.config.num_attention_heads, self.config.rope_theta
        )
        x = self.model.embed_tokens(ids)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, layers[i] if layers else None)
        x = self.model.norm(x[:, -1:] if last_only else x)
        logits: Tensor = self.lm_head(x)
        return logits
