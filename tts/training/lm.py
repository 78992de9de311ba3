"""Training of the text-to-token LM: cross entropy on the stream of speech tokens and announcements."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tts.data.batches import IGNORE, LMBatch
from tts.lm.layout import Layout
from tts.lm.model import Aligned, Bounds, Request, SpeechLM
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.media import CASES, Item, duration_bars, token_use
from tts.training.module import StageModule, over_all
from tts.training.optimizer import Kind

PAUSES = frozenset(i for i in range(1, len(DEFAULT_SYMBOLS)) if not DEFAULT_SYMBOLS.is_segment(i))


class LMModule(StageModule):
    """Args:
    lm: the model.
    lr, warmup, total, optimizer, start, lora: see `StageModule`.
    weight_decay: of the matrices.
    """

    part = "lm"

    def __init__(
        self,
        lm: SpeechLM,
        *,
        lr: float = 1e-3,
        warmup: int = 200,
        total: int = 10_000,
        weight_decay: float = 0.05,
        optimizer: Kind = "adamw",
        start: str | None = None,
        lora: int = 0,
    ) -> None:
        super().__init__(lr=lr, warmup=warmup, total=total, optimizer=optimizer, start=start, lora=lora)
        self.lm, self.weight_decay = self.begin(lm), weight_decay

    def configure_optimizers(self) -> Any:
        return self.optimize(self.lm, betas=(0.9, 0.95), weight_decay=self.weight_decay)

    def training_step(self, batch: LMBatch, batch_idx: int) -> Tensor:
        loss, right = self.lm.loss(batch.ids, batch.labels)
        loss = over_all(loss, (batch.labels != IGNORE).sum())
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids), sync_dist=True)
        self.log("train/token_accuracy", right, batch_size=len(batch.ids), sync_dist=True)
        return loss

    def validation_step(self, batch: LMBatch, batch_idx: int) -> None:
        loss, right = self.lm.loss(batch.ids, batch.labels)
        size = int((batch.labels != IGNORE).sum())  # the mean over all, however they fall into batches
        self.log("val/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        self.log("val/token_accuracy", right, batch_size=size, sync_dist=True)

    def show(self, batch: LMBatch) -> list[Item]:
        """What the model writes for some utterances, given their first halves, beside what was really said."""
        layout = self.lm.layout
        said = [aligned(layout, row) for row in batch.ids.tolist()]
        cases = sorted((one for one in said if len(one.groups) > 1), key=lambda one: len(one.tokens))[:CASES]
        halves = [len(one.groups) // 2 for one in cases]
        requests = [
            Request(one.groups[n:], head(one, n), seed=0) for one, n in zip(cases, halves, strict=True)
        ]
        if not requests:
            return []
        written = self.lm.generate(requests, bounds=Bounds(pauses=PAUSES))
        tokens = {
            "written for the second halves": torch.tensor([t for one in written for t in one.tokens]).long(),
            "true, of the first batch": torch.tensor([t for one in said for t in one.tokens]).long(),
        }
        items: list[Item] = [token_use("tokens", tokens, layout.codes)]
        for i, (one, mine, half) in enumerate(zip(cases, written, halves, strict=True)):
            rows = {"true": one.durations, "sampled": [*one.durations[:half], *mine.durations]}
            names = [DEFAULT_SYMBOLS.decode(group) for group in one.groups]
            items.append(duration_bars(f"durations{i}", rows, names, first=half))
        return items


def aligned(layout: Layout, ids: Sequence[int]) -> Aligned:
    """Phoneme groups, tokens and durations of a training example, padded or not: `Layout` read backwards."""
    text_end = ids.index(layout.text_end)
    groups = DEFAULT_SYMBOLS.groups(ids[1:text_end])
    of_symbol = [n for n, group in enumerate(groups) for _ in group]
    tokens, durations, announced = [], [0] * len(groups), 0
    for i in ids[text_end + 1 :]:
        if i >= layout.first_code:
            # a group is said once the one after it is announced, the last one once TEXT_END is
            group = max(0, of_symbol[announced - 1] - 1) if announced <= len(of_symbol) else len(groups) - 1
            tokens.append(i - layout.first_code)
            durations[group] += 1
        elif i in (layout.eos, 0):
            break
        else:
            announced += 1
    return Aligned(groups, tokens, durations)


def head(one: Aligned, groups: int) -> Aligned:
    """The first so many groups of an utterance."""
    durations = one.durations[:groups]
    return Aligned(one.groups[:groups], one.tokens[: sum(durations)], durations)
