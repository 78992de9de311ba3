"""The flow's path, loss and solver against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from tts.acoustic.flow import cosine_time, flow_loss, solve, time_grid

SIGMA = 1e-4


def optimal(x_t: Tensor, t: Tensor) -> Tensor:
    """The best velocity for standard normal data: E[x_1 - x_0 | x_t], for sigma_min = 0."""
    t = t[:, None, None]
    return (2 * t - 1) / (1 - 2 * t + 2 * t**2) * x_t


def test_loss_of_the_best_velocity_for_normal_data_is_the_closed_form() -> None:
    x = torch.randn(2_000, 5, 8)
    keep = torch.ones(2_000, 5, dtype=torch.bool)
    # Var(x_1 - x_0 | x_t) = 1 / (1 - 2 t + 2 t^2), its mean over the times that training draws
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    t = 1 - torch.cos(u * math.pi / 2)
    expected = float((1 / (1 - 2 * t + 2 * t**2)).mean())
    assert float(flow_loss(optimal, x, keep)) == pytest.approx(expected, rel=0.02)
    nothing = flow_loss(lambda x_t, _: torch.zeros_like(x_t), x, keep)
    assert float(nothing) == pytest.approx(2.0, rel=0.02)
    assert expected < 1.5


def test_loss_shows_the_network_the_path_of_the_paper() -> None:
    x = torch.randn(3, 4, 2)
    seen: dict[str, Tensor] = {}

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        seen.update(x_t=x_t, t=t)
        return torch.full_like(x_t, 0.5)

    torch.manual_seed(5)
    keep = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    loss = flow_loss(velocity, x, keep)

    torch.manual_seed(5)  # the same random numbers again
    t, noise = cosine_time(torch.rand(3)), torch.randn_like(x)
    torch.testing.assert_close(seen["t"], t)
    level = t[:, None, None]
    torch.testing.assert_close(seen["x_t"], (1 - (1 - SIGMA) * level) * noise + level * x)
    errors = (0.5 - (x - (1 - SIGMA) * noise)).square().mean(-1)
    torch.testing.assert_close(loss, errors[keep].mean())


def test_loss_of_nothing_kept_is_zero() -> None:
    loss = flow_loss(lambda x_t, _: x_t, torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    assert float(loss) == 0


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_solver_follows_a_straight_path_to_the_data(steps: int) -> None:
    data, noise = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    end = solve(lambda x, t, i: data - (1 - SIGMA) * noise, noise, steps)
    torch.testing.assert_close(end, data + SIGMA * noise)


@pytest.mark.parametrize("steps", [4, 10])
def test_solver_sees_the_time_and_number_of_each_step(steps: int) -> None:
    times = [1 - math.cos(math.pi * i / (2 * steps)) for i in range(steps + 1)]
    assert time_grid(steps) == pytest.approx(times, abs=1e-12)
    assert time_grid(steps)[0] == 0 and time_grid(steps)[-1] == pytest.approx(1)
    visited: list[tuple[float, int]] = []

    def velocity(x: Tensor, t: float, i: int) -> Tensor:
        visited.append((t, i))
        return torch.full_like(x, t)

    end = solve(velocity, torch.zeros(1, 1, 1), steps)
    assert visited == list(zip(time_grid(steps)[:-1], range(steps), strict=True))
    assert float(end) == pytest.approx(sum(t * (b - t) for t, b in itertools.pairwise(times)), abs=1e-6)


def test_solver_turns_noise_into_normal_data_with_the_best_velocity() -> None:
    """Standard normal to normal with deviation s: the flow scales, x_1 = s x_0, as its steps grow many."""
    s = 0.3

    def velocity(x: Tensor, t: float, i: int) -> Tensor:
        return (t * s**2 - (1 - t)) / ((1 - t) ** 2 + (t * s) ** 2) * x

    noise = torch.randn(1, 10, 3)
    torch.testing.assert_close(solve(velocity, noise, 400), s * noise, atol=5e-3, rtol=2e-2)
    errors = [float((solve(velocity, noise, n) - s * noise).abs().max()) for n in (10, 40)]
    assert errors[1] < 0.4 * errors[0]  # Euler: first order
