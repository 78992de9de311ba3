"""Streams: how soon the first sound comes, and how long the whole takes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import truediv

from torch import Tensor

from tts.benchmark import reference
from tts.benchmark.measure import Arm, threads
from tts.benchmark.section import OURS, REFERENCE, Found, Point, Section, doubled, picked
from tts.benchmark.table import Line, compared, each
from tts.benchmark.texts import words


class Stream(Section):
    """`TTS.stream` beside the same made at once, and beside the reference's parts in chunks."""

    name = "stream"
    title = "sound as it is made"
    varied: Sequence[str] = ("words", "chunk", "steps", "threads")
    told: Sequence[str] = ("words", "chunk", "steps", "threads")

    def arms(self, point: Point) -> Mapping[str, Arm]:
        text, settings = words(point.words), point.settings(chunk=point.chunk)
        tts, voice, llama = self.bench.tts, self.bench.voice, self.bench.llama
        spoken = self.bench.spoken([text])

        def ours() -> dict[str, float]:
            with threads(point.threads):
                tts.started(voice, settings)  # a voice in use: its prompt has been taken in
                started, first, sound = time.perf_counter(), 0.0, 0.0
                for chunk in tts.stream(text, voice, settings):
                    first = first or time.perf_counter() - started
                    sound += chunk.done.seconds if chunk.done else 0.0
                taken = time.perf_counter() - started
            return {"first": first, "all": taken, "factor": taken / sound}

        def new_voice() -> dict[str, float]:
            with threads(point.threads):
                stranger = replace(voice)  # of which nothing is kept yet
                started = time.perf_counter()
                next(tts.stream(text, stranger, settings))
                return {"first": time.perf_counter() - started}

        def at_once() -> dict[str, float]:
            with threads(point.threads):
                tts.started(voice, settings)
                started = time.perf_counter()
                tts.synthesize(text, voice, settings, chunk=None)
                return {"all": time.perf_counter() - started}

        def plain() -> dict[str, float]:
            heard: list[float] = []

            def hear(wav: Tensor) -> None:
                heard.append(time.perf_counter())

            with threads(point.threads):
                started = time.perf_counter()
                reference.stream(tts, llama, text, voice, settings, spoken, hear)
                taken = time.perf_counter() - started
            return {"first": heard[0] - started, "all": taken}

        arms: dict[str, Arm] = {OURS: ours, REFERENCE: plain, "new": new_voice, "at once": at_once}
        if point.words > self.bench.plan.reference_words:
            del arms[REFERENCE]
        return arms

    def lines(self, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        first, taken = picked(found, OURS, "first"), picked(found, OURS, "all")
        at_once = picked(found, "at once", "all")
        return [
            *compared("first sound", "s", first, picked(found, REFERENCE, "first")),
            Line("  of the time of the whole at once", "%", each(truediv, first, at_once)),
            Line("first sound, a voice not heard before", "s", picked(found, "new", "first")),
            *compared("whole stream", "s", taken, picked(found, REFERENCE, "all")),
            Line("  per second of sound", "", picked(found, OURS, "factor")),
            Line("whole at once", "s", at_once),
        ]

    def notes(self, against: str, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        return doubled(found, [point.words for point in points], "text") if against == "words" else []
