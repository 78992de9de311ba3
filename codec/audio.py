"""Audio files and waveforms: read, write, resample, trim, loudness, join.

A waveform everywhere in this project is a float32 tensor of shape (samples,): one channel, full scale at 1.0.
Levels are dBFS (decibels relative to full scale) unless a function says otherwise.
"""

from __future__ import annotations

import io
import math
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyloudnorm
import soundfile
import soxr
import torch
from torch import Tensor

from codec.errors import AudioError

PathLike = str | os.PathLike[str]
FloatArray = npt.NDArray[np.float32]

FADE = 0.005  # seconds
SILENCE_DBFS = -60.0  # a recording whose loudest sample is below this holds no usable speech
RATES = (4_000, 768_000)  # Hz; outside, a header is broken or the file is no recording of a voice
_BLOCK = 1 << 20  # frames decoded at a time: a header that lies about its length costs no memory
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
# What mp3 holds. For flac and ogg too: at odd rates libsndfile writes flac that it cannot read, and above
# 200 kHz its Vorbis encoder crashes the process.
_COMPRESSED_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


# ---------------------------------------------------------------------------------------------------- reading


def read_audio(
    path: PathLike, sample_rate: int = 24_000, *, min_seconds: float = 0.0, max_seconds: float | None = None
) -> Tensor:
    """Read a recording as one channel at ``sample_rate``.

    Args:
        path: anything libsndfile decodes (wav, flac, ogg, opus, mp3, aiff, ...), any rate, any channels.
        sample_rate: rate of the result, Hz.
        min_seconds: a shorter recording is an error.
        max_seconds: decode only the first so many seconds; the rest of the file is not touched.

    Returns:
        (samples,) float32, the mean of the channels.

    Raises:
        AudioError: no such file, a folder, not audio, empty, NaN or infinite samples, too short, or silent.
    """
    path = Path(path)
    _check_input(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if not RATES[0] <= rate <= RATES[1]:
                raise AudioError(
                    f"{_name(path)} has a sample rate of {rate} Hz: give one of {RATES[0]} to {RATES[1]} Hz"
                )
            wav = _decode(file, None if max_seconds is None else math.ceil(max_seconds * rate))
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise AudioError(
            f"{_name(path)} cannot be read as audio ({_reason(error)}): give a wav, flac, ogg or mp3 file"
        ) from error
    _check_samples(path, wav, rate, channels, min_seconds, max_seconds)
    return resample(torch.from_numpy(wav), rate, sample_rate)


def _check_input(path: Path) -> None:
    try:
        if path.is_dir():
            raise AudioError(f"{_name(path)} is a folder, not a recording: name a file inside it")
        if not path.exists():
            raise AudioError(f"no such audio file: {_name(path)}: check the path")
        if not path.is_file():
            raise AudioError(f"{_name(path)} is not a regular file: copy the recording to a file first")
        if path.stat().st_size == 0:
            raise AudioError(f"{_name(path)} is empty (0 bytes): record or copy it again")
    except (OSError, ValueError) as error:  # a path too long, a folder closed to us, a null character
        raise AudioError(f"{_name(path)} cannot be opened ({_reason(error)}): check the path") from error


def _decode(file: soundfile.SoundFile, frames: int | None) -> FloatArray:
    """Decode at most ``frames`` frames, block by block, each averaged to one channel at once."""
    blocks: list[FloatArray] = []
    left = frames
    while left is None or left > 0:
        block = file.read(_BLOCK if left is None else min(left, _BLOCK), dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
        left = None if left is None else left - len(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _check_samples(
    path: Path, wav: FloatArray, rate: int, channels: int, min_seconds: float, max_seconds: float | None
) -> None:
    seconds = len(wav) / rate
    if len(wav) == 0:
        raise AudioError(f"{_name(path)} is empty (0 samples): record or copy it again")
    if not np.isfinite(wav).all():
        at = int(np.argmin(np.isfinite(wav))) / rate
        raise AudioError(
            f"{_name(path)} holds NaN or infinite samples (first at {at:.2f} s): export it again"
        )
    if seconds < min_seconds:
        raise AudioError(f"{_name(path)} is too short ({seconds:.2f} s): give at least {min_seconds:g} s")
    peak = _decibels(float(np.abs(wav).max()))
    if peak < SILENCE_DBFS:
        where = "" if max_seconds is None or seconds < max_seconds else f" in its first {max_seconds:g} s"
        mixed = "" if channels == 1 else f", the mean of {channels} channels"
        raise AudioError(
            f"{_name(path)} is silent{where} (peak {peak:.0f} dBFS{mixed}): "
            f"give a recording louder than {SILENCE_DBFS:.0f} dBFS"
        )


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample (samples,) from one rate to another, both in Hz; the same tensor where they are equal.

    soxr and not torchaudio: its cost does not depend on the two rates having a large common divisor
    (44.101 kHz to 24 kHz is a matter of milliseconds, not minutes).
    """
    if from_rate == to_rate:
        return wav
    return torch.from_numpy(soxr.resample(_numpy(wav), from_rate, to_rate, quality="HQ"))


# ---------------------------------------------------------------------------------------------------- writing


def check_output(path: PathLike, overwrite: bool = False, *, endings: Sequence[str] = ()) -> None:
    """Raise now what writing the file would raise after minutes of work.

    Args:
        path: file to be written.
        overwrite: whether it may exist.
        endings: allowed ones; those of ``write_audio`` by default.

    Raises:
        AudioError: unknown ending, the folder is missing or closed to us, the path is a folder, or the file
            exists and ``overwrite`` is False.
    """
    path = Path(path)
    endings = endings or tuple(_FORMATS)
    if path.suffix.lower() not in endings:
        *first, last = endings
        listed = f"{', '.join(first)} or {last}" if first else last
        raise AudioError(f"cannot tell the audio format of {_name(path)}: end the name in {listed}")
    try:
        if path.is_dir():
            raise AudioError(f"{_name(path)} is a folder: name a file to write inside it")
        if not path.parent.is_dir():
            raise AudioError(
                f"no such folder to write into: {_name(path.parent)}: make it, or correct the path"
            )
        if not os.access(path.parent, os.W_OK):
            raise AudioError(
                f"the folder {_name(path.parent)} cannot be written to: choose another, or open it"
            )
        if path.exists() and not overwrite:
            raise AudioError(f"{_name(path)} exists already: choose another name, or allow overwriting it")
    except (OSError, ValueError) as error:
        raise AudioError(
            f"{_name(path)} cannot be written ({_reason(error)}): choose another path"
        ) from error


def write_audio(path: PathLike, wav: Tensor, sample_rate: int, *, overwrite: bool = False) -> None:
    """Write a waveform in the format its ending names: .wav and .flac (16 bit), .ogg (Opus), .mp3.

    The file appears whole or not at all: it is encoded in memory (2 bytes a sample at most), written beside
    its place and moved there. Samples beyond full scale are clipped.

    Args:
        path: where to; its folder must exist.
        wav: (samples,) floating point, not empty, finite.
        sample_rate: Hz. Ogg holds Opus at Opus's own rates (8, 12, 16, 24, 48 kHz), else Vorbis.
        overwrite: replace an existing file.

    Raises:
        AudioError: as ``check_output``; a rate that the format cannot hold; or the disk refuses.
        ValueError: ``wav`` is no waveform.
    """
    path = Path(path)
    check_output(path, overwrite)
    write_whole(path, _encode(path, wav, sample_rate))


def write_whole(path: PathLike, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        AudioError: the disk or the folder refuses.
    """
    path = Path(path)
    # Not tempfile: its files are closed to everybody but their owner, and the finished file would stay so.
    # A short name, so that any name that fits the file system works.
    part = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        with open(part, "xb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as error:
        raise AudioError(
            f"{_name(path)} cannot be written ({_reason(error)}): free some space or choose another path"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _encode(path: Path, wav: Tensor, sample_rate: int) -> bytes:
    samples = _numpy(wav)
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"a waveform to write is (samples,) and not empty, not {tuple(samples.shape)}")
    if not np.isfinite(samples).all():
        raise ValueError("a waveform to write has no NaN or infinite samples")
    kind = _FORMATS[path.suffix.lower()]
    if kind != "WAV" and sample_rate not in _COMPRESSED_RATES:
        raise AudioError(
            f"{_name(path)} cannot hold {sample_rate} Hz: write .wav, or resample to one of "
            + ", ".join(map(str, _COMPRESSED_RATES))
        )
    ogg = "OPUS" if sample_rate in _OPUS_RATES else "VORBIS"
    subtype = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": ogg, "MP3": "MPEG_LAYER_III"}[kind]
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, subtype, format=kind) as file:
        # In pieces: libsndfile's Vorbis encoder keeps a whole write on its stack.
        for start in range(0, len(samples), sample_rate):
            file.write(samples[start : start + sample_rate])
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------ silence and level


def trim_silence(
    wav: Tensor, sample_rate: int, *, threshold_db: float = -40.0, margin: float = 0.1
) -> Tensor:
    """Cut the silence before and after the speech; pauses inside stay.

    Args:
        wav: (samples,).
        sample_rate: Hz.
        threshold_db: a 20 ms window is sound where its RMS is above this, in dB relative to the loudest
            window (so a quiet recording is trimmed as a loud one).
        margin: seconds kept on either side.

    Returns:
        (samples,), a view of ``wav``; all of it where there is no sound at all.
    """
    window = max(1, round(0.02 * sample_rate))
    padded = torch.nn.functional.pad(wav, (0, -len(wav) % window))
    power = padded.reshape(-1, window).double().square().mean(dim=1)  # (windows,)
    if len(power) == 0 or power.max() == 0:
        return wav
    sound = torch.nonzero(power >= power.max() * 10 ** (threshold_db / 10)).flatten()
    keep = round(margin * sample_rate)
    start = int(sound[0]) * window - keep
    end = (int(sound[-1]) + 1) * window + keep
    return wav[max(0, start) : min(len(wav), end)]


def loudness(wav: Tensor, sample_rate: int) -> float:
    """Integrated loudness of (samples,) in LUFS: ITU-R BS.1770-4, K-weighted and gated, one channel.

    The standard's blocks last 0.4 s; a shorter waveform is measured as one block of its own length. Silence,
    and anything below the standard's gate of -70 LUFS, is -inf.

    torchaudio.functional.loudness would not do: it clips the weighted signal at full scale and refuses short
    waveforms.
    """
    samples = _numpy(wav).astype(np.float64)
    if not samples.any():
        return -math.inf
    # The next lower number: rounded up, the block would outlast the waveform, which pyloudnorm refuses.
    block = min(0.4, math.nextafter(len(samples) / sample_rate, 0.0))
    return float(pyloudnorm.Meter(sample_rate, block_size=block).integrated_loudness(samples))


def normalize_loudness(wav: Tensor, sample_rate: int, target: float = -23.0, *, peak: float = -1.0) -> Tensor:
    """Scale a waveform (samples,) to ``target`` LUFS (see ``loudness``), or as near as ``peak`` dBFS allows.

    One gain for the whole waveform, so nothing is compressed and nothing clips. Silence comes back as it is.
    """
    level = loudness(wav, sample_rate)
    if not math.isfinite(level):
        return wav
    gain = min(target - level, peak - _decibels(float(wav.abs().max())))
    return wav * 10 ** (gain / 20)


# ---------------------------------------------------------------------------------------------------- joining


def fade(
    wav: Tensor, sample_rate: int, *, start: bool = True, end: bool = True, seconds: float = FADE
) -> Tensor:
    """Fade a waveform (samples,) in at its start and out at its end, raised-cosine, to exactly zero.

    A waveform shorter than both fades gets shorter ones.
    """
    count = min(round(seconds * sample_rate), len(wav) // 2)
    if count == 0:
        return wav
    ramp = 0.5 - 0.5 * torch.cos(math.pi * torch.arange(count, device=wav.device) / count)
    wav = wav.clone()
    if start:
        wav[:count] *= ramp
    if end:
        wav[-count:] *= ramp.flip(0)
    return wav


def join(pieces: Sequence[Tensor], sample_rate: int, pause: float = 0.2) -> Tensor:
    """Join waveforms, ``pause`` seconds of silence between them, their edges faded so that nothing clicks.

    Args:
        pieces: waveforms (samples,), at least one.
        sample_rate: Hz, of all of them.
        pause: seconds.

    Returns:
        (samples,): the pieces' samples and the pauses', not one more.
    """
    if not pieces:
        raise ValueError("there is nothing to join")
    silence = pieces[0].new_zeros(round(pause * sample_rate))
    joined: list[Tensor] = []
    for piece in pieces:
        joined += [silence, fade(piece, sample_rate)]
    return torch.cat(joined[1:])


# ---------------------------------------------------------------------------------------------------- helpers


def _numpy(wav: Tensor) -> FloatArray:
    array: FloatArray = wav.detach().cpu().float().numpy()
    return array


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def _name(path: Path) -> str:
    return repr(str(path))  # quoted and on one line, whatever characters it holds


def _reason(error: BaseException) -> str:
    """The words of a library's or the system's error, on one line; without the path, which we name."""
    words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(words).split()).rstrip(".") or type(error).__name__
