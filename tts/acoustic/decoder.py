"""The acoustic decoder: tokens and a voice prompt -> frames, by flow matching, whole or chunk by chunk.

Shapes: B batch, N tokens, T = frames_per_token * N frames, D numbers of a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.nn.attention import KVCache
from codec.nn.masks import chunk_causal_mask, length_mask
from codec.spec import TokenSpec
from tts.acoustic.dit import DiT
from tts.acoustic.flow import flow_loss, solve, time_grid

STEPS, GUIDANCE = 10, 2.0
"""Defaults: more guidance than the 0.7 usual for large models; a small one follows its tokens too loosely."""


@dataclass
class FlowState:
    """What a stream of chunks needs of the past: keys and values per solver step, and the voice.

    Attributes:
        caches: one list of the DiT's caches per solver step.
        speaker: (2 or 1, dim) speaker vectors, with and without condition.
        guidance: of this stream; 0 for none.
    """

    caches: list[list[KVCache]]
    speaker: Tensor
    guidance: float

    @property
    def length(self) -> int:
        """Positions taken in so far."""
        return self.caches[0][0].length

    def copy(self) -> "FlowState":
        """An independent state: what one stream adds, another does not see."""
        return FlowState([[c.copy() for c in layers] for layers in self.caches], self.speaker, self.guidance)


class FlowDecoder(nn.Module):
    """A DiT with the scaling of its frames.

    Args:
        dit: the velocity network.
        drop: share of training utterances whose conditions are all dropped, for guidance
            (Ho & Salimans 2022, arXiv 2207.12598).
    """

    def __init__(self, dit: DiT, *, drop: float = 0.2) -> None:
        super().__init__()
        self.dit, self.drop = dit, drop
        self.register_buffer("mean", torch.zeros(self.spec.frames.dim))
        self.register_buffer("std", torch.ones(self.spec.frames.dim))
        self.mean: Tensor
        self.std: Tensor

    @property
    def spec(self) -> TokenSpec:
        """The grid of tokens and frames."""
        return self.dit.spec

    def scale(self, frames: Tensor) -> Tensor:
        """Frames -> each channel with mean 0 and variance 1 over the training data."""
        return (frames - self.mean) / self.std

    def unscale(self, x: Tensor) -> Tensor:
        """The inverse of `scale`."""
        return x * self.std + self.mean

    def mask(self, prompt_lens: Tensor, lens: Tensor, size: int, chunk: int | None) -> Tensor:
        """(B, 1, P, P) attention mask over `size` tokens: prompt first, then chunks of `chunk` tokens.

        None for one chunk: the prompt sees itself, the target everything but the padding.
        """
        at = torch.arange(size, device=lens.device)[None]
        behind = at - prompt_lens[:, None]
        chunks = 1 + behind.div(chunk or size, rounding_mode="floor")
        chunks = torch.where(behind < 0, 0, chunks)
        chunks = torch.where(at < lens[:, None], chunks, size + 1)
        return chunk_causal_mask(chunks.repeat_interleave(self.dit.per_token, dim=1))

    def loss(
        self, frames: Tensor, tokens: Tensor, prompt_lens: Tensor, lens: Tensor, *, chunk: int | None = None
    ) -> Tensor:
        """Flow loss on the target frames.

        Args:
            frames: (B, T, D), prompt then target then padding, unscaled.
            tokens: (B, N).
            prompt_lens, lens: (B,) tokens of the prompt, and of prompt and target together.
            chunk: tokens per chunk of the attention mask; None for one chunk.
        """
        n, per = tokens.shape[1], self.spec.frames_per_token
        clean = self.scale(frames)
        prompt = length_mask(prompt_lens, n)
        prompt_frames = prompt.repeat_interleave(per, dim=1)
        dropped = torch.rand(len(tokens), device=tokens.device) < self.drop
        speaker = self.dit.speaker(clean[:, : int(prompt_lens.max()) * per], prompt_lens * per)
        speaker = torch.where(dropped[:, None], self.dit.no_speaker.to(speaker.dtype), speaker)
        tokens = tokens.masked_fill(dropped[:, None], self.spec.codes)
        given = clean.masked_fill(dropped[:, None, None], 0.0)
        mask = self.mask(prompt_lens, lens, n, chunk)

        def velocity(x_t: Tensor, t: Tensor) -> Tensor:
            x_t = torch.where(prompt_frames[..., None], given, x_t)
            out: Tensor = self.dit(x_t, t, tokens, speaker, prompt=prompt, mask=mask)
            return out

        keep = (length_mask(lens, n) & ~prompt).repeat_interleave(per, dim=1)
        return flow_loss(velocity, clean, keep)

    @torch.inference_mode()
    def start(
        self, frames: Tensor, tokens: Tensor, *, steps: int = STEPS, guidance: float = GUIDANCE
    ) -> FlowState:
        """Take in a voice prompt, once: everything later chunks need of it is in the state.

        Args:
            frames: (1, T, D) the prompt's frames, unscaled.
            tokens: (1, N) its tokens.
            steps: solver steps of all later chunks.
            guidance: weight w of ``(1 + w) conditional - w unconditional``; 0 leaves the second out.
        """
        clean = self.scale(frames)
        lens = torch.tensor([clean.shape[1]], device=clean.device)
        speaker = self.dit.speaker(clean, lens)
        if guidance:
            speaker = torch.cat([speaker, self.dit.no_speaker[None]])
            clean = torch.cat([clean, torch.zeros_like(clean)])
            tokens = torch.cat([tokens, torch.full_like(tokens, self.spec.codes)])
        state = FlowState([self.dit.new_caches() for _ in range(steps)], speaker, guidance)
        prompt = torch.ones_like(tokens, dtype=torch.bool)
        for t, caches in zip(time_grid(steps), state.caches, strict=False):
            times = torch.full((len(clean),), t, device=clean.device)
            self.dit(clean, times, tokens, speaker, prompt=prompt, caches=caches)
        return state

    @torch.inference_mode()
    def decode_chunk(self, state: FlowState, tokens: Tensor, noise: Tensor) -> Tensor:
        """The frames (1, T, D) of the next chunk of tokens (1, N); adds the chunk to the state.

        Args:
            state: from `start`; changed in place.
            tokens: (1, N).
            noise: (1, T, D) standard normal, one frame for each to come.
        """
        rows = len(state.speaker)
        tokens = torch.cat([tokens, torch.full_like(tokens, self.spec.codes)])[:rows]
        prompt = torch.zeros_like(tokens, dtype=torch.bool)

        def velocity(x: Tensor, t: float, step: int) -> Tensor:
            times = torch.full((rows,), t, device=x.device)
            v: Tensor = self.dit(
                x.expand(rows, -1, -1), times, tokens, state.speaker, prompt=prompt, caches=state.caches[step]
            )
            return v if rows == 1 else (1 + state.guidance) * v[:1] - state.guidance * v[1:]

        return self.unscale(solve(velocity, noise, len(state.caches)))

    @torch.inference_mode()
    def decode(
        self,
        prompts: Sequence[tuple[Tensor, Tensor] | FlowState],
        tokens: Sequence[Tensor],
        noise: Sequence[Tensor],
        *,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        chunk: int | None = None,
    ) -> list[Tensor]:
        """Frames (T, D) for every row, all in one batch.

        Args:
            prompts: of each row, frames (T, D) and tokens (N,), taken in once where rows share them; or what `start`
                made of them, which stays as it is and spares that, too.
            tokens: of each row, (N,).
            noise: of each row, (T, D) standard normal.
            steps, guidance: as in `start`, and as in the states where those are given.
            chunk: tokens per chunk; None for one chunk, which hears the whole utterance.
        """
        started: dict[int, FlowState] = {}
        for one in prompts:
            if id(one) not in started:
                started[id(one)] = (
                    one
                    if isinstance(one, FlowState)
                    else self.start(one[0][None], one[1][None], steps=steps, guidance=guidance)
                )
        states = [started[id(one)] for one in prompts]
        if any((len(s.caches), s.guidance) != (len(states[0].caches), states[0].guidance) for s in states):
            raise ValueError("the prompts were started with different steps or guidance")
        device, per = self.mean.device, self.spec.frames_per_token
        lens, count = torch.tensor([len(row) for row in tokens], device=device), len(tokens)
        size = int(lens.max())
        ids = torch.full((count, size), self.spec.codes, device=device)
        x = torch.zeros(count, size * per, self.spec.frames.dim, device=device)
        for i, (row, row_noise) in enumerate(zip(tokens, noise, strict=True)):
            ids[i, : len(row)], x[i, : len(row_noise)] = row, row_noise
        # the rows with their conditions, then the same rows without
        sides = [(state, side) for side in range(len(states[0].speaker)) for state in states]
        copies = len(sides) // count
        if copies == 2:
            ids = torch.cat([ids, torch.full_like(ids, self.spec.codes)])
        speaker = torch.stack([state.speaker[side] for state, side in sides])
        past = torch.tensor([state.length for state, _ in sides], device=device)
        mask = self._mask_behind(past, lens.repeat(copies), size, chunk)
        prompt = torch.zeros_like(ids, dtype=torch.bool)

        def velocity(x: Tensor, t: float, step: int) -> Tensor:
            layers = zip(*(state.caches[step] for state, _ in sides), strict=True)
            caches = [
                KVCache.joined([(c, side) for c, (_, side) in zip(layer, sides, strict=True)], mask.shape[2])
                for layer in layers
            ]
            times = torch.full((len(sides),), t, device=device)
            v: Tensor = self.dit(
                x.repeat(copies, 1, 1),
                times,
                ids,
                speaker,
                prompt=prompt,
                mask=mask,
                caches=caches,
                past=past,
            )
            guidance = states[0].guidance
            return v if copies == 1 else (1 + guidance) * v[:count] - guidance * v[count:]

        frames = self.unscale(solve(velocity, x, len(states[0].caches)))
        return [frames[i, : n * per] for i, n in enumerate(lens.tolist())]

    def _mask_behind(self, past: Tensor, lens: Tensor, size: int, chunk: int | None) -> Tensor:
        """(B, 1, P, past and P) mask of targets of `size` tokens behind cached prompts of `past` (B,) positions, which
        are filled up on the left."""
        first = torch.zeros_like(lens)
        target = self.mask(first, lens, size, chunk)
        longest = int(past.max())
        prompt = torch.arange(longest, device=past.device) >= longest - past[:, None]
        return torch.cat([prompt[:, None, None].expand(-1, -1, target.shape[2], -1), target], dim=-1)
