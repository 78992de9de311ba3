"""What a finished tokenizer reads in the frames that the solver makes: a loss that hears whether it is said.

The flow's loss asks for the right velocity at one time of one recording. A small decoder is right on the mean then, and
its consonants are blurred; guidance sharpens them at twice the cost. Here the solver runs, the tokenizer, which is a
recogniser, reads what came out, and its gradient runs back into the last solver steps (after Clark et al. 2023,
arXiv 2309.17400). The tokenizer itself learns nothing.

What a reader hears needs no recording to compare with. So it is asked, too, for sentences in voices that never said
them, and an encoder of speakers, where there is one, whether it is that voice (after Casanova et al. 2022,
arXiv 2112.02418).

One reader is soon pleased: what it reads best is not what others read best. An encoder of speech from elsewhere, where
there is one, hears how far what was made is from the recording (perceptual losses: Johnson et al. 2016,
arXiv 1603.08155).
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

BEHIND = (0.0, 0.0, 1 / 6, 1 / 3, 1 / 2)
"""Shares of the solver's steps that are left out at the beginning, one drawn per batch: the rest begins from the
recording."""

TOKENS, PHONEMES, SPREAD = 0.5, 0.5, 0.3
"""Weights of the three parts of the loss."""

EXCHANGED = 0.5
"""Weight of targets behind another's prompt, beside those behind their own."""

WINDOW = 0.8
"""Seconds that are enough to know a voice by."""

NOISE = 0.15
"""Deviation of what is added to frames before a voice is looked for in them: natural-log units."""


class Speech(NamedTuple):
    """Targets without their prompts: frames (B, T, D) from the first on, and how many of them there are, (B,)."""

    frames: Tensor
    lens: Tensor


class Listener:
    """A finished tokenizer that reads what a decoder makes. No module: its weights are in no checkpoint.

    Args:
        part: the tokenizer's file.
        spec: of the decoder's tokens and frames.
        voice: tells voices apart, frames (B, T, D) of `WINDOW` -> vectors (B, E) of length 1, near each other where
            the speaker is the same; None for a loss that hears words only.
        likeness: weight of the voice beside the words.
        ear: an encoder of speech, frames (B, T, D) -> what it hears, (B, N, E) or several such; None for none.
        hearing: weight of that.

    Raises:
        UserError: no such part, or no tokenizer.
        SpecError: it reads other frames, or writes other tokens.
    """

    def __init__(
        self,
        part: Path,
        spec: TokenSpec,
        *,
        voice: nn.Module | None = None,
        likeness: float = 2.0,
        ear: nn.Module | None = None,
        hearing: float = 1.5,
    ) -> None:
        self.voice, self.ear = (
            None if one is None else one.eval().requires_grad_(False) for one in (voice, ear)
        )
        self.likeness, self.hearing = likeness, hearing
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
        """Let the decoder solve the batch's targets, and read them; then every second one behind another's prompt."""
        first = int(acoustic.steps * BEHIND[int(torch.randint(len(BEHIND), ()))])
        loss = self._heard(acoustic, batch, first, chunk)
        if len(batch.lens) > 1:
            loss = loss + EXCHANGED * self._heard(
                acoustic, exchanged(batch, self.per_token), 0, chunk, own=False
            )
        return loss

    def _heard(
        self, acoustic: FlowDecoder, batch: AcousticBatch, first: int, chunk: int | None, *, own: bool = True
    ) -> Tensor:
        """
        Args:
            first: the solver's, see `FlowDecoder.made`.
            own: whether prompt and target are of one speaker.
        """
        frames = acoustic.made(
            batch.frames, batch.tokens, batch.prompt_lens, batch.lens, chunk=chunk, first=first
        )
        made, true = self.targets(frames, batch), self.targets(batch.frames, batch)
        prompts = Speech(
            batch.frames[:, : int(batch.prompt_lens.max()) * self.per_token],
            batch.prompt_lens * self.per_token,
        )
        loss = self.judge(made, true, batch, like=true if own else prompts)
        if self.voice is not None:
            loss = loss + self.likeness * self.unlike(made, prompts)
        if self.ear is not None and own:
            loss = loss + self.hearing * self.unheard(made, true)
        return loss

    def judge(
        self, made: Speech, true: Speech, batch: AcousticBatch, *, like: Speech | None = None
    ) -> Tensor:
        """How far what was made is from being read as what was to be said.

        - phonemes: CTC before and behind the quantiser, of frames that are disturbed, so that plain speech is needed;
        - tokens: what the quantiser would round, against that of the recording;
        - spread: mean and deviation of every band over time, which blurred speech lacks (Toda & Tokuda 2007), against
          those of `like`, the recording where there is none.
        """
        tokenizer = self.tokenizer.to(made.frames.device)
        offset = int(torch.randint(self.per_token, ()))
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
        return TOKENS * tokens + PHONEMES * phonemes + SPREAD * self._spread(made, like or true)

    def unlike(self, made: Speech, prompts: Speech) -> Tensor:
        """1 - cosine of a window of what was made to the voice of the prompt; 0 where either is too short."""
        assert self.voice is not None
        voice = self.voice.to(made.frames.device)
        size = round(WINDOW * self.tokenizer.spec.frames.rate)
        rows = ((made.lens >= size) & (prompts.lens >= size)).nonzero()[:, 0].tolist()
        if not rows:
            return made.frames.sum() * 0.0
        with torch.no_grad():
            known = [_windows(prompts.frames[i], int(prompts.lens[i]), size) for i in rows]
            vectors = voice(torch.cat(known)).split([len(one) for one in known])
            wanted = F.normalize(torch.stack([one.mean(0) for one in vectors]), dim=-1)
        starts = [int(torch.randint(int(made.lens[i]) - size + 1, ())) for i in rows]
        heard = torch.stack(
            [made.frames[i, start : start + size] for i, start in zip(rows, starts, strict=True)]
        )
        heard = heard + NOISE * torch.randn_like(heard)
        cosine: Tensor = (voice(heard) * wanted).sum(-1).mean()
        return 1 - cosine

    def unheard(self, made: Speech, true: Speech) -> Tensor:
        """How far what the ear hears is from what it hears in the recording: squared, of its variance over time."""
        assert self.ear is not None
        ear = self.ear.to(made.frames.device)
        with torch.no_grad():
            wanted = ear(true.frames)
        heard = ear(made.frames)
        pairs = [(heard, wanted)] if isinstance(heard, Tensor) else list(zip(heard, wanted, strict=True))
        total = made.frames.new_zeros(())
        for x, y in pairs:
            lens = (made.lens * y.shape[1] / made.frames.shape[1]).long()
            keep = length_mask(lens, y.shape[1])
            x, y = x[keep].float(), y[keep].float()
            total = total + (x - y).square().mean() / (y - y.mean(0)).square().mean().clamp(min=1e-8)
        return total / len(pairs)

    @property
    def per_token(self) -> int:
        """Frames covered by one token."""
        return self.tokenizer.spec.frames_per_token

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
        per = self.per_token
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
        per, bands = self.per_token, 2 if self.tokenizer.spec.frames.kind == "mel" else 1
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


def exchanged(batch: AcousticBatch, per_token: int) -> AcousticBatch:
    """Every second target behind the prompt of the row before it; of its own speaker there is no recording of it."""
    device, count = batch.lens.device, len(batch.lens)
    own = torch.arange(0, count, 2, device=device)
    other = (own - 1) % count
    prompt_lens = batch.prompt_lens[other]
    lens = prompt_lens + batch.lens[own] - batch.prompt_lens[own]
    at = torch.arange(int(lens.max()), device=device)[None]
    behind = at - prompt_lens[:, None]
    rows = torch.where(behind < 0, other[:, None], own[:, None])
    places = torch.where(behind < 0, at, batch.prompt_lens[own][:, None] + behind)
    places = places.clamp(max=batch.tokens.shape[1] - 1)
    within = torch.arange(per_token, device=device)
    frames = batch.frames[
        rows.repeat_interleave(per_token, 1), (places[..., None] * per_token + within).flatten(1)
    ]
    return AcousticBatch(
        frames,
        batch.tokens[rows, places],
        prompt_lens,
        lens,
        batch.speakers[other],
        batch.labels[own],
        batch.label_lens[own],
    )


def _windows(frames: Tensor, length: int, size: int) -> Tensor:
    """At most four pieces of `size` of the first `length` frames (T, D), evenly spaced: (n, size, D)."""
    count = max(1, min(4, length // size))
    starts = torch.linspace(0, length - size, count).long().tolist()
    return torch.stack([frames[start : start + size] for start in starts])


def _over_time(speech: Speech) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every number of the frames, (B, D) each."""
    keep = length_mask(speech.lens, speech.frames.shape[1])[..., None].float()
    count = keep.sum(1).clamp(min=1)
    mean = (speech.frames * keep).sum(1) / count
    variance = ((speech.frames - mean[:, None]) * keep).square().sum(1) / count
    return mean, variance.clamp(min=1e-4).sqrt()
