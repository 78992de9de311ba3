"""codec.vocoders.vocos against the vocos package's own model with the released sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from vocos.feature_extractors import MelSpectrogramFeatures
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone
from vocos.pretrained import Vocos

from codec.errors import UserError
from codec.spec import FrameSpec
from codec.vocoders.vocos import VocosVocoder


def released(dim: int = 512, intermediate_dim: int = 1536, num_layers: int = 8) -> Vocos:
    """A Vocos with random weights, built as the config of ``charactr/vocos-mel-24khz`` builds it."""
    return Vocos(
        MelSpectrogramFeatures(sample_rate=24_000, n_fft=1024, hop_length=256, n_mels=100, padding="center"),
        VocosBackbone(input_channels=100, dim=dim, intermediate_dim=intermediate_dim, num_layers=num_layers),
        ISTFTHead(dim=dim, n_fft=1024, hop_length=256, padding="center"),
    ).eval()


def test_released_weights_fit_by_default() -> None:
    theirs = {
        k: v.shape for k, v in released().state_dict().items() if not k.startswith("feature_extractor.")
    }
    assert {k: v.shape for k, v in VocosVocoder().state_dict().items()} == theirs


@torch.no_grad()
def test_released_weights_give_the_same_waveform(tmp_path: Path, make_speech: Any) -> None:
    theirs = released(64, 96, 2)
    path = tmp_path / "vocos.safetensors"
    save_file(theirs.state_dict(), path)
    mine = VocosVocoder(dim=64, intermediate_dim=96, num_layers=2).eval()
    mine.load_released(path)

    frames = theirs.feature_extractor(make_speech(0.5)[None])

    wav = mine(frames.transpose(1, 2))
    torch.testing.assert_close(wav, theirs.decode(frames))
    assert wav.shape == (1, (frames.shape[2] - 1) * 256) and wav.abs().max() > 0


@pytest.mark.parametrize("sizes", [(64, 96, 3), (64, 96, 1), (48, 96, 2)])
def test_other_weights_are_refused_in_one_line(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    path = tmp_path / "other.safetensors"
    save_file(released(*sizes).state_dict(), path)
    mine = VocosVocoder(dim=64, intermediate_dim=96, num_layers=2)
    before = {k: v.clone() for k, v in mine.state_dict().items()}
    with pytest.raises(UserError, match=r"other\.safetensors.*not the weights") as error:
        mine.load_released(path)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in mine.state_dict().items())


def test_the_head_follows_the_frames_hop() -> None:
    spec = FrameSpec("encodec", 24_000, 320, 128, 0.0)
    vocoder = VocosVocoder(dim=32, intermediate_dim=48, num_layers=1, spec=spec)
    assert vocoder(torch.randn(2, 11, 128)).shape == (2, 10 * 320)


@pytest.mark.parametrize("chunks", [[40], [1] * 40, [3, 1, 17, 2, 17], [12, 12, 12, 4], [2]])
@torch.no_grad()
def test_chunks_join_to_what_one_pass_gives(chunks: list[int]) -> None:
    torch.manual_seed(0)
    vocoder = VocosVocoder(dim=32, intermediate_dim=48, num_layers=3).eval()
    for parameter in vocoder.parameters():  # biases and norms that matter, too
        torch.nn.init.normal_(parameter, std=0.2)
    frames = torch.randn(2, sum(chunks), 100)
    state, out = vocoder.start(), []
    for n, chunk in enumerate(frames.split(chunks, dim=1)):
        out.append(vocoder.decode_chunk(state, chunk, last=n == len(chunks) - 1))
    joined, whole = torch.cat(out, dim=1), vocoder(frames)
    assert whole.abs().max() > 0.05
    torch.testing.assert_close(joined, whole, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_stream_is_behind_by_what_the_layers_look_ahead() -> None:
    vocoder = VocosVocoder(dim=32, intermediate_dim=48, num_layers=3).eval()
    state = vocoder.start()
    assert vocoder.delay == 4 * 3 + 2
    out = vocoder.decode_chunk(state, torch.randn(1, 30, 100))
    assert out.shape == (1, (30 - vocoder.delay) * 256)
    assert vocoder.decode_chunk(state, torch.randn(1, 5, 100)).shape == (1, 5 * 256)
    assert vocoder.decode_chunk(state, torch.randn(1, 1, 100), last=True).shape == (1, (vocoder.delay) * 256)
    with pytest.raises(AssertionError, match="ended"):
        vocoder.decode_chunk(state, torch.randn(1, 1, 100))
