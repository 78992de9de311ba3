"""What is measured of one utterance: level, clipping, noise, bandwidth, pauses, and what a tokenizer reads in it."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d
from torchaudio.functional import edit_distance

from codec.audio import loudness, resample
from codec.errors import UserError
from tts.data.importers.pauses import RATE, speech_by_level
from tts.data.manifest import Row
from tts.data.segment import decode

MIN_SECONDS = 0.3  # shorter ones are not read
FLAT = 1e-3  # samples so near to the peak, relative to it, count as cut off at it
FLAT_SAMPLES = 3  # in a row
DOWN_DB = 30.0  # where the spectrum stays so far below that of 1 to 4 kHz, nothing is left
WALL_DB = 15.0  # by which it falls within half a kilohertz where a filter cut it, and no microphone or voice
BAND = 250.0  # Hz, of the smoothed spectrum
SHAPE = (8, 64)  # bands and points in time by which copies are found

Rate = Callable[[Tensor], tuple[float, float]]
"""(samples,) at 16 kHz -> how good it sounds, how free of noise: 1 to 5."""


class Reader(Protocol):
    """Reads phonemes out of speech."""

    def __call__(self, wav: Tensor, sample_rate: int) -> list[int]:
        """(samples,) -> ids of segments."""
        ...


class Item(NamedTuple):
    """Attributes:
    row: the utterance.
    segments: ids of the text's segments, as the reader would read them.
    rated: whether DNSMOS is to hear it: it takes a second or more.
    """

    row: Row
    segments: tuple[int, ...]
    rated: bool = False


@dataclass(frozen=True)
class Measures:
    """Attributes:
    sample_rate: of the file, Hz.
    loudness: LUFS, -inf for silence.
    peak: dBFS.
    flat_peaks: how often the waveform stays at its peak for `FLAT_SAMPLES` samples.
    snr: dB between the loud and the quiet windows: an estimate of the signal-to-noise ratio.
    top: Hz, where the spectrum ends at a wall; half the sample rate where there is none.
    speech: seconds that are not pauses.
    lead, tail: seconds before and after the speech.
    digest: of the samples.
    shape: `SHAPE` flattened, unit length: the course of the energy in bands, the same for copies.
    mos: how good it sounds and how free of noise, by DNSMOS.
    read: ids that the reader read.
    errors: edits between them and the text's segments.
    """

    sample_rate: int
    loudness: float
    peak: float
    flat_peaks: int
    snr: float
    top: float
    speech: float
    lead: float
    tail: float
    digest: str
    shape: npt.NDArray[np.float16]
    mos: tuple[float, float] | None = None
    read: tuple[int, ...] | None = None
    errors: int | None = None


def measure(item: Item, *, reader: Reader | None = None, rate: Rate | None = None) -> Measures | UserError:
    """Measure one utterance; the error where its recording cannot be read."""
    row = item.row
    try:
        wav, sample_rate = decode(row.audio, row.offset or 0.0, row.duration, row.channel)
    except UserError as problem:
        return problem
    seconds = len(wav) / sample_rate
    heard = bool(wav.any()) and seconds >= MIN_SECONDS
    read = reader(wav, sample_rate) if reader is not None and heard else None
    spans = speech_by_level(wav, sample_rate)
    power, frequencies = spectrogram(wav, sample_rate)
    return Measures(
        sample_rate=sample_rate,
        loudness=loudness(wav, sample_rate),
        peak=20 * math.log10(max(float(wav.abs().max()), 1e-9)),
        flat_peaks=flat_peaks(wav.numpy()),
        snr=snr(wav, sample_rate),
        top=top_frequency(power, frequencies),
        speech=sum(span.seconds for span in spans),
        lead=spans[0].start if spans else seconds,
        tail=seconds - spans[-1].end if spans else seconds,
        digest=hashlib.sha1((wav * 32_767).round().short().numpy().tobytes()).hexdigest(),
        shape=shape(power, frequencies),
        mos=rate(resample(wav, sample_rate, RATE)) if rate is not None and heard and item.rated else None,
        read=None if read is None else tuple(read),
        errors=None if read is None else edit_distance(list(item.segments), read),
    )


def flat_peaks(wav: npt.NDArray[np.float32]) -> int:
    """How many times the waveform rests at its highest or lowest value.

    A wave that was cut off rests there, whatever it was scaled to afterwards; a sound one touches its peak once. What
    was packed with loss after the cut (mp3, Opus) no longer rests, and is not found.
    """
    count = 0
    for side in (wav, -wav):
        peak = float(side.max(initial=0.0))
        if peak < 1e-3:
            continue
        near = np.concatenate([[False], side >= peak * (1 - FLAT), [False]])
        starts, ends = np.flatnonzero(near[1:] & ~near[:-1]), np.flatnonzero(near[:-1] & ~near[1:])
        count += int((ends - starts >= FLAT_SAMPLES).sum())
    return count


def snr(wav: Tensor, sample_rate: int) -> float:
    """dB from the 5th to the 95th percentile of the level in windows of 20 ms.

    Near the ratio of speech to noise where there are pauses; too low where there are none.
    """
    hop = max(1, round(0.01 * sample_rate))
    power = wav[: len(wav) // hop * hop].double().reshape(-1, hop).square().mean(1).numpy()
    if len(power) < 3:
        return 0.0
    level = 10 * np.log10(np.convolve(power, [0.5, 0.5], mode="valid") + 1e-10)
    quiet, loud = np.percentile(level, [5, 95])
    return float(loud - quiet)


def spectrogram(wav: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Power (bins, windows), a window every 10 ms and 40 ms long, and the bins' frequencies (bins,) in Hz."""
    length = 2 * round(0.02 * sample_rate)
    wav = torch.nn.functional.pad(wav, (0, max(0, length - len(wav))))
    window = torch.hann_window(length)
    spectrum = torch.stft(wav, length, round(0.01 * sample_rate), window=window, return_complex=True)
    power = spectrum.abs().square() / window.sum() ** 2
    return power, torch.arange(len(power)) * (sample_rate / length)


def top_frequency(power: Tensor, frequencies: Tensor) -> float:
    """Where the spectrum ends at a wall, Hz; the highest frequency there is where it does not.

    The spectrum is that of the loudest 5 % of windows in each band, so that one hiss shows how far it reaches. A wall
    and not a slope: a voice and a microphone fade towards high frequencies, a filter before sampling cuts.
    """
    nyquist = float(frequencies[-1])
    count = int(nyquist // BAND)
    bins = round(BAND / float(frequencies[1]))
    loud = torch.from_numpy(np.percentile(power.numpy(), 95, axis=1))
    bands = loud[: count * bins].reshape(count, bins).mean(1)
    level = (10 * (bands + 1e-14).log10()).numpy()
    reference = float(np.median(level[int(1000 / BAND) : int(4000 / BAND)]))
    if reference < -115:
        return nyquist  # next to silence
    above = np.flatnonzero(level > reference - DOWN_DB)
    edge = int(above[-1]) + 1  # the first band in which nothing is left
    if edge >= 0.95 * count or edge < 8:
        return nyquist
    inside, outside = level[edge - 2 : edge].mean(), level[edge + 1 : edge + 3].mean()
    return edge * BAND if inside - outside >= WALL_DB else nyquist


def shape(power: Tensor, frequencies: Tensor) -> npt.NDArray[np.float16]:
    """The course of the energy in bands of 100 to 3,600 Hz, the same for copies at another level, rate or coding."""
    bounds = torch.logspace(2, math.log10(3600), SHAPE[0] + 1).tolist()
    bands = [power[(frequencies >= low) & (frequencies < high)].sum(0) for low, high in pairwise(bounds)]
    level = 10 * (torch.stack(bands) + 1e-14).log10()
    level = adaptive_avg_pool1d(level.clamp(min=float(level.max()) - 50)[None], SHAPE[1])[0].double()
    level = level - level.mean()
    array: npt.NDArray[np.float16] = (level / level.norm().clamp(min=1e-6)).flatten().half().numpy()
    return array


def dnsmos() -> Rate | None:
    """DNSMOS where the package speechmos is installed, else None.

    Source: Reddy et al. 2022, "DNSMOS P.835", arXiv 2110.01763.
    """
    return _dnsmos if find_spec("speechmos") is not None else None


def _dnsmos(wav: Tensor) -> tuple[float, float]:
    from speechmos import dnsmos as model

    scores: dict[str, Any] = model.run(wav.clamp(-1, 1).numpy(), RATE)
    return float(scores["ovrl_mos"]), float(scores["bak_mos"])
