"""Figures: numbers of cases become one number of a row, with its bootstrap interval over cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Values = dict[str, Any]
"""What was measured on one sample, by name; numbers where figures are made of it."""

Floats = npt.NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
_CHUNK = 4_000_000  # random numbers at a time


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: over all cases.
        low, high: ends of the 95 % bootstrap interval; NaN where no draw gave a number.
        cases: how many it is of.
    """

    value: float
    low: float
    high: float
    cases: int

    def scaled(self, zero: float, one: float) -> "Estimate":
        """The same on a scale on which `zero` is 0 and `one` is 1."""
        value, *ends = ((x - zero) / (one - zero) for x in (self.value, self.low, self.high))
        return Estimate(value, min(ends), max(ends), self.cases)


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Estimate | None:
    """``sum(tops) / sum(bottoms)`` with the percentile bootstrap interval over cases (Efron 1979).

    None where there are no cases or nothing to divide by. The draws are the same in every run.
    """
    top, bottom = np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)
    if not len(top) or bottom.sum() == 0:
        return None
    rng = np.random.default_rng(0)
    chunk = max(1, _CHUNK // len(top))
    drawn: list[Floats] = []
    for start in range(0, DRAWS, chunk):
        index = rng.integers(len(top), size=(min(chunk, DRAWS - start), len(top)))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn.append(top[index].sum(1) / bottom[index].sum(1))
    low, high = interval(np.concatenate(drawn))
    return Estimate(float(top.sum() / bottom.sum()), low, high, len(top))


def mean(values: Sequence[float]) -> Estimate | None:
    """The mean with its bootstrap interval."""
    return ratio(values, [1.0] * len(values))


def interval(drawn: Floats) -> tuple[float, float]:
    """The middle 95 % of the draws that are numbers."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Figure:
    """How a figure is made of the cases' values, and shown.

    Attributes:
        key: its name in ``results.json``.
        label: its name for people.
        top: the value to add up.
        bottom: the value whose sum it is divided by; None for the mean over cases.
        unit: "%" for a share, "" for a plain number.
        digits: after the point.
        better: which values are good.
        zero, one: the ends of the scale, see `Estimate.scaled`.
        single: whether it is told of single cases, too; a share of the cases is not.
    """

    key: str
    label: str
    top: str
    bottom: str | None = None
    unit: Literal["%", ""] = ""
    digits: int = 2
    better: Literal["low", "high", "neither"] = "neither"
    zero: float = 0.0
    one: float = 1.0
    single: bool = True

    def estimate(self, cases: Sequence[Mapping[str, Any]]) -> Estimate | None:
        """Over the cases that have the values; None where none has."""
        pairs = [pair for pair in map(self._pair, cases) if pair is not None]
        made = ratio([top for top, _ in pairs], [bottom for _, bottom in pairs])
        return made and made.scaled(self.zero, self.one)

    def change(
        self, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
    ) -> Estimate | None:
        """How much it changed over the cases that are in both, told by their "id".

        Case by case, so that how hard they are is not in the interval; before `zero` and `one` scale it.
        """
        first = {case["id"]: self._pair(case) for case in before}
        pairs = [(first.get(case["id"]), self._pair(case)) for case in after]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        return ratio([b[0] - a[0] for a, b in both], [a[1] for a, _ in both])

    def of(self, case: Mapping[str, Any]) -> float | None:
        """The figure of one case."""
        pair = self._pair(case)
        return (
            None if pair is None or pair[1] == 0 else (pair[0] / pair[1] - self.zero) / (self.one - self.zero)
        )

    def _pair(self, case: Mapping[str, Any]) -> tuple[float, float] | None:
        top, bottom = case.get(self.top), 1.0 if self.bottom is None else case.get(self.bottom)
        return None if top is None or bottom is None else (float(top), float(bottom))

    def show(self, value: float | None) -> str:
        """The value as people read it."""
        if value is None or value != value:  # NaN
            return "-"
        return f"{100 * value:.{self.digits}f} %" if self.unit == "%" else f"{value:.{self.digits}f}"

    def show_estimate(self, made: Estimate | None) -> str:
        """``5.3 % (4.1 to 6.6)``."""
        if made is None:
            return "-"
        low, high = (self.show(end).removesuffix(" %") for end in (made.low, made.high))
        return f"{self.show(made.value)} ({low} to {high})"
