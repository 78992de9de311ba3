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
        temperature: divides the logits; 0 takes the likeliest id. See `spread`, too.
        top_k: only the k likeliest ids.
        top_p: only the likeliest ids that together have this probability (Holtzman et al. 2019, 1904.09751).
        window, max_repeats: repetition-aware sampling (VALL-E 2, Chen et al. 2024, 2406.05370): an id that
            occurs more than `max_repeats` times among the last `window` is drawn again from all of the top k.
    """

    temperature: float = 0.6
    top_k: int = 25
    top_p: float = 0.8
    window: int = 10
    max_repeats: int = 3

    @property
    def spread(self) -> float:
        """Durations of phonemes are drawn from so much of their distribution, around the median.

        All of it at a temperature of 1: then they are as the model has them. Its ends, phonemes that are hurried over
        or stuck to, are what a lower temperature leaves out.
        """
        return min(1.0, max(0.0, self.temperature))


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
    shares = (top / sampling.temperature).softmax(-1).double()
    ends = shares.cumsum(-1)
    # the likeliest ones that reach top_p, the first always: the nucleus is the beginning of the top k
    kept = (ends - shares < sampling.top_p).sum(-1, keepdim=True).clamp(min=1)
    last = torch.cat([kept, torch.full_like(kept, shares.shape[1])], 1) - 1  # (B, 2): of the nucleus, of all
    # the inverse of both cumulative distributions, the one that is drawn from first and the one for repeats
    marks = uniform * ends.gather(1, last)
    places = (ends[:, None] <= marks[..., None]).sum(-1).minimum(last)
    drawn, again = ids.gather(1, places).unbind(1)
    repeats = (history == drawn[:, None]).sum(1)
    return torch.where(repeats > sampling.max_repeats, again, drawn)
