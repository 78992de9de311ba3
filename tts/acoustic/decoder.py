"""The acoustic decoder: tokens and a voice prompt -> frames, by flow matching, whole or chunk by chunk.

Shapes: B batch, N tokens, T = frames_per_token * N frames, D numbers of a frame. Tokens are bare, (..., N), or come
with the phonemes they say, (..., N, 4): see `tts.text.triphones`.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from codec.nn.attention import KVCache, KVRows
from codec.nn.masks import chunk_causal_mask, length_mask
from codec.spec import TokenSpec
from tts.acoustic.dit import DiT, Modulation, with_context
from tts.acoustic.flow import flow_loss, solve, time_grid
from tts.text.triphones import CONTEXT, NOTHING

STEPS, GUIDANCE = 6, 2.0
"""Defaults, for a decoder that no reader has taught (`tts.training.reading`): it needs them. Steps by the table in
docs/speed.md. More guidance than the 0.7 usual for large models: a small one follows its tokens too loosely."""

ROOM = 256
"""Positions that a stream of chunks has room for before its caches grow: 5 s of the embedded model, most sentences."""

WASTE = 0.1
"""Of the work of a batch, on padding, on a CPU: one row is enough arithmetic for it, more rows are no faster each."""


@dataclass
class FlowState:
    """What a stream of chunks needs of the past: keys and values per solver step, and the voice.

    Attributes:
        caches: one list of the DiT's caches per solver step.
        modulation: what each step's time and the voice make of the layers, rows with and without condition.
        speaker: (2 or 1, dim) speaker vectors, with and without condition.
        guidance: of this stream; 0 for none.
    """

    caches: list[list[KVCache]]
    modulation: list[Modulation]
    speaker: Tensor
    guidance: float

    @property
    def length(self) -> int:
        """Positions taken in so far."""
        return self.caches[0][0].length

    def copy(self) -> "FlowState":
        """An independent state: what one stream adds, another does not see."""
        return replace(self, caches=[[c.copy(room=ROOM) for c in layers] for layers in self.caches])

    def back_to(self, length: int) -> None:
        """Forget all but the first positions, those of the voice, say: the state is as it was when it had no more."""
        for layers in self.caches:
            for cache in layers:
                cache.back_to(length)


class FlowStates:
    """Copies of states that begin streams, each lent to one stream at a time; for several threads.

    A copy is large, and memory that a process asks for anew has to be mapped and cleared, which takes longer than to
    fill it. So what is given back is lent again to the next stream of the same voice.

    Args:
        most: that are kept while nobody has them; who came back first goes first.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._free: list[tuple[FlowState, FlowState]] = []  # what was copied, and the copy
        self._lock = threading.Lock()

    def lend(self, start: FlowState) -> FlowState:
        """An independent state that is as `start` is."""
        with self._lock:
            for n, (copied, state) in enumerate(self._free):
                if copied is start:
                    del self._free[n]
                    return state
        return start.copy()

    def give_back(self, start: FlowState, state: FlowState) -> None:
        """A copy of `start` is no longer used."""
        state.back_to(start.length)
        with self._lock:
            self._free.append((start, state))
            del self._free[: -self.most]


class FlowDecoder(nn.Module):
    """A DiT with the scaling of its frames.

    Args:
        dit: the velocity network.
        steps: of the solver, where nothing else is asked for. A reader teaches what so many steps make: few are enough
            then, and others are worse.
        guidance: to speak with where nothing else is asked for; 0 for none, which is twice as fast.
        drop: share of training utterances whose conditions are all dropped, for guidance
            (Ho & Salimans 2022, arXiv 2207.12598).
        drop_phonemes: share that loses its phonemes only: speech without a text can then be made, too.
        drop_tokens: share that loses some of its tokens only: else the phonemes, which matter in one token of ten,
            are learnt too late.
    """

    def __init__(
        self,
        dit: DiT,
        *,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        drop: float = 0.2,
        drop_phonemes: float = 0.15,
        drop_tokens: float = 0.5,
    ) -> None:
        super().__init__()
        self.steps, self.guidance = steps, guidance
        self.dit, self.drop, self.drop_phonemes = dit, drop, drop_phonemes
        self.drop_tokens = drop_tokens if dit.symbols else 0.0
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

    def nothing(self, *shape: int) -> Tensor:
        """Of a shape (..., N): no token and no phoneme, (..., N, 4)."""
        row = torch.tensor([self.spec.codes, *[NOTHING] * CONTEXT], device=self.mean.device)
        return row.repeat(*shape, 1)

    def _padded(self, tokens: Sequence[Tensor], frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows (N,) or (N, 4), and (T, D), as one batch: (B, N, 4) with nothing and (B, T, D) with 0 behind them."""
        ids = self.nothing(len(tokens), longest := max(map(len, tokens)))
        x = self.mean.new_zeros(len(ids), longest * self.spec.frames_per_token, self.spec.frames.dim)
        for n, (row, own) in enumerate(zip(tokens, frames, strict=True)):
            ids[n, : len(row)], x[n, : len(own)] = with_context(row, 1), own
        return ids, x

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
            tokens: (B, N) or (B, N, 4).
            prompt_lens, lens: (B,) tokens of the prompt, and of prompt and target together.
            chunk: tokens per chunk of the attention mask; None for one chunk.
        """
        n, per = tokens.shape[1], self.spec.frames_per_token
        clean = self.scale(frames)
        prompt = length_mask(prompt_lens, n)
        prompt_frames = prompt.repeat_interleave(per, dim=1)
        tokens = with_context(tokens, 2)
        rates = torch.tensor([self.drop, self.drop_phonemes, self.drop_tokens], device=tokens.device)
        dropped, unread, gappy = torch.rand(3, len(tokens), device=tokens.device) < rates[:, None]
        speaker = self.dit.speaker(clean[:, : int(prompt_lens.max()) * per], prompt_lens * per)
        speaker = torch.where(dropped[:, None], self.dit.no_speaker.to(speaker.dtype), speaker)
        bare = with_context(tokens[..., 0], 2)
        tokens = torch.where(unread[:, None, None], bare, _with_gaps(tokens, gappy, self.spec.codes))
        tokens = torch.where(dropped[:, None, None], self.nothing(1, n), tokens)
        given = clean.masked_fill(dropped[:, None, None], 0.0)
        mask = self.mask(prompt_lens, lens, n, chunk)

        def velocity(x_t: Tensor, t: Tensor) -> Tensor:
            x_t = torch.where(prompt_frames[..., None], given, x_t)
            out: Tensor = self.dit(x_t, t, tokens, speaker, prompt=prompt, mask=mask)
            return out

        keep = (length_mask(lens, n) & ~prompt).repeat_interleave(per, dim=1)
        return flow_loss(velocity, clean, keep)

    def made(
        self,
        frames: Tensor,
        tokens: Tensor,
        prompt_lens: Tensor,
        lens: Tensor,
        *,
        chunk: int | None = None,
        steps: int | None = None,
        first: int = 0,
        learning: int = 2,
    ) -> Tensor:
        """What the solver makes of the targets without guidance, to learn from: (B, T, D), unscaled; as `decode` does.

        Gradients run through the last solver steps only (Clark et al. 2023, arXiv 2309.17400).

        Args:
            frames, tokens, prompt_lens, lens, chunk: as in `loss`.
            steps: of the solver; None is the model's own.
            first: the step to begin with, on the way from noise to `frames`; 0 needs no targets in them.
            learning: how many steps pass gradients on.
        """
        steps = self.steps if steps is None else steps
        n, per = tokens.shape[1], self.spec.frames_per_token
        clean = self.scale(frames)
        prompt = length_mask(prompt_lens, n)
        given = prompt.repeat_interleave(per, dim=1)[..., None]
        speaker = self.dit.speaker(clean[:, : int(prompt_lens.max()) * per], prompt_lens * per)
        content = self.dit.content(tokens, prompt=prompt)
        mask = self.mask(prompt_lens, lens, n, chunk)

        def velocity(x: Tensor, t: float, step: int) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and step >= steps - learning):
                times = torch.full((len(x),), t, device=x.device)
                v: Tensor = self.dit(torch.where(given, clean, x), times, content, speaker, mask=mask)
                return v.float()

        t = time_grid(steps)[first]
        x = (1 - t) * torch.randn_like(clean) + t * clean
        return torch.where(given, frames, self.unscale(solve(velocity, x, steps, first=first)))

    @torch.inference_mode()
    def start(
        self, frames: Tensor, tokens: Tensor, *, steps: int | None = None, guidance: float | None = None
    ) -> FlowState:
        """Take in a voice prompt, once: everything later chunks need of it is in the state.

        Args:
            frames: (1, T, D) the prompt's frames, unscaled.
            tokens: (1, N) its tokens, or (1, N, 4).
            steps: of the solver, in all later chunks; None is the model's own.
            guidance: weight w of ``(1 + w) conditional - w unconditional``; 0 leaves the second out, None is the
                model's own.
        """
        return self.start_all([(frames[0], tokens[0])], steps=steps, guidance=guidance)[0]

    @torch.inference_mode()
    def start_all(
        self,
        prompts: Sequence[tuple[Tensor, Tensor]],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> list[FlowState]:
        """`start` for several voice prompts in one batch: frames (T, D) and tokens (N,) or (N, 4) of each."""
        steps = self.steps if steps is None else steps
        guidance = self.guidance if guidance is None else guidance
        device, per, count = self.mean.device, self.spec.frames_per_token, len(prompts)
        lens = torch.tensor([len(tokens) for _, tokens in prompts], device=device)
        size = int(lens.max())
        ids, clean = self._padded(
            [tokens for _, tokens in prompts], [self.scale(frames) for frames, _ in prompts]
        )
        speaker = self.dit.speaker(clean, lens * per)
        if guidance:
            speaker = torch.cat([speaker, self.dit.no_speaker.expand(count, -1)])
            clean = torch.cat([clean, torch.zeros_like(clean)])
            ids = torch.cat([ids, self.nothing(count, size)])
        copies = len(ids) // count
        prompt = torch.ones(ids.shape[:2], dtype=torch.bool, device=device)
        # behind the prompts there is nothing yet; padding is cut off after, but must not be seen before
        mask = (
            self.mask(lens, lens, size, None).repeat(copies, 1, 1, 1) if bool((lens < size).any()) else None
        )
        content = self.dit.content(ids, prompt=prompt)
        rows = [[i + side * count for side in range(copies)] for i in range(count)]
        states = [FlowState([], [], speaker[row], guidance) for row in rows]
        lengths = (lens * self.dit.per_token).tolist()
        for t in time_grid(steps)[:-1]:
            caches = self.dit.new_caches(size * self.dit.per_token)
            modulation = self.dit.modulation(torch.full((len(ids),), t, device=device), speaker)
            self.dit(clean, modulation, content, mask=mask, caches=caches)
            for state, row, length in zip(states, rows, lengths, strict=True):
                state.caches.append([cache.picked(row, length) for cache in caches] if count > 1 else caches)
                state.modulation.append(Modulation(modulation.blocks[row], modulation.final[row]))
        return states

    def decode_chunk(self, state: FlowState, tokens: Tensor, noise: Tensor) -> Tensor:
        """The frames (1, T, D) of the next chunk of tokens; adds the chunk to the state.

        Args:
            state: from `start`; changed in place.
            tokens: (1, N) or (1, N, 4).
            noise: (1, T, D) standard normal, one frame for each to come.
        """
        return self.decode_chunks([state], [tokens[0]], [noise[0]])[0][None]

    @torch.inference_mode()
    def decode_chunks(
        self, states: Sequence[FlowState], tokens: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> list[Tensor]:
        """`decode_chunk` for several streams in one batch: the frames (T, D) of their next chunks.

        Args:
            states: of each stream, all with the same steps and guidance; changed in place.
            tokens: of each stream, (N,) or (N, 4), chunks of any length.
            noise: of each stream, (T, D) standard normal.
        """
        count, sides, w = len(states), len(states[0].speaker), states[0].guidance
        told, x = self._padded(tokens, noise)
        # of each stream the row with its conditions and, for guidance, the row without
        rows = [(state, side) for state in states for side in range(sides)]
        ids = torch.stack([told, self.nothing(*told.shape[:2])][:sides], 1).flatten(0, 1)
        prompt = torch.zeros(ids.shape[:2], dtype=torch.bool, device=ids.device)
        past = torch.tensor([state.length for state, _ in rows], device=ids.device)
        content = self.dit.content(ids, prompt=prompt, past=past)
        lens = [len(row) for row in tokens]
        sizes = None if min(lens) == max(lens) else [n * self.dit.per_token for n in lens]

        def velocity(x: Tensor, t: float, step: int) -> Tensor:
            layers = zip(*(state.caches[step] for state in states), strict=True)
            caches = [KVRows(layer, sizes) if count > 1 else layer[0] for layer in layers]
            v: Tensor = self.dit(
                x.repeat_interleave(sides, 0), _modulation(rows, step), content, caches=caches
            )
            v = v.unflatten(0, (count, sides))
            return v[:, 0] if sides == 1 else (1 + w) * v[:, 0] - w * v[:, 1]

        made = self.unscale(solve(velocity, x, len(states[0].caches)))
        return [frames[: len(own)] for frames, own in zip(made, noise, strict=True)]

    @torch.inference_mode()
    def decode(
        self,
        prompts: Sequence[tuple[Tensor, Tensor] | FlowState],
        tokens: Sequence[Tensor],
        noise: Sequence[Tensor],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        chunk: int | None = None,
    ) -> list[Tensor]:
        """Frames (T, D) for every row; rows of like length in one batch, for padding costs as much as speech does.

        Args:
            prompts: of each row, frames (T, D) and tokens (N,) or (N, 4), taken in once where rows share them; or what
                `start` made of them, which stays as it is and spares that, too.
            tokens: of each row, (N,) or (N, 4).
            noise: of each row, (T, D) standard normal.
            steps, guidance: as in `start`, and as in the states where those are given.
            chunk: tokens per chunk; None for one chunk, which hears the whole utterance.
        """
        new = {id(one): one for one in prompts if not isinstance(one, FlowState)}
        begun = self.start_all(list(new.values()), steps=steps, guidance=guidance) if new else []
        started = dict(zip(new, begun, strict=True))
        states = [one if isinstance(one, FlowState) else started[id(one)] for one in prompts]
        if any((len(s.caches), s.guidance) != (len(states[0].caches), states[0].guidance) for s in states):
            raise ValueError("the prompts were started with different steps or guidance")
        found: dict[int, Tensor] = {}
        waste = WASTE if self.mean.device.type == "cpu" else float("inf")
        for rows in of_like_length([len(row) for row in tokens], waste):
            made = self._decode(
                [states[i] for i in rows], [tokens[i] for i in rows], [noise[i] for i in rows], chunk
            )
            found |= zip(rows, made, strict=True)
        return [found[i] for i in range(len(tokens))]

    def _decode(
        self,
        states: Sequence[FlowState],
        tokens: Sequence[Tensor],
        noise: Sequence[Tensor],
        chunk: int | None,
    ) -> list[Tensor]:
        """`decode` in one batch, behind what was started."""
        device = self.mean.device
        lens, count = torch.tensor([len(row) for row in tokens], device=device), len(tokens)
        ids, x = self._padded(tokens, noise)
        size = ids.shape[1]
        # the rows with their conditions, then the same rows without
        sides = [(state, side) for side in range(len(states[0].speaker)) for state in states]
        copies = len(sides) // count
        if copies == 2:
            ids = torch.cat([ids, self.nothing(count, size)])
        prompt = torch.zeros(ids.shape[:2], dtype=torch.bool, device=device)
        past = torch.tensor([state.length for state, _ in sides], device=device)
        mask = self._mask_behind(past, lens.repeat(copies), size, chunk)
        content = self.dit.content(ids, prompt=prompt, past=past)

        def velocity(x: Tensor, t: float, step: int) -> Tensor:
            layers = zip(*(state.caches[step] for state, _ in sides), strict=True)
            caches = [
                KVCache.joined([(c, side) for c, (_, side) in zip(layer, sides, strict=True)], mask.shape[2])
                for layer in layers
            ]
            modulation = _modulation(sides, step)
            v: Tensor = self.dit(x.repeat(copies, 1, 1), modulation, content, mask=mask, caches=caches)
            guidance = states[0].guidance
            return v if copies == 1 else (1 + guidance) * v[:count] - guidance * v[count:]

        frames = self.unscale(solve(velocity, x, len(states[0].caches)))
        return [row[: len(own)] for row, own in zip(frames, noise, strict=True)]

    def _mask_behind(self, past: Tensor, lens: Tensor, size: int, chunk: int | None) -> Tensor:
        """(B, 1, P, past and P) mask of targets of `size` tokens behind cached prompts of `past` (B,) positions, which
        are filled up on the left."""
        first = torch.zeros_like(lens)
        target = self.mask(first, lens, size, chunk)
        longest = int(past.max())
        prompt = torch.arange(longest, device=past.device) >= longest - past[:, None]
        return torch.cat([prompt[:, None, None].expand(-1, -1, target.shape[2], -1), target], dim=-1)


def of_like_length(lens: Sequence[int], waste: float = WASTE) -> list[list[int]]:
    """Numbers of the rows in groups, long ones first, that are filled up by at most `waste` of what is in them."""
    groups: list[list[int]] = []
    total = 0
    for i in sorted(range(len(lens)), key=lambda i: -lens[i]):
        if groups and lens[groups[-1][0]] * (len(groups[-1]) + 1) <= (1 + waste) * (total + lens[i]):
            groups[-1].append(i)
            total += lens[i]
        else:
            groups.append([i])
            total = lens[i]
    return groups


def _with_gaps(tokens: Tensor, rows: Tensor, none: int) -> Tensor:
    """Tokens (B, N, 4) of which the rows (B,) bool have lost some, each row another share; the phonemes stay."""
    share = torch.rand(len(tokens), 1, device=tokens.device)
    draws = torch.rand(tokens.shape[:2], device=tokens.device)
    lost = (draws < share) & rows[:, None]
    return torch.cat([tokens[..., :1].masked_fill(lost[..., None], none), tokens[..., 1:]], dim=-1)


def _modulation(rows: Sequence[tuple[FlowState, int]], step: int) -> Modulation:
    """A step's modulation of a batch: of each row, the state and which of its sides."""
    return Modulation(
        torch.stack([state.modulation[step].blocks[side] for state, side in rows]),
        torch.stack([state.modulation[step].final[side] for state, side in rows]),
    )
