"""Precision: what changes, what stays, and that it still says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codec.errors import UserError
from tts import TTS, Voice
from tts.checkpoint import Model
from tts.pipeline import Settings
from tts.precision import in_precision, multiplies_bfloat16

TEXT = "A lone seal sang all night."


def test_mixed_leaves_the_model_it_is_made_of(tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    before = {name: value.clone() for name, value in model.acoustic.state_dict().items()}
    mixed = in_precision(model, "mixed")
    assert in_precision(model, "float32") is model
    assert model.lm.llama.precision == "float32" and mixed.lm.llama.precision == "int8"
    for name, value in model.acoustic.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])
    lowered = {n for n, v in mixed.acoustic.state_dict().items() if v.dtype == torch.bfloat16}
    assert lowered and all(".attention." in name or ".feed_forward." in name for name in lowered)
    assert mixed.tokenizer is model.tokenizer and mixed.vocoder is model.vocoder


def test_flow16_writes_what_float32_writes(tiny_model: Path, make_speech: Any) -> None:
    exact, lower = (TTS.load(tiny_model, precision=p) for p in ("float32", "flow16"))  # type: ignore[arg-type]
    assert lower.model.lm is not exact.model.lm and lower.model.lm.llama.precision == "float32"
    assert any(v.dtype == torch.bfloat16 for v in lower.model.acoustic.state_dict().values())
    voice = Voice.from_audio(make_speech(3.0), model=exact.model)
    ours, theirs = (tts.write([TEXT], voice, Settings(retries=0))[0].tokens for tts in (exact, lower))
    assert ours == theirs


def test_auto_asks_the_processor(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.load(tiny_model)
    for known, able in (({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert multiplies_bfloat16(torch.device("cpu")) == able
        assert (in_precision(model, "auto") is model) != able


def test_unknown_precision(tiny_model: Path) -> None:
    with pytest.raises(
        UserError, match="precision 'half' is unknown; give one of float32, flow16, mixed, auto"
    ):
        TTS.load(tiny_model, precision="half")  # type: ignore[arg-type]


def test_mixed_speaks_and_streams(tiny_model: Path, make_speech: Any) -> None:
    """The same tokens in frames that differ by rounding; drawn tokens may differ, so they are given."""
    exact, mixed = (TTS.load(tiny_model, precision=p) for p in ("float32", "mixed"))  # type: ignore[arg-type]
    voice = Voice.from_audio(make_speech(3.0), model=exact.model)
    tokens, noise = torch.arange(10), torch.randn(40, 100)
    frames = []
    for tts in (exact, mixed):
        state = tts.started(voice, Settings(steps=3))
        frames.append(tts.model.acoustic.decode([state], [tokens], [noise])[0])
    assert 0 < (frames[1] - frames[0]).abs().mean() < 0.02 * frames[0].std()
    settings = Settings(steps=2, retries=0)
    speech = mixed.synthesize(TEXT, voice, settings)
    assert speech.wav.isfinite().all() and speech.duration > 0.5
    assert torch.cat([chunk.wav for chunk in mixed.stream(TEXT, voice, settings)]).isfinite().all()
