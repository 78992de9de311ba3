"""Cost: real-time factor of every part of the chain, and memory."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tts.evaluate.chain import PARTS
from tts.evaluate.figures import Figure, Values
from tts.evaluate.sample import Metric, Sample


class Cost(Metric):
    """Seconds of work per second of speech: of each part, and of all that the row has.

    The parts of a batch share its time by their lengths. Reading the voice prompt is not in it: a voice is read once.
    """

    name = "cost"
    by = "clock"

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        parts = [
            Figure(
                f"rtf_{part}",
                f"real-time factor, {part}",
                f"seconds_{part}",
                "seconds",
                digits=3,
                better="low",
                single=False,
            )
            for part in PARTS
        ]
        return [*parts, Figure("rtf", "real-time factor, all", "seconds_all", "seconds", "", 3, "low")]

    def measure(self, sample: Sample) -> Values:
        times = {f"seconds_{part}": round(took, 4) for part, took in sample.made.times.items()}
        return {**times, "seconds_all": round(sum(times.values()), 4)} if times else {}


def peak_memory() -> dict[str, int]:
    """The most bytes this process has held so far: in main memory, and on the first GPU where one was used."""
    peak = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak["main"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak
