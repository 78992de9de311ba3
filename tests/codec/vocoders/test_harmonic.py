"""Vocos as the filters of pulses and noise: the source is what it says, and a stream is the whole."""

import math

import pytest
import torch

from codec.vocoders.harmonic import BINS, BLOCK, PARTS, HarmonicVocos, Pitch, anchored, pulses
from codec.vocoders.vocos import VocosVocoder

HOP, RATE = 256, 24_000


def vocoder(**settings: int) -> HarmonicVocos:
    torch.manual_seed(0)
    made = HarmonicVocos(dim=32, intermediate_dim=48, num_layers=3, **settings).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # biases and norms that matter, too
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def said(pitch: torch.Tensor, start: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    return pulses(pitch.double(), torch.full((len(pitch),), start, dtype=torch.float64), HOP, RATE)


@pytest.mark.parametrize("hz", [60.0, 117.3, 200.0, 431.0])
def test_pulses_are_all_harmonics_of_equal_strength(hz: float) -> None:
    sound, _ = said(torch.full((1, 94), hz, dtype=torch.float64))
    at = torch.arange(1, sound.shape[1] + 1, dtype=torch.float64) / RATE
    count = int(0.48 * RATE / hz)
    waves = torch.cos(2 * math.pi * hz * torch.arange(1, count + 1).double()[:, None] * at).sum(0)
    torch.testing.assert_close(sound[0], (waves * math.sqrt(2 / count)).float(), atol=1e-4, rtol=1e-4)
    assert sound.square().mean() == pytest.approx(1.0, rel=0.05)


def test_nothing_below_the_floor_is_seen() -> None:
    torch.manual_seed(1)
    made, frames = vocoder(floor=-8), torch.randn(1, 40, 100) - 4
    frames[..., 85:] = -9
    deep = frames.clone()
    deep[..., 85:] = -16  # a recording of 16 kHz
    assert torch.equal(made(deep), made(frames))
    state = made.start()
    chunks = [made.decode_chunk(state, deep[:, :20]), made.decode_chunk(state, deep[:, 20:], last=True)]
    torch.testing.assert_close(torch.cat(chunks, 1), made(frames), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(vocoder()(deep), vocoder()(frames), atol=1e-3)


def test_pulses_go_on_where_the_ones_before_ended() -> None:
    pitch = torch.linspace(80, 300, 40)[None].repeat(2, 1)
    whole, end = said(pitch, 0.25)
    first, phase = said(pitch[:, :15], 0.25)
    rest, again = pulses(pitch[:, 15:].double(), phase, HOP, RATE)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, end)
    assert ((end >= 0) & (end < 1)).all()


def test_a_block_goes_through_whole_parts_of_a_cycle_and_small_errors_do_not_add_up() -> None:
    pitch = torch.rand(2, 10 * BLOCK, dtype=torch.float64) * 30 + 100
    held = anchored(pitch, HOP, RATE)
    parts = held.unflatten(1, (-1, BLOCK)).sum(-1) * HOP / RATE * PARTS
    torch.testing.assert_close(parts, parts.round(), atol=1e-9, rtol=0)
    assert ((held / pitch).log2().abs() * 1200).max() < 7  # cents
    off = anchored(pitch * (1 + 1e-6), HOP, RATE)
    torch.testing.assert_close(off.sum(), held.sum(), atol=1e-6, rtol=0)
    assert (pitch * (1 + 1e-6)).sum() - pitch.sum() > 1e-2


def test_the_pitch_is_learnt_from_voiced_frames() -> None:
    torch.manual_seed(0)
    part, frames = Pitch(100, channels=32), torch.randn(2, 30, 100)
    wanted = torch.rand(2, 30) * 300 + 80
    wanted[:, ::3] = 0
    optimizer = torch.optim.Adam(part.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        part.loss(frames, wanted).backward()
        optimizer.step()
    with torch.no_grad():
        read = part(frames)
    cents = 1200 * (read / wanted)[wanted > 0].log2().abs()
    assert cents.median() < 15
    assert part.logits(frames).shape == (2, 30, BINS)


def test_frames_without_a_voice_teach_nothing() -> None:
    part = Pitch(100, channels=8)
    loss = part.loss(torch.randn(1, 9, 100), torch.zeros(1, 9))
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and not p.grad.any() for p in part.parameters())


@torch.no_grad()
def test_the_sound_has_the_pitch_it_is_told() -> None:
    made = vocoder()
    torch.nn.init.zeros_(made.head.out.weight)
    third = len(made.head.out.bias) // 3
    made.head.out.bias.copy_(
        torch.cat([torch.zeros(2 * third), torch.full((third,), -9.0)])
    )  # pulses, no noise
    hz = 24_000 / 64  # and a whole number of cycles in a block: nothing to round
    sound = made(torch.randn(1, 64, 100), torch.full((1, 64), hz))[0, 2048:-2048]
    torch.testing.assert_close(sound[:-64], sound[64:], atol=2e-2, rtol=0)
    spectrum = torch.fft.rfft(sound[: 64 * 64]).abs()
    loud = (spectrum > 0.2 * spectrum.max()).nonzero()[:, 0]
    assert loud.tolist() == [64 * n for n in range(1, len(loud) + 1)]


@pytest.mark.parametrize("chunks", [[40], [1] * 40, [3, 1, 17, 2, 17], [12, 12, 12, 4], [2], [150, 7]])
@torch.no_grad()
def test_chunks_join_to_what_one_pass_gives(chunks: list[int]) -> None:
    made = vocoder()
    frames = torch.randn(2, sum(chunks), 100)
    state, out = made.start(), []
    for n, chunk in enumerate(frames.split(chunks, dim=1)):
        out.append(made.decode_chunk(state, chunk, last=n == len(chunks) - 1))
    joined, whole = torch.cat(out, dim=1), made(frames)
    assert whole.shape == (2, (sum(chunks) - 1) * HOP)
    assert whole.abs().max() > 0.5
    torch.testing.assert_close(joined, whole, atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_a_stream_of_usual_size_is_no_further_behind_than_that_of_vocos() -> None:
    made = HarmonicVocos(dim=16, intermediate_dim=16, num_layers=8).eval()
    assert made.delay == VocosVocoder(dim=16, intermediate_dim=16, num_layers=8).delay == 29
    state = made.start()
    given = 0
    for n in range(1, 71):
        given += made.decode_chunk(state, torch.randn(1, 1, 100)).shape[1]
        assert given == max(0, n - 29) * HOP
    assert given + made.decode_chunk(state, torch.randn(1, 1, 100), last=True).shape[1] == 70 * HOP


@torch.no_grad()
def test_a_small_one_waits_for_the_pitch() -> None:
    made = vocoder()
    assert made.delay == 6 + BLOCK - 1 + 4
    state = made.start()
    given = [made.decode_chunk(state, torch.randn(1, 1, 100)).shape[1] for _ in range(80)]
    assert all(sum(given[:n]) >= (n - made.delay) * HOP for n in range(1, 81))
    assert any(sum(given[:n]) == (n - made.delay) * HOP for n in range(made.delay + 1, 81))


def test_training_hears_other_noise_each_time_and_speaking_the_same() -> None:
    made, frames = vocoder(), torch.randn(1, 20, 100)
    assert torch.equal(made(frames), made(frames))
    made.train()
    assert not torch.equal(made(frames), made(frames))
