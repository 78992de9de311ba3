"""Speech as it is made: LM, flow decoder and vocoder go on chunk by chunk, each with its own state, nothing twice.

    LM writes tokens ─ every `chunk` of them ─► flow: cached keys and values ─► vocoder: cached inputs ─► samples

The joined chunks are what `TTS.synthesize` gives for the same settings with the same `chunk`: the flow's attention
is the same, the draws are the same, the vocoder is the same. All state belongs to one call; streams side by side do
not know of each other.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from codec.audio import FADE, fade
from codec.vocoders.stream import Respacing, Vocoding, limited, vocoded
from tts.acoustic.decoder import FlowState
from tts.lm.model import Aligned, Request
from tts.pipeline import CHUNK, TTS, Settings, draw_seed, pause_after
from tts.readback import Quality
from tts.text.errors import TextError
from tts.text.frontend import Frontend, Utterance
from tts.text.sentences import split_sentences
from tts.text.triphones import triphones
from tts.timestamps import Cue, RunningWords, Word, durations_lag
from tts.voice import Voice


@dataclass(frozen=True)
class Chunk:
    """The next samples.

    Attributes:
        wav: (samples,) float32, full scale at 1; on the CPU.
        sample_rate: Hz.
        sentence: number of the sentence they are of, from 0.
        words: those that the LM ended since the chunk before, with their times in the whole stream, to a token.
        done: the sentence that ended with this chunk: what was said, its tokens, how they read; else None. Also where
            the stream is not read back.
    """

    wav: Tensor
    sample_rate: int
    sentence: int
    words: tuple[Word, ...] = ()
    done: "Said | None" = None


@dataclass(frozen=True)
class Said:
    """A sentence that was streamed.

    Attributes:
        utterance: what was to be said.
        tokens: what the LM wrote.
        quality: how that reads; nothing is made again in a stream, it has been heard already.
        start, seconds: of its sound in the whole stream, and how long that is.
        words: with their times in the whole stream, aligned to the tokens: more exact than those of the chunks.
        read: phonemes that the tokenizer reads in the tokens.
    """

    utterance: Utterance
    tokens: Aligned
    quality: Quality
    start: float
    seconds: float
    words: tuple[Word, ...]
    read: str = ""

    @property
    def cue(self) -> Cue:
        """For `tts.timestamps.write_timestamps`."""
        spans = [(word.start, word.end) for word in self.words] or [(self.start, self.start + self.seconds)]
        return Cue(
            self.utterance.text, spans[0][0], spans[-1][1], self.words, {"quality": asdict(self.quality)}
        )


def stream(tts: TTS, text: str | Iterable[str], voice: Voice, settings: Settings) -> Iterator[Chunk]:
    """Speak a text, or pieces of text as they come, from the first chunk of tokens on.

    Args:
        tts: the model.
        text: a text; or pieces of any length, as a language model writes them: a sentence is spoken once it is whole.
        voice: who speaks.
        settings: `chunk` tokens are made at a time (`CHUNK` where it is None); `candidates`, `retries` and `strict`
            are not used.

    Raises:
        TextError, UserError: as `TTS.synthesize`.
    """
    voice.require(tts.model)
    frontend = Frontend(tts.model.symbols, settings.language, settings.lexicon)
    utterances = iter(frontend(text)) if isinstance(text, str) else utterances_of(text, frontend)
    prompt = tts.started(voice, settings)
    state = prompt.copy()
    rate = tts.model.spec.frames.sample_rate
    before: Utterance | None = None
    samples = 0
    for number, utterance in enumerate(utterances):
        if silence := silence_before(utterance, before, rate):
            samples += silence
            yield Chunk(torch.zeros(silence), rate, number)
        state.back_to(prompt.length)
        sentence = SentenceStream(tts, utterance, number, voice, settings, state, samples / rate)
        yield from sentence.chunks()
        samples += sentence.samples
        before = utterance
    if before is not None and before.pause:
        yield Chunk(torch.zeros(round(before.pause * rate)), rate, number)


def utterances_of(pieces: Iterable[str], frontend: Frontend) -> Iterator[Utterance]:
    """The utterances of a text that comes in pieces, each as soon as it is sure that it is whole.

    Whole is what another sentence follows, or the end. Short sentences are joined to their neighbours within what is
    there, so a text can be parted otherwise than it would be in one piece.

    Raises:
        TextError: nothing in it can be spoken, or markup is wrong or never closed.
    """
    waiting = ""
    for piece in pieces:
        waiting += piece
        found = split_sentences(waiting, frontend.language, min_chars=1)
        if len(found) > 1:
            last = found[-1].text
            cut = waiting.rfind(last) if last in waiting else -1
            if cut > 0 and waiting[:cut].strip():
                try:
                    whole = list(frontend(waiting[:cut]))
                except TextError:  # an element that is not closed yet, say; if it never is, the end tells
                    continue
                yield from whole
                waiting = waiting[cut:]
    if waiting.strip():
        yield from frontend(waiting)


def pcm(wav: Tensor) -> bytes:
    """Samples as 16-bit little-endian integers."""
    return (wav.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes()


def wav_header(sample_rate: int) -> bytes:
    """The head of a mono 16-bit wav whose length is not known yet: players go on to the end of the stream."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", unknown)
        + b"WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + (b"data" + struct.pack("<I", unknown))
    )


@dataclass
class SentenceStream:
    """One sentence on its way from tokens to sound.

    Attributes:
        state: of the flow, this sentence's own; it holds the prompt already.
        start: of the sentence in the whole stream, seconds.
        read: whether to read the tokens back at the end, for `Chunk.done`.
        given, held: sound that was given out, and what waits for its fade.
        untold: words that were ended since.
    """

    tts: TTS
    utterance: Utterance
    number: int
    voice: Voice
    settings: Settings
    state: FlowState
    start: float
    read: bool = True
    given: list[Tensor] = field(default_factory=list)
    held: Tensor = field(default_factory=lambda: torch.zeros(0))
    untold: list[Word] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.request = request_of(self.tts, self.utterance, self.number, self.voice, self.settings)
        self._generator = torch.Generator().manual_seed(self.request.seed)
        self._respacing, self._sound = Respacing(self.settings.speed), Vocoding(self.tts.model.vocoder)
        self._running = self._running_words(self.request)
        self._around = triphones(self.request.groups, self.tts.model.symbols)

    @property
    def samples(self) -> int:
        """How many were given out."""
        return sum(len(wav) for wav in self.given)

    def chunks(self) -> Iterator[Chunk]:
        """The sentence's sound, its tokens written in a batch of their own."""
        model, size = self.tts.model, self.settings.chunk or CHUNK
        told: list[tuple[int, ...]] = []
        durations = [0] * len(self.request.groups)
        made = 0
        for step in model.lm.write([self.request], self.settings.sampling(0), self.tts.bounds):
            for _, token, group in step:
                told.append(self.told(token, group))
                durations[group] += 1
            # one token more than the chunk: then it is not the last, which has to be told to all that follows
            while len(told) - made > size:
                frames = self._frames(told[made : made + size])
                made += size
                yield from self.heard(frames, durations, group)
        written = Aligned(self.request.groups, [token for token, *_ in told], durations)
        yield from self.heard(self._frames(told[made:]), durations, len(durations), written)

    def told(self, token: int, group: int) -> tuple[int, ...]:
        """A token with its phonemes, as the flow decoder takes it."""
        return token, *self._around[group]

    def noise(self, tokens: int) -> Tensor:
        """What the flow makes the frames of the next tokens of, (T, D)."""
        spec = self.tts.model.acoustic.spec
        shape = (tokens * spec.frames_per_token, spec.frames.dim)
        return torch.randn(shape, generator=self._generator).to(self.tts.device)

    def heard(
        self, frames: Tensor, durations: Sequence[int], group: int, written: Aligned | None = None
    ) -> Iterator[Chunk]:
        """The sound of the next frames, as far as it can be given out: none or one chunk.

        Args:
            frames: (T, D).
            durations, group: how far the LM is, for `RunningWords`.
            written: the whole sentence's tokens, with its last frames.
        """
        (wav,) = sounds([self], [frames], [written is not None])
        yield from self.chunk(wav, durations, group, written)

    def chunk(
        self, wav: Tensor, durations: Sequence[int], group: int, written: Aligned | None = None
    ) -> Iterator[Chunk]:
        """What can be given out of the next samples, as `sounds` makes them: none or one chunk.

        It is faded in at the beginning and out at the end, for which a moment is held back. Other arguments: as `heard`
        has them.
        """
        rate = self.tts.model.spec.frames.sample_rate
        wav = torch.cat([self.held, limited(wav)])
        self.untold += self._running(durations, group)
        # a fade is at most half of what it is given: the first and the last piece must have two of them
        hold = 2 * round(FADE * rate)
        give = len(wav) - hold if written is None else len(wav)
        if written is None and give < hold:
            self.held = wav
            return
        out, self.held = wav[:give], wav[give:]
        out = fade(out, rate, start=not self.given, end=written is not None)
        self.given.append(out)
        told, self.untold = tuple(self.untold), []
        said = self._said(written, rate) if written is not None and self.read else None
        yield Chunk(out, rate, self.number, told, said)

    def _running_words(self, request: Request) -> RunningWords:
        """Tells each word once the LM has gone on from it, at its place in the whole stream."""
        symbols, speed = self.tts.model.symbols, self.settings.speed
        groups = [symbols.decode(symbols.sounds(group)) for group in request.groups]
        token = 1 / self.tts.model.spec.rate
        lag = durations_lag(self.tts.reader.calibration.lag, token)
        return RunningWords(self.utterance.words, groups, token / speed, start=self.start, lag=lag / speed)

    def _frames(self, told: list[tuple[int, ...]]) -> Tensor:
        """The next frames (T, D)."""
        row = torch.tensor(told, device=self.tts.device)
        return self.tts.model.acoustic.decode_chunk(self.state, row[None], self.noise(len(told))[None])[0]

    def _said(self, written: Aligned, rate: int) -> Said:
        reader, speed = self.tts.reader, self.settings.speed
        reading = reader.read([written.tokens])[0]
        quality = reader.judge(self.utterance.ids, reading.segments, words=self.utterance.words, stuck=0)
        wav = torch.cat(self.given)
        words = self.tts.word_times(self.utterance, written, reading.log_probs, wav, speed)
        placed = tuple(word.shifted(self.start) for word in words)
        read = self.tts.model.symbols.decode(reading.segments)
        return Said(self.utterance, written, quality, self.start, len(wav) / rate, placed, read)


def sounds(streams: Sequence[SentenceStream], frames: Sequence[Tensor], last: Sequence[bool]) -> list[Tensor]:
    """The next samples of several sentences, made together where they can be.

    Args:
        streams: of one model.
        frames: (T, D) of each.
        last: whether these are the last, of each.
    """
    spaced = [one._respacing(own, last=ends) for one, own, ends in zip(streams, frames, last, strict=True)]
    return vocoded([one._sound for one in streams], spaced, last)


def request_of(tts: TTS, utterance: Utterance, number: int, voice: Voice, settings: Settings) -> Request:
    """What the LM is asked for one sentence."""
    symbols = tts.model.symbols
    return Request(symbols.groups(utterance.ids), voice.aligned(symbols), draw_seed(settings.seed, number))


def silence_before(utterance: Utterance, before: Utterance | None, rate: int) -> int:
    """Samples of silence between a sentence and the one before it, or the start."""
    silences = [utterance.lead] if before is None else [pause_after(before), utterance.lead]
    return sum(round(seconds * rate) for seconds in silences)
