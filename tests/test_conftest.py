"""The made speech: as long as asked, the same every time, and telling letters and speakers apart."""

from __future__ import annotations

import json
from pathlib import Path

import soundfile
import torch


def test_speech_is_deterministic_and_as_long_as_asked(make_speech) -> None:
    for seconds, rate in [(0.5, 24_000), (3.0, 16_000)]:
        wav = make_speech(seconds, sample_rate=rate)
        assert wav.shape == (round(seconds * rate),) and wav.dtype == torch.float32
        assert torch.equal(wav, make_speech(seconds, sample_rate=rate))
        assert 0.3 < float(wav.abs().max()) <= 0.5
    assert not torch.equal(make_speech(1.0), make_speech(1.0, seed=1))
    assert not torch.equal(make_speech(1.0), make_speech(1.0, speaker=1))


def test_speech_has_sound_and_pauses(make_speech) -> None:
    wav = make_speech(6.0)
    level = wav.unfold(0, 480, 480).square().mean(1).sqrt()  # 20 ms windows
    assert 0.05 < float((level < 1e-3).float().mean()) < 0.5


def test_corpus_lists_what_is_there(make_corpus) -> None:
    manifest: Path = make_corpus(speakers=2, utterances=3, seconds=1.5)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train", "train", "dev"] * 2
    for row in rows:
        info = soundfile.info(manifest.parent / row["audio"])
        assert abs(info.duration - row["duration"]) < 1e-3 and info.duration <= 1.5
        assert info.samplerate == 24_000 and row["language"] == "en-us"
