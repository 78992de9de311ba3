"""What all four training modules share: the optimizer, checkpoints by validation metric, exact resume, pictures."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch import nn

from tts.training.schedules import warmup_cosine

BEST, LAST = "best", "last"


class StageModule(LightningModule):
    """Base of the stages.

    Attributes:
        part: name of the attribute that holds the model which inference needs, also of its file.
        monitor: the validation metric, lower is better, that the best checkpoint has lowest.
    """

    part: ClassVar[str]
    monitor: ClassVar[str] = "val/loss"

    def __init__(self, *, lr: float, warmup: int, total: int) -> None:
        super().__init__()
        self.lr, self.warmup, self.total = lr, warmup, total
        self._rng: dict[str, Any] | None = None

    def configure_callbacks(self) -> list[Callback]:
        """Keep the best checkpoint by `monitor`, and the newest every few minutes to resume from."""
        best = ModelCheckpoint(monitor=self.monitor, mode="min", filename=BEST, enable_version_counter=False)
        last = ModelCheckpoint(
            filename=LAST, every_n_train_steps=100, save_top_k=1, monitor=None, enable_version_counter=False
        )
        return [best, last, LearningRateMonitor("step")]

    def adamw(self, model: nn.Module, *, betas: tuple[float, float], weight_decay: float) -> Any:
        """AdamW with warm-up and cosine; weight decay for matrices, none for norms, biases and other vectors."""
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, self.lr, betas=betas)
        schedule = warmup_cosine(optimizer, warmup=self.warmup, total=self.total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Lightning does not keep the random state: noise and dropout of a resumed run would differ.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rng"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            checkpoint["rng"]["cuda"] = torch.cuda.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng = checkpoint.get("rng")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Go on with the saved random state; only here have loaders and sanity checks drawn what they draw."""
        if self._rng is not None:
            torch.set_rng_state(self._rng["cpu"].cpu())
            if "cuda" in self._rng and torch.cuda.is_available():
                torch.cuda.set_rng_state(self._rng["cuda"].cpu())
            self._rng = None

    @property
    def folder(self) -> Path | None:
        """Where this run writes, None where it does not."""
        return Path(self.trainer.log_dir) if self._trainer is not None and self.trainer.log_dir else None
