"""Pictures and sounds of a few validation cases, so that a run can be seen and heard while it trains.

A stage says what to show of a batch (`StageModule.show`), with the helpers here; `Media` writes it. Frames are
(T, D), waveforms (samples,).
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor
from torchaudio.functional import melscale_fbanks
from torchaudio.transforms import GriffinLim

from codec.audio import write_audio
from codec.spec import FrameSpec

log = logging.getLogger(__name__)

CASES = 2  # of a batch
TICKS = (250, 500, 1000, 2000, 4000, 8000)  # Hz
DB = 20 / math.log(10)  # decibels to a natural logarithm of magnitudes
RANGE = 80.0  # dB that a picture shows
INCHES = 3.0  # of a picture with phonemes in it, for each second
LEVELS = 3  # of labels


@dataclass(frozen=True)
class Picture:
    """A picture to be drawn where it is wanted: ``draw`` fills the figure."""

    name: str
    draw: Callable[[Figure], None]


@dataclass(frozen=True)
class Sound:
    """A waveform (samples,), full scale at 1, and its rate in Hz."""

    name: str
    wav: Tensor
    sample_rate: int


Item = Picture | Sound


class Media(Callback):
    """After each validation, writes what the module shows of the first batch to ``<folder>/<batches trained>/``.

    The validation batches are always the same, so the cases are, too.

    Args:
        folder: for all of it.
        most: folders kept; beyond that, those go whose absence leaves the others spread most evenly.
    """

    def __init__(self, folder: Path, *, most: int = 12) -> None:
        self.folder, self.most = folder, most
        self._batch: Any = None

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0 and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._batch = batch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batch, self._batch = self._batch, None
        show: Callable[[Any], list[Item]] | None = getattr(pl_module, "show", None)
        if batch is None or show is None or not trainer.is_global_zero:
            return
        if isinstance(trainer.strategy, FSDPStrategy):  # its weights come together in the steps alone
            log.info("no pictures and sounds are made of a sharded model")
            return
        try:
            with torch.inference_mode(), trainer.precision_plugin.forward_context():
                self._write(trainer, show(batch))
        except Exception:  # a picture is not worth a training
            log.warning("the pictures of this validation failed", exc_info=True)

    def _write(self, trainer: Trainer, items: Sequence[Item]) -> None:
        done = trainer.fit_loop.epoch_loop.total_batch_idx
        files = [(item, write(item, self.folder / f"{done + 1:08d}")) for item in items]
        for logger in trainer.loggers:
            if hasattr(logger, "log_media"):
                logger.log_media(files, done)
        steps = sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())
        for step in superfluous(steps, self.most):
            shutil.rmtree(self.folder / f"{step:08d}")


def superfluous(steps: Sequence[int], most: int) -> list[int]:
    """Which of the steps, in order, to leave out so that at most so many stay, the first and the last among them."""
    kept, out = list(steps), []
    while len(kept) > max(2, most):
        gaps = [after - before for before, after in zip(kept, kept[2:], strict=False)]
        out.append(kept.pop(1 + gaps.index(min(gaps))))
    return out


def write(item: Item, folder: Path) -> Path:
    """Write ``<folder>/<name>.png`` or ``.wav``."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(item, Sound):
        path = folder / f"{item.name}.wav"
        write_audio(path, item.wav.detach().float().cpu(), item.sample_rate, overwrite=True)
        return path
    path = folder / f"{item.name}.png"
    figure = Figure(figsize=(9, 5), layout="constrained")
    item.draw(figure)
    figure.savefig(path, dpi=80)
    return path


# ------------------------------------------------------------------------------------------------------ pictures


def frames_image(
    ax: Axes, frames: Tensor, spec: FrameSpec, *, limits: tuple[float, float] | None = None
) -> AxesImage:
    """Frames over seconds; of log-mels the level in dB, and the channels' frequencies in Hz."""
    values = shown_values(frames, spec)
    low, high = limits or value_limits(values, spec)
    end = len(values) / spec.rate
    image = ax.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0.0, end, -0.5, spec.dim - 0.5),
        vmin=low,
        vmax=high,
    )
    ax.set_xlabel("seconds")
    if spec.kind != "mel":
        ax.set_ylabel("channel")
        return image
    shown = [hz for hz in TICKS if hz < spec.sample_rate / 2]
    ax.set_yticks([channel(hz, spec) for hz in shown], [str(hz) for hz in shown])
    ax.set_ylabel("Hz")
    return image


def shown_values(frames: Tensor, spec: FrameSpec) -> npt.NDArray[np.float32]:
    """Frames as they are drawn: log-mels, natural logarithms of magnitudes, in dB."""
    values: npt.NDArray[np.float32] = frames.detach().float().cpu().numpy()
    return values * DB if spec.kind == "mel" else values


def value_limits(values: npt.NDArray[np.float32], spec: FrameSpec) -> tuple[float, float]:
    """The ends of the colours: for log-mels `RANGE` below the loudest, so that silence does not take all of them."""
    low, high = float(values.min()), float(values.max())
    return (max(low, high - RANGE), high) if spec.kind == "mel" else (low, high)


def add_scale(figure: Figure, image: AxesImage, axes: Sequence[Axes], spec: FrameSpec) -> None:
    figure.colorbar(
        image, ax=list(axes), fraction=0.03, pad=0.01, label="dB" if spec.kind == "mel" else "value"
    )


def channel(hz: float, spec: FrameSpec) -> float:
    """Where a frequency lies among the mel channels (HTK's scale, the centre of the first one is at 0)."""

    def mel(frequency: float) -> float:
        return 2595 * math.log10(1 + frequency / 700)

    return mel(hz) / mel(spec.sample_rate / 2) * (spec.dim + 1) - 1


def compare_frames(
    name: str, rows: Mapping[str, Tensor], spec: FrameSpec, *, mark: float | None = None
) -> Picture:
    """Several (T, D) one below the other, in the colours of the first; `mark` is a moment in seconds."""

    def draw(figure: Figure) -> None:
        limits = value_limits(shown_values(next(iter(rows.values())), spec), spec)
        axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False).flatten()
        for ax, (title, frames) in zip(axes, rows.items(), strict=True):
            image = frames_image(ax, frames, spec, limits=limits)
            ax.label_outer()
            ax.set_title(title, fontsize="medium")
            if mark is not None:
                ax.axvline(mark, color="white", linewidth=1, linestyle="--")
        add_scale(figure, image, list(axes), spec)

    return Picture(name, draw)


def aligned_frames(
    name: str, frames: Tensor, spec: FrameSpec, starts: Sequence[float], labels: Sequence[str]
) -> Picture:
    """Frames (T, D) with a line and a label where each phoneme starts, in seconds."""

    def draw(figure: Figure) -> None:
        figure.set_size_inches(min(24.0, max(9.0, INCHES * len(frames) / spec.rate)), 5.0)
        ax = figure.subplots()
        image = frames_image(ax, frames, spec)
        ax.vlines(list(starts), -0.5, spec.dim - 0.5, color="white", linewidth=0.5)
        for number, (start, label) in enumerate(zip(starts, labels, strict=True)):
            height = 1.01 + 0.045 * (number % LEVELS)  # in turn, so that short ones do not cover each other
            ax.text(start, height, label, fontsize="small", transform=ax.get_xaxis_transform())
        add_scale(figure, image, [ax], spec)

    return Picture(name, draw)


def token_use(name: str, tokens: Mapping[str, Tensor], codes: int) -> Picture:
    """How often each code occurs in some sets of tokens (n,), the most used first.

    The flat line is a codebook all of whose codes are used alike. The legend counts the codes in use, and tells
    their perplexity: as many codes used alike would say as much.
    """
    curves = {}
    for title, ids in tokens.items():
        counts = torch.bincount(ids.detach().cpu().flatten(), minlength=codes).sort(descending=True).values
        share = (counts / counts.sum().clamp(min=1)).double()
        perplexity = float((-(share * share.clamp(min=1e-12).log()).sum()).exp()) if counts.any() else 0.0
        used, total = int((counts > 0).sum()), int(counts.sum())
        curves[f"{title}: {used} of {codes} codes in {total} tokens, perplexity {perplexity:.0f}"] = share

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for title, share in curves.items():
            ax.step(np.arange(1, codes + 1), 100 * share.numpy(), where="mid", label=title)
        ax.axhline(100 / codes, color="gray", linestyle="--", linewidth=1, label="all codes alike")
        ax.set_xlabel("codes, the most used first")
        ax.set_ylabel("% of the tokens")
        ax.grid(alpha=0.3)
        ax.legend()

    return Picture(name, draw)


def duration_bars(
    name: str, rows: Mapping[str, Sequence[int]], labels: Sequence[str], *, first: int = 0
) -> Picture:
    """Tokens of each phoneme, the rows side by side; before number `first` they were given, not sampled."""

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        places = np.arange(len(labels))
        width = 0.8 / len(rows)
        for i, (title, durations) in enumerate(rows.items()):
            ax.bar(places + (i - (len(rows) - 1) / 2) * width, list(durations), width, label=title)
        ax.axvspan(-0.5, first - 0.5, color="gray", alpha=0.2)
        figure.set_size_inches(min(24.0, max(9.0, 0.3 * len(labels))), 5.0)
        ax.set_xticks(places, list(labels))
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_ylabel("tokens")
        ax.set_xlabel("phonemes in order; gray: given, not sampled")
        ax.legend()

    return Picture(name, draw)


# -------------------------------------------------------------------------------------------------------- sounds


def griffin_lim(frames: Tensor, spec: FrameSpec, *, steps: int = 32) -> Tensor:
    """A rough waveform (samples,) of log-mel frames (T, D), to listen to where there is no vocoder yet.

    Griffin & Lim 1984, on magnitudes that the mel filters' pseudo-inverse gives.
    """
    n_fft = 4 * spec.hop
    filters = melscale_fbanks(n_fft // 2 + 1, 0.0, spec.sample_rate / 2, spec.dim, spec.sample_rate)
    solve = GriffinLim(n_fft, n_iter=steps, hop_length=spec.hop, power=1.0, rand_init=False)
    with torch.autocast("cpu", enabled=False):
        magnitude = (frames.detach().float().cpu().exp() @ torch.linalg.pinv(filters)).clamp(min=0)
        wav: Tensor = solve(magnitude.t())
    return wav / max(1.0, float(wav.abs().max()))
