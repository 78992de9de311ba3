"""A benchmark of the smallest model, with as little to do as there can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tts import TTS, Voice
from tts.benchmark.section import Bench, Plan, Point
from tts.lm.model import Bounds

PLAN = Plan(
    runs=2,
    usual=Point(words=2, seconds=1, steps=2, chunk=5),
    words=(2, 4),
    seconds=(1, 2),
    batch=(1, 2),
    steps=(1, 2),
    chunk=(5, 9),
    sentences=3,
    ids=6,
    reference_words=2,
    large=2**12,
    compiled=False,
)


@pytest.fixture(scope="session")
def bench(tiny_model: Path, make_speech: Any) -> Bench:
    tts = TTS.load(tiny_model)
    tts.bounds = Bounds(longest=2, longest_pause=3)  # what is drawn at random ends late
    return Bench(tts, Voice.from_audio(make_speech(2.0), model=tts.model), PLAN)
