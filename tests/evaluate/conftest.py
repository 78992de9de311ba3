"""A list of cases over speech-like recordings, and measures that need no package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tts import TTS
from tts.evaluate.cases import Case, read_cases
from tts.evaluate.sample import Made, Wav

TEXTS = ("Some rain fell.", "A lone seal sang to nobody.\n\nOur aim is low.", "Nine men ran a mile in it.")


def made(**changes: Any) -> Made:
    """What is known of a sound of one second, with changes."""
    known: dict[str, Any] = {
        "seconds": 1.0,
        "sentences": 1,
        "phonemes": 9,
        "wanted": "abcdefgh",
        "read": None,
        "held": None,
        "endless": None,
        "attempts": None,
        "prompt_phonemes": 24,
        "prompt_seconds": 2.0,
        "seed": 0,
    }
    return Made(**(known | changes))


class Parrot:
    """A recogniser that always hears the same."""

    def __init__(self, heard: str = "some rain fell", name: str = "parrot") -> None:
        self.heard, self.name, self.calls = heard, name, 0

    def __call__(self, wav: Wav, language: str) -> str:
        self.calls += 1
        return self.heard


class Loudness:
    """A speaker encoder that knows two voices: loud ones, and ones that are not."""

    name = "loudness"

    def __call__(self, wav: Wav) -> npt.NDArray[np.float32]:
        return np.array([1.0, float(np.abs(wav).max() > 0.3)], np.float32)


def lower(text: str, language: str) -> str:
    """A normaliser: letters and spaces."""
    return " ".join("".join(c for c in text.lower() if c.isalpha() or c.isspace()).split())


@pytest.fixture(scope="session")
def tts(tiny_model: Path) -> TTS:
    return TTS.load(tiny_model)


@pytest.fixture(scope="session")
def case_list(tmp_path_factory: pytest.TempPathFactory, make_speech: Any) -> Path:
    """Three cases of two speakers: two prompts, one of them with another level, and two references."""
    folder = tmp_path_factory.mktemp("cases")
    for name, seconds, speaker, seed in (
        ("p0", 2.0, 0, 0),
        ("p1", 1.6, 1, 0),
        ("r0", 1.8, 0, 1),
        ("r1", 2.2, 1, 1),
    ):
        soundfile.write(
            folder / f"{name}.wav", make_speech(seconds, speaker=speaker, seed=seed).numpy(), 24_000
        )
    rows = [
        {"id": "one", "text": TEXTS[0], "prompt": "p0.wav", "reference": "r0.wav", "speaker": "ann"},
        {"id": "two", "text": TEXTS[1], "prompt": "p1.wav", "reference": "r1.wav", "speaker": "bob"},
        {
            "id": "three",
            "text": TEXTS[2],
            "prompt": "p0.wav",
            "prompt_text": "Nine men ran.",
            "speaker": "ann",
        },
    ]
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def cases(case_list: Path) -> list[Case]:
    return read_cases(case_list)
