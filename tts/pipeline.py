"""The chain: text and voice -> phonemes -> tokens -> frames -> waveform. Only here the models are joined."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.audio import join, normalize_loudness
from codec.errors import UserError
from tts.acoustic.decoder import GUIDANCE, STEPS
from tts.checkpoint import Model
from tts.lm.model import Aligned, Bounds, Request
from tts.lm.sampling import Sampling
from tts.text import DEFAULT_LANGUAGE
from tts.text.frontend import Frontend, Utterance
from tts.voice import LOUDNESS, Voice, read_speech

PAUSE = 0.15  # seconds of silence between sentences, on top of what the models leave at their ends
PARAGRAPH_PAUSE = 0.55
SPEEDS = (0.5, 2.0)
SEEDS = 2**32
PIECE = 15.0  # seconds of a recording that are converted in one go

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
        steps: of the flow's solver.
        guidance: of the flow, 0 for none.
        batch: sentences made at once.
    """

    language: str = DEFAULT_LANGUAGE
    speed: float = 1.0
    seed: int = 0
    temperature: float = 0.8
    steps: int = STEPS
    guidance: float = GUIDANCE
    batch: int = 8

    def __post_init__(self) -> None:
        low, high = SPEEDS
        if not low <= self.speed <= high:
            raise UserError(f"speed {self.speed} is out of range; give a number from {low} to {high}")
        if not 0 <= self.temperature <= 2:
            raise UserError(f"temperature {self.temperature} is out of range; give a number from 0 to 2")
        if not 1 <= self.steps <= 200:
            raise UserError(f"steps {self.steps} is out of range; give a whole number from 1 to 200")
        if not 0 <= self.guidance <= 10:
            raise UserError(f"guidance {self.guidance} is out of range; give a number from 0 to 10")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed {self.seed} is out of range; give a whole number from 0 to {SEEDS - 1}")
        if self.batch < 1:
            raise UserError(f"batch {self.batch} is out of range; give a whole number from 1")


@dataclass(frozen=True)
class Sentence:
    """One spoken sentence.

    Attributes:
        text: as written.
        phonemes: what was to be said.
        wav: (samples,) float32.
        tokens: the LM's tokens, with their phonemes.
        ends_paragraph: whether a longer pause follows.
    """

    text: str
    phonemes: str
    wav: Tensor
    tokens: Aligned
    ends_paragraph: bool = False


@dataclass(frozen=True)
class Speech:
    """What was made.

    Attributes:
        wav: (samples,) float32, full scale at 1.
        sample_rate: Hz.
        sentences: its parts.
        seconds_taken: wall time of making it; of a batch of texts, of the whole batch.
    """

    wav: Tensor
    sample_rate: int
    sentences: list[Sentence] = field(default_factory=list)
    seconds_taken: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return len(self.wav) / self.sample_rate


class TTS:
    """A loaded model that speaks.

    >>> tts = TTS.load()
    >>> voice = Voice.from_audio("me.wav")
    >>> speech = tts.synthesize("Hello there.", voice)
    >>> speech.wav, speech.sample_rate
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        symbols = model.symbols
        self._pauses = frozenset(i for i in range(1, len(symbols)) if not symbols.is_segment(i))

    @classmethod
    def load(cls, folder: str | Path | None = None, *, device: str = "cpu") -> "TTS":
        """Load a model folder, or the embedded model.

        Raises:
            UserError: see `Model.load`; or no such device.
        """
        try:
            torch.ones(1, device=device).item()  # devices that compute nothing fail here, too
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = str(error).splitlines()[0][:120]
            raise UserError(f"device {device!r} cannot be used here ({reason}); try cpu") from error
        return cls(Model.load(folder, device))

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
            TextError: nothing in a text can be spoken.
            UserError: a setting is out of range, or the voice is of another model.
        """
        settings = replace(settings or Settings(), **changes)  # type: ignore[arg-type]
        texts = [text] if isinstance(text, str) else list(text)
        started = time.perf_counter()
        voice.require(self.model)
        frontend = Frontend(self.model.symbols, settings.language)
        utterances = [frontend(one) for one in texts]
        numbered = [(n, utterance) for row in utterances for n, utterance in enumerate(row)]
        made = iter(self._speak(numbered, voice, settings, progress))
        rows = [[next(made) for _ in row] for row in utterances]
        taken = time.perf_counter() - started
        rate = self.model.spec.frames.sample_rate
        speeches = [Speech(joined(row, rate), rate, row, taken) for row in rows]
        return speeches[0] if isinstance(text, str) else speeches

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
                self.vocode(one, settings.speed) for one in self._frames(tokens, voice, settings, seeds=seeds)
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

    def _speak(
        self,
        numbered: Sequence[tuple[int, Utterance]],
        voice: Voice,
        settings: Settings,
        progress: Progress | None,
    ) -> Iterator[Sentence]:
        """The sentences, in order; batches hold sentences of like length, so that little is padding.

        Each comes with its number in its text, which its seed is made of: it sounds the same whatever other
        texts are in the call.
        """
        order = sorted(range(len(numbered)), key=lambda i: len(numbered[i][1].ids))
        done: dict[int, Sentence] = {}
        for start in range(0, len(order), settings.batch):
            if progress:
                progress(len(done), len(numbered))
            batch = order[start : start + settings.batch]
            numbers, utterances = [numbered[i][0] for i in batch], [numbered[i][1] for i in batch]
            written = self._write(utterances, numbers, voice, settings)
            frames = self._frames(
                [torch.tensor(one.tokens, device=self.device) for one in written],
                voice,
                settings,
                seeds=numbers,
            )
            for i, u, aligned, one in zip(batch, utterances, written, frames, strict=True):
                done[i] = Sentence(
                    u.text, u.phonemes, self.vocode(one, settings.speed), aligned, u.ends_paragraph
                )
        if progress:
            progress(len(done), len(numbered))
        return iter(done[i] for i in range(len(numbered)))

    def _write(
        self, utterances: Sequence[Utterance], numbers: Sequence[int], voice: Voice, settings: Settings
    ) -> list[Aligned]:
        """The LM's tokens for a batch of utterances; `numbers` makes the seeds differ."""
        prompt = voice.aligned(self.model.symbols)
        requests = [
            Request(self.model.symbols.groups(u.ids), prompt, settings.seed * 1_000_003 + n)
            for u, n in zip(utterances, numbers, strict=True)
        ]
        sampling = Sampling(temperature=settings.temperature)
        return self.model.lm.generate(requests, sampling, Bounds(pauses=self._pauses))

    def _frames(
        self, tokens: Sequence[Tensor], voice: Voice, settings: Settings, *, seeds: Sequence[int]
    ) -> list[Tensor]:
        """Frames (T, D) for a batch of token rows."""
        per, dim = self.model.spec.frames_per_token, self.model.spec.frames.dim
        noise = []
        for row, n in zip(tokens, seeds, strict=True):
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + n)
            noise.append(torch.randn(len(row) * per, dim, generator=generator).to(self.device))
        prompt = (voice.frames.to(self.device), voice.tokens.to(self.device))
        return self.model.acoustic.decode(
            [prompt] * len(tokens), tokens, noise, steps=settings.steps, guidance=settings.guidance
        )

    @torch.inference_mode()
    def vocode(self, frames: Tensor, speed: float = 1.0) -> Tensor:
        """Frames (T, D) -> waveform (samples,) on the CPU, never beyond full scale.

        Another speed is another spacing of the frames in time: they hold no phase, so the pitch stays.
        """
        if speed != 1.0:
            size = max(2, round(len(frames) / speed))
            frames = F.interpolate(frames.t()[None], size, mode="linear", align_corners=True)[0].t()
        wav: Tensor = self.model.vocoder(frames[None])[0].float().cpu()
        return wav / max(1.0, float(wav.abs().max()) / 0.99)


def joined(sentences: Sequence[Sentence], sample_rate: int) -> Tensor:
    """The sentences' waveforms with pauses between them, longer ones after paragraphs."""
    # each pause is appended to the sentence before it: one pass, however long the text
    pieces = [sentences[0].wav]
    for before, sentence in pairwise(sentences):
        pieces.append(torch.zeros(round((PARAGRAPH_PAUSE if before.ends_paragraph else PAUSE) * sample_rate)))
        pieces.append(sentence.wav)
    return join(pieces, sample_rate, pause=0.0)


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
