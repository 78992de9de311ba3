"""Cuts made by hand, with frames and tokens that say where they come from."""

from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.array import Array

from codec.spec import TokenSpec
from tts.text.symbols import DEFAULT_SYMBOLS

SPEC = TokenSpec()


class MakeCuts(Protocol):
    def __call__(self, *utterances: tuple[str, str, int], short: int = 0) -> CutSet: ...


@pytest.fixture
def make_cuts(tmp_path: Path) -> MakeCuts:
    """``make_cuts((speaker, phonemes, tokens), ...)`` -> cuts that last so many tokens, less ``short`` frames.

    Cut k is named ``c<k>``. Its token n is 1000 k + n and its frame t is filled with 1000 k + t / 4, so that
    the frames of token n begin with the token's own number. Every phoneme lasts one token, the last all others.
    """

    def make(*utterances: tuple[str, str, int], short: int = 0) -> CutSet:
        return CutSet.from_cuts(_cut(k, *one, short, tmp_path) for k, one in enumerate(utterances))

    return make


def _cut(k: int, speaker: str, phonemes: str, tokens: int, short: int, folder: Path) -> MonoCut:
    count = tokens * SPEC.frames_per_token - short
    frames = np.repeat(1000 * k + np.arange(count)[:, None] / SPEC.frames_per_token, 2, axis=1)
    np.save(folder / f"{k}.npy", frames.astype(np.float32))
    samples = count * SPEC.frames.hop
    rate = SPEC.frames.sample_rate
    groups = DEFAULT_SYMBOLS.groups(DEFAULT_SYMBOLS.encode(phonemes))
    durations = [1] * len(groups)
    durations[-1] += tokens - len(groups)
    return MonoCut(
        id=f"c{k}",
        start=0.0,
        duration=samples / rate,
        channel=0,
        recording=Recording(f"c{k}", [AudioSource("file", [0], "none")], rate, samples, samples / rate),
        supervisions=[
            SupervisionSegment(
                f"c{k}",
                f"c{k}",
                0.0,
                samples / rate,
                speaker=speaker,
                custom={"phonemes": phonemes},
            )
        ],
        custom={
            "frames": Array("numpy_files", str(folder), f"{k}.npy", list(frames.shape)),
            "tokens": [1000 * k + n for n in range(tokens)],
            "durations": durations,
        },
    )
