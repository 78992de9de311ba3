"""A piece of a recording, decoded without the rest of it."""

import math
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from codec.audio import SILENCE_DBFS, read_audio, resample
from codec.errors import AudioError
from tts.data.manifest import Row

RUN_UP = 0.25  # seconds decoded before a piece: mp3 frames lean on those before them


def read_row(row: Row, sample_rate: int) -> Tensor:
    """The utterance of a manifest's line as one channel, (samples,) float32 at ``sample_rate``.

    Raises:
        AudioError: it cannot be read, holds NaN or infinite samples, or is silent.
    """
    if row.offset is None and row.channel is None:
        return read_audio(row.audio, sample_rate)
    wav, rate = decode(row.audio, row.offset or 0.0, row.duration, row.channel)
    if float(wav.abs().max()) < 10 ** (SILENCE_DBFS / 20):
        raise AudioError(f"{row.id} is silent: nothing in it is louder than {SILENCE_DBFS:.0f} dBFS")
    return resample(wav, rate, sample_rate)


def decode(
    audio: Path, offset: float = 0.0, duration: float | None = None, channel: int | None = None
) -> tuple[Tensor, int]:
    """Decode a piece of a recording as it is, be it silent.

    Args:
        audio: anything soundfile reads.
        offset: where to start, seconds.
        duration: seconds; to the end where None.
        channel: the only one to take; the mean of all where None.

    Returns:
        (samples,) float32, and their rate in Hz.

    Raises:
        AudioError: no such file, no audio, nothing at that place, NaN or infinite samples.
    """
    try:
        with soundfile.SoundFile(audio) as file:
            rate = file.samplerate
            start = min(round(offset * rate), file.frames)
            before = min(start, round(RUN_UP * rate))
            file.seek(start - before)
            count = -1 if duration is None else before + math.ceil(duration * rate - 0.5)
            samples = file.read(count, dtype="float32", always_2d=True)[before:]
    except (soundfile.SoundFileError, OSError, RuntimeError) as problem:
        reason = " ".join(str(getattr(problem, "error_string", problem)).split()).rstrip(".")
        raise AudioError(f"{audio} cannot be read as audio ({reason}): export it again") from problem
    if channel is not None and channel >= samples.shape[1]:
        raise AudioError(f"{audio} has {samples.shape[1]} channels, not one with the number {channel}")
    wav = samples.mean(axis=1) if channel is None else np.ascontiguousarray(samples[:, channel])
    if len(wav) == 0:
        raise AudioError(f"{audio} holds nothing from {offset:.2f} s on: correct the offset")
    if not np.isfinite(wav).all():
        raise AudioError(f"{audio} holds NaN or infinite samples: export it again")
    return torch.from_numpy(wav), rate
