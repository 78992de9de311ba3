"""EnCodec frames against the ``encodec`` package's own encoder."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from encodec import EncodecModel
from safetensors.torch import save_file

from codec.errors import UserError
from codec.features.encodec import ENCODEC, EncodecLatents


@pytest.fixture
def reference() -> EncodecModel:
    """A random EnCodec; the fixture `_same_numbers_every_run` seeded it."""
    model: EncodecModel = EncodecModel.encodec_model_24khz(pretrained=False)
    return model


@pytest.mark.parametrize("ending", ["safetensors", "th"])
def test_frames_are_the_encoders_output(reference: EncodecModel, tmp_path: Path, ending: str) -> None:
    weights = tmp_path / f"encodec.{ending}"
    (save_file if ending == "safetensors" else torch.save)(reference.state_dict(), weights)
    wav = torch.randn(2, 4801)

    frames = EncodecLatents(weights=weights)(wav)

    assert frames.shape == (2, 16, 128)
    torch.testing.assert_close(frames, reference.encoder(wav[:, None]).transpose(1, 2), rtol=1e-4, atol=1e-6)


def test_spec_is_the_encoders(reference: EncodecModel) -> None:
    assert ENCODEC.sample_rate == reference.sample_rate
    assert ENCODEC.hop == reference.encoder.hop_length
    assert ENCODEC.dim == reference.encoder.dimension
    assert ENCODEC.rate == 75


def test_padding_behind_changes_nothing() -> None:
    latents, wav = EncodecLatents(), torch.randn(1, 3200)
    padded = torch.cat([wav, torch.zeros(1, 1600)], dim=1)
    torch.testing.assert_close(latents(padded)[:, :10], latents(wav), rtol=1e-4, atol=1e-6)


def test_copies_and_pickles_after_use() -> None:
    latents, wav = EncodecLatents(), torch.randn(1, 960)
    frames = latents(wav.requires_grad_())
    for other in (copy.deepcopy(latents), pickle.loads(pickle.dumps(latents))):
        assert torch.equal(other(wav), frames)


def test_random_weights_are_always_the_same_and_leave_others_random() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    one = EncodecLatents()
    assert torch.equal(torch.rand(1), wanted)
    torch.manual_seed(6)
    other = EncodecLatents()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_never_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    EncodecLatents()


def test_weights_that_are_not_encodecs(tmp_path: Path) -> None:
    other, text, number = tmp_path / "other.safetensors", tmp_path / "text.th", tmp_path / "number.pt"
    save_file({"encoder.weight": torch.zeros(2)}, other)
    text.write_text("no weights")
    torch.save([1.0], number)
    for path, message in [
        (other, "first difference at 'decoder.model.0"),
        (text, "not a file of weights"),
        (number, "something else than tensors"),
        (tmp_path / "nowhere.th", "check the path"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            EncodecLatents(weights=path)
        assert str(path) in str(raised.value)
