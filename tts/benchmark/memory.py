"""Memory of making speech: each in a process of its own, so that none inherits what another left."""

import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from tts.benchmark import reference
from tts.benchmark.measure import Arm, threads
from tts.benchmark.section import OURS, REFERENCE, Bench, Found, Point, Section, picked
from tts.benchmark.table import Line
from tts.benchmark.texts import words
from tts.pipeline import TTS
from tts.voice import Voice

STREAM = "stream"
RUNS = 3  # at most: memory varies little, and a process takes seconds to start
MIB = 2**20
STATUS = Path("/proc/self/status")

T = TypeVar("T")


class Job(NamedTuple):
    """What a process does.

    Attributes:
        model: folder; None for the embedded one.
        voice: a saved voice.
        texts: to speak.
        point: the condition.
        who: ours at once, ours as a stream, or the reference.
    """

    model: str | None
    voice: str
    texts: Sequence[str]
    point: Point
    who: str


class Memory(Section):
    """Resident when ready, and the most while speaking."""

    name = "memory"
    title = "main memory of a process that does only this"
    varied: Sequence[str] = ("words", "batch")
    told: Sequence[str] = ("words", "batch", "steps")
    warm = False  # nothing lasts from one process to the next

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._folder = TemporaryDirectory()  # gone when the section is
        self._voice = str(Path(self._folder.name) / "voice.safetensors")
        bench.voice.save(self._voice)

    @property
    def runs(self) -> int:
        return min(RUNS, self.bench.plan.runs)

    def arms(self, point: Point) -> Mapping[str, Arm]:
        texts = [words(point.words)] * point.batch
        model = str(self.bench.tts.model.folder)
        return {
            who: partial(fresh, probe, Job(model, self._voice, texts, point, who))
            for who in (OURS, STREAM, REFERENCE)
        }

    def lines(self, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        return [
            Line("model loaded", "MiB", picked(found, OURS, "resident")),
            Line("most while speaking", "MiB", picked(found, OURS, "peak")),
            Line("  one by one, as streams", "MiB", picked(found, STREAM, "peak")),
            Line("reference: model loaded", "MiB", picked(found, REFERENCE, "resident")),
            Line("  most while speaking", "MiB", picked(found, REFERENCE, "peak")),
        ]


def fresh(work: Callable[..., T], *arguments: object) -> T:
    """What a function of a module gives in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def probe(job: Job) -> dict[str, float]:
    """Do a job in this process: MiB resident before it, and the most during it."""
    tts, voice = TTS.load(job.model), Voice.load(job.voice)
    settings = job.point.settings(chunk=job.point.chunk if job.who == STREAM else None)
    with threads(job.point.threads):
        if job.who == REFERENCE:
            spoken = reference.speak_once(tts, job.texts, voice, settings)
            llama = reference.transformers_llama(tts.model.lm)
        forget_peak()
        resident = memory()[0]
        if job.who == OURS:
            tts.synthesize(list(job.texts), voice, settings)
        elif job.who == STREAM:
            for text in job.texts:
                for _ in tts.stream(text, voice, settings):
                    pass
        else:
            for batch in reference.in_batches(spoken, settings.batch):
                reference.write(tts, llama, batch)
                reference.decode(tts, voice, batch, settings)
    return {"resident": resident / MIB, "peak": memory()[1] / MIB}


def memory() -> tuple[float, float]:
    """Bytes of main memory that this process holds, and the most it has held; NaN where the system does not tell.

    On Linux from its status, because the peak that ``getrusage`` tells of a new process is also its parent's.
    """
    if STATUS.is_file():
        told = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return tuple(1024.0 * int(told[name].split()[0]) for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    if sys.platform == "win32":
        return float("nan"), float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float("nan"), float(peak * (1 if sys.platform == "darwin" else 1024))


def forget_peak() -> None:
    """Let the most that was held begin anew, where Linux lets us: loading a model must not hide what speaking takes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
