"""Training of the text-to-token LM: cross entropy on the stream of speech tokens and announcements."""

from typing import Any

from torch import Tensor

from tts.data.batches import LMBatch
from tts.lm.model import SpeechLM
from tts.training.module import StageModule


class LMModule(StageModule):
    """Args:
    lm: the model.
    lr, warmup, total: peak learning rate, and steps of `schedules.warmup_cosine`.
    weight_decay: of the matrices.
    """

    part = "lm"

    def __init__(
        self, lm: SpeechLM, *, lr: float = 1e-3, warmup: int = 200, total: int = 10_000, weight_decay: float = 0.05
    ) -> None:
        super().__init__(lr=lr, warmup=warmup, total=total)
        self.lm, self.weight_decay = lm, weight_decay

    def configure_optimizers(self) -> Any:
        return self.adamw(self.lm, betas=(0.9, 0.95), weight_decay=self.weight_decay)

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

