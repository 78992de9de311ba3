"""draw() against the plain definition. The uniform numbers are a fine grid, so that frequencies are exact."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from tts.lm.sampling import Sampling, draw

GRID = 10_000


def reference(logits: list[float], sampling: Sampling) -> dict[int, float]:
    """Probability of every id that may be drawn, by the definitions of temperature, top-k and nucleus."""
    scaled = (torch.tensor(logits, dtype=torch.float64) / sampling.temperature).tolist()
    ranked = sorted(range(len(scaled)), key=lambda i: -scaled[i])[: sampling.top_k]
    weights = torch.tensor([scaled[i] for i in ranked], dtype=torch.float64).softmax(0).tolist()
    kept: dict[int, float] = {}
    for i, weight in zip(ranked, weights, strict=True):
        if sum(kept.values()) >= sampling.top_p:
            break
        kept[i] = weight
    return {i: weight / sum(kept.values()) for i, weight in kept.items()}


def frequencies(
    logits: Tensor, sampling: Sampling, history: list[int] | None = None, column: int = 0
) -> dict[int, float]:
    """How often each id is drawn while one of the two uniform numbers goes over the grid."""
    uniform = torch.full((GRID, 2), 0.5, dtype=torch.float64)
    uniform[:, column] = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    past = torch.tensor([history or [-1] * sampling.window]).expand(GRID, -1)
    drawn = draw(logits.expand(GRID, -1), sampling, past, uniform)
    return {i: n / GRID for i, n in Counter(drawn.tolist()).items()}


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_k=100, top_p=1.0),
        Sampling(temperature=1.0, top_k=6, top_p=1.0),
        Sampling(temperature=1.0, top_k=100, top_p=0.7),
        Sampling(temperature=0.6, top_k=8, top_p=0.9),
        Sampling(temperature=1.7, top_k=25, top_p=0.8),
        Sampling(temperature=1.0, top_k=100, top_p=1e-9),
        Sampling(temperature=1.0, top_k=1, top_p=1.0),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_draws_have_the_defined_probabilities(sampling: Sampling, seed: int) -> None:
    torch.manual_seed(seed)
    logits = 2 * torch.randn(1, 40)
    expected, drawn = reference(logits[0].tolist(), sampling), frequencies(logits, sampling)
    assert drawn.keys() <= expected.keys()
    for i, probability in expected.items():
        assert drawn.get(i, 0.0) == pytest.approx(probability, abs=1.5 / GRID)


def test_random_numbers_draw_as_often_as_they_should() -> None:
    sampling = Sampling(temperature=1.0, top_k=5, top_p=0.9)
    logits = 2 * torch.randn(1, 40)
    expected = reference(logits[0].tolist(), sampling)
    drawn = draw(logits.expand(20_000, -1), sampling, torch.full((20_000, 10), -1), torch.rand(20_000, 2))
    for i, n in Counter(drawn.tolist()).items():
        assert n / 20_000 == pytest.approx(expected[i], abs=0.015)  # 4 standard deviations


def test_temperature_zero_takes_the_likeliest_of_each_row() -> None:
    logits = torch.randn(7, 40)
    drawn = draw(logits, Sampling(temperature=0), torch.full((7, 10), 3), torch.rand(7, 2))
    assert torch.equal(drawn, logits.argmax(-1))


def test_an_id_of_minus_infinity_is_never_drawn() -> None:
    logits = torch.full((1, 40), -torch.inf)
    logits[0, [4, 30]] = torch.tensor([0.0, 1.0])
    drawn = frequencies(logits, Sampling(temperature=1.0, top_k=25, top_p=1.0))
    assert drawn == pytest.approx({4: 0.2689, 30: 0.7311}, abs=1e-3)
    last = torch.full((1, 2), 1 - 1e-12, dtype=torch.float64)
    assert draw(logits, Sampling(temperature=1.0, top_p=1.0), torch.full((1, 10), -1), last).item() == 4


def test_an_id_repeated_too_often_is_drawn_again_from_the_top_k() -> None:
    sampling = Sampling(temperature=1.0, top_k=8, top_p=1e-9, window=10, max_repeats=3)
    logits = 2 * torch.randn(1, 40)
    top = int(logits.argmax())
    other = (top + 1) % 40

    three = [top, other, top, *[other] * 7, top][-10:]
    assert three.count(top) <= 3
    assert frequencies(logits, sampling, three, column=1) == {top: 1.0}

    four = [top, other, top, *[other] * 5, top, top]
    drawn = frequencies(logits, sampling, four, column=1)
    expected = reference(logits[0].tolist(), Sampling(temperature=1.0, top_k=8, top_p=1.0))
    for i, probability in expected.items():
        assert drawn.get(i, 0.0) == pytest.approx(probability, abs=1.5 / GRID)


def test_rows_are_independent() -> None:
    logits, history, uniform = 2 * torch.randn(30, 40), torch.randint(40, (30, 10)), torch.rand(30, 2)
    sampling = Sampling(max_repeats=0)
    together = draw(logits, sampling, history, uniform)
    alone = [draw(logits[i : i + 1], sampling, history[i : i + 1], uniform[i : i + 1]) for i in range(30)]
    assert torch.equal(together, torch.cat(alone))
