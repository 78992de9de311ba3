"""Speaking rate."""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.conftest import made
from tts.evaluate.cases import Case
from tts.evaluate.prosody import Prosody, speech_seconds
from tts.evaluate.sample import Sample, Wav


def speech(*pieces: tuple[float, float]) -> Wav:
    """Noise of (seconds, amplitude) after each other, at 16 kHz."""
    rng = np.random.default_rng(0)
    return np.concatenate([a * rng.standard_normal(round(s * 16_000)) for s, a in pieces]).astype(np.float32)


def test_pauses_do_not_count() -> None:
    assert speech_seconds(speech((0.5, 0.1), (0.3, 0.0), (0.2, 0.1)), 16_000) == pytest.approx(0.7)
    # 34 dB down is quiet speech, 54 dB down is silence, whatever the level of the whole
    for level in (1.0, 0.01):
        wav = level * speech((0.5, 0.5), (0.4, 0.01), (0.4, 0.001))
        assert speech_seconds(wav, 16_000) == pytest.approx(0.9)
    assert speech_seconds(np.zeros(16_000, np.float32), 16_000) == 0
    assert speech_seconds(np.zeros(10, np.float32), 16_000) == 0


def measured(phonemes: int, wav: Wav) -> dict[str, float]:
    return Prosody().measure(Sample(Case("a", "Hi.", Path("p.wav")), "text", made(phonemes=phonemes), wav))


def test_the_rate_is_compared_with_the_prompts() -> None:
    values = [measured(9, speech((0.5, 0.1), (0.4, 0.0))), measured(9, speech((1.0, 0.1)))]
    assert [value["pace_ratio"] for value in values] == [1.5, 0.75]  # the prompt has 12 a second
    pace, relative = Prosody().figures({})
    mean, compared = pace.estimate(values), relative.estimate(values)
    assert mean is not None and mean.value == 12.0
    assert compared is not None and compared.value == 1.125


def test_silence_has_no_rate() -> None:
    assert measured(9, np.zeros(16_000, np.float32)) == {"phonemes": 9, "speech_seconds": 0.0}
