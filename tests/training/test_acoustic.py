"""Training of the acoustic decoder: it learns to say its utterances, and scales frames by the data's statistics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from codec.spec import FrameSpec, TokenSpec
from tts.acoustic.decoder import FlowDecoder
from tts.acoustic.dit import DiT
from tts.data.batches import AcousticBatch
from tts.data.datasets import pad
from tts.training.acoustic import AcousticModule, frame_statistics

SPEC = TokenSpec(FrameSpec(dim=20), codes=60)
PROMPT = 8  # tokens


def batch_of(utterances: Any) -> AcousticBatch:
    """Each utterance's first tokens as the prompt of the rest; 20 bands, and a number for every token."""
    rows = [u.frames[: len(u.frames) // 4 * 4].unflatten(1, (20, 5)).mean(2) for u in utterances]
    frames, frame_lens = pad(rows, SPEC.frames.floor)
    lens = frame_lens // 4
    tokens = torch.stack([(torch.arange(int(lens.max())) + 25 * i) % SPEC.codes for i in range(len(rows))])
    speakers = torch.tensor([u.speaker for u in utterances])
    labels, label_lens = pad([torch.arange(1, 6 + i) for i in range(len(rows))], 0)
    return AcousticBatch(frames, tokens, torch.full_like(lens, PROMPT), lens, speakers, labels, label_lens)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_it_learns_to_say_two_utterances(utterances: Any, fit: Any) -> None:
    decoder = FlowDecoder(DiT(SPEC, dim=64, layers=2, heads=2, hidden=128), drop=0.1)
    batch = batch_of(utterances[::2])
    decoder.mean.copy_(batch.frames.mean((0, 1)))
    decoder.std.copy_(batch.frames.std((0, 1)))
    stage = AcousticModule(decoder, chunks=[0, 6], lr=3e-3, warmup=20, total=1000)

    eight = AcousticBatch(*(part.repeat(4, *[1] * (part.ndim - 1)) for part in batch))  # four times at once
    metrics = fit(stage, eight, 150, gradient_clip_val=1.0)

    # 2 is what "no velocity" gets, 1.3 the best that knows only mean and variance of the data
    assert metrics["val/loss"] < 0.5
    lens = batch.lens.tolist()
    prompts = [(f[: 4 * PROMPT], t[:PROMPT]) for f, t in zip(batch.frames, batch.tokens, strict=True)]
    tokens = [t[PROMPT:n] for t, n in zip(batch.tokens, lens, strict=True)]
    noise = [torch.randn(4 * (n - PROMPT), 20) for n in lens]
    for chunk in (None, 6):
        said = decoder.decode(prompts, tokens, noise, steps=10, guidance=0.5, chunk=chunk)
        for mine, frames, n in zip(said, batch.frames, lens, strict=True):
            close = [decoder.scale(x) for x in (mine, frames[4 * PROMPT : 4 * n])]
            assert correlation(*close) > 0.9


def test_statistics_are_those_of_all_frames() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(3, 2, (n, 5)).astype(np.float16) for n in (40, 7, 100)]
    rows[1][:, 2] = -9
    cuts = [SimpleNamespace(load_frames=lambda row=row: row) for row in rows]
    mean, std = frame_statistics(SimpleNamespace(cuts=cuts))  # type: ignore[arg-type]
    everything = np.concatenate(rows).astype(np.float64)
    torch.testing.assert_close(mean.double(), torch.from_numpy(everything.mean(0)), atol=1e-5, rtol=0)
    torch.testing.assert_close(std.double(), torch.from_numpy(everything.std(0, ddof=1)), atol=1e-5, rtol=0)
    constant = [SimpleNamespace(load_frames=lambda: np.zeros((4, 5), np.float16))]
    assert frame_statistics(SimpleNamespace(cuts=constant))[1].tolist() == pytest.approx([1e-3] * 5)  # type: ignore[arg-type]


def test_a_model_measures_its_data_once() -> None:
    rows = [torch.randn(30, 100).numpy() * 3 - 5]
    dataset = SimpleNamespace(cuts=[SimpleNamespace(load_frames=lambda: rows[0])])
    stage = AcousticModule(FlowDecoder(DiT(TokenSpec(), dim=16, layers=1, heads=2, hidden=24)))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.datamodule = SimpleNamespace(train_dataset=dataset)  # type: ignore[attr-defined]
    stage.trainer = trainer
    stage.on_fit_start()
    mean, std = frame_statistics(dataset)  # type: ignore[arg-type]
    assert torch.equal(stage.acoustic.mean, mean) and torch.equal(stage.acoustic.std, std)
    rows[0] = rows[0] * 2
    stage.on_fit_start()  # a run that goes on, or tunes a model, keeps its scale
    assert torch.equal(stage.acoustic.mean, mean) and torch.equal(stage.acoustic.std, std)
