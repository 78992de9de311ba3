"""Real-time factors of the chain's parts: of one text, and of many sentences at once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tts.benchmark import reference
from tts.benchmark.measure import Arm, threads
from tts.benchmark.section import OURS, REFERENCE, Found, Point, Section, picked
from tts.benchmark.table import Cells, Line, compared, each
from tts.benchmark.texts import SENTENCES, words
from tts.pipeline import Settings

PARTS = ("text", "lm", "check", "acoustic", "vocoder")
REPLACED = ("lm", "acoustic")  # those that have a reference


class Parts(Section):
    """One text, made whole."""

    name = "parts"
    title = "seconds of work per second of sound, by part of the chain"
    varied: Sequence[str] = ("words", "steps", "threads")
    told: Sequence[str] = ("words", "steps", "threads", "batch")

    @property
    def usual(self) -> Point:
        return replace(self.bench.plan.usual, batch=Settings.batch)

    def texts(self, point: Point) -> list[str]:
        """What is spoken."""
        return [words(point.words)]

    def arms(self, point: Point) -> Mapping[str, Arm]:
        texts, settings = self.texts(point), point.settings()
        tts, voice = self.bench.tts, self.bench.voice
        spoken, llama = self.bench.spoken(texts), self.bench.llama
        batches = reference.in_batches(spoken, point.batch)

        def ours() -> dict[str, float]:
            with threads(point.threads):
                tts.started(voice, settings)  # a voice in use: its prompt has been taken in
                speeches = tts.synthesize(texts, voice, settings)
            first = speeches[0]  # the clock is the same for all of them
            sound = sum(len(one.wav) for speech in speeches for one in speech.sentences) / first.sample_rate
            return {part: first.parts[part] / sound for part in PARTS} | {"all": first.seconds_taken / sound}

        def plain() -> dict[str, float]:
            sound = sum(one.seconds for one in spoken)
            with threads(point.threads):
                written = sum(reference.write(tts, llama, batch) for batch in batches)
                started = time.perf_counter()
                for batch in batches:
                    reference.decode(tts, voice, batch, settings)
                decoded = time.perf_counter() - started
            return {"lm": written / sound, "acoustic": decoded / sound}

        return {OURS: ours, REFERENCE: plain}

    def lines(self, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        lines: list[Line] = []
        for part in PARTS:
            cells = picked(found, OURS, part)
            if part in REPLACED:
                lines += compared(part, "", cells, picked(found, REFERENCE, part))
            else:
                lines.append(Line(part, "", cells))
        return lines + compared("whole", "", picked(found, OURS, "all"), self.whole_of_reference(found))

    def whole_of_reference(self, found: Sequence[Found]) -> Cells:
        """The chain with the reference's parts in place of ours."""

        def replaced(whole: float, *parts: float) -> float:
            return whole - sum(parts[: len(REPLACED)]) + sum(parts[len(REPLACED) :])

        ours = [picked(found, OURS, part) for part in REPLACED]
        theirs = [picked(found, REFERENCE, part) for part in REPLACED]
        return each(replaced, picked(found, OURS, "all"), *ours, *theirs)


class Batch(Parts):
    """The same sentences, more and more of them at once."""

    name = "batch"
    title = "many sentences, so many at once: seconds of work per second of sound"
    varied: Sequence[str] = ("batch",)
    told: Sequence[str] = ("steps", "threads")

    def texts(self, point: Point) -> list[str]:
        return [SENTENCES[i % len(SENTENCES)] for i in range(self.bench.plan.sentences)]

    def lines(self, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        whole, plain = picked(found, OURS, "all"), self.whole_of_reference(found)
        rates = [each(lambda factor: 1 / factor, row) for row in (whole, plain)]
        single = [whole[0]] * len(whole)
        return [
            *super().lines(points, found),
            Line("seconds of sound a second", "", rates[0]),
            Line("  reference", "", rates[1]),
            Line(
                f"times the throughput of {points[0].batch} at once",
                "",
                each(lambda one, many: one / many, single, whole),
            ),
        ]
