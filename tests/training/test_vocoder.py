"""Training of the vocoder: it learns to copy a recording, and the adversaries join when they are told to."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from vocos.loss import MelSpecReconstructionLoss

from codec.errors import UserError
from codec.features.mel import LogMel
from codec.vocoders.harmonic import HarmonicVocos
from codec.vocoders.vocos import VocosVocoder
from tts.data.batches import VocoderBatch
from tts.training.vocoder import VocoderModule

SCALES = ((256, 40), (1024, 100))


def module(**settings: Any) -> VocoderModule:
    vocoder = VocosVocoder(dim=64, intermediate_dim=128, num_layers=2)
    settings = {
        "periods": (),
        "fft_sizes": (512,),
        "mel_scales": SCALES,
        "warmup": 5,
        "total": 1000,
        **settings,
    }
    return VocoderModule(vocoder, LogMel(), **settings)


def batch_of(utterances: Any, samples: int = 8_192) -> VocoderBatch:
    """Crops with the hiss that recordings have: digital silence is far from all that a network puts out."""
    wav = torch.stack([u.wav[4_000 : 4_000 + samples] for u in utterances])
    return VocoderBatch(wav + 0.003 * torch.randn_like(wav))


def distance(stage: VocoderModule, wav: Tensor) -> float:
    """Mean over the scales of vocos' own loss between a recording and its copy."""
    copy = stage.vocoder(stage.features(wav))[:, : wav.shape[1]]
    with torch.no_grad():
        parts = [MelSpecReconstructionLoss(24_000, n, n // 4, bands)(copy, wav) for n, bands in SCALES]
    return float(sum(parts)) / len(parts)


@torch.no_grad()
def test_it_learns_to_copy_two_recordings(utterances: Any, fit: Any) -> None:
    stage, batch = module(adversarial_from=-1, lr=2e-3), batch_of(utterances[::2])
    before = distance(stage, batch.wav)
    with torch.enable_grad():
        metrics = fit(stage, batch, 100)
    assert len(stage.discriminators) == 0
    assert metrics["val/mel"] == pytest.approx(distance(stage, batch.wav), rel=1e-3)
    assert metrics["val/mel"] < 0.4 < 1.5 < before  # natural-log units


def test_a_harmonic_one_learns_to_copy_and_to_read_the_pitch(utterances: Any, fit: Any) -> None:
    torch.manual_seed(0)
    vocoder = HarmonicVocos(dim=64, intermediate_dim=128, num_layers=2)
    settings: dict[str, Any] = {"mel_scales": SCALES, "warmup": 5, "total": 1000}
    stage = VocoderModule(vocoder, LogMel(), adversarial_from=-1, lr=2e-3, **settings)
    plain = batch_of(utterances[::2])
    pitch = torch.full((len(plain.wav), plain.wav.shape[1] // 256 + 1), 150.0)
    pitch[:, ::4] = 0
    with pytest.raises(UserError, match="pitch: true"):
        fit(stage, plain, 1)
    metrics = fit(stage, VocoderBatch(plain.wav, pitch), 100)
    assert metrics["val/mel"] < 0.55
    assert metrics["val/pitch"] < 2 < math.log(160)
    with torch.no_grad():
        read = vocoder.pitch(stage.features(plain.wav))
    assert 1200 * (read / 150).log2().abs().median() < 15  # cents


def weights(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def test_adversaries_join_at_their_step_and_judge_without_learning_from_the_generator(
    utterances: Any, fit: Any
) -> None:
    stage, batch = module(adversarial_from=2), batch_of(utterances[:1], 4_096)
    at: list[tuple[int, ...]] = []  # step, whether the judges moved, whether the generator did
    update = stage._update

    def spy(optimizer: Any, loss: Tensor, owner: torch.nn.Module) -> None:
        judges, generator = weights(stage.discriminators), weights(stage.vocoder)
        update(optimizer, loss, owner)
        moved = [
            not torch.equal(*pair)
            for pair in ((judges, weights(stage.discriminators)), (generator, weights(stage.vocoder)))
        ]
        at.append((stage.vocoder_step, *moved))

    stage._update = spy  # type: ignore[method-assign]
    metrics = fit(stage, batch, 4)
    judged, generated = (True, False), (False, True)
    assert at == [
        (0, *generated),
        (1, *generated),
        (2, *judged),
        (2, *generated),
        (3, *judged),
        (3, *generated),
    ]
    assert metrics["train/discriminator"] > 0
    assert all(p.requires_grad for p in stage.discriminators.parameters())


@torch.no_grad()
def test_adversarial_losses_are_hinges_and_feature_distances(utterances: Any) -> None:
    stage = module(periods=(2,), feature_weight=0.5)
    assert len(stage.discriminators) == 2
    real = batch_of(utterances[:1], 4_096).wav
    fake = real + 0.1 * torch.randn_like(real)
    for judge in stage.discriminators:
        on_real, on_fake, features_real, features_fake = judge(real, fake)
        hinge = [
            (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean()
            for r, f in zip(on_real, on_fake, strict=True)
        ]
        torch.testing.assert_close(stage.discriminator_loss(judge, real, fake), sum(hinge) / len(hinge))
        apart = [
            (a - b).abs().mean()
            for layers in zip(features_real, features_fake, strict=True)
            for a, b in zip(*layers, strict=True)
        ]
        fooled = [(1 - f).clamp(min=0).mean() for f in on_fake]
        expected = (sum(fooled) + 0.5 * sum(apart)) / len(fooled)
        torch.testing.assert_close(stage.generator_loss(judge, real, fake), expected)
