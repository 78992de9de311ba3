"""The graphs give what the modules give, at lengths and batches they were not made with, to 1e-3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codec.errors import UserError
from codec.vocoders.harmonic import HarmonicVocos
from tts.acoustic.flow import time_grid
from tts.checkpoint import Model
from tts.export.graphs import FlowStep, HarmonicVocoder, LmStep, TokenizerEncoder, Vocoder
from tts.export.note import Note

for name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(name)

from tts.export.as_onnx import export_onnx  # noqa: E402
from tts.export.runtime import OnnxChain, times  # noqa: E402

CLOSE: dict[str, Any] = {"atol": 1e-3, "rtol": 1e-3}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.load(tiny_model)


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx")
    export_onnx(model, path)
    return path


@pytest.fixture
def chain(folder: Path) -> OnnxChain:
    return OnnxChain(folder, threads=1)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def ran(chain: OnnxChain, graph: str, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return [torch.from_numpy(out) for out in chain.run(graph, *(x.numpy() for x in inputs))]


def test_tokenizer(chain: OnnxChain, model: Model) -> None:
    for batch, count in ((1, 37), (3, 64)):
        frames = torch.randn(batch, count, 100) * 2 - 6
        lens = torch.tensor([count, count - 9, count - 20])[:batch]
        (tokens,) = ran(chain, "tokenizer_encoder", frames, lens)
        mine, valid = model.tokenizer.encode(frames, lens)
        same = [torch.equal(a[:n], b[:n]) for a, b, n in zip(tokens, mine, valid.tolist(), strict=True)]
        assert all(same) and tokens.unique().numel() > 1
        (log_probs,) = ran(chain, "tokenizer_reader", tokens, valid)
        for row, wanted, n in zip(
            log_probs, model.tokenizer.token_log_probs(tokens, valid), valid.tolist(), strict=True
        ):
            torch.testing.assert_close(row[: 2 * n], wanted[: 2 * n], **CLOSE)


def test_vocoder(chain: OnnxChain, model: Model) -> None:
    for batch, count in ((1, 3), (2, 50)):
        frames = torch.randn(batch, count, 100) - 4
        (wav,) = ran(chain, "vocoder", frames)
        mine = model.vocoder(frames)
        assert wav.shape == mine.shape and mine.abs().max() > 0.05
        torch.testing.assert_close(wav, mine, **CLOSE)


@pytest.mark.parametrize("floor", [None, -4.0])
def test_a_harmonic_vocoder(model: Model, tmp_path: Path, floor: float | None) -> None:
    torch.manual_seed(0)
    vocoder = HarmonicVocos(dim=32, intermediate_dim=48, num_layers=2, floor=floor).eval()
    export_onnx(replace(model, vocoder=vocoder), tmp_path, only=["vocoder"])
    chain = OnnxChain(tmp_path, threads=1)
    # shorter than a block of pitch, and longer than the noise
    for batch, count in ((1, 3), (2, 50), (1, 600)):
        frames = torch.randn(batch, count, 100) - 4
        mine = vocoder(frames)
        torch.testing.assert_close(HarmonicVocoder(vocoder)(frames), mine, atol=1e-3, rtol=1e-3)
        (wav,) = ran(chain, "vocoder", frames)
        assert wav.shape == mine.shape and mine.abs().max() > 0.05
        # the pitch's rounding, times 60 harmonics
        torch.testing.assert_close(wav, mine, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_flow_whole_and_in_chunks(chain: OnnxChain, model: Model, guidance: float) -> None:
    frames, tokens = torch.randn(24, 100) * 2 - 6, torch.arange(6) * 90
    target, noise = torch.arange(11) * 50, torch.randn(44, 100)
    state = model.acoustic.start(frames[None], tokens[None], steps=3, guidance=guidance)
    whole = model.acoustic.decode([state], [target], [noise], steps=3, guidance=guidance)[0]
    theirs = chain.start(frames.numpy(), tokens.numpy(), steps=3, guidance=guidance)
    made = chain.decode(theirs, target.numpy(), noise.numpy())
    assert whole.std() > 1
    own = chain.start(frames.numpy(), tokens.numpy())
    assert len(own.pasts) == model.acoustic.steps and own.guidance == model.acoustic.guidance
    torch.testing.assert_close(torch.from_numpy(made), whole, **CLOSE)
    for begin, end in ((0, 4), (4, 9), (9, 11)):
        span = slice(4 * begin, 4 * end)
        mine = model.acoustic.decode_chunk(state, target[None, begin:end], noise[None, span])[0]
        made = chain.decode(theirs, target[begin:end].numpy(), noise[span].numpy(), keep=True)
        torch.testing.assert_close(torch.from_numpy(made), mine, **CLOSE)


def test_lm_with_padding_and_past(chain: OnnxChain, model: Model) -> None:
    ids, llama = torch.randint(1, 700, (2, 13)), model.lm.llama
    ids[1, :4] = 0
    pads, caches = torch.tensor([0, 4]), llama.new_caches()
    layers, two, heads, size = json.loads((chain._folder / "chain.json").read_text())["cache"]["lm_step"]
    past = torch.zeros(0, layers, two, 2, heads, size)
    for piece in ids.split([9, 1, 3], dim=1):
        wanted = llama(piece, caches, pads=pads, last_only=True)[:, -1]
        logits, new = ran(chain, "lm_step", piece, pads, past)
        torch.testing.assert_close(logits, wanted, **CLOSE)
        past = torch.cat([past, new])
    assert len(past) == 13


def test_modules_of_the_graphs_are_the_models_own(model: Model) -> None:
    """What the graphs were made of, without making them: quick, and where onnx is not installed."""
    frames = torch.randn(2, 28, 100) * 2 - 6
    lens = torch.tensor([28, 28])
    assert torch.equal(TokenizerEncoder(model.tokenizer)(frames, lens), model.tokenizer.encode(frames)[0])
    torch.testing.assert_close(Vocoder(model.vocoder)(frames), model.vocoder(frames), atol=1e-5, rtol=1e-4)
    ids = torch.randint(700, (2, 9))
    past = torch.zeros(0, 1, 2, 2, 1, 16)
    torch.testing.assert_close(
        LmStep(model.lm.llama)(ids, torch.zeros(2).long(), past)[0], model.lm(ids)[:, -1]
    )
    assert len(FlowStep(model.acoustic).dit.blocks) == 1


def test_times_are_the_solvers() -> None:
    assert times(7) == pytest.approx(time_grid(7))


def test_int8_is_smaller_and_close(model: Model, tmp_path: Path) -> None:
    plain, small = tmp_path / "plain", tmp_path / "int8"
    export_onnx(model, plain, only=["lm_step"])
    export_onnx(model, small, int8=True, only=["lm_step"])
    file = "lm_step.onnx"
    assert (small / file).stat().st_size < 0.8 * (plain / file).stat().st_size
    ids, past = np.arange(1, 30)[None], np.zeros((0, 1, 2, 1, 1, 16), np.float32)
    mine, rounded = (OnnxChain(path).run("lm_step", ids, np.array([0]), past)[0] for path in (plain, small))
    assert 0 < np.abs(mine - rounded).max() < 0.2 * mine.std()


def test_graphs_know_what_they_are_of(chain: OnnxChain, model: Model, tmp_path: Path) -> None:
    chain.read(np.arange(3))
    text = chain._sessions["tokenizer_reader"].get_modelmeta().custom_metadata_map["tts"]
    assert Note.read(text, "x") == Note.of(model, "tokenizer")
    with pytest.raises(UserError, match="no ONNX export of this project"):
        OnnxChain(tmp_path)
