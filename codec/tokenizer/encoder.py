"""Conformer-like blocks over frames (after Gulati et al. 2020, arXiv 2005.08100)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.attention import Attention, SwiGLU, rope


class ConvModule(nn.Module):
    """Gated pointwise, depthwise and pointwise convolution over time: the local half of a block."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.contract = nn.Linear(dim, dim)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(B, N, dim), and (B, N, 1) which is 0 at padding, -> (B, N, dim)."""
        x = F.glu(self.expand(x), dim=-1) * keep
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.contract(F.silu(self.norm(x)))
        return out


class Block(nn.Module):
    """Attention, convolution, feed-forward; each behind a norm, each added to what came in."""

    def __init__(self, dim: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.attention = Attention(dim, heads)
        self.conv = ConvModule(dim, kernel)
        self.feed_forward = SwiGLU(dim, 8 * dim // 3 // 16 * 16)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, keep: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norms[0](x), cos, sin, mask=keep[:, None, None, :]))
        x = x + self.dropout(self.conv(self.norms[1](x), keep[..., None].to(x.dtype)))
        out: Tensor = x + self.dropout(self.feed_forward(self.norms[2](x)))
        return out


class Encoder(nn.Module):
    """A stack of blocks with rotary positions; sees the whole utterance."""

    def __init__(self, dim: int, layers: int, heads: int, *, kernel: int = 9, dropout: float = 0.1) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.blocks = nn.ModuleList(Block(dim, heads, kernel, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(B, N, dim), (B, N) bool which is False at padding -> (B, N, dim)."""
        cos, sin = rope(torch.arange(x.shape[1], device=x.device), self.head_dim)
        for block in self.blocks:
            x = block(x, cos, sin, keep)
        out: Tensor = self.norm(x)
        return out
