"""EnCodec's decoder against the ``encodec`` package's own."""

import copy
from pathlib import Path

import torch
from encodec import EncodecModel
from safetensors.torch import load_file, save_file

from codec.features.encodec import EncodecLatents
from codec.vocoders.encodec import EncodecVocoder


def test_there_and_back_is_encodec_without_its_quantiser(tmp_path: Path) -> None:
    reference = EncodecModel.encodec_model_24khz(pretrained=False)
    weights = tmp_path / "encodec.safetensors"
    save_file(reference.state_dict(), weights)
    latents, vocoder = EncodecLatents(weights=weights), EncodecVocoder(weights=weights)
    wav = torch.randn(2, 4801)

    copied = vocoder(latents(wav))

    assert vocoder.spec == latents.spec
    assert copied.shape == (2, 16 * 320)
    with torch.no_grad():
        wanted = reference.decoder(reference.encoder(wav[:, None]))[:, 0]
    torch.testing.assert_close(copied, wanted, rtol=1e-4, atol=1e-5)


def test_half_precision_training_leaves_samples_whole() -> None:
    vocoder, frames = EncodecVocoder(), torch.randn(1, 4, 128)
    with torch.autocast("cpu", torch.bfloat16):
        wav = vocoder(frames)
    assert torch.equal(wav, vocoder(frames))


def test_trains_copies_and_reloads(tmp_path: Path) -> None:
    vocoder, frames = EncodecVocoder(), torch.randn(1, 2, 128)
    wanted = 0.1 * torch.randn(1, 2 * 320)
    optimizer = torch.optim.AdamW(vocoder.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = (vocoder(frames) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in vocoder.parameters())
    assert losses[-1] < losses[0]

    save_file(vocoder.state_dict(), tmp_path / "vocoder.safetensors")
    other = EncodecVocoder()
    other.load_state_dict(load_file(tmp_path / "vocoder.safetensors"))
    for same in (copy.deepcopy(vocoder), other):
        assert torch.equal(same(frames), vocoder(frames))
