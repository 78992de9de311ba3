"""The learning rate at known steps."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tts.training.schedules import warmup_cosine


def test_linear_rise_then_half_a_cosine_to_the_floor() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = warmup_cosine(optimizer, warmup=4, total=24, floor=0.1)
    rates = []
    for _ in range(40):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[9] == pytest.approx(2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert rates[14] == pytest.approx(2 * 0.55)  # half way
    assert rates[24:] == pytest.approx([0.2] * 16)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))


def test_without_warm_up_it_starts_at_the_peak() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    assert warmup_cosine(optimizer, warmup=0, total=10).get_last_lr() == [2.0]
