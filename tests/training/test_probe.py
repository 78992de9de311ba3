"""The speaker probe on tokens that give the speaker away, and on tokens that do not."""

from __future__ import annotations

import pytest
import torch

from tts.training.probe import Probe, speaker_probe


def test_speakers_with_codes_of_their_own_are_told_apart() -> None:
    speakers = torch.arange(4).repeat(9)
    rows = [torch.randint(10 * s, 10 * s + 10, (60,)) for s in speakers.tolist()]
    assert speaker_probe(rows, speakers, 50) == Probe(1.0, 0.25)


def test_random_tokens_say_nothing() -> None:
    speakers = torch.arange(4).repeat(60)
    rows = [torch.randint(50, (60,)) for _ in speakers]
    accuracy, chance = speaker_probe(rows, speakers, 50)
    assert chance == 0.25
    assert accuracy == pytest.approx(0.25, abs=0.15)  # of 80 held-out utterances: 3 standard deviations


def test_speakers_with_fewer_than_three_utterances_are_left_out() -> None:
    speakers = torch.tensor([7, 7, 7, 2, 2, 2, 5, 5, 9])
    rows = [torch.full((20,), s) for s in speakers.tolist()]
    assert speaker_probe(rows, speakers, 10) == Probe(1.0, 0.5)
    assert speaker_probe(rows[:2], speakers[:2], 10) == Probe(0.0, 0.0)
