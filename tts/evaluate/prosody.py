"""How fast the speech is, against the voice prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tts.evaluate.figures import Figure, Values
from tts.evaluate.sample import RATE, Metric, Sample, Wav

WINDOW = 0.02  # seconds
THRESHOLD = -40.0  # dB below the loudest window


def speech_seconds(wav: Wav, sample_rate: int) -> float:
    """Seconds of a waveform (samples,) that are not silence, pauses inside left out.

    A window of 20 ms is silence where its power is more than 40 dB below the loudest one's.
    """
    size = round(WINDOW * sample_rate)
    windows = wav[: len(wav) // size * size].reshape(-1, size)
    power = np.square(windows, dtype=np.float64).mean(1)
    if not len(power) or power.max() == 0:
        return 0.0
    return float((power >= power.max() * 10 ** (THRESHOLD / 10)).sum() * WINDOW)


class Prosody(Metric):
    """Speaking rate: phonemes of the text per second of speech, and that rate over the prompt's.

    The prompt's phonemes are those of its transcript, or else what the tokenizer reads in it, which misses some.
    """

    name = "prosody"
    by = f"windows of {1000 * WINDOW:.0f} ms, {THRESHOLD:.0f} dB"

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        return (
            Figure("pace", "phonemes per second of speech", "phonemes", "speech_seconds", digits=1),
            Figure("pace_ratio", "speaking rate, times the prompt's", "pace_ratio"),
        )

    def measure(self, sample: Sample) -> Values:
        """The rate of one sample; of a silent one, none."""
        made, spoken = sample.made, speech_seconds(sample.wav, RATE)
        values: Values = {"phonemes": made.phonemes, "speech_seconds": round(spoken, 3)}
        if spoken and made.prompt_seconds and made.prompt_phonemes:
            rate, prompt = made.phonemes / spoken, made.prompt_phonemes / made.prompt_seconds
            values["pace_ratio"] = round(rate / prompt, 4)
        return values
