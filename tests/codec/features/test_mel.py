"""codec.features.mel against Vocos' own feature extractor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vocos.feature_extractors import MelSpectrogramFeatures

from codec.features.mel import LogMel


@pytest.mark.parametrize("samples", [24_000, 24_001, 25_599, 25_600])
def test_frames_equal_vocos(make_speech: Any, samples: int) -> None:
    wav = torch.stack([make_speech(2.0, speaker=s)[:samples] for s in (0, 1)])
    frames = LogMel()(wav)
    assert frames.shape[1] == samples // 256 + 1
    torch.testing.assert_close(frames, MelSpectrogramFeatures(padding="center")(wav).transpose(1, 2))


def test_silence_is_the_specs_floor() -> None:
    mel = LogMel()
    frames = mel(torch.zeros(1, 2_000))
    torch.testing.assert_close(frames, torch.full_like(frames, mel.spec.floor))


def test_ten_times_louder_is_ln_10_higher(make_speech: Any) -> None:
    wav = make_speech(1.0)[None] * 0.1
    low, high = LogMel()(wav), LogMel()(10 * wav)
    above = low > -8
    torch.testing.assert_close((high - low)[above], torch.full_like(low[above], 2.302585), atol=2e-3, rtol=0)


def test_frames_are_full_precision_under_autocast(make_speech: Any) -> None:
    wav = make_speech(1.0)[None]
    mel = LogMel()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mel(wav), mel(wav.float()))
    assert torch.equal(mel(wav.half()), mel(wav.half().float()))
