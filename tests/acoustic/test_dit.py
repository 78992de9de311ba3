"""Parts of the DiT that decoder tests do not reach: what a row sees, and what it must not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from codec.spec import FrameSpec, TokenSpec
from tts.acoustic.dit import DiT, SpeakerEncoder, TimeEmbedding

SPEC = TokenSpec(FrameSpec(dim=6), frames_per_token=4, codes=9)


def test_time_embedding_is_sines_and_cosines_of_a_thousand_times_the_time() -> None:
    embedding = TimeEmbedding(4, waves=8)
    embedding.layers = torch.nn.Identity()  # type: ignore[assignment]
    t = torch.tensor([0.0, 0.37, 1.0])
    out = embedding(t)
    for i, time in enumerate(t.tolist()):
        angles = [1000 * time * 10_000 ** (-k / 8) for k in range(8)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(out[i], torch.tensor(expected), atol=1e-3, rtol=0)


@pytest.mark.parametrize("lens", [[12, 7, 8, 1]])
@torch.no_grad()
def test_speaker_of_a_padded_row_equals_the_row_alone(lens: list[int]) -> None:
    encoder = SpeakerEncoder(6, 16)
    frames = torch.randn(4, 12, 6)
    together = encoder(frames, torch.tensor(lens))
    for row, n, speaker in zip(frames, lens, together, strict=True):
        alone = encoder(row[None, :n], torch.tensor([n]))[0]
        torch.testing.assert_close(speaker, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_new_network_says_velocity_zero() -> None:
    dit = DiT(SPEC, dim=16, layers=2, heads=2, hidden=24)
    assert not velocity_of(dit, torch.randn(1, 8, 6), torch.tensor([0.3])).any()


def velocity_of(dit: DiT, frames: Tensor, t: Tensor) -> Tensor:
    """With tokens 0, 1, 2 ..., no prompt and no mask."""
    rows, n = len(frames), frames.shape[1] // 4
    tokens = torch.arange(n).expand(rows, -1)
    none = torch.zeros(rows, n, dtype=torch.bool)
    velocity: Tensor = dit(frames, t, tokens, dit.no_speaker.expand(rows, -1), prompt=none)
    return velocity


@pytest.mark.parametrize("patch", [1, 2, 4])
@torch.no_grad()
def test_frames_go_in_and_come_out_in_order(patch: int) -> None:
    """With attention silenced, each patch of frames is computed from itself alone, and put back in its place."""
    dit = DiT(SPEC, dim=32, layers=1, heads=2, hidden=24, patch=patch)
    for layer in (dit.frames_out, dit.final):
        torch.nn.init.normal_(layer.weight, std=0.3)
    frames = torch.randn(1, 12, 6)
    before = velocity_of(dit, frames, torch.tensor([0.3]))
    for i in range(12):
        other = frames.clone()
        other[0, i] += 1
        changed = (velocity_of(dit, other, torch.tensor([0.3])) - before)[0].abs().amax(-1) > 1e-6
        start = i // patch * patch
        assert changed.nonzero()[:, 0].tolist() == list(range(start, start + patch))


@torch.no_grad()
def test_noisy_frames_are_led_past_the_blocks() -> None:
    """With blocks that say nothing, the velocity is the frames, each number of a patch times its factor."""
    dit = DiT(SPEC, dim=16, layers=1, heads=2, hidden=24, patch=2)
    assert dit.skip is not None
    factors = torch.randn(2 * 6)
    dit.skip.bias.copy_(factors)
    frames = torch.randn(2, 8, 6)
    found = velocity_of(dit, frames, torch.tensor([0.3, 0.8]))
    torch.testing.assert_close(found, (frames.view(2, 4, 12) * factors).view(2, 8, 6))
    torch.nn.init.normal_(dit.skip.weight)
    found = velocity_of(dit, frames[:1].expand(2, -1, -1), torch.tensor([0.3, 0.8]))
    assert not torch.allclose(found[0], found[1])  # the time tells the factor
    plain = DiT(SPEC, dim=16, layers=1, heads=2, hidden=24, skip=False)
    assert not any("skip" in name for name in plain.state_dict())


def test_patch_must_divide_a_token() -> None:
    with pytest.raises(ValueError, match="patch 3"):
        DiT(SPEC, dim=16, layers=1, heads=2, hidden=24, patch=3)


@pytest.mark.parametrize("norm", [True, False])
@torch.no_grad()
def test_the_speaker_vector_does_not_grow_with_what_is_pooled(norm: bool) -> None:
    torch.manual_seed(0)
    encoder = SpeakerEncoder(6, 16, norm=norm)
    frames = torch.randn(1, 40, 6)
    frames[:, 20:26] = -8.0  # a silence
    before = encoder(frames, torch.tensor([40])).norm()
    encoder.conv1.weight *= 100
    after = encoder(frames, torch.tensor([40])).norm()
    assert after < 2 * before if norm else after > 10 * before
