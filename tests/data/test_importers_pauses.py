"""Cutting at pauses, and the recogniser's wrapper; neither Silero nor faster-whisper is needed."""

import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import Tensor

from codec.errors import AudioError, UserError
from tests.conftest import speak
from tts.data.importers.pauses import (
    MARGIN,
    RATE,
    Span,
    cut_at_pauses,
    detector,
    detector_name,
    read_at,
    speech_by_level,
)
from tts.data.importers.transcribe import FasterWhisper


def test_everything_short_is_one_piece_with_some_of_the_silence_around() -> None:
    pieces, left = cut_at_pauses([Span(1.0, 2.0), Span(2.3, 4.0)], 9.0)
    assert pieces == [Span(1.0 - MARGIN, 4.0 + MARGIN)]
    assert left == []
    assert cut_at_pauses([Span(0.1, 2.0)], 2.1)[0] == [Span(0.0, 2.1)]
    assert cut_at_pauses([], 9.0) == ([], [])


def test_a_long_pause_always_parts() -> None:
    pieces, _ = cut_at_pauses([Span(1.0, 3.0), Span(4.5, 6.0)], 9.0)
    assert pieces == [Span(0.75, 3.25), Span(4.25, 6.25)]


def test_what_is_too_long_is_cut_at_its_longest_pause() -> None:
    spans = [Span(0.0, 4.0), Span(4.3, 9.0), Span(9.6, 14.0), Span(14.4, 19.0)]
    pieces, left = cut_at_pauses(spans, 19.0, longest=15.0)
    assert pieces == [Span(0.0, 9.25), Span(9.35, 19.0)]
    pieces, left = cut_at_pauses(spans, 19.0, longest=6.0)
    # a pause shorter than two margins is shared out
    assert pieces == [Span(0.0, 4.15), Span(4.15, 9.25), Span(9.35, 14.2), Span(14.2, 19.0)]
    assert left == []


def test_gaps_that_may_lie_in_a_word_are_no_pauses() -> None:
    spans = [Span(n * 1.0, n + 0.85) for n in range(20)]  # gaps of 0.15 s
    assert cut_at_pauses(spans, 20.0, longest=15.0) == ([], [Span(0.0, 20.0)])


def test_short_ones_join_the_nearer_neighbour_or_are_left() -> None:
    spans = [Span(0.0, 5.0), Span(5.9, 6.2), Span(6.7, 11.0), Span(15.0, 15.3)]
    pieces, left = cut_at_pauses(spans, 20.0, longest=6.0, shortest=1.0)
    assert pieces == [Span(0.0, 5.25), Span(5.65, 11.25)]
    assert left == [Span(14.75, 15.55)]


def test_pieces_of_random_speech_keep_every_bound() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        spans, at = [], 0.0
        for _ in range(60):
            at += rng.choice([0.05, 0.15, 0.25, 0.5, 1.5], p=[0.1, 0.3, 0.3, 0.2, 0.1])
            spans.append(Span(at, at + rng.uniform(0.1, 3.0)))
            at = spans[-1].end
        pieces, left = cut_at_pauses(spans, at + 1.0)
        both = sorted([*pieces, *left])
        assert all(1.0 <= piece.seconds <= 15.0 for piece in pieces)
        assert all(a.end <= b.start + 1e-9 for a, b in pairwise(both))
        for span in spans:  # nothing said is cut through or lost
            assert sum(one.start <= span.start + 1e-3 and span.end <= one.end + 1e-3 for one in both) == 1


def test_level_tells_speech_from_pauses_in_noise() -> None:
    rng = np.random.default_rng(0)
    said = speak("maniarola", sample_rate=RATE)
    wav = torch.cat([torch.zeros(RATE), said, torch.zeros(RATE // 2), said, torch.zeros(RATE)])
    expected = [(1.0, 1.72), (2.22, 2.94)]
    for noise in (0.0, 0.003):
        heard = speech_by_level(wav + noise * torch.from_numpy(rng.standard_normal(len(wav))).float())
        assert [tuple(span) for span in heard] == [pytest.approx(one, abs=0.05) for one in expected]
    assert speech_by_level(torch.zeros(RATE)) == []
    hum = 0.1 * torch.sin(torch.arange(RATE) / 9)
    assert speech_by_level(hum) == [Span(0.0, 1.0)]  # nothing to tell by: all of it counts


def test_long_recordings_are_resampled_as_they_are_read(tmp_path: Path) -> None:
    left = 0.1 * np.random.default_rng(0).standard_normal(20 * 44_100)
    soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], 1), 44_100)
    stored = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    for channel, wav in ((None, stored.mean(1)), (0, stored[:, 0])):
        expected = soxr.resample(wav, 44_100, RATE)
        np.testing.assert_allclose(read_at(tmp_path / "a.wav", channel=channel), expected, atol=1e-4)
    (tmp_path / "b.wav").write_text("no audio")
    with pytest.raises(AudioError, match="cannot be read"):
        read_at(tmp_path / "b.wav")


def test_the_detector_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts.data.importers.pauses.find_spec", lambda name: None)
    assert detector_name("auto") == "energy"
    assert detector("auto") is speech_by_level
    with pytest.raises(UserError, match=r'silero-vad is not installed; pip install -e "\.\[data\]"'):
        detector("silero")


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="silero-vad is not installed")
def test_silero_hears_nobody_in_silence_and_noise() -> None:
    noise = 0.05 * torch.from_numpy(np.random.default_rng(0).standard_normal(3 * RATE)).float()
    assert detector("silero")(noise) == []


class Whisper:
    """Stands in for faster_whisper.WhisperModel."""

    supported_languages = ("en", "de", "zh", "no")

    def __init__(self, model: str, **settings: object) -> None:
        if model == "nowhere":
            raise ValueError("Invalid model size 'nowhere'\nexpected one of ...")
        self.languages: list[str | None] = []

    def transcribe(self, wav: Any, *, language: str | None, **_: object) -> tuple[Any, None]:
        assert wav.dtype == np.float32
        self.languages.append(language)
        said = [
            (" Hello", 0.1, -0.2, 1.5),
            (" Thanks for watching!", 0.9, -1.5, 1.0),
            (" la la la", 0.1, -0.1, 3.0),
        ]
        said.append(("  there. ", 0.7, -0.3, 1.0))
        keys = ("text", "no_speech_prob", "avg_logprob", "compression_ratio")
        return (SimpleNamespace(**dict(zip(keys, one, strict=True))) for one in said), None


def test_faster_whisper_is_told_the_language_and_not_believed_blindly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Whisper))
    recogniser = FasterWhisper("/models/large-v3")
    assert recogniser.name == "faster-whisper large-v3"
    wav: Tensor = torch.zeros(RATE)
    for language in ("en-us", "de", "cmn", "nb", "eo"):
        assert recogniser(wav, language) == "Hello there."
    assert recogniser._model.languages == ["en", "de", "zh", "no", None]
    with pytest.raises(
        UserError, match=r"recogniser 'nowhere' cannot be loaded \(Invalid model size 'nowhere' expected"
    ):
        FasterWhisper("nowhere")
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(UserError, match=r'faster-whisper is not installed; pip install -e "\.\[data\]"'):
        FasterWhisper("base")
