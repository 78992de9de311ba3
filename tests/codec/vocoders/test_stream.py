import pytest
import torch
import torch.nn.functional as F
from torch import nn

from codec.vocoders.stream import Respacing, Vocoding, limited
from codec.vocoders.vocos import VocosVocoder


def in_chunks(part, frames, sizes):
    pieces = frames.split(sizes)
    return torch.cat([part(one, last=n == len(pieces) - 1) for n, one in enumerate(pieces)])


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0, 1.1, 1.37, 2.0])
@pytest.mark.parametrize("sizes", [[1] * 50, [7, 1, 30, 12], [48, 2], [50]])
def test_respaced_chunks_are_the_respaced_whole(speed, sizes):
    frames = torch.randn(50, 3)
    whole = Respacing(speed)(frames, last=True)
    assert len(whole) == round(50 / speed)
    torch.testing.assert_close(in_chunks(Respacing(speed), frames, sizes), whole)


@pytest.mark.parametrize("speed", [0.5, 1.1, 2.0])
def test_frames_are_taken_where_the_speed_says(speed):
    ramp = torch.arange(40.0)[:, None]
    wanted = torch.arange(round(40 / speed)) * speed
    torch.testing.assert_close(Respacing(speed)(ramp, last=True)[:, 0], wanted.clamp(max=39.0))


def test_two_frames_at_least():
    assert Respacing(2.0)(torch.randn(2, 3), last=True).shape == (2, 3)


def test_a_vocoder_with_a_state_speaks_before_the_end_and_another_waits():
    torch.manual_seed(0)
    frames = torch.randn(40, 100)
    vocos = VocosVocoder(dim=16, intermediate_dim=16, num_layers=2).eval()
    with torch.no_grad():
        whole = vocos(frames[None])[0]
    for part, early in ((vocos, 20 * 256 - vocos.delay * 256), (nn.Sequential(vocos), 0)):
        vocoding = Vocoding(part)
        first = vocoding(frames[:20])
        assert len(first) == early
        torch.testing.assert_close(
            torch.cat([first, vocoding(frames[20:], last=True)]), whole, atol=1e-5, rtol=1e-4
        )


def test_the_limit_bends_what_is_loud_and_leaves_the_rest():
    wav = torch.linspace(-3, 3, 601)
    out = limited(wav)
    quiet = wav.abs() <= 0.9
    assert torch.equal(out[quiet], wav[quiet])
    assert out.abs().max() <= 0.99
    assert (out.diff() >= 0).all()
    torch.testing.assert_close(out, -out.flip(0))
    slope = F.pad(out.diff() / wav.diff(), (0, 1))[(wav - 0.9).abs() < 0.006]
    torch.testing.assert_close(slope, torch.ones_like(slope), atol=0.02, rtol=0)  # no corner at the knee
