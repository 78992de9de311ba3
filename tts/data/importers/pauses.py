"""Where somebody speaks in a long recording, and how to cut it at pauses.

Two detectors: Silero's network, where the package ``silero-vad`` is installed, and the level of the sound alone,
which takes music and noise for speech. All times are seconds.
"""

import functools
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from codec.errors import AudioError, UserError

RATE = 16_000  # Hz, what Silero and recognisers hear
PAUSE = 0.2  # a shorter gap may lie inside a word: the closure of a stop lasts 0.05 to 0.15 s
APART = 1.0  # a longer gap is never inside a piece
MARGIN = 0.25  # kept of the pause on either side: soft ends of words are below any threshold


class Span(NamedTuple):
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


Detect = Callable[[Tensor], list[Span]]
"""(samples,) at `RATE` -> where somebody speaks, in order."""


def detector(name: str) -> Detect:
    """The detector "silero" or "energy"; "auto" is the first where it is installed.

    Raises:
        UserError: Silero is asked for and not installed.
    """
    return {"silero": _silero, "energy": speech_by_level}[detector_name(name)]


def detector_name(name: str) -> str:
    """What "auto" is here. Raises as `detector` does."""
    installed = find_spec("silero_vad") is not None
    if name == "silero" and not installed:
        raise UserError('silero-vad is not installed; pip install -e ".[data]", or take --vad energy')
    if name == "auto":
        return "silero" if installed else "energy"
    return name


@functools.cache
def _silero_model() -> torch.nn.Module:
    from silero_vad import load_silero_vad

    model: torch.nn.Module = load_silero_vad()
    return model


def _silero(wav: Tensor) -> list[Span]:
    from silero_vad import get_speech_timestamps

    found = get_speech_timestamps(
        wav, _silero_model(), sampling_rate=RATE, min_speech_duration_ms=100, min_silence_duration_ms=100
    )
    return [Span(one["start"] / RATE, one["end"] / RATE) for one in found]


def speech_by_level(wav: Tensor, rate: int = RATE) -> list[Span]:
    """Where the level is nearer to that of the loud parts than to that of the quiet ones.

    Windows of 20 ms; the threshold lies at 0.35 of the way, in dB, from the recording's 10th to its 95th percentile.
    Where the two are less than 12 dB apart nothing tells speech from pauses, and all of it counts as speech.
    """
    hop = round(0.01 * rate)
    power = wav.double().square().numpy()
    power = power[: len(power) // hop * hop].reshape(-1, hop).mean(axis=1)
    if len(power) < 3:
        return []
    level = 10 * np.log10(np.convolve(power, [0.5, 0.5], mode="same") + 1e-9)  # floor at -90 dBFS
    quiet, loud = np.percentile(level, [10, 95])
    if loud < -80:
        return []
    if loud - quiet < 12:
        return [Span(0.0, len(wav) / rate)]
    speech = np.concatenate([[False], level > quiet + 0.35 * (loud - quiet), [False]])
    edges = np.flatnonzero(speech[1:] != speech[:-1])
    spans = [Span(start * hop / rate, end * hop / rate) for start, end in edges.reshape(-1, 2)]
    return [span for span in _joined(spans, 0.1) if span.seconds >= 0.06]  # shorter: a click


def cut_at_pauses(
    spans: Sequence[Span], total: float, *, shortest: float = 1.0, longest: float = 15.0
) -> tuple[list[Span], list[Span]]:
    """Cut a recording into pieces, each with `MARGIN` of the pauses around it, or half of a pause that is shorter.

    What is too long is cut at its longest pause, and so on; what is too short joins its neighbour.

    Args:
        spans: where somebody speaks.
        total: length of the recording.
        shortest, longest: of the pieces.

    Returns:
        The pieces, and the speech that is in none: too long and without a pause, or too short and alone.
    """
    spans = _joined(spans, PAUSE)
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span.start - groups[-1][-1].end <= APART:
            groups[-1].append(span)
        else:
            groups.append([span])
    parts = [part for group in groups for part in _halved(group, shortest, longest)]
    parts = _without_short(parts, shortest, longest)
    ends = [Span(part[0].start, part[-1].end) for part in parts]
    pieces: list[Span] = []
    for i, part in enumerate(ends):
        before = ends[i - 1].end if i else 0.0
        after = ends[i + 1].start if i + 1 < len(ends) else total
        first = max(part.start - MARGIN, (before + part.start) / 2 if i else 0.0)
        last = min(part.end + MARGIN, (part.end + after) / 2 if i + 1 < len(ends) else total)
        pieces.append(Span(round(first, 3), round(last, 3)))
    fits = [shortest <= piece.seconds <= longest for piece in pieces]
    return (
        [piece for piece, fit in zip(pieces, fits, strict=True) if fit],
        [piece for piece, fit in zip(pieces, fits, strict=True) if not fit],
    )


def _joined(spans: Sequence[Span], gap: float) -> list[Span]:
    """Spans with gaps shorter than ``gap`` closed."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.start - joined[-1].end < gap:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    return joined


def _length(part: Sequence[Span]) -> float:
    return part[-1].end - part[0].start + 2 * MARGIN


def _halved(part: list[Span], shortest: float, longest: float) -> list[list[Span]]:
    """A part cut at its longest pause until everything fits, or has no pause."""
    if _length(part) <= longest or len(part) == 1:
        return [part]
    gaps = [after.start - before.end for before, after in pairwise(part)]
    fine = [i for i in range(len(gaps)) if min(_length(part[: i + 1]), _length(part[i + 1 :])) >= shortest]
    at = max(fine or range(len(gaps)), key=lambda i: gaps[i]) + 1
    return [*_halved(part[:at], shortest, longest), *_halved(part[at:], shortest, longest)]


def _without_short(parts: list[list[Span]], shortest: float, longest: float) -> list[list[Span]]:
    """Join what is too short to the nearer neighbour, where both together fit."""
    parts = [list(part) for part in parts]
    i = 0
    while i < len(parts):
        near = [j for j in (i - 1, i + 1) if 0 <= j < len(parts)]
        near.sort(key=lambda j: _gap(parts[min(i, j)], parts[max(i, j)]))
        for j in near:
            low, high = sorted((i, j))
            both = parts[low] + parts[high]
            if (
                _length(parts[i]) < shortest
                and _gap(parts[low], parts[high]) <= APART
                and _length(both) <= longest
            ):
                parts[low : high + 1] = [both]
                i = max(-1, low - 1)
                break
        i += 1
    return parts


def _gap(before: Sequence[Span], after: Sequence[Span]) -> float:
    return after[0].start - before[-1].end


def read_at(audio: Path, rate: int = RATE, *, channel: int | None = None) -> Tensor:
    """A whole recording, however long, as (samples,) float32 at ``rate``, without ever holding it at its own rate.

    Raises:
        AudioError: it cannot be read.
    """
    try:
        with soundfile.SoundFile(audio) as file:
            stream = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32")
            pieces = []
            for block in file.blocks(1 << 18, dtype="float32", always_2d=True):
                one = block.mean(axis=1) if channel is None else np.ascontiguousarray(block[:, channel])
                pieces.append(stream.resample_chunk(one))
            pieces.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    except (soundfile.SoundFileError, OSError, RuntimeError, IndexError) as problem:
        raise AudioError(f"{audio} cannot be read as audio ({problem}): export it again") from problem
    return torch.from_numpy(np.nan_to_num(np.concatenate(pieces)))
