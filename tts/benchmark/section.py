"""What all sections share: the conditions, what is varied, and how a table comes of it."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from codec.errors import UserError
from tts.acoustic.decoder import STEPS
from tts.benchmark.measure import Arm, Sample, doubling, rounds
from tts.benchmark.reference import Spoken, speak_once, transformers_llama
from tts.benchmark.table import Line, Table
from tts.engines.choose import compiled
from tts.lm.model import SpeechLM
from tts.pipeline import CHUNK, TTS, Settings
from tts.voice import Voice

OURS, REFERENCE = "ours", "reference"

Found = Mapping[str, Mapping[str, Sample]]
"""The figures of one condition: by who (ours, reference ...), by name."""


@dataclass(frozen=True)
class Point:
    """A condition.

    Attributes:
        words: of the text.
        seconds: of sound, where the flow is measured by itself.
        batch: sentences, or rows of the LM, at once.
        threads: of torch.
        steps: of the flow's solver.
        chunk: tokens of a chunk, in a stream.
    """

    words: int = 40
    seconds: int = 4
    batch: int = 1
    threads: int = 1
    steps: int = STEPS
    chunk: int = CHUNK

    def settings(self, **changes: Any) -> Settings:
        """How to speak under this condition. Nothing is made twice: a retry would be luck, not speed."""
        return Settings(steps=self.steps, batch=self.batch, candidates=1, retries=0, **changes)


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        runs: rounds that count.
        usual: the condition of which one thing is varied at a time.
        words, seconds, batch, threads, steps, chunk: its values where it is varied.
        sentences: that are made in batches.
        ids: that the LM writes where it is compared id by id.
        reference_words: of the longest text that the reference streams: it takes minutes for more.
        large: bytes that no cache holds, for the memory's bandwidth.
        compiled: whether the LM is also measured with its steps compiled, where there is a compiler.
    """

    runs: int
    usual: Point
    words: Sequence[int] = (10, 20, 40, 120)
    seconds: Sequence[int] = (2, 4, 8)
    batch: Sequence[int] = (1, 4, 16)
    threads: Sequence[int] = (1,)
    steps: Sequence[int] = (2, 5, 10, 20)
    chunk: Sequence[int] = (6, 12, 24)
    sentences: int = 16
    ids: int = 256
    reference_words: int = 40
    large: int = 256 * 2**20
    compiled: bool = True

    def quick(self) -> "Plan":
        """A first look: two values of what is varied, and little of it."""
        return replace(
            self,
            usual=replace(self.usual, words=5, seconds=1, steps=4),
            words=(5, 10),
            seconds=(1, 2),
            batch=(1, 4),
            threads=sorted({1, self.usual.threads}),
            steps=(2, 4),
            chunk=(6, 12),
            sentences=4,
            ids=32,
            large=128 * 2**20,
        )


class Bench:
    """The model that is measured, and what its sections have in common.

    Args:
        tts: the model.
        voice: who speaks.
        plan: how much.
    """

    def __init__(self, tts: TTS, voice: Voice, plan: Plan) -> None:
        self.tts, self.voice, self.plan = tts, voice, plan
        self._spoken: dict[tuple[str, ...], list[Spoken]] = {}

    @cached_property
    def llama(self) -> Any:
        """transformers' Llama with the LM's weights."""
        return transformers_llama(self.tts.model.lm)

    @cached_property
    def compiled(self) -> SpeechLM | None:
        """The LM with its steps compiled; None where it is not to be, or cannot."""
        try:
            return compiled(self.tts.model.lm) if self.plan.compiled else None
        except UserError as error:
            print(f"note: {error}", file=sys.stderr)
            return None

    def spoken(self, texts: Sequence[str]) -> list[Spoken]:
        """The sentences of the texts as our chain writes them, made once."""
        key = tuple(texts)
        if key not in self._spoken:
            self._spoken[key] = speak_once(self.tts, key, self.voice, Settings())
        return self._spoken[key]


class Section(ABC):
    """Figures of one kind, in a table for each thing that is varied.

    Attributes:
        name: as ``--only`` takes it.
        title: what the figures are.
        varied: attributes of `Point`.
        told: those that matter here; the title tells what they are where they are not varied.
        warm: whether a first run is for nothing.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    varied: Sequence[str]
    told: Sequence[str]
    warm: bool = True

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    @property
    def usual(self) -> Point:
        """The condition of which one thing is varied at a time."""
        return self.bench.plan.usual

    @property
    def runs(self) -> int:
        """Rounds that count."""
        return self.bench.plan.runs

    @abstractmethod
    def arms(self, point: Point) -> Mapping[str, Arm]:
        """What takes turns under a condition, by who."""

    @abstractmethod
    def lines(self, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        """The table's lines, of what was found under each condition."""

    def notes(self, against: str, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        """Figures of the whole table."""
        return []

    def tables(self) -> Iterator[Table]:
        """One table after another, as they get done."""
        for against in self.varied:
            values = getattr(self.bench.plan, against)
            points = [replace(self.usual, **{against: value}) for value in values]
            arms = {(i, who): arm for i, point in enumerate(points) for who, arm in self.arms(point).items()}
            # the other conditions run the same code
            warm = [key for key in arms if key[0] == 0] if self.warm else []
            made = rounds(arms, self.runs, f"{self.name} against {against}", warm)
            found: list[dict[str, dict[str, Sample]]] = [{} for _ in points]
            for (i, who), figures in made.items():
                found[i][who] = figures
            lines, notes = self.lines(points, found), self.notes(against, points, found)
            fixed = [f"{name} {getattr(self.usual, name)}" for name in self.told if name != against]
            yield Table(self.name, f"{self.title}; {', '.join(fixed)}", against, values, lines, notes)


def picked(found: Sequence[Found], who: str, name: str) -> list[Sample | None]:
    """One figure, a cell a column; None where it was not measured."""
    return [one[who][name] if who in one else None for one in found]


def doubled(found: Sequence[Found], sizes: Sequence[float], what: str) -> list[Line]:
    """How many times as long ours and the reference take for twice the size; not where there is one size only."""
    lines = []
    for who, label in ((OURS, "ours"), (REFERENCE, "the reference")):
        cells = zip(sizes, picked(found, who, "all"), strict=True)
        known = {size: cell for size, cell in cells if cell is not None}
        if len(known) > 1:
            times = doubling(list(known), list(known.values()))
            lines.append(Line(f"times as long for twice the {what}, {label}", "", [times]))
    return lines
