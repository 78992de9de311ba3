"""The supervised semantic tokenizer: frames -> tokens, and tokens -> the phonemes they say.

A speech-recognition encoder with a quantiser inside, trained by CTC (Graves et al. 2006) to be read back as
phonemes, after CosyVoice (arXiv 2407.05407) and its FSQ successor (2412.10117). Because everything after the
quantiser works on tokens alone, tokens can be read and aligned whoever wrote them, the encoder or a language model.

Shapes: B batch, T frames, N = ceil(T / frames_per_token) tokens, M = `reads_per_token` * N reading positions.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchaudio.functional import forced_align

from codec.errors import UserError
from codec.nn.masks import length_mask
from codec.spec import FrameSpec, TokenSpec
from codec.tokenizer.encoder import Encoder
from codec.tokenizer.fsq import Quantizer


class Reading(NamedTuple):
    """What a forward pass gives to training.

    Attributes:
        codes: (B, N) tokens.
        lens: (B,) valid tokens per row.
        before: (B, M, S) phoneme log probabilities read before the quantiser.
        after: (B, M, S) the same, read from the tokens.
        envelope: (B, N, bands) coarse spectral envelope told by the tokens.
        loss: () the quantiser's own loss.
    """

    codes: Tensor
    lens: Tensor
    before: Tensor
    after: Tensor
    envelope: Tensor
    loss: Tensor


class Tokenizer(nn.Module):
    """Log-mel or EnCodec frames -> one token per `frames_per_token` frames -> phonemes.

    Args:
        quantizer: given the hidden size `dim`.
        symbols: size of the phoneme table; symbol 0 is CTC's blank.
        dim, heads: of all blocks.
        layers: blocks before the quantiser.
        reader_layers: blocks after it, which see tokens only.
        strides: of the stem's convolutions; their product is the number of frames per token.
        reads_per_token: reading positions per token. CTC needs more positions than labels: at 23.4 tokens/s
            and fast speech of 22 symbols/s, one position per token is too close.
        bands: of the coarse envelope, see `envelope_target`.
        mean, std: of the frames' numbers over the training data, for scaling.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        *,
        symbols: int,
        dim: int = 256,
        heads: int = 4,
        layers: int = 3,
        reader_layers: int = 2,
        strides: tuple[int, ...] = (2, 2),
        reads_per_token: int = 2,
        kernel: int = 9,
        dropout: float = 0.1,
        bands: int = 20,
        mean: float = -6.0,
        std: float = 3.5,
        frames: FrameSpec | None = None,
    ) -> None:
        super().__init__()
        self.spec = TokenSpec(frames or FrameSpec(), math.prod(strides), quantizer.codes)
        self.symbols, self.reads_per_token, self.bands = symbols, reads_per_token, bands
        self.mean, self.std = mean, std
        width = self.spec.frames.dim
        convs: list[nn.Module] = [nn.Conv1d(width, dim, 3, padding=1), nn.GELU()]
        for stride in strides:
            convs += [nn.Conv1d(dim, dim, 2 * stride - 1, stride, padding=stride - 1), nn.GELU()]
        self.stem = nn.Sequential(*convs)
        self.encoder = Encoder(dim, layers, heads, kernel=kernel, dropout=dropout)
        self.before = nn.Linear(dim, reads_per_token * symbols)
        self.quantizer = quantizer
        self.envelope = nn.Sequential(nn.Conv1d(dim, dim, 3, padding=1), nn.GELU(), nn.Conv1d(dim, bands, 1))
        self.reader = Encoder(dim, reader_layers, heads, kernel=kernel, dropout=dropout)
        self.after = nn.Linear(dim, reads_per_token * symbols)

    def token_lens(self, frame_lens: Tensor) -> Tensor:
        """Tokens of so many frames, rounded up."""
        return torch.ceil(frame_lens / self.spec.frames_per_token).long()

    def hidden(self, frames: Tensor, frame_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B,) -> the vectors to quantise (B, N, dim), valid lengths (B,)."""
        step = self.spec.frames_per_token
        floor = self.spec.frames.floor
        frames = frames.masked_fill(~length_mask(frame_lens, frames.shape[1])[..., None], floor)
        frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % step), value=floor)
        lens = self.token_lens(frame_lens)
        # zeros behind the last token: what the convolutions would see there if the row were alone
        scaled = (frames - self.mean) / self.std * length_mask(lens * step, frames.shape[1])[..., None]
        x = self.stem(scaled.transpose(1, 2)).transpose(1, 2)
        return self.encoder(x, length_mask(lens, x.shape[1])), lens

    def log_probs(self, quantized: Tensor, lens: Tensor) -> Tensor:
        """Quantised vectors (B, N, dim) -> phoneme log probabilities (B, M, symbols)."""
        return self._phonemes(self.after(self.reader(quantized, length_mask(lens, quantized.shape[1]))))

    def phonemes_before(self, hidden: Tensor) -> Tensor:
        """Vectors to quantise (B, N, dim) -> the phoneme log probabilities (B, M, symbols) read in them."""
        return self._phonemes(self.before(hidden))

    def _phonemes(self, logits: Tensor) -> Tensor:
        """(B, N, reads_per_token * symbols) logits -> (B, M, symbols) log probabilities."""
        return rearrange(logits, "b n (r s) -> b (n r) s", r=self.reads_per_token).float().log_softmax(-1)

    def forward(self, frames: Tensor, frame_lens: Tensor) -> Reading:
        """(B, T, D) frames, (B,) valid frames per row -> everything training needs."""
        hidden, lens = self.hidden(frames, frame_lens)
        before = self.phonemes_before(hidden)
        keep = length_mask(lens, hidden.shape[1])
        quantized, codes, loss = self.quantizer(hidden, keep)
        envelope = self.envelope((quantized * keep[..., None]).transpose(1, 2)).transpose(1, 2)
        after = self.log_probs(quantized, lens)
        return Reading(codes, lens, before, after, envelope, loss)

    def envelope_target(self, frames: Tensor, frame_lens: Tensor) -> Tensor:
        """(B, T, D) frames -> (B, N, bands): frames averaged per token and over bands of channels, less the
        utterance's own mean, divided by `std`.

        CTC alone leaves silence and a held vowel alike (both "blank"), and the acoustic decoder guessing. The
        coarse envelope tells them apart; taking the mean away leaves the voice out.
        """
        step, bands = self.spec.frames_per_token, self.bands
        frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % step), value=self.spec.frames.floor)
        x = rearrange(frames, "b (n p) d -> b n p d", p=step).mean(2)
        x = F.adaptive_avg_pool1d(x, bands)
        keep = length_mask(self.token_lens(frame_lens), x.shape[1])[..., None].to(x.dtype)
        mean = (x * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True)
        return (x - mean) / self.std * keep

    @torch.inference_mode()
    def encode(self, frames: Tensor, frame_lens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, D) frames -> tokens (B, N), valid lengths (B,)."""
        if frame_lens is None:
            frame_lens = torch.full((len(frames),), frames.shape[1], device=frames.device)
        hidden, lens = self.hidden(frames, frame_lens)
        return self.quantizer(hidden)[1], lens

    @torch.inference_mode()
    def token_log_probs(self, tokens: Tensor, lens: Tensor | None = None) -> Tensor:
        """Tokens (B, N) -> phoneme log probabilities (B, M, symbols), M = reads_per_token * N."""
        if lens is None:
            lens = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        return self.log_probs(self.quantizer.embed(tokens), lens)

    def read(self, tokens: Tensor, lens: Tensor | None = None) -> list[list[int]]:
        """Tokens (B, N) -> the phoneme ids they say, by best-path CTC decoding."""
        if lens is None:
            lens = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        return best_path(self.token_log_probs(tokens, lens), lens * self.reads_per_token)

    def align(self, tokens: Tensor, phonemes: Tensor) -> Tensor:
        """Where each phoneme starts: tokens (N,), phoneme ids (L,) -> (L,) float, in tokens from the start.

        Forced alignment under the CTC probabilities; multiply by ``1 / spec.rate`` for seconds.

        Raises:
            UserError: more phonemes than positions to read them at, so that they cannot have been said.
        """
        return self.starts(self.token_log_probs(tokens[None])[0], phonemes)

    def starts(self, log_probs: Tensor, phonemes: Tensor) -> Tensor:
        """`align` for one row of `token_log_probs`, (M, symbols)."""
        return ctc_path(log_probs, phonemes) / self.reads_per_token

    def durations(self, tokens: Tensor, phonemes: Tensor) -> list[int]:
        """Tokens of each phoneme, (N,) and (L,) -> L numbers that sum to N: from its start to the next one's.

        What stands before the first phoneme counts to it. Of phonemes that start in the same token, the last has
        it and the others 0. Raises as `align` does.
        """
        return starts_to_durations(self.align(tokens, phonemes), len(tokens))


def starts_to_durations(starts: Tensor, total: int) -> list[int]:
    """Starts (L,) in tokens -> whole tokens from each start to the next, the first from 0, the last to `total`."""
    if not len(starts):
        return []
    bounds = [0, *starts[1:].floor().long().tolist(), total]
    return [end - start for start, end in pairwise(bounds)]


def best_path(log_probs: Tensor, lens: Tensor) -> list[list[int]]:
    """CTC best path: (B, M, S) log probabilities, (B,) lengths -> label ids per row."""
    rows = []
    for row, length in zip(log_probs.argmax(-1), lens.tolist(), strict=True):
        merged = torch.unique_consecutive(row[:length])
        rows.append(merged[merged != 0].tolist())
    return rows


def ctc_path(log_probs: Tensor, labels: Tensor) -> Tensor:
    """First position of each label on the best path that says exactly `labels`: (M, S), (L,) -> (L,) float.

    Raises:
        UserError: fewer positions than CTC needs for the labels.
    """
    if len(labels) == 0:
        return torch.zeros(0)
    repeats = int((labels[1:] == labels[:-1]).sum())
    if len(labels) + repeats > len(log_probs):
        raise UserError(
            f"{len(labels)} phonemes cannot be aligned to {len(log_probs)} reading positions: the text is longer "
            "than the speech; check that they belong together"
        )
    path, _ = forced_align(log_probs[None].float().contiguous(), labels[None].int().contiguous())
    path = path[0]
    starts: Tensor = (path != 0) & (path != F.pad(path[:-1], (1, 0), value=0))
    return starts.nonzero()[:, 0].float()
