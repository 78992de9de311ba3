"""How high a voice is, measured on its sound: what `codec.vocoders.harmonic.Pitch` learns from."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from codec.vocoders.harmonic import HIGHEST, LOWEST

VOICED = 0.5  # confidence from which a frame counts as voiced, by swift-f0's own calibration


def pitch_of(wav: npt.NDArray[np.float32], sample_rate: int, hop: int) -> npt.NDArray[np.float32]:
    """(samples,) -> (samples // hop + 1,) Hz, 0 where there is no voice, by SwiftF0 (Nieradzik 2025, arXiv 2508.18440).

    Frame i is at sample ``i * hop``. It is voiced where what was measured on both sides of it is.
    """
    from swift_f0.core import SAMPLE_RATE

    times = np.arange(len(wav) // hop + 1) * (hop / sample_rate)
    sound = soxr.resample(wav, sample_rate, SAMPLE_RATE)
    found = _detector().detect(sound, SAMPLE_RATE, fmin=LOWEST, fmax=HIGHEST)
    voiced = np.interp(times, found.timestamps, (found.confidence >= VOICED).astype(np.float64)) > 0.99
    pitch = np.interp(times, found.timestamps, found.pitch_hz)
    return np.where(voiced, pitch, 0.0).astype(np.float32)


@lru_cache(1)
def _detector() -> Any:
    """One for each process; on one thread, since there are many processes."""
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1, spin=False)
