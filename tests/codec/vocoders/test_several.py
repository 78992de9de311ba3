"""Streams that are made together give what each gives alone, wherever each of them is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codec.vocoders.harmonic import HarmonicVocos
from codec.vocoders.vocos import VocosState, VocosVocoder

KINDS = [VocosVocoder, HarmonicVocos]


@pytest.fixture(params=KINDS)
def vocoder(request: pytest.FixtureRequest) -> VocosVocoder:
    torch.manual_seed(0)
    made: VocosVocoder = request.param(dim=32, intermediate_dim=48, num_layers=2).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def alone(vocoder: VocosVocoder, chunks: list[Tensor], *, ends: bool = True) -> Tensor:
    state = vocoder.start()
    last = [ends and n + 1 == len(chunks) for n in range(len(chunks))]
    return torch.cat(
        [
            vocoder.decode_chunk(state, chunk[None], last=end)[0]
            for chunk, end in zip(chunks, last, strict=True)
        ]
    )


@torch.no_grad()
def test_streams_made_together_are_what_each_is_alone(
    vocoder: VocosVocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    one = type(vocoder).decode_chunk

    def counted(self: VocosVocoder, state: VocosState, frames: Tensor, *, last: bool = False) -> Tensor:
        rows.append(len(frames))
        return one(self, state, frames, last=last)

    # a stream joins with every round; the second has a chunk of its own length, the third ends before the others
    lengths = [[32, 32, 32, 32, 32, 32], [32, 7, 32, 32, 32], [32, 32, 32], [32, 32, 32]]
    chunks = [[torch.randn(n, 100) for n in stream] for stream in lengths]
    states: list[VocosState] = []
    got: list[list[Tensor]] = [[] for _ in chunks]
    with monkeypatch.context() as patch:
        patch.setattr(type(vocoder), "decode_chunk", counted)
        for turn in range(6):
            if turn < len(chunks):
                states.append(vocoder.start())
            live = [n for n in range(len(states)) if turn - n < len(chunks[n])]
            frames = [chunks[n][turn - n] for n in live]
            last = [n == 2 and turn - n + 1 == len(chunks[n]) for n in live]
            made = vocoder.decode_chunks([states[n] for n in live], frames, last)
            for n, wav in zip(live, made, strict=True):
                got[n].append(wav)
    assert max(rows) > 1
    for n, stream in enumerate(chunks):
        expected = alone(vocoder, stream, ends=n == 2)
        assert expected.abs().max() > 0.05
        torch.testing.assert_close(torch.cat(got[n]), expected, atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_streams_that_are_not_alike_are_not_joined(vocoder: VocosVocoder) -> None:
    new, old = vocoder.start(), vocoder.start()
    assert new.kind == old.kind
    vocoder.decode_chunk(old, torch.randn(1, 24, 100))
    assert new.kind != old.kind
