"""The chain: text and voice -> phonemes -> tokens -> frames -> waveform. Only here the models are joined."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.audio import join, normalize_loudness
from codec.errors import UserError
from codec.vocoders.stream import Respacing, limited
from tts.acoustic.decoder import FlowState
from tts.checkpoint import Model
from tts.engines.choose import TORCH, with_engine
from tts.hub.names import located
from tts.lm.model import Aligned, Bounds, Request, cut_groups
from tts.lm.sampling import Sampling
from tts.precision import Precision, in_precision
from tts.ranking import Candidate, Ranker, by_reading, choose
from tts.readback import Calibration, Quality, Reader, Reading
from tts.text import DEFAULT_LANGUAGE
from tts.text.frontend import Frontend, Utterance
from tts.text.lexicon import Lexicon
from tts.timestamps import Cue, Word, durations_lag, timed_words
from tts.voice import LOUDNESS, Voice, read_speech

if TYPE_CHECKING:
    from tts.streaming import Chunk

PAUSE = 0.15  # seconds of silence between sentences, on top of what the models leave at their ends
PARAGRAPH_PAUSE = 0.55
CHUNK = 12  # tokens made at a time in a stream: half a second
STARTED = 4  # voices whose prompts stay taken in
SPEEDS = (0.5, 2.0)
SEEDS = 2**32
PIECE = 15.0  # seconds of a recording that are converted in one go
WINDOW = 4  # batches of sentences from which those of like length are taken together
RETRIES, CANDIDATES = 10, 64  # at most
SAFER = 0.5  # what the temperature is multiplied by, from the third attempt on at every attempt

Progress = Callable[[int, int], None]
"""Called with (sentences done, sentences in all), first with (0, all)."""


@dataclass(frozen=True)
class Settings:
    """How to speak.

    Attributes:
        language: of the text, a code of espeak's or a common alias.
        speed: 1 is the model's own; 1.2 is a fifth faster, at the same pitch.
        seed: same seed, same samples.
        temperature: of the LM's draws; 0 takes the likeliest token.
        steps: of the flow's solver; None is the model's own.
        guidance: of the flow, 0 for none; None is the model's own.
        batch: sentences made at once; more need more memory.
        candidates: how many times the LM writes each sentence, to take the best; a stream takes the first.
        ranker: tells which is the best.
        retries: how often a sentence that reads badly is written again.
        strict: whether a sentence that still reads badly is an error.
        lexicon: words with their pronunciation.
        chunk: tokens of a chunk of the flow's attention, as in a stream; None hears each sentence whole.
    """

    language: str = DEFAULT_LANGUAGE
    speed: float = 1.0
    seed: int = 0
    temperature: float = 0.6
    steps: int | None = None
    guidance: float | None = None
    batch: int = 8
    candidates: int = 4
    ranker: Ranker = by_reading
    retries: int = 2
    strict: bool = False
    lexicon: Lexicon | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        low, high = SPEEDS
        if not low <= self.speed <= high:
            raise UserError(f"speed {self.speed} is out of range; give a number from {low} to {high}")
        if not 0 <= self.temperature <= 2:
            raise UserError(f"temperature {self.temperature} is out of range; give a number from 0 to 2")
        if self.steps is not None and not 1 <= self.steps <= 200:
            raise UserError(f"steps {self.steps} is out of range; give a whole number from 1 to 200")
        if self.guidance is not None and not 0 <= self.guidance <= 10:
            raise UserError(f"guidance {self.guidance} is out of range; give a number from 0 to 10")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed {self.seed} is out of range; give a whole number from 0 to {SEEDS - 1}")
        if self.batch < 1:
            raise UserError(f"batch {self.batch} is out of range; give a whole number from 1")
        if self.chunk is not None and self.chunk < 1:
            raise UserError(f"chunk {self.chunk} is out of range; give a whole number from 1")
        for name, least, most in (("candidates", 1, CANDIDATES), ("retries", 0, RETRIES)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"{name} {value} is out of range; give a whole number from {least} to {most}")

    def sampling(self, attempt: int) -> Sampling:
        """How the LM draws at an attempt, from 0: the second only draws anew, later ones more safely, too."""
        return Sampling(temperature=self.temperature * SAFER ** max(0, attempt - 1))

    @property
    def attempts(self) -> int:
        """The most attempts at one sentence; one where nothing is drawn."""
        return 1 + self.retries if self.temperature > 0 else 1


class QualityError(UserError):
    """A sentence reads badly however often it was made, and was to be an error then."""


@dataclass(frozen=True)
class Sentence:
    """One spoken sentence.

    Attributes:
        text: as written.
        phonemes: what was to be said.
        wav: (samples,) float32.
        tokens: the LM's tokens, with their phonemes.
        ends_paragraph: whether a longer pause follows.
        quality: how the tokens read.
        words: the written words, in seconds from the start of the whole speech.
        start: of `wav` in the whole speech, seconds.
        pause: seconds of silence behind it that the text asks for; None for the usual ones.
        lead: seconds of silence before it that the text asks for.
    """

    text: str
    phonemes: str
    wav: Tensor
    tokens: Aligned
    ends_paragraph: bool = False
    quality: Quality | None = None
    words: tuple[Word, ...] = ()
    start: float = 0.0
    pause: float | None = None
    lead: float = 0.0


@dataclass(frozen=True)
class Speech:
    """What was made.

    Attributes:
        wav: (samples,) float32, full scale at 1.
        sample_rate: Hz.
        sentences: its parts.
        seconds_taken: wall time of making it; of a batch of texts, of the whole batch.
        parts: the same by part of the chain. On a GPU, work counts where it is waited for.
    """

    wav: Tensor
    sample_rate: int
    sentences: list[Sentence] = field(default_factory=list)
    seconds_taken: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def quality(self) -> list[Quality]:
        """How each sentence reads; of converted speech, nothing is known."""
        return [one.quality for one in self.sentences if one.quality is not None]

    @property
    def words(self) -> list[Word]:
        """The written words with their times."""
        return [word for sentence in self.sentences for word in sentence.words]

    @property
    def cues(self) -> list[Cue]:
        """The sentences with their times, for `tts.timestamps.write_timestamps`."""
        return [
            Cue(
                one.text,
                one.words[0].start if one.words else one.start,
                one.words[-1].end if one.words else one.start + len(one.wav) / self.sample_rate,
                one.words,
                {} if one.quality is None else {"quality": asdict(one.quality)},
            )
            for one in self.sentences
        ]

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return len(self.wav) / self.sample_rate


class Clock:
    """Adds up wall time by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time what is done inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] += time.perf_counter() - started


class Job(NamedTuple):
    """A sentence to be spoken.

    Attributes:
        utterance: what to say.
        voice: who says it.
        number: which sentence of its text it is; it goes into the seed.
    """

    utterance: Utterance
    voice: Voice
    number: int


class TTS:
    """A loaded model that speaks.

    >>> tts = TTS.load()
    >>> voice = Voice.from_audio("me.wav")
    >>> speech = tts.synthesize("Hello there.", voice)
    >>> speech.wav, speech.sample_rate

    Args:
        model: what speaks.
        precision, engine: how it was prepared to, as `load` does it; told to who asks.
    """

    def __init__(self, model: Model, *, precision: Precision = "float32", engine: str = TORCH) -> None:
        self.model, self.precision, self.engine = model, precision, engine
        symbols = model.symbols
        self.bounds = Bounds(pauses=frozenset(i for i in range(1, len(symbols)) if not symbols.is_segment(i)))
        self._started: dict[tuple[int, int | None, float | None], tuple[Voice, FlowState]] = {}
        self.reader = Reader(model.tokenizer, symbols, Calibration.of(model.folder))

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        device: str = "cpu",
        hub: str | Path | None = None,
        precision: Precision = "float32",
        engine: str = TORCH,
    ) -> "TTS":
        """Load a model folder, a model of a hub, or the embedded model.

        Args:
            folder: a folder; or ``owner/model``, and ``owner/model@revision`` for one state of it, see `tts.hub`.
            device: where to compute.
            hub: a folder that acts as the hub; the Hugging Face hub by default.
            precision: to compute in, see `tts.precision`; float32 gives the same on every processor but for rounding.
            engine: what runs the LM, see `tts.engines`.

        Raises:
            UserError: see `Model.load`, `tts.hub.located` and `tts.engines.engine_of`; or no such device or precision.
        """
        try:
            torch.ones(1, device=device).item()  # devices that compute nothing fail here, too
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = str(error).splitlines()[0][:120]
            raise UserError(f"device {device!r} cannot be used here ({reason}); try cpu") from error
        model = Model.load(None if folder is None else located(folder, hub), device)
        return cls(with_engine(in_precision(model, precision), engine), precision=precision, engine=engine)

    def voice(self, name: str | Path, *, text: str | None = None, language: str = DEFAULT_LANGUAGE) -> Voice:
        """A voice by the name of one that ships, from a saved file, or from a recording.

        Raises:
            UserError: neither of them, or it cannot be used; see `Voice`. Or a text for a saved voice.
        """
        path, shipped = Path(name), self.model.voices()
        if str(name) in shipped and not path.is_file():
            path = shipped[str(name)]
        if path.suffix == ".safetensors":
            if text is not None:
                raise UserError(f"{path}: a saved voice has its text already; leave the voice's text out")
            voice = Voice.load(path)
            voice.require(self.model, str(path))
            return voice
        if not path.exists() and not path.suffix:
            names = ", ".join(shipped) or "none"
            raise UserError(
                f"no voice or file named {str(name)!r}; voices that ship: {names}; or give a recording"
            )
        return Voice.from_audio(path, text=text, language=language, model=self.model)

    @overload
    def synthesize(
        self,
        text: str,
        voice: Voice,
        settings: Settings | None = None,
        *,
        progress: Progress | None = None,
        **changes: object,
    ) -> Speech: ...

    @overload
    def synthesize(
        self,
        text: list[str] | tuple[str, ...],
        voice: Voice,
        settings: Settings | None = None,
        *,
        progress: Progress | None = None,
        **changes: object,
    ) -> list[Speech]: ...

    def synthesize(
        self,
        text: str | list[str] | tuple[str, ...],
        voice: Voice,
        settings: Settings | None = None,
        *,
        progress: Progress | None = None,
        **changes: object,
    ) -> Speech | list[Speech]:
        """Speak a text, or several in one batch.

        Args:
            text: of any length; it is split into sentences. Several give a list, each as it would be alone.
            voice: who speaks.
            settings: how; single ones can also be given by name, ``synthesize(text, voice, speed=1.1)``.
            progress: called as sentences get done.

        Raises:
            TextError: nothing in a text can be spoken, or its markup cannot be understood.
            UserError: a setting is out of range, or the voice is of another model.
            QualityError: a sentence reads badly, and `Settings.strict` is set.
        """
        settings = replace(settings or Settings(), **changes)  # type: ignore[arg-type]
        texts = [text] if isinstance(text, str) else list(text)
        started, clock = time.perf_counter(), Clock()
        jobs = [self._jobs(one, voice, settings, clock) for one in texts]
        made = self._speak([job for row in jobs for job in row], settings, progress, clock)
        rate = self.model.spec.frames.sample_rate
        rows = [list(placed((next(made) for _ in row), rate)) for row in jobs]
        for _ in made:  # to its end, which tells the progress
            pass
        wavs = [joined(row, rate) for row in rows]
        taken = time.perf_counter() - started
        speeches = [
            Speech(wav, rate, row, taken, dict(clock.parts)) for wav, row in zip(wavs, rows, strict=True)
        ]
        return speeches[0] if isinstance(text, str) else speeches

    def sentences(
        self,
        text: str,
        voice: Voice,
        settings: Settings | None = None,
        *,
        progress: Progress | None = None,
        **changes: object,
    ) -> Iterator[Sentence]:
        """Speak a text of any length sentence by sentence, as they get done: memory does not grow with the text.

        `joined` makes of all of them what `synthesize` gives. Arguments and errors are those of `synthesize`.
        """
        settings = replace(settings or Settings(), **changes)  # type: ignore[arg-type]
        clock = Clock()
        made = self._speak(self._jobs(text, voice, settings, clock), settings, progress, clock)
        return placed(made, self.model.spec.frames.sample_rate)

    def write(self, texts: Sequence[str], voice: Voice, settings: Settings | None = None) -> list[Candidate]:
        """What the LM writes for the sentences of some texts, with what the tokenizer reads in it; nothing sounds yet.

        Raises:
            TextError, UserError: as `synthesize`.
        """
        settings, clock = settings or Settings(), Clock()
        jobs = [job for text in texts for job in self._jobs(text, voice, settings, clock)]
        jobs.sort(key=lambda job: len(job.utterance.ids))  # batches of like length
        return self._write(jobs, settings, clock)

    def stream(
        self,
        text: str | Iterable[str],
        voice: Voice,
        settings: Settings | None = None,
        **changes: object,
    ) -> Iterator["Chunk"]:
        """Speak as it is made: the first chunk comes after a fraction of a second, see `tts.streaming`.

        Args:
            text: a text, or pieces of one as they come, from a language model say.
            voice, settings, changes: as `synthesize` takes them; nothing is made again in a stream, so `candidates`,
                `retries` and `strict` are not used.

        Raises:
            TextError, UserError: as `synthesize`.
        """
        from tts.streaming import stream  # it builds on this file

        return stream(self, text, voice, replace(settings or Settings(), **changes))  # type: ignore[arg-type]

    def convert(
        self,
        recording: str | Path | Tensor,
        voice: Voice,
        settings: Settings | None = None,
        *,
        progress: Progress | None = None,
    ) -> Speech:
        """Say what a recording says, as it says it, in another voice: its tokens, the voice's frames.

        Args:
            recording: a file, or a waveform (samples,) at the model's rate; a long one is cut at its pauses.
            voice: who speaks.
            settings: seed, steps, guidance, speed and batch are used.
            progress: called as pieces get done.

        Raises:
            AudioError: the recording cannot be read or used.
        """
        settings, started = settings or Settings(), time.perf_counter()
        voice.require(self.model)
        rate = self.model.spec.frames.sample_rate
        pieces = split_at_pauses(
            normalize_loudness(read_speech(recording, rate), rate, LOUDNESS), rate, PIECE
        )
        wavs: list[Tensor] = []
        for start in range(0, len(pieces), settings.batch):
            if progress:
                progress(start, len(pieces))
            batch = pieces[start : start + settings.batch]
            tokens = [self._tokens(piece) for piece in batch]
            seeds = range(start, start + len(batch))
            wavs += [
                self.vocode(one, settings.speed)
                for one in self._frames(tokens, [voice] * len(batch), settings, seeds=seeds)
            ]
        if progress:
            progress(len(pieces), len(pieces))
        return Speech(join(wavs, rate, pause=0.0), rate, [], time.perf_counter() - started)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.acoustic.mean.device

    def _tokens(self, wav: Tensor) -> Tensor:
        """Waveform (samples,) -> tokens (N,)."""
        frames = self.model.features(wav[None].to(self.device))
        tokens: Tensor = self.model.tokenizer.encode(frames)[0][0]
        return tokens

    def _jobs(self, text: str, voice: Voice, settings: Settings, clock: Clock) -> list[Job]:
        """The sentences of a text."""
        voice.require(self.model)
        with clock("text"):
            utterances = Frontend(self.model.symbols, settings.language, settings.lexicon)(text)
        return [Job(utterance, voice, n) for n, utterance in enumerate(utterances)]

    def _speak(
        self, jobs: Sequence[Job], settings: Settings, progress: Progress | None, clock: Clock
    ) -> Iterator[Sentence]:
        """The sentences, in order, each from its own start; batches hold sentences of like length.

        Little is padding then. Only a window of the jobs is looked at, so that memory is bounded and the first
        sentences do not wait for the last. A sentence is the same whatever other jobs there are.
        """
        size, done = settings.batch, 0
        for first in range(0, len(jobs), WINDOW * size):
            window = jobs[first : first + WINDOW * size]
            order = sorted(range(len(window)), key=lambda i: len(window[i].utterance.ids))
            made: dict[int, Sentence] = {}
            for start in range(0, len(order), size):
                if progress:
                    progress(done, len(jobs))
                batch = order[start : start + size]
                spoken = self._speak_batch([window[i] for i in batch], settings, clock)
                made |= zip(batch, spoken, strict=True)
                done += len(batch)
            yield from (made[i] for i in range(len(window)))
        if progress:
            progress(done, len(jobs))

    def _speak_batch(self, jobs: Sequence[Job], settings: Settings, clock: Clock) -> list[Sentence]:
        written = self._write(jobs, settings, clock)
        if settings.strict:
            for job, one in zip(jobs, written, strict=True):
                _require_good(job, one.quality)
        with clock("acoustic"):
            tokens = [one.tokens.told(self.model.symbols).to(self.device) for one in written]
            voices, seeds = [job.voice for job in jobs], [job.number for job in jobs]
            frames = self._frames(tokens, voices, settings, seeds=seeds)
        with clock("vocoder"):
            wavs = [self.vocode(one, settings.speed) for one in frames]
        with clock("check"):
            return [self._sentence(*parts, settings.speed) for parts in zip(jobs, written, wavs, strict=True)]

    def _sentence(self, job: Job, written: Candidate, wav: Tensor, speed: float) -> Sentence:
        """A spoken sentence with its words' times."""
        u = job.utterance
        words = self.word_times(u, written.tokens, written.log_probs, wav, speed)
        return Sentence(
            u.text,
            u.phonemes,
            wav,
            written.tokens,
            u.ends_paragraph,
            quality=written.quality,
            words=words,
            pause=u.pause,
            lead=u.lead,
        )

    def word_times(
        self, utterance: Utterance, written: Aligned, log_probs: Tensor, wav: Tensor, speed: float
    ) -> tuple[Word, ...]:
        """When the words of an utterance are said, seconds from its start.

        Args:
            utterance: what was to be said.
            written: the tokens that say it.
            log_probs: (M, S) of their `Reading`.
            wav: (samples,) their sound.
            speed: of the sound.
        """
        symbols = self.model.symbols
        groups = symbols.groups(utterance.ids)
        starts = self.reader.starts(log_probs, groups)
        if starts is None:  # the LM's own durations, where the tokens are too few to align to
            ends, token = accumulate(written.durations, initial=0), 1 / self.model.spec.rate
            late = durations_lag(self.reader.calibration.lag, token)
            starts = [max(0.0, count * token - late) for count, _ in zip(ends, groups, strict=False)]
        return timed_words(
            utterance.words,
            [symbols.decode(symbols.sounds(group)) for group in groups],
            [start / speed for start in starts],
            wav,
            self.model.spec.frames.sample_rate,
        )

    def _write(self, jobs: Sequence[Job], settings: Settings, clock: Clock) -> list[Candidate]:
        """The LM's tokens for a batch of sentences; what reads badly is written again.

        Every draw has a seed of its own, so a sentence's fate does not depend on its neighbours.
        """
        found: list[list[Candidate]] = [[] for _ in jobs]
        best: dict[int, Candidate] = {}
        left = list(range(len(jobs)))
        for attempt in range(settings.attempts):
            drawn = list(self._draw([jobs[i] for i in left], settings, attempt, clock))
            with clock("check"):
                for i, candidates in zip(left, drawn, strict=True):
                    found[i] += candidates
                    one = choose(found[i], settings.ranker)
                    best[i] = replace(one, quality=replace(one.quality, attempts=attempt + 1))
            left = [i for i in left if not best[i].quality.ok]
            if not left:
                break
        return [best[i] for i in range(len(jobs))]

    def _draw(
        self, jobs: Sequence[Job], settings: Settings, attempt: int, clock: Clock
    ) -> Iterator[list[Candidate]]:
        """The candidates of one attempt at each sentence, in batches of `settings.batch` rows or one sentence."""
        symbols = self.model.symbols
        count = settings.candidates if settings.temperature > 0 else 1  # they would all be the same
        size = max(1, settings.batch // count)
        for start in range(0, len(jobs), size):
            batch = jobs[start : start + size]
            requests = [
                Request(
                    symbols.groups(job.utterance.ids),
                    job.voice.aligned(symbols),
                    draw_seed(settings.seed, job.number, attempt * count + n),
                )
                for job in batch
                for n in range(count)
            ]
            with clock("lm"):
                written = self.model.lm.generate(requests, settings.sampling(attempt), self.bounds)
            with clock("check"):
                rows = iter(
                    zip(requests, written, self.reader.read([w.tokens for w in written]), strict=True)
                )
                candidates = [
                    [self._judged(job.utterance, *next(rows)) for _ in range(count)] for job in batch
                ]
            yield from candidates

    def _judged(
        self, utterance: Utterance, request: Request, written: Aligned, reading: Reading
    ) -> Candidate:
        cut = cut_groups(written, self.bounds)
        quality = self.reader.judge(
            utterance.ids, reading.segments, words=utterance.words, stuck=sum(cut), endless=any(cut[-1:])
        )
        return Candidate(utterance, request.prompt, written, quality, reading.log_probs)

    def _frames(
        self, tokens: Sequence[Tensor], voices: Sequence[Voice], settings: Settings, *, seeds: Sequence[int]
    ) -> list[Tensor]:
        """Frames (T, D) for a batch of token rows, (N,) or (N, 4) with their phonemes."""
        per, dim = self.model.spec.frames_per_token, self.model.spec.frames.dim
        noise = []
        for row, n in zip(tokens, seeds, strict=True):
            generator = torch.Generator().manual_seed(draw_seed(settings.seed, n))
            noise.append(torch.randn(len(row) * per, dim, generator=generator).to(self.device))
        prompts = [self.started(voice, settings) for voice in voices]
        return self.model.acoustic.decode(prompts, tokens, noise, chunk=settings.chunk)

    def started(self, voice: Voice, settings: Settings) -> FlowState:
        """What the flow keeps of a voice's prompt, computed once; the last few are kept. Copy it to go on from it."""
        key = (id(voice), settings.steps, settings.guidance)
        if key not in self._started:
            state = self.model.acoustic.start(
                voice.frames[None].to(self.device),
                voice.told(self.model.symbols)[None].to(self.device),
                steps=settings.steps,
                guidance=settings.guidance,
            )
            self._started[key] = (voice, state)  # the voice, too: its id must not pass to another
            while len(self._started) > STARTED:
                self._started.pop(next(iter(self._started)))
        return self._started[key][1]

    @torch.inference_mode()
    def vocode(self, frames: Tensor, speed: float = 1.0) -> Tensor:
        """Frames (T, D) -> waveform (samples,) on the CPU, never beyond full scale.

        Another speed is another spacing of the frames in time: they hold no phase, so the pitch stays.
        """
        wav: Tensor = self.model.vocoder(Respacing(speed)(frames, last=True)[None])[0].float().cpu()
        return limited(wav)


def pause_after(one: Sentence | Utterance) -> float:
    """Seconds of silence behind a sentence that is not the last one."""
    if one.pause is not None:
        return one.pause
    return PARAGRAPH_PAUSE if one.ends_paragraph else PAUSE


def draw_seed(seed: int, number: int, draw: int = 0) -> int:
    """The seed of a draw for a sentence: different for every seed, sentence and draw.

    torch's generator takes its last 32 bits only, so that is where they must differ.
    """
    return seed * 1_000_003 + number + draw * 2_654_435_761


def joined(sentences: Sequence[Sentence], sample_rate: int) -> Tensor:
    """The sentences' waveforms with pauses between them, longer ones after paragraphs, or as the text asks."""
    pieces: list[Tensor] = []
    for n, one in enumerate(sentences):
        # behind the last one there is silence only where the text asks for it
        after = pause_after(one) if n + 1 < len(sentences) else one.pause or 0.0
        silent = [torch.zeros(round(seconds * sample_rate)) for seconds in (one.lead, after)]
        pieces += [piece for piece in (silent[0], one.wav, silent[1]) if len(piece)]
    return join(pieces, sample_rate, pause=0.0)


def placed(sentences: Iterable[Sentence], sample_rate: int) -> Iterator[Sentence]:
    """The sentences with their places in the whole, as `joined` puts them, in their times."""
    samples = 0
    for one in sentences:
        samples += round(one.lead * sample_rate)
        start = samples / sample_rate
        yield replace(one, start=start, words=tuple(word.shifted(start) for word in one.words))
        samples += len(one.wav) + round(pause_after(one) * sample_rate)


def _require_good(job: Job, quality: Quality) -> None:
    if not quality.ok:
        text = job.utterance.text
        raise QualityError(
            f"sentence {job.number + 1}, {text if len(text) <= 60 else text[:59] + '…'!r}, reads badly after "
            f"{quality.attempts} attempts ({'; '.join(quality.problems)}): try another seed or more retries"
        )


def split_at_pauses(wav: Tensor, sample_rate: int, longest: float) -> list[Tensor]:
    """Pieces of a waveform (samples,), at most `longest` seconds each, cut where 0.1 s of it is quietest.

    No piece of several is shorter than a quarter of `longest`.
    """
    size, step = int(longest * sample_rate), round(0.05 * sample_rate)
    pieces = []
    while len(wav) > size:
        first, last = size // 2, min(size, len(wav) - size // 4)
        power = F.avg_pool1d(wav[None, first:last].square(), 2 * step, step)[0]
        cut = first + step * (int(power.argmin()) + 1)  # the middle of the quietest window
        pieces.append(wav[:cut])
        wav = wav[cut:]
    return [*pieces, wav]
