"""The scheduler: requests of many clients share the models, which only its threads touch.

    submit ─► queue ─► slots ─► LM: one running batch, in a thread of its own
                                │ tokens, chunk by chunk
                                └► sound: the chunks that are ready, flow then vocoder, in as many threads as asked for

A request holds a slot from its first token to its last sample. Who has heard nothing yet comes first, as they arrived:
the LM writes their first chunk before it goes on with the others, who share its steps, and that chunk is made before
others that are ready. Then come those whose sound would run out first. Chunks can be made in one batch of the flow.
What comes out is what `TTS.stream` gives for the request alone, whoever else there is.
"""

import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tts.acoustic.decoder import FlowState, FlowStates
from tts.lm.model import Aligned
from tts.lm.running import RunningBatch, Step
from tts.pipeline import CHUNK, TTS, Settings
from tts.streaming import Chunk, SentenceStream, request_of, silence_before, sounds
from tts.text.frontend import Utterance
from tts.voice import Voice

log = logging.getLogger(__name__)

BATCH = 4  # chunks made as one on a CPU: a chunk of the embedded model takes 11 ms so, and 16 alone
UNHEARD = 2  # requests that the LM writes the first chunk of at once: two take it as long as one, more make all wait
AHEAD = 1  # chunks that the LM writes ahead of the sound, where all are so far: the less, the more rows share its steps

TURN = 0.0005
"""Seconds after which a thread that waits for Python's lock asks for it, in the whole process; Python's own is 0.005.

A thread that gives the lock up for an operation has mostly taken it again before a waiting one is awake. Ten times as
soon, and the LM waits less for the threads that make sound.
"""

SOUND_NICENESS = 5
"""By which the threads that make sound are nicer than the LM's."""


class BusyError(Exception):
    """There is no place in the queue.

    Attributes:
        retry_after: whole seconds until there may be one.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places are taken; try again in {retry_after} s")
        self.retry_after = retry_after


class Sound(NamedTuple):
    """The next chunk of a request's sound, and the flow's frames (T, D) that came with it, if any."""

    chunk: Chunk
    frames: Tensor | None


class Ended(NamedTuple):
    """Nothing more comes; with the error that was the reason, where it was one."""

    error: Exception | None


Event = Sound | Ended


@dataclass(eq=False)
class _Sentence:
    """A sentence of a request: what the LM wrote of it, each token's group, and how much is sound already."""

    utterance: Utterance
    number: int
    tokens: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    group: int = 0
    ended: bool = False
    made: int = 0
    stream: SentenceStream | None = None

    def add(self, step: Step) -> None:
        """What the LM did."""
        if step.token is not None:
            self.tokens.append(step.token)
            self.groups.append(step.group)
            self.durations[step.group] += 1
        self.group, self.ended = step.group, step.done

    def ready(self, size: int) -> int:
        """Tokens of the next chunk, 0 where they are not all there. It must be known whether it is the last."""
        left = len(self.tokens) - self.made
        return size if left > size else left if self.ended else 0


@dataclass(eq=False)
class Job:
    """A request. Make one, `Engine.submit` it.

    Attributes:
        utterances: the text.
        voice, settings: as `TTS.stream` takes them.
        tell: takes what was made, in order; called by the engine's threads, so it must not block.
        read: whether sentences are read back, for `Chunk.done`.
    """

    utterances: Sequence[Utterance]
    voice: Voice
    settings: Settings
    tell: Callable[[Event], None]
    read: bool = True

    arrived: float = 0.0
    begun: float = 0.0  # when it got its slot
    gone: bool = False
    busy: bool = False  # a thread is making its next piece
    prompt: FlowState | None = None
    written: int = 0  # sentences that the LM has begun
    sentences: deque[_Sentence] = field(default_factory=deque)  # begun, and not all sound yet
    samples: int = 0  # of sound made
    until: float | None = None  # when the sound made so far will have been played

    @property
    def size(self) -> int:
        """Tokens of a chunk."""
        return self.settings.chunk or CHUNK

    @property
    def writing(self) -> bool:
        """Whether the LM is at it."""
        return bool(self.sentences) and not self.sentences[-1].ended

    @property
    def lead(self) -> int:
        """Tokens that wait to become sound."""
        return sum(len(one.tokens) - one.made for one in self.sentences)


class _Piece(NamedTuple):
    """Work on the sound of a job: a chunk of so many tokens; or, for none, taking in the voice."""

    job: Job
    sentence: _Sentence | None = None
    tokens: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    durations: tuple[int, ...] = ()
    group: int = 0
    last: bool = False

    @property
    def kind(self) -> tuple[int | None, float | None, bool]:
        """Pieces of one kind can be made in one batch; who has not heard anything yet waits for no others."""
        settings = self.job.settings
        return settings.steps, settings.guidance, self.job.until is None


@dataclass
class Counts:
    """What was done so far, for who watches."""

    lm_steps: int = 0
    lm_rows: int = 0
    chunks: int = 0
    chunk_batches: int = 0
    seconds: float = 0.0  # of sound


class Engine:
    """Owns a model and speaks for many at once.

    Args:
        tts: the model; nobody else may speak with it while the engine runs.
        slots: requests that are worked on at once. Each takes the memory of a voice's and a sentence's flow state.
        queue: requests that wait for a slot.
        workers: threads that make sound, each with one core; on a GPU one.
        batch: chunks that are made as one batch.
    """

    def __init__(
        self, tts: TTS, *, slots: int = 8, queue: int = 16, workers: int = 2, batch: int = BATCH
    ) -> None:
        self.tts, self.slots, self.queue, self.batch = tts, slots, queue, batch
        self.counts = Counts()
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._preparing = False
        self._closed = False
        self._states = FlowStates(slots)
        self._pace = 10.0  # seconds that a request holds a slot, a running mean
        targets = [self._write, *[self._sound] * workers]
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"tts{target.__name__}") for target in targets
        ]

    # ------------------------------------------------------------------------------------- for those who ask

    def start(self) -> None:
        """Begin to work."""
        sys.setswitchinterval(TURN)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; what is not done is told that it ended."""
        with self._changed:
            for job in [*self._waiting, *self._active]:
                self._end(job, RuntimeError("the server is closing"))
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def alive(self) -> bool:
        """Whether all threads do their work."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    @property
    def active(self) -> int:
        """Requests that are worked on."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Take a request in.

        Raises:
            BusyError: slots and queue are full.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if len(self._active) >= self.slots and len(self._waiting) >= self.queue:
                raise BusyError(max(1, math.ceil(self._pace / self.slots)))
            job.arrived = time.monotonic()
            self._waiting.append(job)
            self._admit()

    def cancel(self, job: Job) -> None:
        """Forget a request, wherever it is; its place is free at once. Nothing where it has ended or was refused."""
        with self._changed:
            if job in self._active or job in self._waiting:
                self._end(job, None)

    # ------------------------------------------------------------------------------------ with the lock held

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self.slots:
            job = self._waiting.popleft()
            job.begun = time.monotonic()
            self._active.append(job)
        self._changed.notify_all()

    def _end(self, job: Job, error: Exception | None) -> None:
        if job.gone:
            return
        job.gone = True
        if job in self._active:
            self._active.remove(job)
            if error is None:
                self._pace += 0.2 * (time.monotonic() - job.begun - self._pace)
        else:
            self._waiting.remove(job)
        job.tell(Ended(error))
        self._admit()

    # ----------------------------------------------------------------------------------------------- the LM

    def _write(self) -> None:
        """The LM's thread.

        Requests that nobody has heard anything of are written first, `UNHEARD` of them in a batch of their own until
        their first chunk is there: a step of few rows takes a fraction of the time that one of all rows takes.
        """
        _use_one_core(self.tts)
        rows: dict[Job, _Sentence] = {}
        new, old = (RunningBatch(self.tts.model.lm, self.tts.bounds) for _ in range(2))

        def forget(job: Job) -> None:
            new.leave(job)
            old.leave(job)
            rows.pop(job, None)

        while True:
            with self._changed:
                while not (todo := self._to_write(rows, len(new))):
                    if self._closed:
                        return
                    self._changed.wait()
                for job in [job for job in rows if job.gone]:
                    forget(job)
            batch = new if len(new) else old
            try:
                if isinstance(todo, Job):
                    steps = [self._begun(todo, rows, old if todo.written else new)]
                else:
                    self.counts.lm_rows += len(batch)
                    steps = batch.step()
                    self.counts.lm_steps += 1
            except Exception as error:
                log.exception("the LM failed")
                failed = [todo] if isinstance(todo, Job) else list(rows)
                with self._changed:
                    for job in failed:
                        forget(job)
                        self._end(job, error)
                continue
            with self._changed:
                for step in steps:
                    asker = step.key
                    assert isinstance(asker, Job)
                    rows[asker].add(step)
                    if step.done:
                        del rows[asker]
                    elif batch is new and rows[asker].ready(asker.size):
                        new.move(asker, old)
                self._changed.notify_all()

    def _to_write(self, rows: dict[Job, _Sentence], unheard: int) -> Job | bool:
        """A request whose next sentence is to be begun; else whether there is a step to be made, or rows to leave.

        Args:
            rows: what is being written.
            unheard: of those, how many nobody has heard of yet.
        """
        if any(job.gone for job in rows):
            return True
        if unheard < UNHEARD:
            for job in self._active:
                if not job.written and job.utterances:
                    return job
        if unheard:
            return True
        for job in self._active:
            # a sentence ahead, so that the sound never waits for the LM to begin
            if not job.writing and job.written < len(job.utterances) and len(job.sentences) < 2:
                return job
        return any(job.lead <= AHEAD * job.size for job in rows)

    def _begun(self, job: Job, rows: dict[Job, _Sentence], batch: RunningBatch) -> Step:
        number = job.written
        request = request_of(self.tts, job.utterances[number], number, job.voice, job.settings)
        one = _Sentence(job.utterances[number], number, durations=[0] * len(request.groups))
        step = batch.join(job, request, job.settings.sampling(0))
        rows[job] = one
        with self._changed:
            job.written += 1
            job.sentences.append(one)
        return step

    # -------------------------------------------------------------------------------------------- the sound

    def _sound(self) -> None:
        """A thread that makes sound."""
        _use_one_core(self.tts)
        _step_back()
        while True:
            with self._changed:
                while not (pieces := self._take()):
                    if self._closed:
                        return
                    self._changed.wait()
                for piece in pieces:
                    piece.job.busy = True
                self._changed.notify_all()  # the LM may go on
            try:
                self._make(pieces)
            except Exception as error:
                log.exception("making sound failed")
                with self._changed:
                    for piece in pieces:
                        self._end(piece.job, error)
            with self._changed:
                for piece in pieces:
                    piece.job.busy = False
                self._changed.notify_all()

    def _take(self) -> list[_Piece]:
        """The most urgent piece there is, and others that can be made in one batch with it."""
        ready = [piece for job in self._active if not job.busy and (piece := self._piece(job)) is not None]
        ready.sort(key=lambda piece: (piece.job.until is not None, piece.job.until or piece.job.arrived))
        if not ready:
            return []
        first = ready[0]
        if first.sentence is None:
            self._preparing = True
            return [first]
        alike = [piece for piece in ready if piece.sentence is not None and piece.kind == first.kind]
        taken = alike[: self.batch]
        for piece in taken:
            assert piece.sentence is not None
            piece.sentence.made += len(piece.tokens)
        return taken

    def _piece(self, job: Job) -> _Piece | None:
        """What can be done next for a request."""
        if job.prompt is None:
            # one at a time: the next one may want the same voice
            return None if self._preparing else _Piece(job)
        if not job.sentences or not (count := job.sentences[0].ready(job.size)):
            return None
        one = job.sentences[0]
        upto = one.made + count
        last = one.ended and upto == len(one.tokens)
        group = len(one.durations) if last else one.group
        tokens, groups = one.tokens[one.made : upto], one.groups[one.made : upto]
        return _Piece(job, one, tuple(tokens), tuple(groups), tuple(one.durations), group, last)

    def _make(self, pieces: list[_Piece]) -> None:
        if pieces[0].sentence is None:
            job = pieces[0].job
            try:
                job.prompt = self.tts.started(job.voice, job.settings)
            finally:
                self._preparing = False
            return
        streams = [self._stream(piece.job, piece.sentence) for piece in pieces if piece.sentence]
        noise = [one.noise(len(piece.tokens)) for one, piece in zip(streams, pieces, strict=True)]
        tokens = [
            torch.tensor(list(map(stream.told, piece.tokens, piece.groups)), device=self.tts.device)
            for stream, piece in zip(streams, pieces, strict=True)
        ]
        states = [one.state for one in streams]
        made = self.tts.model.acoustic.decode_chunks(states, tokens, noise)
        self.counts.chunk_batches += 1
        self.counts.chunks += len(pieces)
        wanted = [n for n, piece in enumerate(pieces) if not piece.job.gone]
        if not wanted:
            return
        wavs = sounds(
            [streams[n] for n in wanted], [made[n] for n in wanted], [pieces[n].last for n in wanted]
        )
        for n, wav in zip(wanted, wavs, strict=True):
            self._tell(pieces[n], streams[n], made[n], wav)

    def _stream(self, job: Job, one: _Sentence) -> SentenceStream:
        """A sentence's way to sound; before its first chunk the silence in front of it is told."""
        if one.stream is None:
            assert job.prompt is not None
            rate = self.tts.model.spec.frames.sample_rate
            before = job.utterances[one.number - 1] if one.number else None
            if silence := silence_before(one.utterance, before, rate):
                self._give(job, Sound(Chunk(torch.zeros(silence), rate, one.number), None))
            start = job.samples / rate
            state = self._states.lend(job.prompt)
            one.stream = SentenceStream(
                self.tts, one.utterance, one.number, job.voice, job.settings, state, start, job.read
            )
        return one.stream

    def _tell(self, piece: _Piece, stream: SentenceStream, frames: Tensor, wav: Tensor) -> None:
        job, one = piece.job, piece.sentence
        assert one is not None
        written = Aligned(stream.request.groups, one.tokens, one.durations) if piece.last else None
        shown: Tensor | None = frames
        for chunk in stream.chunk(wav, piece.durations, piece.group, written):
            self._give(job, Sound(chunk, shown))
            shown = None
        if shown is not None:  # too little for a sound of its own
            rate = self.tts.model.spec.frames.sample_rate
            self._give(job, Sound(Chunk(torch.zeros(0), rate, one.number), shown))
        if piece.last:
            self._finish(job, one)

    def _finish(self, job: Job, one: _Sentence) -> None:
        """A sentence is all sound; with the last one the request ends."""
        last = one.number + 1 == len(job.utterances)
        if last and one.utterance.pause:
            rate = self.tts.model.spec.frames.sample_rate
            silence = torch.zeros(round(one.utterance.pause * rate))
            self._give(job, Sound(Chunk(silence, rate, one.number), None))
        assert job.prompt is not None and one.stream is not None
        self._states.give_back(job.prompt, one.stream.state)
        with self._changed:
            job.sentences.popleft()
            if last:
                self._end(job, None)

    def _give(self, job: Job, sound: Sound) -> None:
        seconds = len(sound.chunk.wav) / sound.chunk.sample_rate
        job.samples += len(sound.chunk.wav)
        if seconds:
            job.until = (job.until or time.monotonic()) + seconds
        self.counts.seconds += seconds
        job.tell(sound)


def _use_one_core(tts: TTS) -> None:
    """Let this thread compute on one core: many requests fill the others, and threads within an operation would wait
    for each other."""
    if tts.device.type == "cpu":
        torch.set_num_threads(1)


def _step_back() -> None:
    """Let the LM's thread go first where there are fewer cores than threads: everybody's next sound waits for it.

    Only Linux has a priority for each thread.
    """
    if sys.platform == "linux":
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, min(19, os.getpriority(os.PRIO_PROCESS, me) + SOUND_NICENESS))
