"""A run that is killed in the middle of an epoch goes on to the losses of one that ran through."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tts.training.fit import run_stage
from tts.training.logs import Curve, read_metrics

KILL = """
import os, signal
from lightning.pytorch import Callback

class Kill(Callback):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step == self.after:
            os.kill(os.getpid(), signal.SIGKILL)
"""
STEPS, KILLED, SAVED = 9, 5, 4  # an epoch has three batches: killed after two of the second


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_killed_goes_on_to_the_same_losses(lm_config: Path, tmp_path: Path, start: Any) -> None:
    full, run = tmp_path / "full", tmp_path / "run"
    (tmp_path / "kill.py").write_text(KILL)
    callbacks = [
        {"class_path": "tts.training.module.Last", "init_args": {"steps": 2, "seconds": 0}},
        {"class_path": "kill.Kill", "init_args": {"after": KILLED}},
    ]
    (tmp_path / "killed.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    fit = ["fit", "--config", str(lm_config), f"--trainer.max_steps={STEPS}"]
    in_run = f"--trainer.default_root_dir={run}"

    killed = [*fit, "--config", str(tmp_path / "killed.yaml"), "--data.init_args.num_workers=1", in_run]
    start(sys.executable, "train.py", *killed, expected=-signal.SIGKILL)
    last = run / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == SAVED
    assert [step for step, _ in curve(run, "train/loss")] == list(range(KILLED))

    run_stage([*fit, in_run, f"--ckpt_path={last}"])
    run_stage([*fit, f"--trainer.default_root_dir={full}"])
    for name in ("train/loss", "train/lr", "val/loss"):
        assert [step for step, _ in curve(run, name)] == [step for step, _ in curve(full, name)]
        assert values(run, name) == pytest.approx(values(full, name), rel=1e-6), name
    assert len(set(values(full, "train/loss"))) == STEPS and len(values(full, "val/loss")) == 3


def curve(run: Path, name: str) -> Curve:
    return read_metrics(run / "metrics.jsonl")[name]


def values(run: Path, name: str) -> list[float]:
    return [value for _, value in curve(run, name)]
