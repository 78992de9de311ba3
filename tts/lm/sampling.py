"""Drawing the next id from logits: temperature, top-k, nucleus, repetition-aware. Rows of a batch are independent.

Shapes: B batch, V vocabulary, K = top_k kept ids, W ids of history.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How to draw.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest id.
        top_k: only the k likeliest ids.
        top_p: only the likeliest ids that together have this probability (Holtzman et al. 2019, 1904.09751).
        window, max_repeats: repetition-aware sampling (VALL-E 2, Chen et al. 2024, 2406.05370): an id that
            occurs more than `max_repeats` times among the last `window` is drawn again from all of the top k.
    """

    temperature: float = 0.8
    top_k: int = 25
    top_p: float = 0.8
    window: int = 10
    max_repeats: int = 3


def draw(logits: Tensor, sampling: Sampling, history: Tensor, uniform: Tensor) -> Tensor:
    """Next ids, (B,).

    Args:
        logits: (B, V); -inf where an id must not come.
        sampling: how to draw.
        history: (B, W) ids drawn last, -1 where there are none.
        uniform: (B, 2) numbers in [0, 1), the draws; given, so that each row can have a seed of its own.
    """
    if sampling.temperature <= 0:
        return logits.argmax(-1)
    top, ids = logits.float().topk(min(sampling.top_k, logits.shape[-1]), dim=-1)
    shares = (top / sampling.temperature).softmax(-1)
    before = shares.cumsum(-1) - shares
    nucleus = shares.masked_fill(before >= sampling.top_p, 0)
    drawn = ids.gather(1, _invert(nucleus, uniform[:, :1]))
    repeats = (history == drawn).sum(1, keepdim=True)
    again = ids.gather(1, _invert(shares, uniform[:, 1:]))
    return torch.where(repeats > sampling.max_repeats, again, drawn)[:, 0]


def _invert(shares: Tensor, u: Tensor) -> Tensor:
    """Inverse of the cumulative distribution of unnormalised `shares` (B, K) at u (B, 1) in [0, 1): (B, 1)."""
    total = shares.double().cumsum(-1)
    return (total <= u * total[:, -1:]).sum(-1, keepdim=True).clamp(max=shares.shape[1] - 1)
