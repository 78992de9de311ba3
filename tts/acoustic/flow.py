"""Flow matching on the optimal-transport path: the path, the loss, the time schedule and the solver.

Letters as in Lipman et al. 2023, arXiv 2210.02747: x_0 is noise, x_1 data, t runs from 0 to 1,
``x_t = (1 - (1 - sigma_min) t) x_0 + t x_1``, and the velocity to learn is ``x_1 - (1 - sigma_min) x_0``.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, T, D), t (B,)) -> velocity (B, T, D): a network bound to its conditions."""


def flow_loss(velocity: Velocity, x: Tensor, keep: Tensor, *, sigma_min: float = 1e-4) -> Tensor:
    """Mean squared velocity error over the kept frames, at one random time per utterance.

    Args:
        velocity: the network under training, bound to its conditions.
        x: clean features, (B, T, D), each channel scaled to mean 0 and variance 1.
        keep: (B, T) bool, True for the frames to learn, False for padding and voice prompt.
        sigma_min: noise left at t = 1, in standard deviations of ``x``.

    Source: Lipman et al. 2023, arXiv 2210.02747, the optimal-transport path.
    """
    t = cosine_time(torch.rand(len(x), device=x.device))
    noise = torch.randn_like(x)
    level = t[:, None, None]
    x_t = (1 - (1 - sigma_min) * level) * noise + level * x
    wanted = x - (1 - sigma_min) * noise
    error = (velocity(x_t, t).float() - wanted).square().mean(-1)
    return (error * keep).sum() / keep.sum().clamp(min=1)


def cosine_time(u: Tensor) -> Tensor:
    """Uniform [0, 1] -> times denser near the noise, 1 - cos(pi u / 2), where the velocity bends most (CosyVoice)."""
    return 1 - torch.cos(u * math.pi / 2)


def time_grid(steps: int) -> list[float]:
    """The steps + 1 times from 0 to 1 that the solver visits, on the cosine schedule."""
    return cosine_time(torch.linspace(0, 1, steps + 1, dtype=torch.float64)).tolist()


def solve(
    velocity: Callable[[Tensor, float, int], Tensor], noise: Tensor, steps: int, *, first: int = 0
) -> Tensor:
    """Follow the velocity from noise to data with Euler's method.

    Args:
        velocity: (x_t, t, number of the step) -> velocity; the number lets it keep a cache per step.
        noise: x_0, (B, T, D), standard normal.
        steps: evaluations of the velocity.
        first: number of the step to begin with; `noise` is x_t of its time then.
    """
    x, times = noise, time_grid(steps)
    for i, (t, following) in enumerate(pairwise(times)):
        if i >= first:
            x = x + (following - t) * velocity(x, t, i)
    return x
