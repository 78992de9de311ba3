"""The flow decoder by itself: one long utterance chunk by chunk, with caches and without."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tts.benchmark import reference
from tts.benchmark.measure import Arm, threads
from tts.benchmark.section import OURS, REFERENCE, Bench, Found, Point, Section, doubled, picked
from tts.benchmark.table import Line, compared


class Acoustic(Section):
    """Random tokens, never cut into sentences, so that what grows with the length shows."""

    name = "acoustic"
    title = "the flow decoder alone, one utterance in chunks"
    varied: Sequence[str] = ("seconds", "chunk", "steps", "threads")
    told: Sequence[str] = ("seconds", "chunk", "steps", "threads")

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._frames: dict[Point, Tensor] = {}  # what ours made last

    def work(self, point: Point) -> tuple[Tensor, Tensor]:
        """Tokens (N,) and noise (T, D)."""
        spec = self.bench.tts.model.spec
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(spec.codes, (round(point.seconds * spec.rate),), generator=generator)
        return tokens, reference.noise_for(self.bench.tts, len(tokens), 0, 0)

    def arms(self, point: Point) -> Mapping[str, Arm]:
        tts, voice, settings = self.bench.tts, self.bench.voice, point.settings()
        decoder, (tokens, noise) = tts.model.acoustic, self.work(point)

        def chunks() -> Iterator[Tensor]:
            state, per = tts.started(voice, settings).copy(), decoder.spec.frames_per_token
            for piece, start in zip(tokens.split(point.chunk), noise.split(point.chunk * per), strict=True):
                yield decoder.decode_chunk(state, piece[None], start[None])[0]

        def ours() -> dict[str, float]:
            with threads(point.threads):
                tts.started(voice, settings)
                self._frames[point], figures = timed(chunks())
            return figures

        def plain() -> dict[str, float]:
            pieces = reference.full_prefix(
                decoder,
                (voice.frames, voice.told(tts.model.symbols)),
                tokens,
                noise,
                steps=settings.steps,
                guidance=settings.guidance,
                chunk=point.chunk,
            )
            with threads(point.threads):
                frames, figures = timed(pieces)
            mine = self._frames[point]
            return figures | {"off": float((frames - mine).abs().max() / mine.std())}

        def whole() -> dict[str, float]:
            with threads(point.threads):
                state = tts.started(voice, settings)
                started = time.perf_counter()
                decoder.decode([state], [tokens], [noise])
                return {"all": time.perf_counter() - started}

        return {OURS: ours, REFERENCE: plain, "whole": whole}

    def lines(self, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        ours, plain = (picked(found, who, "all") for who in (OURS, REFERENCE))
        firsts = [picked(found, who, "first") for who in (OURS, REFERENCE)]
        return [
            *compared("first chunk", "s", *firsts),
            *compared("all chunks", "s", ours, plain),
            Line("  largest difference, of the frames' spread", "%", picked(found, REFERENCE, "off")),
            Line("all in one pass", "s", picked(found, "whole", "all")),
        ]

    def notes(self, against: str, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        return doubled(found, [point.seconds for point in points], "sound") if against == "seconds" else []


def timed(pieces: Iterable[Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The pieces joined, and the seconds until the first of them and until all are there."""
    started, made, first = time.perf_counter(), [], None
    for piece in pieces:
        made.append(piece)
        first = first or time.perf_counter() - started
    return torch.cat(made), {"first": first or 0.0, "all": time.perf_counter() - started}
