"""Training of the acoustic decoder: the flow loss under attention masks drawn per batch, then a reader's, too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from codec.errors import UserError
from tts.acoustic.decoder import FlowDecoder
from tts.data.batches import AcousticBatch
from tts.data.datasets import SpeechDataset, frames_of
from tts.training.media import CASES, Item, Sound, compare_frames, griffin_lim
from tts.training.module import StageModule, gather, over_all
from tts.training.optimizer import Kind
from tts.training.reading import Listener


class AcousticModule(StageModule):
    """Args:
    acoustic: the model.
    chunks: tokens per chunk of the masks used in training, one drawn per batch; 0 is the whole utterance, so
        ``[0, 0, 12, 24]`` trains offline use half of the time and streaming with two delays the other half.
    reading: weight of what a reader hears in what the solver makes (`tts.training.reading`), which makes a step take
        four times as long; 0 for none.
    reading_from: first step with it.
    reader: file of the finished tokenizer that reads.
    voice: an encoder of speakers (see `Listener`) that hears whether it is the prompt's voice, too; None for none.
    likeness: weight of the voice beside what is read.
    ear: an encoder of speech (see `Listener`) that hears how far it is from the recording; None for none.
    hearing: weight of that beside what is read.
    lr, warmup, total, optimizer, start, lora: see `StageModule`.
    weight_decay: of the matrices.

    Raises:
        UserError: `reading` without a reader; when training begins, one that cannot be used.
    """

    part = "acoustic"

    def __init__(
        self,
        acoustic: FlowDecoder,
        *,
        chunks: Sequence[int] = (0, 0, 12, 24),
        lr: float = 1e-3,
        warmup: int = 200,
        total: int = 10_000,
        weight_decay: float = 0.01,
        reading: float = 0.0,
        reading_from: int = 0,
        reader: str | None = None,
        voice: nn.Module | None = None,
        likeness: float = 2.0,
        ear: nn.Module | None = None,
        hearing: float = 1.5,
        optimizer: Kind = "adamw",
        start: str | None = None,
        lora: int = 0,
    ) -> None:
        super().__init__(lr=lr, warmup=warmup, total=total, optimizer=optimizer, start=start, lora=lora)
        self.acoustic, self.chunks, self.weight_decay = self.begin(acoustic), list(chunks), weight_decay
        self.reading, self.reading_from = reading, reading_from
        self.listener: Listener | None = None
        if reading and reader is None:
            raise UserError(
                f"reading {reading} needs a finished tokenizer: set model.init_args.reader to its .safetensors"
            )
        self.reader = reader
        # a dict hides modules from torch: they are in no checkpoint
        self._hear: dict[str, Any] = {
            "voice": voice,
            "likeness": likeness,
            "ear": ear,
            "hearing": hearing,
        }
        self._errors = [0, 0]

    def setup(self, stage: str) -> None:
        """Load the reader: the recipe checks all configs before there is one."""
        super().setup(stage)
        if self.reading and self.reader is not None:
            self.listener = Listener(Path(self.reader), self.acoustic.spec, **self._hear)

    def configure_optimizers(self) -> Any:
        return self.optimize(self.acoustic, betas=(0.9, 0.98), weight_decay=self.weight_decay)

    def on_fit_start(self) -> None:
        """Measure mean and deviation of the frames, unless the model brings them (a resumed or tuned model)."""
        if bool((self.acoustic.std != 1).any()):
            return
        mean, std = frame_statistics(cast(Any, self.trainer).datamodule.train_dataset)
        self.acoustic.mean.copy_(mean)
        self.acoustic.std.copy_(std)

    def _loss(self, batch: AcousticBatch, chunk: int) -> Tensor:
        return self.acoustic.loss(
            batch.frames, batch.tokens, batch.prompt_lens, batch.lens, chunk=chunk or None
        )

    def training_step(self, batch: AcousticBatch, batch_idx: int) -> Tensor:
        chunk = self.chunks[int(torch.randint(len(self.chunks), ()))]
        loss = self._loss(batch, chunk)
        if self.listener is not None and self.global_step >= self.reading_from:
            read = self.listener.loss(self.acoustic, batch, chunk=chunk or None)
            self.log_dict(
                {"train/flow": loss, "train/read": read}, batch_size=len(batch.tokens), sync_dist=True
            )
            loss = loss + self.reading * read
        loss = over_all(loss, (batch.lens - batch.prompt_lens).sum())
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.tokens), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._errors = [0, 0]

    def validation_step(self, batch: AcousticBatch, batch_idx: int) -> None:
        size = len(batch.tokens)
        with torch.random.fork_rng():
            torch.manual_seed(batch_idx)  # the same noise and times every time, so that epochs compare
            loss = self._loss(batch, 0)
            if self.listener is not None:
                self.log("val/flow", loss, batch_size=size, sync_dist=True)
                loss = loss + self.reading * self.listener.loss(self.acoustic, batch)
                for i, count in enumerate(self.listener.errors(self.acoustic, batch)):
                    self._errors[i] += count
        self.log("val/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        if self.listener is not None:
            wrong, total = (sum(counts) for counts in zip(*gather(self._errors), strict=True))
            self.log("val/per", wrong / max(1, total), prog_bar=True, sync_dist=True)

    def show(self, batch: AcousticBatch) -> list[Item]:
        """Frames made from the true tokens and prompts, beside the true ones; both roughly audible."""
        spec, per = self.acoustic.spec, self.acoustic.spec.frames_per_token
        items: list[Item] = []
        for i, (start, end) in enumerate(zip(batch.prompt_lens.tolist(), batch.lens.tolist(), strict=True)):
            if len(items) == 3 * CASES or not 0 < start < end:
                continue
            true, tokens = batch.frames[i, : end * per], batch.tokens[i, :end]
            noise = torch.randn(
                (end - start) * per, true.shape[1], generator=torch.Generator().manual_seed(i)
            )
            given = (true[: start * per], tokens[:start])
            made = self.acoustic.decode([given], [tokens[start:]], [noise.to(true.device)], steps=10)[0]
            rows = {"recording": true, "prompt, then made from its tokens": torch.cat([given[0], made])}
            items.append(compare_frames(f"frames{i}", rows, spec.frames, mark=start / spec.rate))
            if spec.frames.kind == "mel":
                for name, frames in (
                    ("recording", true),
                    ("made", rows["prompt, then made from its tokens"]),
                ):
                    wav = griffin_lim(frames, spec.frames)
                    items.append(Sound(f"{name}{i}_rough", wav, spec.frames.sample_rate))
        return items


def frame_statistics(dataset: SpeechDataset, *, utterances: int = 500) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel, (D,) each, over utterances spread evenly over the data."""
    cuts = dataset.cuts[:: max(1, len(dataset.cuts) // utterances)]
    frames = torch.cat([torch.from_numpy(frames_of(cut)) for cut in cuts]).double()
    return frames.mean(0).float(), frames.std(0).clamp(min=1e-3).float()
