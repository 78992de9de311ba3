"""A run that was cut off goes on to the losses of one that was not, noise, dropout and adversaries included."""

import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from codec.features.mel import LogMel
from codec.spec import TokenSpec
from codec.tokenizer.fsq import FSQ
from codec.tokenizer.model import Tokenizer
from codec.vocoders.vocos import VocosVocoder
from tts.acoustic.decoder import FlowDecoder
from tts.acoustic.dit import DiT
from tts.data.datasets import AcousticDataset, TokenizerDataset, VocoderDataset
from tts.data.extract import add_tokens
from tts.data.prepare import cuts_path, prepare, read_cuts
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.acoustic import AcousticModule
from tts.training.augment import MelAugment
from tts.training.data import SpeechData
from tts.training.module import BEST, LAST, Best, Last, StageModule
from tts.training.tokenizer import TokenizerModule
from tts.training.vocoder import VocoderModule

STEPS = 7
AN_EPOCH = 4  # batches: seven cuts, two at a time


def tokens_of(frames: Sequence[Any], segments: Sequence[Sequence[int]]) -> list[tuple[list[int], list[int]]]:
    """Tokens that count, all in the first phoneme."""
    answers = []
    for array, labels in zip(frames, segments, strict=True):
        count = -(-len(array) // TokenSpec().frames_per_token)
        answers.append(([n % 625 for n in range(count)], [count] + [0] * (len(labels) - 1)))
    return answers


@pytest.fixture
def folder(make_corpus: Any, tmp_path: Path) -> Path:
    manifest = make_corpus(speakers=1, utterances=8, seconds=0.9)
    spell = lambda texts, language: [text.lower() for text in texts]  # noqa: E731
    prepare(manifest, tmp_path / "prepared", LogMel(), phonemize=spell, progress=False)
    for split in ("train", "dev"):
        path = cuts_path(tmp_path / "prepared", split)
        add_tokens(read_cuts(path), tokens_of, cuts_path(tmp_path / "tokens", split), progress=False)
    return tmp_path / "tokens"


def acoustic() -> tuple[StageModule, Any]:
    decoder = FlowDecoder(DiT(dim=16, layers=1, heads=2, hidden=32), drop=0.5)
    module = AcousticModule(decoder, chunks=[0, 3], lr=1e-2, warmup=2, total=20)
    return module, partial(AcousticDataset, min_prompt=0.2, max_prompt=0.3)


def vocoder() -> tuple[StageModule, Any]:
    module = VocoderModule(
        VocosVocoder(dim=16, intermediate_dim=32, num_layers=1),
        LogMel(),
        periods=(),
        fft_sizes=(256,),
        adversarial_from=2,  # one optimizer steps in the first two batches, two in all others
        mel_scales=((256, 20), (1024, 40)),
        lr=1e-2,
        warmup=2,
        total=20,
    )
    return module, partial(VocoderDataset, samples=2048, gain_db=6)


def tokenizer() -> tuple[StageModule, Any]:
    part = Tokenizer(
        FSQ(16, noise=0.5),
        symbols=len(DEFAULT_SYMBOLS),
        dim=16,
        heads=2,
        layers=1,
        reader_layers=1,
        dropout=0.2,
    )
    module = TokenizerModule(
        part, augment=MelAugment(), tempo=0.2, optimizer="muon", lr=1e-2, warmup=2, total=20
    )
    return module, TokenizerDataset


MODULES = {"acoustic": acoustic, "vocoder": vocoder, "tokenizer": tokenizer}


class Losses(Callback):
    """What every batch cost, and in which epoch it was."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.epochs: list[int] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.train.append(float(trainer.callback_metrics["train/loss"]))
        self.epochs.append(trainer.current_epoch)


class Each(Callback):
    """Keeps the checkpoint of every batch, as `last.ckpt` would be if the process were killed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoints"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        trainer.save_checkpoint(self.folder / f"{done}.ckpt")


def train(
    stage: str,
    folder: Path,
    run: Path,
    batches: int,
    *,
    ckpt: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> list[float]:
    """Train up to so many batches of all; the losses of those trained now."""
    torch.manual_seed(0 if ckpt is None else 99)  # a resumed process has drawn other numbers before
    module, dataset = MODULES[stage]()
    losses = Losses()
    steps = batches if stage != "vocoder" else batches + max(0, batches - 2)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        default_root_dir=run,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[losses, *callbacks],
    )
    data = SpeechData(str(folder), dataset, max_duration=None, max_cuts=2, num_buckets=2, num_workers=0)
    trainer.fit(module, data, ckpt_path=ckpt)
    assert ckpt or batches <= AN_EPOCH or losses.epochs.count(0) == AN_EPOCH
    return losses.train


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", MODULES)
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(
    stage: str, folder: Path, tmp_path: Path
) -> None:
    full = train(stage, folder, tmp_path / "full", STEPS, callbacks=[Each(tmp_path / "kept")])
    assert len(full) == STEPS and len(set(full)) == STEPS
    # killed in the middle of an epoch, at its last batch before validation, in the next epoch
    for done in (2, AN_EPOCH, 5):
        ckpt = tmp_path / "kept" / "checkpoints" / f"{done}.ckpt"
        rest = train(stage, folder, tmp_path / f"from{done}", STEPS, ckpt=ckpt)
        assert rest == pytest.approx(full[done:], abs=1e-6), done
    # ended in the middle of an epoch, and trained longer later
    short = train(stage, folder, tmp_path / "short", 3)
    assert short == pytest.approx(full[:3], abs=1e-6)
    rest = train(
        stage, folder, tmp_path / "short", STEPS, ckpt=tmp_path / "short" / "checkpoints" / f"{LAST}.ckpt"
    )
    assert rest == pytest.approx(full[3:], abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_averaged_weights_are_kept_beside_those_that_are_trained_on(folder: Path, tmp_path: Path) -> None:
    """`configs/tiny` average the weights: checkpoints hold the mean, and a resumed run goes on from the others."""
    mean = lambda: EMAWeightAveraging(decay=0.5)  # noqa: E731
    full = train("tokenizer", folder, tmp_path / "full", STEPS, callbacks=[mean(), Each(tmp_path / "kept")])
    assert full == pytest.approx(train("tokenizer", folder, tmp_path / "plain", STEPS), abs=1e-6)
    for done in (2, AN_EPOCH, 5):
        ckpt = tmp_path / "kept" / "checkpoints" / f"{done}.ckpt"
        rest = train("tokenizer", folder, tmp_path / f"from{done}", STEPS, ckpt=ckpt, callbacks=[mean()])
        assert rest == pytest.approx(full[done:], abs=1e-6), done
    found = [torch.load(tmp_path / "kept" / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in (5, 6)]
    name = "tokenizer.after.weight"
    before, after, trained = found[0]["state_dict"], found[1]["state_dict"], found[1]["current_model_state"]
    torch.testing.assert_close(after[name], (before[name] + trained[name]) / 2)


class Stop(Callback):
    """Does something after the n-th batch."""

    def __init__(self, batch: int, what: Any) -> None:
        self.batch, self.what = batch, what

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.batch:
            self.what()


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_told_to_end_keeps_what_it_has(folder: Path, tmp_path: Path) -> None:
    full = train("acoustic", folder, tmp_path / "full", STEPS)
    told = Stop(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        train("acoustic", folder, tmp_path / "run", STEPS, callbacks=[told])
    last = tmp_path / "run" / "checkpoints" / f"{LAST}.ckpt"
    assert train("acoustic", folder, tmp_path / "run", STEPS, ckpt=last) == pytest.approx(full[3:], abs=1e-6)


def trainer_at(step: int, saved: list[int]) -> Any:
    """What of a trainer the checkpoint callbacks ask for."""
    strategy = SimpleNamespace(broadcast=lambda x: x, reduce_boolean_decision=lambda x: x)
    return SimpleNamespace(
        global_step=step,
        fast_dev_run=False,
        strategy=strategy,
        save_checkpoint=lambda path: saved.append(step),
    )


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, [4, 8, 12, 12]), (1e6, [12])])
def test_the_last_checkpoint_comes_in_time_and_not_too_often(
    tmp_path: Path, seconds: float, expected: list[int]
) -> None:
    saved: list[int] = []
    last, module = Last(steps=3, seconds=seconds), LightningModule()
    last.on_train_start(trainer_at(0, saved), module)
    for step in (
        1,
        2,
        4,
        6,
        8,
        10,
        12,
    ):  # two optimizers from the third batch on: no step that 3 divides twice
        last.on_train_batch_end(trainer_at(step, saved), module, None, None, 0)
    last.on_train_end(trainer_at(12, saved), module)
    assert saved == expected


def test_the_best_checkpoint_stays_the_best(tmp_path: Path) -> None:
    state = Best(tmp_path / "old", "val/loss").state_dict()
    state |= {"best_model_score": torch.tensor(0.25), "best_model_path": "/old/best.ckpt"}
    moved = tmp_path / "moved" / "checkpoints" / f"{BEST}.ckpt"
    moved.parent.mkdir(parents=True)
    moved.touch()
    best = Best(tmp_path / "moved", "val/loss")
    best.load_state_dict(state)
    assert not best.check_monitor_top_k(trainer_at(0, []), torch.tensor(0.3))
    assert best.check_monitor_top_k(trainer_at(0, []), torch.tensor(0.2))
    assert best.best_model_path == str(moved)
    elsewhere = Best(tmp_path / "new", "val/loss")
    elsewhere.load_state_dict(state)
    assert elsewhere.check_monitor_top_k(trainer_at(0, []), torch.tensor(0.3))
