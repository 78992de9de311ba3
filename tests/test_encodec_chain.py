"""EnCodec frames, the second kind, through the whole chain: a model folder of random weights speaks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from encodec import EncodecModel
from safetensors.torch import save_file
from torch import nn

from codec.features.encodec import ENCODEC
from codec.spec import TokenSpec
from tts import TTS, Voice
from tts.checkpoint import build, write_part
from tts.text.symbols import DEFAULT_SYMBOLS

GRID = {"kind": "encodec", "sample_rate": 24_000, "hop": 320, "dim": 128, "floor": 0.0}


@pytest.fixture(scope="module")
def encodec() -> EncodecModel:
    """What somebody trained, as it were."""
    torch.manual_seed(1)
    model: EncodecModel = EncodecModel.encodec_model_24khz(pretrained=False)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_configs: Any, encodec: EncodecModel) -> Path:
    """A model on EnCodec frames, with EnCodec's weights from a file that is then gone."""
    weights = tmp_path_factory.mktemp("encodec") / "weights.safetensors"
    save_file(encodec.state_dict(), weights)
    init_args = {"weights": str(weights)}
    configs = copy.deepcopy(tiny_configs) | {
        "features": {"class_path": "codec.features.encodec.EncodecLatents", "init_args": init_args},
        "vocoder": {"class_path": "codec.vocoders.encodec.EncodecVocoder", "init_args": init_args},
    }
    configs["tokenizer"]["init_args"] |= {"strides": [3], "mean": 0.0, "std": 0.05, "frames": GRID}
    configs["acoustic"]["init_args"]["dit"]["init_args"] |= {
        "spec": {"frames": GRID, "frames_per_token": 3},
        "patch": 3,
    }
    folder = tmp_path_factory.mktemp("models") / "encodec"
    torch.manual_seed(0)
    for part, config in configs.items():
        module = build(config)
        for parameter in module.parameters():
            if not parameter.any():  # the DiT's last layers start at 0: it would put out the noise it gets
                nn.init.normal_(parameter, std=0.3)
        write_part(folder / f"{part}.safetensors", module, config, DEFAULT_SYMBOLS)
    weights.unlink()
    return folder


def test_speaks(folder: Path, encodec: EncodecModel, make_speech: Any, tmp_path: Path) -> None:
    tts = TTS.load(folder)
    assert tts.model.spec == TokenSpec(ENCODEC, frames_per_token=3, codes=625)
    wav = make_speech(3.0)
    with torch.no_grad():
        latents = encodec.encoder(wav[None, None]).transpose(1, 2)
    torch.testing.assert_close(tts.model.features(wav[None]), latents, rtol=1e-4, atol=1e-6)

    voice = Voice.from_audio(wav, model=tts.model)
    voice.save(tmp_path / "voice.safetensors")
    text = "A lone seal sang. Nine men ran!"
    speech = tts.synthesize(text, tts.voice(tmp_path / "voice.safetensors"), steps=2)
    for sentence in speech.sentences:
        assert len(sentence.wav) == 960 * len(sentence.tokens.tokens)
    assert torch.equal(speech.wav, tts.synthesize(text, voice, steps=2).wav)

    # the same by hand, with EnCodec's own decoder
    sentence = speech.sentences[0]
    symbols = tts.model.symbols
    tokens = sentence.tokens.told(symbols)
    noise = torch.randn(3 * len(tokens), 128, generator=torch.Generator().manual_seed(0))
    prompt = (voice.frames, voice.told(symbols))
    (frames,) = tts.model.acoustic.decode([prompt], [tokens], [noise], steps=2)
    with torch.no_grad():
        wanted = encodec.decoder(frames.t()[None])[0, 0]
    wanted = wanted / max(1.0, float(wanted.abs().max()) / 0.99)
    torch.testing.assert_close(sentence.wav, wanted, rtol=1e-3, atol=1e-5)


def test_converts(folder: Path, make_speech: Any) -> None:
    tts = TTS.load(folder)
    said = make_speech(2.0, speaker=1)
    converted = tts.convert(said, Voice.from_audio(make_speech(3.0), model=tts.model))
    assert converted.duration == pytest.approx(2.0, abs=0.1)
