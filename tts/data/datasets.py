"""One dataset a stage, in Lhotse's way: a sampler chooses the cuts, ``dataset[cuts]`` is the batch.

Random choices inside a batch (crops, prompts) come from a generator seeded with the dataset's seed, the
epoch and the cut's id, never from a running one. So a cut gives the same training example in whatever batch,
worker or process it is drawn, and a resumed run sees what an uninterrupted one would have seen. The epoch
travels with the cut, as its custom field ``epoch`` (`tts.training.data` writes it there); a cut without one
is of epoch 0, which keeps validation the same every time.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from codec.audio import resample
from codec.spec import FrameSpec, TokenSpec
from tts.data.batches import IGNORE, AcousticBatch, LMBatch, TokenizerBatch, VocoderBatch
from tts.data.pitch import pitch_of
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable
from tts.text.triphones import told

FRAMES, TOKENS = FrameSpec(), TokenSpec()

CUTOFFS = 3_000, 11_000
"""Hz, where recordings of lower sample rates end."""

LEAD = 2
"""Tokens of silence before and after speech, about a tenth of a second."""

Groups = list[tuple[int, ...]]
Told = list[tuple[int, ...]]
Layout = Callable[[Groups, list[int], list[int]], tuple[list[int], list[int]]]
Floats = npt.NDArray[np.float32]


class SpeechDataset(Dataset[Any]):
    """What the datasets share: numbered speakers, other utterances of a speaker, repeatable draws.

    Args:
        cuts: all cuts that batches and prompts may be drawn from; their order does not matter.
        seed: of the random choices.

    Attributes:
        reads: what it loads of a cut, "frames" or "recording". Tokens and phonemes stand in the cut itself.
    """

    reads: ClassVar[tuple[str, ...]] = ("frames", "recording")

    def __init__(self, cuts: CutSet, *, seed: int = 0) -> None:
        self.cuts = list(cuts)
        self.seed = seed
        # an utterance may be there more than once, to be trained on more often; it is still one
        utterances = {utterance_of(cut): cut for cut in self.cuts}
        self._by_speaker: dict[str, list[Cut]] = defaultdict(list)
        for name in sorted(utterances):
            self._by_speaker[speaker_of(utterances[name])].append(utterances[name])
        self.speakers = {name: number for number, name in enumerate(sorted(self._by_speaker))}

    def draws(self, cut: Cut) -> random.Random:
        """The generator of the random choices made for this cut in its epoch."""
        return random.Random(f"{self.seed}/{(cut.custom or {}).get('epoch', 0)}/{cut.id}")

    def another(self, cut: Cut, draws: random.Random) -> Cut | None:
        """A random other utterance of the cut's speaker, None where there is none."""
        same = self._by_speaker[speaker_of(cut)]
        if len(same) < 2:
            return None
        other = same[draws.randrange(len(same) - 1)]
        return same[-1] if utterance_of(other) == utterance_of(cut) else other

    def speaker_numbers(self, cuts: CutSet) -> Tensor:
        return torch.tensor([self.speakers[speaker_of(cut)] for cut in cuts])


class VocoderDataset(SpeechDataset):
    """One random crop of every cut's waveform.

    Args:
        samples: of a crop; shorter recordings are padded with zeros.
        gain_db: each crop's level is changed by up to so much, up or down, short of clipping.
        low_pass: share of the crops that lose what is above some frequency between 3 and 11 kHz: recordings of
            other sample rates are among the prompts, and a vocoder that never saw one spoils all of it.
        pitch: whether to measure the pitch of each crop's frames, which `HarmonicVocos` learns to read.
        hop: samples from frame to frame.
    """

    reads = ("recording",)

    def __init__(
        self,
        cuts: CutSet,
        *,
        samples: int = 24_576,
        gain_db: float = 0.0,
        low_pass: float = 0.0,
        pitch: bool = False,
        hop: int = FRAMES.hop,
        seed: int = 0,
    ) -> None:
        super().__init__(cuts, seed=seed)
        self.samples = samples
        self.gain_db, self.low_pass = gain_db, low_pass
        self.pitch = pitch
        self.hop = hop

    def __getitem__(self, cuts: CutSet) -> VocoderBatch:
        crops = [self._crop(cut) for cut in cuts]
        wav = torch.from_numpy(np.stack(crops))
        if not self.pitch:
            return VocoderBatch(wav)
        pitch = [pitch_of(crop, cut.sampling_rate, self.hop) for crop, cut in zip(crops, cuts, strict=True)]
        return VocoderBatch(wav, torch.from_numpy(np.stack(pitch)))

    def _crop(self, cut: Cut) -> Floats:
        draws = self.draws(cut)
        start = draws.randint(0, max(0, cut.num_samples - self.samples))
        count = min(self.samples, cut.num_samples - start)
        rate = cut.sampling_rate
        wav = cut.recording.load_audio(offset=start / rate, duration=count / rate)[0]
        if draws.random() < self.low_pass:
            between = 2 * draws.randint(*CUTOFFS)
            wav = resample(resample(torch.from_numpy(wav), rate, between), between, rate)[:count].numpy()
        gain = 10 ** (draws.uniform(-self.gain_db, self.gain_db) / 20)
        peak = float(np.abs(wav).max())
        crop = np.zeros(self.samples, np.float32)
        crop[: len(wav)] = wav * (min(gain, max(1.0, 1.0 / max(peak, 1e-3))) if gain > 1 else gain)
        return crop


class TokenizerDataset(SpeechDataset):
    """Frames and the segments (no stress, no punctuation) to be read from them."""

    reads = ("frames",)

    def __init__(
        self, cuts: CutSet, *, spec: FrameSpec = FRAMES, symbols: SymbolTable | None = None, seed: int = 0
    ) -> None:
        super().__init__(cuts, seed=seed)
        self.spec = spec
        self.symbols = symbols or DEFAULT_SYMBOLS

    def __getitem__(self, cuts: CutSet) -> TokenizerBatch:
        frames, frame_lens = pad([torch.from_numpy(frames_of(cut)) for cut in cuts], self.spec.floor)
        labels, label_lens = pad([torch.tensor(self.labels(cut), dtype=torch.int64) for cut in cuts], 0)
        return TokenizerBatch(frames, frame_lens, labels, label_lens, self.speaker_numbers(cuts))

    def labels(self, cut: Cut) -> list[int]:
        """Ids of the cut's segments."""
        return self.symbols.segments(self.symbols.encode(phonemes_of(cut)))


class Said(NamedTuple):
    """An utterance or a part of one: phoneme groups, tokens, and tokens of each group."""

    groups: Groups
    tokens: list[int]
    durations: list[int]

    def then(self, other: "Said") -> "Said":
        """This one and another behind it."""
        return Said(self.groups + other.groups, self.tokens + other.tokens, self.durations + other.durations)

    def parted(self, count: int, *, lead: int = 0) -> tuple["Said", "Said"]:
        """The first `count` groups, and the rest; `lead` tokens of the first part's last group go to the rest."""
        at = sum(self.durations[:count]) - lead
        first, rest = list(self.durations[:count]), list(self.durations[count:])
        first[-1] -= lead
        rest[0] += lead
        return (
            Said(self.groups[:count], self.tokens[:at], first),
            Said(self.groups[count:], self.tokens[at:], rest),
        )


class LMDataset(SpeechDataset):
    """Sequences for the LM: the cut's phonemes and tokens, behind those of a prompt or alone.

    Voices are cloned from all kinds of recordings, so prompts are of all kinds, too: whole, broken off, and of
    somebody else. Of a speaker with one long recording, what stands before a pause is the prompt.

    Args:
        layout: (phoneme groups, tokens, tokens per group) -> (ids, shifted labels); `tts.lm.layout`'s.
        p_prompt: how often there is a prompt: another utterance of the speaker, where there is one.
        p_other: how often it is somebody else's. Tokens say little of who speaks, and most real voices in the data may
            have said one sentence each.
        p_cut: how often it is broken off, as the recording of a voice that is too long (`tts.voice`).
        p_strip: how often its phonemes lose stress and punctuation, as when the tokenizer read them.
        max_prompt: seconds; longer prompts are left out.
    """

    reads = ()

    def __init__(
        self,
        cuts: CutSet,
        *,
        layout: Layout,
        symbols: SymbolTable | None = None,
        p_prompt: float = 0.5,
        p_other: float = 0.0,
        p_cut: float = 0.0,
        p_strip: float = 0.5,
        max_prompt: float = 15.0,
        seed: int = 0,
    ) -> None:
        super().__init__(cuts, seed=seed)
        self.layout = layout
        self.symbols = symbols or DEFAULT_SYMBOLS
        self.p_prompt, self.p_other, self.p_cut = p_prompt, p_other, p_cut
        self.p_strip = p_strip
        self.max_prompt = max_prompt

    def __getitem__(self, cuts: CutSet) -> LMBatch:
        pairs = [self.layout(*self.utterance(cut)) for cut in cuts]
        ids, _ = pad([torch.tensor(ids) for ids, _ in pairs], 0)
        labels, _ = pad([torch.tensor(labels) for _, labels in pairs], IGNORE)
        return LMBatch(ids, labels)

    def utterance(self, cut: Cut) -> Said:
        """What the cut says, behind what the prompt says where one is drawn."""
        draws = self.draws(cut)
        target = aligned(cut, self.symbols)
        if draws.random() >= self.p_prompt:
            return target
        prompt = None
        if (other := self._prompt(cut, draws)) is not None:
            prompt = aligned(other, self.symbols)
            if draws.random() < self.p_cut:
                prompt = self._broken_off(prompt, draws)
        elif places := self._pauses(target):
            prompt, target = target.parted(draws.choice(places), lead=LEAD)
        if prompt is None:
            return target
        if draws.random() < self.p_strip:
            groups, durations = strip(prompt.groups, prompt.durations, self.symbols)
            prompt = prompt._replace(groups=groups, durations=durations)
        return prompt.then(target)

    def _prompt(self, cut: Cut, draws: random.Random) -> Cut | None:
        """Another utterance, of the speaker or of somebody else; None where there is none, or it is too long."""
        if self.p_other and draws.random() < self.p_other:
            other: Cut | None = draws.choice(self.cuts)
        else:
            other = self.another(cut, draws)
        if other is None or utterance_of(other) == utterance_of(cut) or other.duration > self.max_prompt:
            return None
        return other

    def _broken_off(self, said: Said, draws: random.Random) -> Said:
        """Its first groups, and silence: the tokens that it ends with."""
        tail = min(LEAD, said.durations[-1] - 1)
        ends = [n for n, at in enumerate(accumulate(said.durations), 1) if 3 * at >= len(said.tokens)]
        if tail < 1 or len(ends) < 2:
            return said
        kept, rest = said.parted(draws.choice(ends[:-1]))
        return Said(
            kept.groups, kept.tokens + rest.tokens[-tail:], [*kept.durations[:-1], kept.durations[-1] + tail]
        )

    def _pauses(self, said: Said) -> list[int]:
        """Places to part it at: numbers of groups that end in a pause, with a good part on either side."""
        places = []
        for n, at in enumerate(accumulate(said.durations[:-1]), 1):
            pause = not self.symbols.is_segment(said.groups[n - 1][-1]) and said.durations[n - 1] > 2 * LEAD
            if pause and 4 * at >= len(said.tokens) and 4 * (len(said.tokens) - at) >= len(said.tokens):
                places.append(n)
        return places


class Piece(NamedTuple):
    """Speech to learn the flow from.

    Attributes:
        frames: (T, D).
        tokens: with their phonemes.
        segments: those that begin in it: at which token, and the id.
    """

    frames: Floats
    tokens: Told
    segments: list[tuple[int, int]]

    def then(self, other: "Piece") -> "Piece":
        """This one and another behind it."""
        moved = [(begin + len(self.tokens), segment) for begin, segment in other.segments]
        return Piece(
            np.concatenate([self.frames, other.frames]), self.tokens + other.tokens, self.segments + moved
        )

    def said(self, start: int) -> list[int]:
        """The segments that begin at token `start` or behind it."""
        return [segment for begin, segment in self.segments if begin >= start]


class AcousticDataset(SpeechDataset):
    """Frames, and tokens with their phonemes, to learn the flow from: a voice prompt, then the target.

    The prompt is the head of the same utterance, or a piece of another one of the same speaker: a flow that
    only ever saw the first kind would learn to copy the room and not the voice.

    Args:
        p_cross: how often the prompt is of another utterance, where there is one.
        min_prompt, max_prompt: seconds of prompt. The head of the same utterance takes at most half of it.
        max_target: seconds of target; of a longer one a random piece is taken.
    """

    reads = ("frames",)

    def __init__(
        self,
        cuts: CutSet,
        *,
        spec: TokenSpec = TOKENS,
        symbols: SymbolTable | None = None,
        p_cross: float = 0.5,
        min_prompt: float = 1.0,
        max_prompt: float = 5.0,
        max_target: float = 12.0,
        seed: int = 0,
    ) -> None:
        super().__init__(cuts, seed=seed)
        self.spec = spec
        self.symbols = symbols or DEFAULT_SYMBOLS
        self.p_cross = p_cross
        self.min_prompt = max(1, round(min_prompt * spec.rate))
        self.max_prompt = max(1, round(max_prompt * spec.rate))
        self.max_target = max(1, round(max_target * spec.rate))

    def __getitem__(self, cuts: CutSet) -> AcousticBatch:
        examples = [self.example(cut) for cut in cuts]
        frames, _ = pad([torch.from_numpy(one.frames) for one, _ in examples], self.spec.frames.floor)
        tokens, lens = pad([torch.tensor(one.tokens) for one, _ in examples], 0)
        prompt_lens = torch.tensor([prompt_len for _, prompt_len in examples])
        labels, label_lens = pad(
            [torch.tensor(one.said(prompt_len), dtype=torch.int64) for one, prompt_len in examples], 0
        )
        speakers = self.speaker_numbers(cuts)
        return AcousticBatch(frames, tokens, prompt_lens, lens, speakers, labels, label_lens)

    def example(self, cut: Cut) -> tuple[Piece, int]:
        """Prompt and target, and how many of the tokens are prompt."""
        draws = self.draws(cut)
        other = self.another(cut, draws) if draws.random() < self.p_cross else None
        wanted = draws.randint(self.min_prompt, self.max_prompt)
        count = len(cut.custom["tokens"])
        if other is None:
            wanted = min(wanted, count // 2)
            return self._piece(cut, wanted + self.max_target, draws), wanted
        prompt = self._piece(other, wanted, draws)
        return prompt.then(self._piece(cut, self.max_target, draws)), len(prompt.tokens)

    def _piece(self, cut: Cut, count: int, draws: random.Random) -> Piece:
        """At most ``count`` tokens from a random place."""
        groups, codes, durations = aligned(cut, self.symbols)
        tokens = told(codes, groups, durations, self.symbols)
        start = draws.randint(0, max(0, len(tokens) - count))
        tokens = tokens[start : start + count]
        each = self.spec.frames_per_token
        frames = frames_of(cut, start * each, (start + len(tokens)) * each)
        missing = len(tokens) * each - len(frames)
        frames = np.pad(frames, ((0, missing), (0, 0)), constant_values=self.spec.frames.floor)
        # groups at the very end that have no token of their own belong to the last one
        begins = [min(begin, len(codes) - 1) - start for begin in accumulate(durations[:-1], initial=0)]
        segments = [
            (begin, segment)
            for begin, group in zip(begins, groups, strict=False)
            if 0 <= begin < len(tokens)
            for segment in self.symbols.segments(group)
        ]
        return Piece(frames, tokens, segments)


def strip(groups: Groups, durations: Sequence[int], symbols: SymbolTable) -> tuple[Groups, list[int]]:
    """Phoneme groups without stress and punctuation, and tokens per remaining group.

    A group of which nothing remains gives its tokens to the one before (the first: to the one after).
    """
    kept: Groups = []
    counts: list[int] = []
    before = 0
    for group, count in zip(groups, durations, strict=True):
        if segments := symbols.segments(group):
            kept.append(tuple(segments))
            counts.append(count + before)
            before = 0
        elif counts:
            counts[-1] += count
        else:
            before += count
    return kept, counts


def pad(rows: Sequence[Tensor], value: float) -> tuple[Tensor, Tensor]:
    """Tensors of different length (n_i, ...) -> one (B, max n, ...), and the lengths (B,)."""
    lens = torch.tensor([len(row) for row in rows])
    return pad_sequence(list(rows), batch_first=True, padding_value=value), lens


def frames_of(cut: Cut, start: int = 0, end: int | None = None) -> Floats:
    """The stored frames of a cut, or those from ``start`` to ``end``, (T, D) float32."""
    frames: Floats = cut.load_frames()[start:end].astype(np.float32)
    return frames


def phonemes_of(cut: Cut) -> str:
    phonemes: str = cut.supervisions[0].custom["phonemes"]
    return phonemes


def aligned(cut: Cut, symbols: SymbolTable) -> Said:
    """What a cut says, with its tokens."""
    groups = symbols.groups(symbols.encode(phonemes_of(cut)))
    return Said(groups, cut.custom["tokens"], cut.custom["durations"])


def utterance_of(cut: Cut) -> str:
    """What is the same of copies of a cut that have ids of their own."""
    utterance: str = cut.supervisions[0].id
    return utterance


def speaker_of(cut: Cut) -> str:
    speaker: str = cut.supervisions[0].speaker
    return speaker
