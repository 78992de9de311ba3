"""A long text, minute by minute."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tts import TTS, Settings, Voice
from tts.evaluate.sample import load_wav
from tts.longtext import main, measure, speak, table
from tts.pipeline import Sentence

TEXT = " ".join(f"Sentence number {n} of this long text." for n in range(24))


@pytest.fixture
def tts(tiny_model: Path) -> TTS:
    return TTS.load(tiny_model)


@pytest.fixture
def voice(tts: TTS, make_speech: Any) -> Voice:
    return Voice.from_audio(make_speech(2.0), model=tts.model)


class Half:
    """A recogniser that hears the first word right and nothing else, and an encoder that knows loud from not."""

    name = "half"

    def __call__(self, wav: Any, language: str | None = None) -> Any:
        return "sentence" if language else np.array([1.0, float(len(wav) > 48_000)], np.float32)


def test_minutes_hold_the_sentences_that_start_in_them(
    tts: TTS, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tts.longtext.MINUTE", 10.0)
    minutes = speak(tts, TEXT, voice, Settings(steps=1, guidance=0.0), tmp_path)
    whole = tts.synthesize(TEXT, voice, steps=1, guidance=0.0)
    expected: dict[int, list[Sentence]] = {}
    for sentence in whole.sentences:
        expected.setdefault(int(sentence.start // 10), []).append(sentence)
    assert len(minutes) == len(expected) > 1
    for minute, sentences in zip(minutes, expected.values(), strict=True):
        assert minute.texts == [one.text for one in sentences]
        assert minute.seconds == pytest.approx(sum(len(one.wav) for one in sentences) / 24_000)
        assert minute.read_errors == [one.quality.error for one in sentences if one.quality]
        assert (minute.again, minute.bad) == (0, 0) and minute.memory > 2**20
    kept = soundfile.read(minutes[0].files[0])[0]
    np.testing.assert_allclose(kept, whole.sentences[0].wav.numpy(), atol=1e-4)


def test_what_is_measured_is_told(tts: TTS, voice: Voice, tmp_path: Path) -> None:
    pytest.importorskip("whisper_normalizer")
    (minute, *_) = minutes = speak(tts, TEXT, voice, Settings(steps=1, guidance=0.0), tmp_path)
    measure(minutes, tts, voice, Half(), Half(), "en-us")
    words = sum(len(text.split()) for text in minute.texts)
    assert minute.words == words and minute.word_errors == words - len(minute.texts)
    long = sum(len(load_wav(path)) for path in minute.files) > 48_000
    assert minute.similarity == pytest.approx(0.5**0.5 if long else 1.0)
    row = table(minutes).splitlines()[2]
    assert re.fullmatch(
        r"\| 1 \| \d+ s \| \d+\.\d% \| \d\.\d{3} \| \d+\.\d% \| 0 of \d+ \| 0 \| \d+ MiB \|", row
    )


def test_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "gone.txt"), "--voice", "aria"]) == 2
    assert "no such text file" in capsys.readouterr().err
