"""``python infer.py --stream``: sound on standard output while it is made."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tts import TTS
from tts.cli import main
from tts.streaming import pcm, wav_header

TEXT = "A lone seal sang to nobody. Nine men ran a mile in it, and it was low!"


@pytest.fixture
def arguments(tiny_model: Path, speech_file: Path) -> list[str]:
    return ["--model", str(tiny_model), "--voice", str(speech_file), "--steps", "2", "--stream"]


@pytest.fixture
def expected(tiny_model: Path, speech_file: Path) -> np.ndarray:
    tts = TTS.load(tiny_model)
    speech = tts.synthesize(TEXT, tts.voice(speech_file), steps=2, chunk=12, candidates=1, retries=0)
    return speech.wav.numpy()


def near(heard: np.ndarray, expected: np.ndarray) -> bool:
    return heard.shape == expected.shape and bool(np.abs(heard - expected).max() < 1e-3)


def test_a_growing_wav(
    arguments: list[str], expected: np.ndarray, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*arguments, "--text", TEXT]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out.startswith(wav_header(24_000))
    heard, rate = soundfile.read(io.BytesIO(captured.out))
    assert rate == 24_000 and near(heard, expected)
    assert b"first sound after" in captured.err and b"Traceback" not in captured.err


def test_raw_samples(
    arguments: list[str], expected: np.ndarray, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*arguments, "pcm", "--text", TEXT]) == 0
    heard = np.frombuffer(capfdbinary.readouterr().out, "<i2") / 32767
    assert near(heard, expected)


def test_standard_input_is_spoken(
    arguments: list[str],
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.replace(". ", ".\n").encode())))
    assert main([*arguments, "pcm"]) == 0
    heard = np.frombuffer(capfdbinary.readouterr().out, "<i2") / 32767
    assert len(heard) > len(expected) / 2


def test_timestamps_of_a_stream_are_those_of_its_sound(
    arguments: list[str], tiny_model: Path, speech_file: Path, tmp_path: Path, capfdbinary: Any
) -> None:
    out = tmp_path / "times.json"
    assert main([*arguments, "--text", TEXT, "--timestamps", str(out)]) == 0
    found = json.loads(out.read_text())
    tts = TTS.load(tiny_model)
    speech = tts.synthesize(TEXT, tts.voice(speech_file), steps=2, chunk=12, candidates=1, retries=0)
    words = [word for sentence in found["sentences"] for word in sentence["words"]]
    assert [word["text"] for word in words] == [word.text for word in speech.words]
    for one, other in zip(words, speech.words, strict=True):
        assert one["start"] == pytest.approx(other.start, abs=0.011)

    capfdbinary.readouterr()
    assert main([*arguments, "--text", TEXT, "--timestamps", str(out)]) == 2
    captured = capfdbinary.readouterr()
    assert captured.out == b"" and b"exists already" in captured.err


@pytest.mark.parametrize(
    "more",
    [
        ["--convert", "x.wav"],
        ["--retries", "1"],
        ["--strict"],
        ["--candidates", "2"],
        ["--out", "there.wav"],
    ],
)
def test_what_a_stream_cannot_obey_is_refused(
    more: list[str], arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = [] if more[0] == "--convert" else ["--text", TEXT]
    assert main([*arguments, *text, *more]) == 2
    captured = capfdbinary.readouterr()
    assert captured.out == b"" and f"error: {more[0]} cannot be used with --stream".encode() in captured.err


def test_samples_are_rounded_to_16_bits() -> None:
    import torch

    assert np.frombuffer(pcm(torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5 / 32767])), "<i2").tolist() == [
        0,
        32767,
        -32767,
        32767,
        0,
    ]
