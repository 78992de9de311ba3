"""Training for tests: a Lightning module on one batch, and speech with known letters."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import soundfile
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from codec.features.mel import LogMel
from tts.data.extract import add_tokens
from tts.data.prepare import cuts_path, prepare, read_cuts
from tts.text.symbols import DEFAULT_SYMBOLS

ROOT = Path(__file__).parents[2]


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


def encode(frames: Sequence[Any], segments: Sequence[Sequence[int]]) -> list[tuple[list[int], list[int]]]:
    """Tokens that follow the frames, spread over the phonemes."""
    answers = []
    for array, labels in zip(frames, segments, strict=True):
        tokens = [int(abs(float(row.sum()))) % 50 for row in array[::4]]
        each = len(tokens) // len(labels)
        answers.append((tokens, [each] * (len(labels) - 1) + [len(tokens) - each * (len(labels) - 1)]))
    return answers


@pytest.fixture
def small_prepared(make_corpus: Any, tmp_path: Path) -> Path:
    """Ten utterances to train on, two for validation, by two speakers."""
    manifest = make_corpus(speakers=2, utterances=6, seconds=1.0)
    spell = lambda texts, language: [text.lower() for text in texts]  # noqa: E731
    prepare(manifest, tmp_path / "prepared", LogMel(), phonemize=spell, progress=False)
    return tmp_path / "prepared"


@pytest.fixture
def lm_config(small_prepared: Path, tmp_path: Path, tiny_configs: Any) -> Path:
    """Of the smallest LM, on ``small_prepared`` with tokens."""
    for split in ("train", "dev"):
        path = cuts_path(small_prepared, split)
        add_tokens(read_cuts(path), encode, cuts_path(tmp_path / "tokens", split), progress=False)
    layout = {
        "class_path": "tts.lm.layout.Layout",
        "init_args": {"symbols": len(DEFAULT_SYMBOLS), "codes": 625},
    }
    data = {
        "cuts": str(tmp_path / "tokens"),
        "dataset": {"class_path": "tts.data.datasets.LMDataset", "init_args": {"layout": layout}},
        "max_duration": None,
        "max_cuts": 4,
        "num_buckets": 2,
        "num_workers": 0,
    }
    settings = {
        "model": {
            "class_path": "tts.training.lm.LMModule",
            "init_args": {"lm": tiny_configs["lm"], "lr": 3e-3, "warmup": 2, "total": 20},
        },
        "data": {"class_path": "tts.training.data.SpeechData", "init_args": data},
        "trainer": {
            "accelerator": "cpu",
            "precision": 32,
            "logger": False,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": -1,
        },
    }
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "lm.yaml"


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., None]:
    """``start(command, ..., expected=0)`` runs it to its end. It may import what lies in the test's folder."""

    def run(*command: str, expected: int = 0) -> None:
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == expected, done.stderr

    return run
