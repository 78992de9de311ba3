"""The diffusion transformer that tells the flow's velocity (Peebles & Xie 2022, arXiv 2212.09748).

Positions are patches of `patch` frames. The voice prompt stands in front of the target, clean, and sees only
itself; the target is cut into chunks, each of which sees the prompt, itself and what came before. One chunk is the
offline case. So what is computed for prompt and past chunks never changes, and can be kept (`KVCache`).

Shapes: B batch, P positions, D numbers of a frame, dim the model's size.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from codec.nn.attention import Attention, KVCache, KVRows, SwiGLU, rope
from codec.nn.masks import length_mask
from codec.spec import TokenSpec
from tts.text.triphones import CONTEXT, NOTHING


class TimeEmbedding(nn.Module):
    """Times in [0, 1] -> vectors, through sines of a geometric range of frequencies and two layers."""

    def __init__(self, dim: int, waves: int = 128) -> None:
        super().__init__()
        self.waves = waves
        self.layers = nn.Sequential(nn.Linear(2 * waves, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, dim)."""
        scale = torch.exp(-math.log(10_000) * torch.arange(self.waves, device=t.device) / self.waves)
        angles = 1000 * t[:, None].float() * scale
        out: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return out


class SpeakerEncoder(nn.Module):
    """A voice prompt's frames -> one vector, pooled with attention (Okabe et al. 2018, arXiv 1803.10963).

    Args:
        frame_dim: numbers of a frame.
        dim: of the vector, and of what is pooled.
        kernel: frames that a convolution sees.
        norm: normalise what is pooled. Without, frames at the floor grew until the attention saw one frame only, and
            the vector told next to nothing.
    """

    def __init__(self, frame_dim: int, dim: int, *, kernel: int = 5, norm: bool = True) -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = nn.Conv1d(frame_dim, dim, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv1d(dim, dim, kernel, stride=2, padding=kernel // 2)
        self.weight = nn.Linear(dim, 1)
        self.out = nn.Linear(2 * dim, dim)

    def forward(self, frames: Tensor, lens: Tensor) -> Tensor:
        """(B, T, D) scaled frames, (B,) valid ones -> (B, dim)."""
        keep = length_mask(lens, frames.shape[1])[..., None]
        x = F.gelu(self.conv1((frames * keep).transpose(1, 2))) * keep.transpose(1, 2)
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        if self.norm:
            x = F.layer_norm(x, x.shape[-1:])
        seen = length_mask((lens + 1) // 2, x.shape[1])[..., None]
        share = self.weight(x).float().masked_fill(~seen, -1e4).softmax(1).to(x.dtype)
        mean = (share * x).sum(1)
        spread = (share * (x - mean[:, None]).square()).sum(1).clamp(min=1e-5).sqrt()
        out: Tensor = self.out(torch.cat([mean, spread], dim=-1))
        return out


class Content(NamedTuple):
    """What the solver's steps have in common: what is to be said, and where.

    Attributes:
        x: (B, P, dim) of tokens, their places and what is prompt.
        cos, sin: of the positions, see `codec.nn.attention.rope`.
    """

    x: Tensor
    cos: Tensor
    sin: Tensor


class Modulation(NamedTuple):
    """What a time and a speaker make of the layers; one for all chunks at that time.

    Attributes:
        blocks: (B, 6, dim) for all blocks.
        final: (B, 1, 2 dim) for the output; behind them, what the noisy frames are multiplied with to be added to it.
    """

    blocks: Tensor
    final: Tensor


class Block(nn.Module):
    """Attention and feed-forward, scaled, shifted and gated by time and speaker.

    One projection serves all blocks, each adding a table of its own (adaLN-single, Chen et al. 2023, 2310.00426).

    Attributes:
        dtype: what attention and feed-forward are computed in where that is not what x is in; what runs through stays.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(6, dim))
        self.dtype: torch.dtype | None = None
        self.attention = Attention(dim, heads)
        self.feed_forward = SwiGLU(dim, hidden)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        cache: KVCache | KVRows | None,
    ) -> Tensor:
        """(B, P, dim), modulation (B, 6, dim) -> (B, P, dim)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table)[:, :, None].unbind(1)
        h = self._lowered(torch.addcmul(shift1, F.layer_norm(x, x.shape[-1:]), 1 + scale1))
        x = torch.addcmul(x, gate1, self.attention(h, cos, sin, mask=mask, cache=cache))
        h = self._lowered(torch.addcmul(shift2, F.layer_norm(x, x.shape[-1:]), 1 + scale2))
        return torch.addcmul(x, gate2, self.feed_forward(h))

    def _lowered(self, h: Tensor) -> Tensor:
        return h if self.dtype is None else h.to(self.dtype)


def with_context(tokens: Tensor, dims: int) -> Tensor:
    """Bare tokens, of so many dimensions, with a last one more: each token, and no phonemes. Others as they are."""
    if tokens.ndim > dims:
        return tokens
    return F.pad(tokens[..., None], (0, CONTEXT), value=NOTHING)


class DiT(nn.Module):
    """Noisy frames, tokens and a voice prompt -> velocity.

    Args:
        spec: grid of tokens and frames.
        dim, layers, heads, hidden: sizes.
        patch: frames per position; divides the frames per token. 2 halves the cost at no loss we could measure.
        symbols: size of the phoneme table; 0 for a decoder that knows tokens only.
        speaker_norm: as `SpeakerEncoder` has it.
        skip: lead the noisy frames past the blocks, too, each number by a factor that time and speaker tell. The
            velocity holds the noise, and a patch of frames has nearly as many numbers as a small model is wide:
            without, most of the width is taken up by carrying it through.
    """

    def __init__(
        self,
        spec: TokenSpec | None = None,
        *,
        dim: int = 320,
        layers: int = 7,
        heads: int = 5,
        hidden: int = 864,
        patch: int = 2,
        symbols: int = 0,
        speaker_norm: bool = True,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.spec = spec or TokenSpec()
        if self.spec.frames_per_token % patch:
            raise ValueError(
                f"patch {patch} does not divide the {self.spec.frames_per_token} frames of a token"
            )
        self.patch, self.head_dim = patch, dim // heads
        self.per_token = self.spec.frames_per_token // patch
        width = patch * self.spec.frames.dim
        self.frames_in = nn.Linear(width, dim)
        self.symbols = symbols
        self.tokens_in = nn.Embedding(self.spec.codes + 1, dim)  # the last row stands for "no token"
        # a phoneme has a row for each place in the triphone; the first rows stand for "no phoneme"
        self.phonemes_in = nn.Embedding(CONTEXT * (symbols + 1), dim) if symbols else None
        self.place = nn.Parameter(torch.randn(self.per_token, dim) * 0.02)
        self.is_prompt = nn.Parameter(torch.randn(dim) * 0.02)
        self.token_mix = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.speaker = SpeakerEncoder(self.spec.frames.dim, dim, norm=speaker_norm)
        self.no_speaker = nn.Parameter(torch.zeros(dim))
        self.time = TimeEmbedding(dim)
        self.modulate = nn.Linear(dim, 6 * dim)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(layers))
        self.final = nn.Linear(dim, 2 * dim)
        self.frames_out = nn.Linear(dim, width)
        self.skip = nn.Linear(dim, width) if skip else None
        for zeroed in filter(None, (self.modulate, self.final, self.frames_out, self.skip)):
            nn.init.zeros_(zeroed.weight)
            nn.init.zeros_(zeroed.bias)
        nn.init.normal_(self.tokens_in.weight, std=0.5)
        if (
            self.phonemes_in is not None
        ):  # they say nothing yet: a decoder that knew tokens only goes on as it was
            nn.init.zeros_(self.phonemes_in.weight)

    def lower(self, dtype: torch.dtype) -> None:
        """Turn the blocks' matrices, most of the work, into another dtype, to run and not to train."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.to(dtype)
            block.feed_forward.to(dtype)
            block.dtype = dtype

    def new_caches(self, capacity: int = 256) -> list[KVCache]:
        """Empty caches, one a block."""
        return [KVCache(capacity) for _ in self.blocks]

    def content(self, tokens: Tensor, *, prompt: Tensor, past: Tensor | int = 0) -> Content:
        """What `forward` makes of its arguments of these names, the same at every time."""
        tokens = with_context(tokens, 2)
        x = self.tokens_in(tokens[..., 0]) + self.is_prompt * prompt[..., None]
        if self.phonemes_in is not None:
            places = torch.arange(CONTEXT, device=x.device)
            x = x + self.phonemes_in(CONTEXT * (tokens[..., 1:] - NOTHING) + places).sum(-2)
        x = repeat(x, "b n d -> b (n k) d", k=self.per_token)
        x = self.token_mix(x + self.place.repeat(tokens.shape[1], 1))
        positions = torch.arange(x.shape[1], device=x.device)
        positions = positions + (past[:, None, None] if isinstance(past, Tensor) else past)
        return Content(x, *rope(positions, self.head_dim))

    def modulation(self, t: Tensor, speaker: Tensor) -> Modulation:
        """What `forward` makes of its arguments of these names, the same for every chunk."""
        condition = F.silu(self.time(t) + speaker)
        final = self.final(condition)
        if self.skip is not None:
            final = torch.cat([final, self.skip(condition)], dim=-1)
        return Modulation(self.modulate(condition).unflatten(-1, (6, -1)), final[:, None])

    def forward(
        self,
        frames: Tensor,
        t: Tensor | Modulation,
        tokens: Tensor | Content,
        speaker: Tensor | None = None,
        *,
        prompt: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[KVCache] | Sequence[KVRows] | None = None,
        past: Tensor | int = 0,
    ) -> Tensor:
        """(B, T, D) frames -> velocity (B, T, D).

        Args:
            frames: scaled; clean where `prompt`, noisy elsewhere. T = frames_per_token * N.
            t: (B,) times; or what `modulation` made of them and of the speaker.
            tokens: (B, N), or (B, N, 4) with their phonemes, see `tts.text.triphones.told`; `spec.codes` for "no
                token". Or what `content` made of them, prompt and positions.
            speaker: (B, dim), from `self.speaker` or `self.no_speaker`; not needed beside a `Modulation`.
            prompt: (B, N) bool, True for the tokens of the voice prompt; not needed beside a `Content`.
            mask: bool, broadcastable to (B, heads, P, P), True where a position may look; None for everywhere.
            caches: from `new_caches`; what was seen before, to which these positions are added.
            past: positions seen before, of all rows or (B,) of each; not needed beside a `Content`.
        """
        if isinstance(tokens, Tensor):
            assert prompt is not None
            tokens = self.content(tokens, prompt=prompt, past=past)
        if isinstance(t, Tensor):
            assert speaker is not None
            t = self.modulation(t, speaker)
        patches = rearrange(frames, "b (p f) d -> b p (f d)", f=self.patch)
        x = self.frames_in(patches) + tokens.x
        for i, block in enumerate(self.blocks):
            x = block(x, t.blocks, tokens.cos, tokens.sin, mask, caches[i] if caches else None)
        dim = x.shape[-1]
        shift, scale, past_blocks = t.final.split([dim, dim, t.final.shape[-1] - 2 * dim], dim=-1)
        x = self.frames_out(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift)
        if self.skip is not None:
            x = x + past_blocks * patches
        velocity: Tensor = rearrange(x, "b p (f d) -> b (p f) d", f=self.patch)
        return velocity
