"""Training of the text-to-token LM: cross entropy on the stream of speech tokens and announcements."""

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from tts.data.batches import LMBatch
from tts.lm.model import SpeechLM
from tts.training.schedules import warmup_cosine


class LMModule(LightningModule):
    """Args:
    lm: the model.
    lr, warmup, total: peak learning rate, and steps of `schedules.warmup_cosine`.
    weight_decay: of the matrices.
    """

    def __init__(
        self, lm: SpeechLM, *, lr: float = 1e-3, warmup: int = 200, total: int = 10_000, weight_decay: float = 0.05
    ) -> None:
        super().__init__()
        self.lm = lm
        self.lr, self.warmup, self.total, self.weight_decay = lr, warmup, total, weight_decay

    def configure_optimizers(self) -> Any:
        groups = decay_groups(self.lm, self.weight_decay)
        optimizer = torch.optim.AdamW(groups, self.lr, betas=(0.9, 0.95))
        schedule = warmup_cosine(optimizer, warmup=self.warmup, total=self.total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: LMBatch, batch_idx: int) -> Tensor:
        loss, right = self.lm.loss(batch.ids, batch.labels)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        self.log("train/token_accuracy", right, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: LMBatch, batch_idx: int) -> None:
        loss, right = self.lm.loss(batch.ids, batch.labels)
        size = len(batch.ids)
        self.log("val/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        self.log("val/token_accuracy", right, batch_size=size, sync_dist=True)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: weight decay for matrices, none for norms, biases and other vectors."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
