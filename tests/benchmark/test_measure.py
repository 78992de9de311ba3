"""Rounds, medians and spreads."""

from __future__ import annotations

import statistics

import pytest
import torch

from tts.benchmark.measure import Sample, combined, doubling, rounds, thread_counts, threads


def test_median_and_quartiles() -> None:
    one = Sample((5.0, 1.0, 4.0, 2.0, 3.0))
    assert (one.median, *one.quartiles) == (3.0, 2.0, 4.0)
    values = (0.3, 9.1, 4.2, 7.7, 0.1, 5.5, 2.2, 8.0)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    other = Sample(values)
    assert (other.median, *other.quartiles) == pytest.approx((middle, low, high))
    assert Sample((2.5,)).to_dict() == {"median": 2.5, "low": 2.5, "high": 2.5, "values": [2.5]}


def test_ratios_are_of_the_same_round() -> None:
    # a round in which everything was three times as slow leaves no mark on the ratio
    ours, theirs = Sample((1.0, 3.0, 1.0)), Sample((2.0, 6.0, 2.0))
    assert combined(lambda a, b: b / a, ours, theirs) == Sample((2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="zip"):
        combined(lambda a, b: a, ours, Sample((1.0,)))


def test_arms_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def arm(name: str) -> dict[str, float]:
        calls.append(name)
        return {"count": float(len(calls))}

    found = rounds({"a": lambda: arm("a"), "b": lambda: arm("b")}, 3, "turns", warm=["b"])
    assert "".join(calls) == "b" + "ab" * 3
    assert found == {"a": {"count": Sample((2.0, 4.0, 6.0))}, "b": {"count": Sample((3.0, 5.0, 7.0))}}
    printed = capsys.readouterr()
    assert printed.out == "" and "turns" in printed.err and "7/7" in printed.err


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_doubling_is_two_to_the_power(power: float) -> None:
    sizes = [10, 20, 40, 120]
    times = [Sample((0.1 * n**power, 7.0 * n**power)) for n in sizes]
    assert doubling(sizes, times).values == pytest.approx((2**power, 2**power))


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert [thread_counts(n) for n in (1, 2, 3, 8)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 8)]
