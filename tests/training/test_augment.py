"""Augmentation: what each setting changes, what none of them changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tts.training.augment import MelAugment, at_tempo, smeared

FLOOR = math.log(1e-7)
OFF = {
    "warp": 0.0,
    "tilt": 0.0,
    "noise": 0.0,
    "low_pass": 0.0,
    "time_masks": 0,
    "freq_masks": 0,
}


@pytest.fixture
def frames() -> Tensor:
    return (3 * torch.randn(6, 50, 100) - 6).clamp(min=FLOOR)


def test_nothing_on_changes_nothing(frames: Tensor) -> None:
    assert torch.equal(MelAugment(**OFF)(frames, FLOOR), frames)  # type: ignore[arg-type]


def test_all_on_keeps_shape_and_floor_and_the_frames_given(frames: Tensor) -> None:
    before = frames.clone()
    changed = MelAugment(noise=1.0, low_pass=1.0)(frames, FLOOR)
    assert changed.shape == frames.shape and changed.isfinite().all()
    assert changed.min() == pytest.approx(FLOOR)
    assert torch.equal(frames, before)
    assert (changed != frames).flatten(1).any(1).all()
    assert not torch.equal(changed[0] - frames[0], changed[1] - frames[1])  # each utterance its own


def test_tilt_is_one_smooth_filter_for_all_of_an_utterance(frames: Tensor) -> None:
    quiet = frames.clamp(min=-10)
    change = MelAugment(**{**OFF, "tilt": 0.5})(quiet, FLOOR) - quiet  # type: ignore[arg-type]
    torch.testing.assert_close(change, change[:, :1].expand_as(change), atol=1e-5, rtol=0)
    steps = change[:, 0].diff(dim=-1)
    assert steps.abs().max() < 0.2 and change.std() > 0.2
    assert ((steps.diff(dim=-1).abs() > 1e-4).sum(-1) <= 2 * 4).all()  # straight between 6 points


def test_warp_moves_a_peak_by_at_most_its_share() -> None:
    frames = torch.full((200, 3, 100), FLOOR)
    frames[:, :, 50] = 0.0
    peaks = MelAugment(**{**OFF, "warp": 0.12})(frames, FLOOR).argmax(-1)  # type: ignore[arg-type]
    assert 50 / 1.12 - 1 <= peaks.min() < 47 and 53 < peaks.max() <= 50 / 0.88 + 1
    assert (peaks == peaks[:, :1]).all()


def test_low_pass_leaves_silence_above_a_channel(frames: Tensor) -> None:
    changed = MelAugment(**{**OFF, "low_pass": 1.0})(frames, FLOOR)  # type: ignore[arg-type]
    for before, after in zip(frames, changed, strict=True):
        cut = int((after == FLOOR).all(0).nonzero()[0])
        assert 67 <= cut <= 98
        assert torch.equal(after[:, :cut], before[:, :cut]) and (after[:, cut:] == FLOOR).all()


def test_noise_only_adds(frames: Tensor) -> None:
    changed = MelAugment(**{**OFF, "noise": 1.0})(frames, FLOOR)  # type: ignore[arg-type]
    assert (changed >= frames - 1e-5).all()
    loud = frames > 2
    torch.testing.assert_close(changed[loud], frames[loud], atol=0.2, rtol=0)
    assert changed.flatten(1).min(1).values.min() > -11  # the floor of the noise


@pytest.mark.parametrize(("kind", "dim"), [("time", 1), ("freq", 2)])
def test_gaps_are_spans_of_the_mean_no_longer_than_allowed(frames: Tensor, kind: str, dim: int) -> None:
    augment = MelAugment(**{**OFF, f"{kind}_masks": 1, f"{kind}_width": 8})  # type: ignore[arg-type]
    changed = augment(frames, FLOOR)
    other = 3 - dim
    gap = (changed != frames).any(other)  # (B, size)
    assert 0 < gap.sum(1).max() <= 8
    for i in range(len(frames)):
        places = gap[i].nonzero()[:, 0]
        assert (places.diff() == 1).all()
        inside = changed[i].index_select(dim - 1, places)
        torch.testing.assert_close(inside, frames[i].mean().expand_as(inside))


def test_tempo_moves_everything_alike_and_keeps_the_channels() -> None:
    ramp = torch.arange(80.0)[None, :, None] * torch.tensor([1.0, -2.0])
    faster, lens = at_tempo(ramp.repeat(2, 1, 1), torch.tensor([80, 40]), 1.25)
    assert faster.shape == (2, 64, 2) and lens.tolist() == [64, 32]
    steps = faster[0, 2:-2].diff(dim=0)
    torch.testing.assert_close(steps, torch.tensor([[1.25, -2.5]]).expand_as(steps), rtol=1e-4, atol=1e-4)
    same, lens = at_tempo(ramp, torch.tensor([80]), 1.0)
    assert torch.equal(same, ramp) and lens.tolist() == [80]


def test_a_share_of_the_rows_is_smeared_and_the_others_stay(frames: Tensor) -> None:
    torch.manual_seed(0)
    torch.testing.assert_close(smeared(frames, 0.0), frames)
    many = frames.repeat(20, 1, 1)
    moved = (smeared(many, 0.5) - many).abs().amax((1, 2)) > 1e-4
    assert 35 < moved.sum() < 85


def test_smearing_blurs_both_axes_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dot = torch.zeros(1, 41, 100)
    dot[:, 20, 50] = 1.0
    out = torch.cat([smeared(dot, 1.0, noise=0.0) for _ in range(50)])
    torch.testing.assert_close(out.sum((1, 2)), torch.ones(50))
    across = lambda x: (x * (torch.arange(x.shape[1]) - x.shape[1] // 2).square()).sum(1)  # noqa: E731
    assert (out.sum(2).argmax(1) == 20).all() and (out.sum(1).argmax(1) == 50).all()
    assert across(out.sum(2)).max() <= 1.0 + 1e-3 and across(out.sum(1)).max() <= 1.5**2 + 1e-3
    assert across(out.sum(2)).max() > 0.5
    noisy = smeared(torch.zeros(200, 20, 100), 1.0).std((1, 2))
    assert noisy.max() < 0.16 and noisy.mean() == pytest.approx(0.075, abs=0.015)
