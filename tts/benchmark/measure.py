"""Measuring in rounds: everything that is compared takes its turn in each, and figures are medians over rounds."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

Key = TypeVar("Key", bound=Hashable)

Arm = Callable[[], Mapping[str, float]]
"""Does one thing once and tells its figures by name."""


@dataclass(frozen=True)
class Sample:
    """One figure, once a round.

    Attributes:
        values: in the order of the rounds.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return float(np.median(self.values))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The ends of the interquartile range, linear between rounds."""
        low, high = np.percentile(self.values, [25, 75])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Median, quartiles and every value."""
        low, high = self.quartiles
        return {"median": self.median, "low": low, "high": high, "values": list(self.values)}


def combined(make: Callable[..., float], *samples: Sample) -> Sample:
    """A figure made of others, round by round: what a round was disturbed by is in all of them."""
    return Sample(tuple(make(*row) for row in zip(*(one.values for one in samples), strict=True)))


def rounds(
    arms: Mapping[Key, Arm], runs: int, label: str, warm: Collection[Key] = ()
) -> dict[Key, dict[str, Sample]]:
    """The figures of every arm. The arms run in turn, A B C A B C.

    Args:
        arms: what to run.
        runs: rounds.
        label: of the progress bar on standard error.
        warm: arms that run once before, for nothing, so that libraries are loaded and caches filled.
    """
    found: dict[Key, list[Mapping[str, float]]] = {key: [] for key in arms}
    with tqdm(total=len(warm) + runs * len(arms), desc=label, unit="run") as bar:
        for key in warm:
            arms[key]()
            bar.update()
        for _ in range(runs):
            for key, arm in arms.items():
                found[key].append(arm())
                bar.update()
    return {
        key: {name: Sample(tuple(one[name] for one in figures)) for name in figures[0]}
        for key, figures in found.items()
    }


def doubling(sizes: Sequence[float], times: Sequence[Sample]) -> Sample:
    """How many times as long twice the size takes, in each round.

    By the line through the logarithms of sizes and times (least squares): 2 is linear, 4 is quadratic.
    """
    logs = np.log(np.asarray(sizes, np.float64))
    rows = np.log(np.asarray([one.values for one in times], np.float64)).T
    return Sample(tuple(float(2.0 ** np.polyfit(logs, row, 1)[0]) for row in rows))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch's inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, and the most there may be."""
    return (*(2**n for n in range(most.bit_length()) if 2**n < most), most)
