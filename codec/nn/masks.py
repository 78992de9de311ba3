"""Masks for sequences of unequal length and for chunk-wise attention. True means: may be seen."""

import torch
from torch import Tensor


def length_mask(lens: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True before each row's length."""
    return torch.arange(size, device=lens.device) < lens[:, None]


def chunk_causal_mask(chunks: Tensor) -> Tensor:
    """(B, T) chunk number of each position -> (B, 1, T, T): a position sees its own chunk and earlier ones."""
    return chunks[:, None, None, :] <= chunks[:, None, :, None]
