"""What a finished tokenizer reads in the frames that the solver makes: a loss that hears whether it is said.

The flow's loss asks for the right velocity at one time of one recording. A small decoder is right on the mean then, and
its consonants are blurred; guidance sharpens them at twice the cost. Here the solver runs, the tokenizer, which is a
recogniser, reads what came out, and its gradient runs back into the last solver steps (after Clark et al. 2023,
arXiv 2309.17400). The tokenizer itself learns nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import SpecError, UserError
from codec.nn.masks import length_mask
from codec.spec import TokenSpec
from codec.tokenizer.model import Tokenizer, best_path
from tts.acoustic.decoder import FlowDecoder
from tts.checkpoint import read_part
from tts.data.batches import AcousticBatch
from tts.training.augment import MelAugment
from tts.training.tokenizer import ctc_loss, phoneme_errors

STEPS_BEHIND = (0, 0, 1, 2, 3)
"""Solver steps that are left out at the beginning, one drawn per batch: what is left begins from the recording."""

TOKENS, PHONEMES, SPREAD = 0.5, 0.5, 0.3
"""Weights of the three parts of the loss."""


class Speech(NamedTuple):
    """Targets without their prompts: frames (B, T, D) from the first on, and how many of them there are, (B,)."""

    frames: Tensor
    lens: Tensor


class Listener:
    """A finished tokenizer that reads what a decoder makes. No module: its weights are in no checkpoint.

    Args:
        part: the tokenizer's file.
        spec: of the decoder's tokens and frames.

    Raises:
        UserError: no such part, or no tokenizer.
        SpecError: it reads other frames, or writes other tokens.
    """

    def __init__(self, part: Path, spec: TokenSpec) -> None:
        tokenizer = read_part(part)[0]
        if not isinstance(tokenizer, Tokenizer):
            raise UserError(f"reader {part}: holds a {type(tokenizer).__name__}, not a tokenizer")
        if tokenizer.spec != spec:
            raise SpecError(f"reader {part}: of {tokenizer.spec}, the decoder of {spec}")
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.augment = (
            MelAugment(noise=0.2, low_pass=0.05, tilt=0.2, warp=0.06) if spec.frames.kind == "mel" else None
        )

    def loss(self, acoustic: FlowDecoder, batch: AcousticBatch, *, chunk: int | None = None) -> Tensor:
        """Let the decoder solve the batch's targets, and read them."""
        first = STEPS_BEHIND[int(torch.randint(len(STEPS_BEHIND), ()))]
        made = acoustic.made(
            batch.frames, batch.tokens, batch.prompt_lens, batch.lens, chunk=chunk, first=first
        )
        return self.judge(self.targets(made, batch), self.targets(batch.frames, batch), batch)

    def judge(self, made: Speech, true: Speech, batch: AcousticBatch) -> Tensor:
        """How far what was made is from being read as what was to be said.

        - phonemes: CTC before and behind the quantiser, of frames that are disturbed, so that plain speech is needed;
        - tokens: what the quantiser would round, against that of the recording;
        - spread: mean and deviation of every band over time, which blurred speech lacks (Toda & Tokuda 2007).
        """
        tokenizer = self.tokenizer.to(made.frames.device)
        offset = int(torch.randint(tokenizer.spec.frames_per_token, ()))
        seen = self.blurred(made, offset)
        hidden, lens = tokenizer.hidden(*seen)
        with torch.no_grad():
            wanted = tokenizer.quantizer.bound(tokenizer.hidden(*self.blurred(true, offset))[0])
        keep = length_mask(lens, hidden.shape[1])
        tokens = (tokenizer.quantizer.bound(hidden) - wanted)[keep].square().mean()
        if self.augment is not None:
            with self._dropout():
                disturbed = self.augment(seen.frames, tokenizer.spec.frames.floor)
                hidden, _ = tokenizer.hidden(disturbed, seen.lens)
        before = tokenizer.phonemes_before(hidden)
        after = tokenizer.log_probs(tokenizer.quantizer(hidden)[0], lens)
        read_lens = lens * tokenizer.reads_per_token
        phonemes = ctc_loss(before, read_lens, batch) + 0.5 * ctc_loss(after, read_lens, batch)
        return TOKENS * tokens + PHONEMES * phonemes + SPREAD * self._spread(made, true)

    @torch.no_grad()
    def errors(self, acoustic: FlowDecoder, batch: AcousticBatch) -> tuple[int, int]:
        """Phonemes that are misread in what the decoder makes of the batch's targets, and how many were wanted."""
        tokenizer = self.tokenizer.to(batch.frames.device)
        made = self.targets(acoustic.made(batch.frames, batch.tokens, batch.prompt_lens, batch.lens), batch)
        hidden, lens = tokenizer.hidden(*made)
        read = best_path(tokenizer.phonemes_before(hidden), lens * tokenizer.reads_per_token)
        wanted = [row[:n].tolist() for row, n in zip(batch.labels, batch.label_lens, strict=True)]
        return phoneme_errors(read, wanted)

    def targets(self, frames: Tensor, batch: AcousticBatch) -> Speech:
        """The targets in frames (B, T, D) like those of the batch."""
        per = self.tokenizer.spec.frames_per_token
        lens = (batch.lens - batch.prompt_lens) * per
        at = torch.arange(int(lens.max()), device=frames.device)
        places = (at + per * batch.prompt_lens[:, None]).clamp(max=frames.shape[1] - 1)
        rows = frames.gather(1, places[..., None].expand(-1, -1, frames.shape[2]))
        keep = length_mask(lens, len(at))[..., None]
        return Speech(rows.masked_fill(~keep, self.tokenizer.spec.frames.floor), lens)

    def blurred(self, speech: Speech, offset: int) -> Speech:
        """What the reader gets to see: nothing of the periods that its strides alias, and not always the same phase.

        It reads stripes of two and four frames as it reads phonemes, and a decoder learns to paint them.

        Args:
            speech: to be read.
            offset: frames to leave out at the beginning.
        """
        spec = self.tokenizer.spec
        per, bands = spec.frames_per_token, 2 if spec.frames.kind == "mel" else 1
        edges = (bands - 1, bands - 1, per // 2, per - per // 2)
        x = F.pad(speech.frames[:, None], edges, mode="replicate")
        x = F.avg_pool2d(F.avg_pool2d(x, (per, bands), 1), (2, bands), 1)
        return Speech(x[:, 0, offset:], speech.lens - offset)

    def _spread(self, made: Speech, true: Speech) -> Tensor:
        mean, deviation = _over_time(made)
        with torch.no_grad():
            true_mean, true_deviation = _over_time(true)
        scale = self.tokenizer.std
        return (mean - true_mean).abs().mean() / scale + (deviation / true_deviation).log().abs().mean()

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """Within, the tokenizer drops what it drops in training: many readers are harder to please than one."""
        drops = [one for one in self.tokenizer.modules() if isinstance(one, nn.Dropout)]
        for one in drops:
            one.train()
        try:
            yield
        finally:
            for one in drops:
                one.eval()


def _over_time(speech: Speech) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every number of the frames, (B, D) each."""
    keep = length_mask(speech.lens, speech.frames.shape[1])[..., None].float()
    count = keep.sum(1).clamp(min=1)
    mean = (speech.frames * keep).sum(1) / count
    variance = ((speech.frames - mean[:, None]) * keep).square().sum(1) / count
    return mean, variance.clamp(min=1e-4).sqrt()
