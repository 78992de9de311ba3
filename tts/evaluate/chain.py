"""The sounds to measure: the model's, and the oracles', which leave out part of the chain.

    text       text and prompt, the whole chain, as `TTS.synthesize` speaks it
    tokens     the reference's own tokens, the text's phonemes aligned to them, and the prompt: acoustic decoder and
               vocoder
    vocoder    the reference's own frames: the vocoder alone
    recording  the reference itself

Where a row falls behind the one below it in this list, the part between them loses it.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor

from codec.audio import join, normalize_loudness
from codec.errors import UserError
from tts.evaluate.cases import Case
from tts.evaluate.prosody import speech_seconds
from tts.evaluate.sample import Made
from tts.lm.model import Aligned, cut_groups
from tts.pipeline import PIECE, TTS, Clock, Job, Sentence, Settings, draw_seed, joined, split_at_pauses
from tts.text import Frontend, Utterance
from tts.voice import LOUDNESS, Voice, group_durations, read_speech

TEXT, TOKENS, VOCODER, RECORDING = ROWS = ("text", "tokens", "vocoder", "recording")
PARTS = ("text", "lm", "check", "acoustic", "vocoder")
SEEDS = 2**16  # different ones for different cases


class Sound(NamedTuple):
    """A waveform (samples,) at the model's rate, and what is known of it."""

    wav: Tensor
    made: Made


class _Prompt(NamedTuple):
    """A prompt's voice, and what its speaking rate is computed from."""

    voice: Voice
    phonemes: int
    seconds: float


class Chain:
    """Makes the sounds of every row.

    Args:
        tts: the model.
        settings: how to speak. The seed of a case is this one's and a number made of the case's id.
    """

    def __init__(self, tts: TTS, settings: Settings) -> None:
        # what would be an error there is counted here
        self.tts, self.settings, self.symbols = tts, replace(settings, strict=False), tts.model.symbols
        self.rate = tts.model.spec.frames.sample_rate
        self._prompt = lru_cache(maxsize=max(64, settings.batch))(self._read_prompt)
        self._utterances = cache(self._read_text)
        self._frontend = cache(self._warm_frontend)

    def size(self, case: Case) -> int:
        """How long the text is: ids of its phonemes."""
        return sum(len(one.ids) for one in self._sentences(case))

    def sentences(self, case: Case) -> int:
        """How many sentences the text has."""
        return len(self._sentences(case))

    def make(self, row: str, cases: Sequence[Case]) -> list[Sound]:
        """The sounds of some cases in one row; those of the text row are made as one batch.

        Raises:
            UserError: a text or a recording cannot be used, or the model gives no sound; the message names the case.
        """
        if row == TEXT:
            sounds = self._text(cases)
        else:
            maker = {TOKENS: self._tokens, VOCODER: self._vocoder, RECORDING: self._recording}[row]
            sounds = [maker(case) for case in cases]
        for case, sound in zip(cases, sounds, strict=True):
            if not sound.wav.isfinite().all() or not len(sound.wav):
                raise UserError(f"case {case.id!r}: the model gave no sound, or NaN samples; train it again")
        return sounds

    # ---------------------------------------------------------------------------------------------- the rows

    def _text(self, cases: Sequence[Case]) -> list[Sound]:
        jobs = [
            [Job(u, self._of(case).voice, number(case, n)) for n, u in enumerate(self._sentences(case))]
            for case in cases
        ]
        sounds = []
        for case, (sentences, times) in zip(cases, speak(self.tts, jobs, self.settings), strict=True):
            cut = [cut_groups(one.tokens, self.tts.bounds) for one in sentences]
            endless = sum(row[-1] for row in cut)
            sounds.append(
                self._sound(
                    case,
                    joined(sentences, self.rate),
                    {"text": self._utterances(case.text, case.language)[1], **times},
                    [torch.tensor(one.tokens.tokens) for one in sentences],
                    held=sum(map(sum, cut)) - endless,
                    endless=endless,
                    attempts=sum(one.quality.attempts if one.quality else 1 for one in sentences),
                )
            )
        return sounds

    def _tokens(self, case: Case) -> Sound:
        """As `TTS.convert` does: a long recording in pieces."""
        pieces = split_at_pauses(self._reference(case), self.rate, PIECE)
        tokens = [self.tts._tokens(piece) for piece in pieces]
        clock, wavs = clock_of(self.tts), list[Tensor]()
        for n, one in enumerate(self._told(case, tokens)):
            with clock("acoustic"):
                frames = self.tts._frames(
                    [one], [self._of(case).voice], self.settings, seeds=[number(case, n)]
                )
            with clock("vocoder"):
                wavs.append(self.tts.vocode(frames[0]))
        return self._sound(case, join(wavs, self.rate, pause=0.0), clock.parts, tokens)

    def _told(self, case: Case, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        """A recording's tokens (N,) with its text's phonemes, (N, 4), as the LM's come; bare where those do not fit."""
        groups = self.symbols.groups([i for one in self._sentences(case) for i in one.ids])
        whole = torch.cat(list(pieces))
        try:
            durations = group_durations(self.tts.model, whole, groups)
        except UserError:
            return pieces
        told = Aligned(groups, whole.tolist(), durations).told(self.symbols).to(whole.device)
        split: tuple[Tensor, ...] = told.split([len(piece) for piece in pieces])
        return split

    def _vocoder(self, case: Case) -> Sound:
        frames = self.tts.model.features(self._reference(case)[None].to(self.tts.device))[0]
        clock = clock_of(self.tts)
        with clock("vocoder"):
            wav = self.tts.vocode(frames)
        return self._sound(case, wav, clock.parts)

    def _recording(self, case: Case) -> Sound:
        return self._sound(case, self._reference(case), {})

    def _sound(
        self,
        case: Case,
        wav: Tensor,
        times: Mapping[str, float],
        tokens: Sequence[Tensor] | None = None,
        *,
        held: int | None = None,
        endless: int | None = None,
        attempts: int | None = None,
    ) -> Sound:
        sentences, prompt = self._sentences(case), self._of(case)
        ids = [i for one in sentences for i in one.ids]
        made = Made(
            seconds=len(wav) / self.rate,
            sentences=len(sentences),
            phonemes=self._phonemes(ids),
            wanted=self.symbols.decode(self.symbols.segments(ids)),
            read=None if tokens is None else "".join(map(self._read, tokens)),
            held=held,
            endless=endless,
            attempts=attempts,
            prompt_phonemes=prompt.phonemes,
            prompt_seconds=prompt.seconds,
            seed=self.settings.seed + case_seed(case),
            times=dict(times),
        )
        return Sound(wav, made)

    # ------------------------------------------------------------------------------------------ their materials

    def _warm_frontend(self, language: str) -> Frontend:
        """A front end that has been used: the first text of a language loads grammars for seconds."""
        frontend = Frontend(self.symbols, language, self.settings.lexicon)
        frontend.whole(["1 a"])
        return frontend

    def _read_text(self, text: str, language: str) -> tuple[list[Utterance], float]:
        """A text's sentences, and the seconds that reading them took."""
        frontend = self._frontend(language)
        start = time.perf_counter()
        return frontend(text), time.perf_counter() - start

    def _sentences(self, case: Case) -> list[Utterance]:
        with naming(case):
            return self._utterances(case.text, case.language)[0]

    def _read_prompt(self, path: Path, text: str | None, language: str) -> _Prompt:
        voice = Voice.from_audio(path, text=text, language=language, model=self.tts.model)
        used = read_speech(path, self.rate)[: round(voice.seconds * self.rate)]
        ids = self.symbols.encode(voice.phonemes)
        return _Prompt(voice, self._phonemes(ids), speech_seconds(used.numpy(), self.rate))

    def _of(self, case: Case) -> _Prompt:
        with naming(case):
            return self._prompt(case.prompt, case.prompt_text, case.language)

    def _reference(self, case: Case) -> Tensor:
        """The reference as the models take it: no silence around it, at their loudness."""
        with naming(case):
            if case.reference is None:
                raise UserError("it has no reference recording; the oracle rows need one")
            return normalize_loudness(read_speech(case.reference, self.rate), self.rate, LOUDNESS)

    def _read(self, tokens: Tensor) -> str:
        """Tokens (N,) -> the segments that the tokenizer reads in them."""
        if not len(tokens):
            return ""
        ids = self.tts.model.tokenizer.read(tokens[None].to(self.tts.device))[0]
        return self.symbols.decode(self.symbols.segments(ids))

    def _phonemes(self, ids: Sequence[int]) -> int:
        return sum(map(self.symbols.is_base, ids))


@contextmanager
def naming(case: Case) -> Iterator[None]:
    """Errors that a user can mend say which case it is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"case {case.id!r}: {error}") from error


def case_seed(case: Case) -> int:
    """What a case adds to the seed: so that no draw decides all cases, and the same however the list is cut."""
    return crc32(case.id.encode()) % SEEDS


def number(case: Case, sentence: int) -> int:
    """The number of a case's sentence that gives it the draws of its number under the case's own seed."""
    stride = draw_seed(1, 0) - draw_seed(0, 0)
    return case_seed(case) * stride + sentence


def speak(
    tts: TTS, jobs: Sequence[Sequence[Job]], settings: Settings
) -> Iterator[tuple[list[Sentence], dict[str, float]]]:
    """The sentences of texts in different voices, made together in batches, and each text's seconds by part.

    Each sounds as `TTS.synthesize` makes it alone. The texts of a batch share its time by their tokens.
    """
    flat = [(j, job) for j, row in enumerate(jobs) for job in row]
    flat.sort(key=lambda one: len(one[1].utterance.ids))
    made: dict[tuple[int, int], Sentence] = {}
    times: list[dict[str, float]] = [defaultdict(float) for _ in jobs]
    for start in range(0, len(flat), settings.batch):
        batch, clock = flat[start : start + settings.batch], clock_of(tts)
        sentences = tts._speak_batch([job for _, job in batch], settings, clock)
        shares = shares_of([len(one.tokens.tokens) for one in sentences])
        for (j, job), sentence, share in zip(batch, sentences, shares, strict=True):
            made[j, job.number] = sentence
            for part, seconds in clock.parts.items():
                times[j][part] += share * seconds
    for j, row in enumerate(jobs):
        yield [made[j, job.number] for job in row], dict(times[j])


def shares_of(sizes: Sequence[int]) -> list[float]:
    """Sizes as shares of their sum; equal ones where that is 0."""
    total = sum(sizes)
    return [size / total if total else 1 / len(sizes) for size in sizes]


class DeviceClock(Clock):
    """A clock that waits for a device's queue, so that work counts where it is asked for."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        torch.cuda.synchronize(self.device)
        with super().__call__(part):
            yield
            torch.cuda.synchronize(self.device)


def clock_of(tts: TTS) -> Clock:
    """A clock for the device of a model."""
    return DeviceClock(tts.device) if tts.device.type == "cuda" else Clock()
