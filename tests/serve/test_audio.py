"""What is sent piece by piece is one file of its format."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch

from tests.serve.conftest import decoded
from tts.serve.audio import Encoder, Format
from tts.streaming import pcm

RATE = 24_000


def sweep(samples: int) -> torch.Tensor:
    time = torch.arange(samples) / RATE
    return 0.3 * torch.sin(2 * math.pi * (200 + 300 * time) * time)


@pytest.mark.parametrize("kind", get_args(Format))
def test_pieces_are_one_file(kind: Any) -> None:
    wav, encoder = sweep(2 * RATE), Encoder(kind, RATE)
    pieces = [encoder(piece) for piece in wav.split(7000)]
    assert any(pieces[:-1])  # it does not wait for the end
    data = b"".join([*pieces, encoder(torch.zeros(0), last=True)])
    if kind == "pcm":
        assert data == pcm(wav)
        return
    got = decoded(data)
    if kind in ("wav", "flac"):
        torch.testing.assert_close(got, wav, atol=1e-4, rtol=0)
        return
    # lossy codecs delay by up to a few frames: find by how much, then compare
    part = wav[RATE // 2 : RATE]
    errors = {lag: float((got[RATE // 2 + lag :][: len(part)] - part).abs().mean()) for lag in range(3000)}
    assert min(errors.values()) < 0.02


def test_an_encoder_that_is_given_up_can_be_closed() -> None:
    for kind in get_args(Format):
        encoder = Encoder(kind, RATE)
        encoder(sweep(100))
        encoder.close()
        encoder.close()
