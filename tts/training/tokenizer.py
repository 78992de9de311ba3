"""Training of the semantic tokenizer: CTC on phonemes before and after the quantiser, and a coarse envelope."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import edit_distance

from codec.errors import UserError
from codec.nn.masks import length_mask
from codec.tokenizer.model import Reading, Tokenizer, best_path
from tts.data.batches import AcousticBatch, TokenizerBatch
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.augment import at_tempo
from tts.training.media import CASES, Item, Sound, aligned_frames, griffin_lim, token_use
from tts.training.module import StageModule, gather
from tts.training.optimizer import Kind
from tts.training.probe import speaker_probe


class TokenizerModule(StageModule):
    """Args:
    tokenizer: the model.
    augment: (frames, floor) -> changed frames, in training only; the envelope's target stays the unchanged one,
        which teaches the tokens to leave the voice and the room out.
    tempo: largest relative change of a batch's tempo, drawn anew for each: its frames are respaced.
    before_weight: of CTC before the quantiser (intermediate CTC, Lee & Watanabe 2021, 2102.03216).
    envelope_weight: of the coarse envelope's L1 distance, standard deviations.
    lr, warmup, total, optimizer, start: see `StageModule`.
    """

    part = "tokenizer"
    monitor = "val/per_after"

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        augment: nn.Module | None = None,
        tempo: float = 0.0,
        before_weight: float = 0.3,
        envelope_weight: float = 1.0,
        lr: float = 1e-3,
        warmup: int = 300,
        total: int = 10_000,
        optimizer: Kind = "adamw",
        start: str | None = None,
    ) -> None:
        super().__init__(lr=lr, warmup=warmup, total=total, optimizer=optimizer, start=start)
        self.tokenizer, self.augment = self.begin(tokenizer), augment
        self.tempo = tempo
        self.before_weight, self.envelope_weight = before_weight, envelope_weight
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._errors = {"before": [0, 0], "after": [0, 0]}

    def configure_optimizers(self) -> Any:
        return self.optimize(self.tokenizer, betas=(0.9, 0.98), weight_decay=0.01)

    def losses(self, batch: TokenizerBatch, frames: Tensor) -> tuple[Tensor, dict[str, Tensor], Reading]:
        """The sum to minimise and its parts, for `frames` made from those of the batch."""
        reading: Reading = self.tokenizer(frames, batch.frame_lens)
        read_lens = reading.lens * self.tokenizer.reads_per_token
        parts = {
            "ctc": ctc_loss(reading.after, read_lens, batch),
            "ctc_before": ctc_loss(reading.before, read_lens, batch),
            "envelope": self.envelope_loss(reading, batch),
            "quantizer": reading.loss,
        }
        total = (
            parts["ctc"]
            + self.before_weight * parts["ctc_before"]
            + self.envelope_weight * parts["envelope"]
            + parts["quantizer"]
        )
        return total, parts, reading

    def envelope_loss(self, reading: Reading, batch: TokenizerBatch) -> Tensor:
        target = self.tokenizer.envelope_target(batch.frames, batch.frame_lens)
        keep = length_mask(reading.lens, target.shape[1])
        return F.l1_loss(reading.envelope.float()[keep], target[keep])

    def training_step(self, batch: TokenizerBatch, batch_idx: int) -> Tensor:
        if self.tempo:
            factor = 1 + self.tempo * (2 * torch.rand(()).item() - 1)
            frames, frame_lens = at_tempo(batch.frames, batch.frame_lens, factor)
            batch = batch._replace(frames=frames, frame_lens=frame_lens)
        frames = batch.frames
        if self.augment is not None:
            with torch.no_grad():
                frames = self.augment(frames, self.tokenizer.spec.frames.floor)
        loss, parts, _ = self.losses(batch, frames)
        self.log_dict({f"train/{k}": v for k, v in parts.items()}, batch_size=len(frames), sync_dist=True)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(frames), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._seen = []
        self._errors = {"before": [0, 0], "after": [0, 0]}

    def validation_step(self, batch: TokenizerBatch, batch_idx: int) -> None:
        loss, parts, reading = self.losses(batch, batch.frames)
        size = len(batch.frames)
        self.log("val/loss", loss, batch_size=size, sync_dist=True)
        self.log("val/envelope", parts["envelope"], batch_size=size, sync_dist=True)
        read_lens = reading.lens * self.tokenizer.reads_per_token
        wanted = [row[:n].tolist() for row, n in zip(batch.labels, batch.label_lens, strict=True)]
        for name, log_probs in (("before", reading.before), ("after", reading.after)):
            wrong, total = phoneme_errors(best_path(log_probs, read_lens), wanted)
            self._errors[name][0] += wrong
            self._errors[name][1] += total
        for row, n, speaker in zip(reading.codes, reading.lens, batch.speakers, strict=True):
            self._seen.append((row[:n].cpu(), speaker.cpu()))

    def on_validation_epoch_end(self) -> None:
        errors, seen = gather(self._errors), [one for part in gather(self._seen) for one in part]
        for name in self._errors:
            wrong, total = (sum(one[name][i] for one in errors) for i in (0, 1))
            self.log(f"val/per_{name}", wrong / max(1, total), prog_bar=name == "after", sync_dist=True)
        codes = torch.cat([row for row, _ in seen])
        used, perplexity = code_use(codes, self.tokenizer.spec.codes)
        self.log_dict({"val/codes_used": used, "val/perplexity": perplexity}, sync_dist=True)
        speakers = torch.stack([speaker for _, speaker in seen])
        with torch.inference_mode(False), torch.enable_grad():
            probe = speaker_probe([row for row, _ in seen], speakers, self.tokenizer.spec.codes)
        self.log_dict(
            {"val/speaker_probe": probe.accuracy, "val/speaker_chance": probe.chance}, sync_dist=True
        )

    def show(self, batch: TokenizerBatch) -> list[Item]:
        """The use of the codes, where the tokens say that each phoneme starts, and roughly how that sounds."""
        spec, reading = self.tokenizer.spec, self.tokenizer(batch.frames, batch.frame_lens)
        codes = reading.codes[length_mask(reading.lens, reading.codes.shape[1])]
        items: list[Item] = [token_use("tokens", {"first batch": codes}, spec.codes)]
        for i in range(min(CASES, len(batch.frames))):
            labels = batch.labels[i, : int(batch.label_lens[i])].cpu()
            read = reading.after[i, : int(reading.lens[i]) * self.tokenizer.reads_per_token].cpu()
            try:
                starts = (self.tokenizer.starts(read, labels) / spec.rate).tolist()
            except UserError:  # faster than can be read
                continue
            names = [DEFAULT_SYMBOLS.symbols[label] for label in labels.tolist()]
            frames = batch.frames[i, : int(batch.frame_lens[i])]
            items.append(aligned_frames(f"alignment{i}", frames, spec.frames, starts, names))
            if spec.frames.kind == "mel":
                wav = griffin_lim(frames, spec.frames)
                items.append(Sound(f"recording{i}_rough", wav, spec.frames.sample_rate))
        return items


def ctc_loss(log_probs: Tensor, lens: Tensor, batch: TokenizerBatch | AcousticBatch) -> Tensor:
    """CTC loss per label, (B, M, S) log probabilities; rows too short for their labels count nothing."""
    loss = F.ctc_loss(
        log_probs.transpose(0, 1), batch.labels, lens, batch.label_lens, reduction="none", zero_infinity=True
    )
    return (loss / batch.label_lens.clamp(min=1)).mean()


def phoneme_errors(read: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Substitutions + deletions + insertions over all rows, and the number of phonemes wanted."""
    wrong = sum(edit_distance(list(a), list(b)) for a, b in zip(read, wanted, strict=True))
    return wrong, sum(len(b) for b in wanted)


def code_use(codes: Tensor, size: int) -> tuple[float, float]:
    """Share of the codebook that occurs in `codes` (n,), and the perplexity exp(entropy) of its use."""
    share = torch.bincount(codes.flatten(), minlength=size).float() / max(1, codes.numel())
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return float((share > 0).float().mean()), float(entropy.exp())
