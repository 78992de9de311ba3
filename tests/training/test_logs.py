"""The figures of a run: what is written is what was measured, also over a resume; wandb stays in its folder."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from tts.training.logs import MetricsFile, Wandb, draw_curves, read_metrics, smoothed
from tts.training.media import Picture, write


def test_every_measurement_is_a_line(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "run")
    metrics.log_metrics({"train/loss": 2.5, "epoch": 0}, 9)
    MetricsFile(tmp_path / "run").log_metrics({"train/loss": math.nan, "val/loss": 1.25}, 19)
    first, second = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {k: v for k, v in first.items() if k != "time"} == {"step": 9, "train/loss": 2.5, "epoch": 0}
    assert (second["step"], second["train/loss"], second["val/loss"]) == (19, None, 1.25)
    assert second["time"] >= first["time"] > 1.7e9
    assert metrics.save_dir == str(tmp_path / "run")


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    metrics.log_metrics({"loss": 3.0}, 1)
    with open(metrics.path, "a") as file:
        file.write('{"step": 2, "lo')
    metrics.log_metrics({"loss": 2.0}, 3)
    assert read_metrics(metrics.path) == {"loss": [(1, 3.0), (3, 2.0)]}


def test_curves_of_a_resumed_run_hold_what_became_of_it(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    for step in (10, 20, 30, 40):  # cut off at 45; the last checkpoint was of step 25
        metrics.log_metrics({"train/loss": float(step)}, step)
    metrics.log_metrics({"val/loss": 9.0}, 35)
    for step in (30, 40, 50):
        metrics.log_metrics({"train/loss": step / 10}, step)
    metrics.log_metrics({"val/loss": 8.0}, 35)
    assert read_metrics(metrics.path) == {
        "train/loss": [(10, 10.0), (20, 20.0), (30, 3.0), (40, 4.0), (50, 5.0)],
        "val/loss": [(35, 8.0)],
    }


def test_training_and_validation_share_a_panel() -> None:
    curves = {
        "train/loss": [(1, 3.0), (2, 2.0)],
        "val/loss": [(2, 2.5)],
        "train/lr": [(1, 1e-3), (2, math.nan)],
        "val/per_before": [(2, 0.5)],
        "val/per_after": [(2, 0.75)],
        "val/mine": [(2, 1.0)],
    }
    figure = draw_curves(curves)
    panels = {ax.get_title(): {str(line.get_label()): line for line in ax.lines} for ax in figure.axes}
    assert {title: set(lines) for title, lines in panels.items()} == {
        "loss": {"train/loss 2", "val/loss 2.5"},
        "phoneme error rate": {"val/per_before 0.5", "val/per_after 0.75"},
        "learning rate": {"train/lr 0.001"},
        "mine": {"val/mine 1"},
    }
    assert list(panels) == ["loss", "phoneme error rate", "learning rate", "mine"]
    assert panels["loss"]["train/loss 2"].get_xydata().tolist() == [[1, 3], [2, 2]]  # type: ignore[union-attr]
    assert all(ax.get_xlabel() == "batches" for ax in figure.axes)
    assert len(draw_curves({}).axes) == 0


def test_long_curves_are_smoothed() -> None:
    values = [1.0 + (-1) ** n for n in range(200)]  # 2, 0, 2, 0 ...
    (panel,) = draw_curves({"train/loss": list(enumerate(values))}).axes
    smooth, raw = panel.lines
    assert list(raw.get_ydata()) == values  # type: ignore[arg-type]
    assert smooth.get_ydata()[100:] == pytest.approx(1.0, abs=0.15)  # type: ignore[index]
    assert smoothed([3.0, math.nan, 3.0]) == [3, 3, 3]
    assert smoothed([math.nan, 5.0])[1] == 5
    steps = [0.0] * 100 + [1.0] * 100  # half of the way is past after about a tenth of the whole
    assert 0.5 < smoothed(steps)[120] < smoothed(steps)[199] and smoothed(steps)[199] > 0.99


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody who never logged in to wandb."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setattr(sys, "stdin", None)  # whoever asks, fails
    return home


def test_wandb_is_offline_and_stays_in_the_run_folder(
    tmp_path: Path, nobody: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import wandb

    wandb.teardown()  # what it read of the real home
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    logger = Wandb(tmp_path / "mine" / "lm")
    assert logger.experiment.settings.mode == "offline"
    assert logger.experiment.name == "mine/lm"
    logger.log_metrics({"train/loss": 2.0}, 1)
    picture = Picture("tokens", lambda figure: None)
    logger.log_media([(picture, write(picture, tmp_path / "mine" / "lm" / "media"))], 1)
    logger.finalize("success")
    assert wandb.run is None
    runs = list((tmp_path / "mine" / "lm" / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    assert len(list(runs[0].rglob("*.png"))) == 1
    assert list(runs[0].glob("*.wandb"))
    assert not list(elsewhere.iterdir())
    assert capfd.readouterr().out == ""
    wandb.teardown()


def test_a_training_goes_on_without_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    real = wandb.init

    def broken(**settings: Any) -> Any:
        if settings.get("mode") != "disabled":
            raise RuntimeError("no service\nfor you")
        return real(**settings)

    monkeypatch.setattr(wandb, "init", broken)
    logger = Wandb(tmp_path)
    with caplog.at_level(logging.WARNING):
        logger.log_metrics({"train/loss": 2.0}, 1)
    assert [record.getMessage() for record in caplog.records if record.name == "tts.training.logs"] == [
        "wandb does not start, and is left out (no service for you)"
    ]
    logger.log_metrics({"train/loss": 1.0}, 2)
    logger.finalize("success")
