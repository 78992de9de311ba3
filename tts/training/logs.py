"""Where a run's figures go: metrics.jsonl, curves.png and wandb, all below the run's folder."""

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tts.training.media import Item, Picture

log = logging.getLogger(__name__)

NOT_METRICS = ("step", "epoch", "time")

# The panels of curves.png in their order, by what is measured in them; others follow under their own names.
TITLES = {
    "loss": "loss",
    "mel": "distance of log-mels",
    "discriminator": "loss of the discriminators",
    "ctc": "CTC loss, nats per phoneme",
    "ctc_before": "CTC loss, nats per phoneme",
    "per_after": "phoneme error rate",
    "per_before": "phoneme error rate",
    "token_accuracy": "share of tokens foretold",
    "envelope": "distance of the envelope, standard deviations",
    "quantizer": "loss of the quantiser",
    "codes_used": "share of the codes in use",
    "perplexity": "perplexity of the codes",
    "speaker_probe": "share of speakers guessed from tokens",
    "speaker_chance": "share of speakers guessed from tokens",
    "lr": "learning rate",
}
MANY = 30  # points, from which on a curve is smoothed

Curve = list[tuple[int, float]]
"""(step, value), by step."""


class MetricsFile(Logger):
    """``<folder>/metrics.jsonl``: one JSON object a line with the step (batches trained on), the time (seconds
    since 1970) and what was measured. Lines are only ever added, by a resumed run too."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.jsonl"

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a line; what is no finite number is written as null, for readers that are strict about JSON."""
        line: dict[str, Any] = {"step": step, "time": round(time.time(), 1)}
        line |= {k: v if math.isfinite(v) else None for k, v in metrics.items() if k not in line}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            if file.tell() and not _ends_a_line(file):
                file.write(b"\n")  # the run before was cut off in the middle of a line
            file.write(json.dumps(line).encode() + b"\n")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in config.yaml."""


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read() == b"\n")


def read_metrics(path: str | Path) -> dict[str, Curve]:
    """The curves of a metrics.jsonl, by name.

    A run that was cut off and went on from an earlier step has that step's line twice, and lines behind it that
    never became part of it: of these the later ones count.
    """
    curves: dict[str, Curve] = defaultdict(list)
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off
        for name, value in values.items():
            if name in NOT_METRICS or values["step"] is None:
                continue
            curve = curves[name]
            while curve and curve[-1][0] >= values["step"]:
                curve.pop()
            curve.append((values["step"], math.nan if value is None else float(value)))
    return dict(curves)


def draw_curves(curves: Mapping[str, Curve]) -> Figure:
    """One panel for each thing measured, training and validation together.

    Curves of many points are smoothed, and stand pale behind that as they are. The legend tells where they end.
    """
    panels: dict[str, list[str]] = {title: [] for title in TITLES.values()}
    for name in sorted(curves):
        thing = name.partition("/")[2] or name
        panels.setdefault(TITLES.get(thing, thing), []).append(name)
    shown = {title: names for title, names in panels.items() if names}
    columns = min(3, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(5 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, (title, names) in zip(axes, shown.items(), strict=False):
        for name in names:
            _draw_curve(ax, name, curves[name])
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel("batches")
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
    for ax in axes[len(shown) :]:
        ax.remove()
    return figure


def _draw_curve(ax: Axes, name: str, curve: Curve) -> None:
    steps, values = zip(*curve, strict=True)
    many = len(curve) >= MANY and not name.endswith("/lr")
    shown = smoothed(values) if many else list(values)
    last = next((value for value in reversed(shown) if math.isfinite(value)), math.nan)
    style = "o-" if name.startswith("val/") else "-"
    size = 0 if many else 3
    (line,) = ax.plot(
        steps, shown, style, markersize=size, linewidth=1 + many / 2, label=f"{name} {last:.3g}"
    )
    if many:
        ax.plot(steps, values, linewidth=0.5, alpha=0.35, color=line.get_color(), zorder=1)


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of the last tenth of what there was so far, the nearer past counting more; without what is no
    number."""
    result, total, weight = [], 0.0, 0.0
    for number, value in enumerate(values, 1):
        keep = 1 - 1 / max(1.0, number / 10)
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
        result.append(total / weight if weight else math.nan)
    return result


class Curves(Callback):
    """Draws curves.png next to metrics.jsonl after each validation and at the end."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer)

    @rank_zero_only
    def _draw(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile) and logger.path.is_file():
                draw_curves(read_metrics(logger.path)).savefig(logger.path.with_name("curves.png"), dpi=80)


class Wandb(WandbLogger):
    """Weights & Biases: online for who is logged in, else offline; all files below the run's folder.

    It asks nothing, prints nothing, and cannot stop a training: where it does not start, one line says so.
    """

    def __init__(self, folder: str | Path, *, project: str = "tts") -> None:
        folder = Path(folder).resolve()
        super().__init__(name="/".join(folder.parts[-2:]), project=project, save_dir=folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run; started when it is first asked for."""
        if self._experiment is None:
            Path(self._wandb_init["dir"]).mkdir(parents=True, exist_ok=True)
            try:
                self._wandb_init |= _start_settings()
                return super().experiment
            except Exception as error:  # whatever it is, it is not worth the training
                log.warning("wandb does not start, and is left out (%s)", " ".join(str(error).split())[:200])
                self._wandb_init["mode"] = "disabled"
        return super().experiment

    @rank_zero_only
    def log_media(self, files: Sequence[tuple[Item, Path]], step: int) -> None:
        """Send pictures and sounds that lie in files."""
        import wandb

        media = {
            f"media/{item.name}": wandb.Image(str(path))
            if isinstance(item, Picture)
            else wandb.Audio(str(path))
            for item, path in files
        }
        self.log_metrics(media, step)  # type: ignore[arg-type]

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the wandb run: the next stage, trained in the same process, has its own."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def _start_settings() -> dict[str, Any]:
    """What `wandb.init` is to be given: quiet, and offline where there is no account to send to."""
    import wandb

    quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, init_timeout=30)
    chosen = wandb.setup(quiet).settings.mode  # WANDB_MODE, where the user has set it
    if chosen not in ("offline", "disabled"):
        chosen = "online" if wandb.login(prompt=False, verify=False) else "offline"
    return {"mode": chosen, "settings": quiet}
