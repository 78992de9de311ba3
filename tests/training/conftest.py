"""Training for tests: a Lightning module on one batch, and speech with known letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import soundfile
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from codec.features.mel import LogMel


class Fit(Protocol):
    def __call__(
        self, module: LightningModule, batch: Any, steps: int, **settings: Any
    ) -> dict[str, float]: ...


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """``fit(module, batch, steps)`` trains on the same batch so many times, validates on it, returns the metrics."""

    def run(module: LightningModule, batch: Any, steps: int, **settings: Any) -> dict[str, float]:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            default_root_dir=tmp_path,
            logger=CSVLogger(tmp_path),
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            **settings,
        )
        repeated: Any = [batch] * steps
        trainer.fit(module, DataLoader(repeated, batch_size=None), DataLoader(repeated[:1], batch_size=None))
        module.eval()
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    return run


class Utterance(NamedTuple):
    """Speech whose letters are known: character i of the text sounds from 0.08 * i seconds on."""

    wav: Tensor  # (samples,)
    frames: Tensor  # (T, 100) log-mel
    text: str
    speaker: int


@pytest.fixture
def utterances(make_corpus: Any) -> list[Utterance]:
    """Two utterances of about 1.5 s by each of two speakers."""
    manifest = make_corpus(speakers=2, utterances=2, seconds=1.6)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    mel, spoken = LogMel(), []
    for row in rows:
        wav = torch.from_numpy(soundfile.read(manifest.parent / row["audio"], dtype="float32")[0])
        text = row["text"].rstrip(".").lower()
        spoken.append(Utterance(wav, mel(wav[None])[0], text, int(row["speaker"].removeprefix("speaker"))))
    return spoken
