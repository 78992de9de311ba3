"""Many at once: everybody gets what they would get alone; failures and who goes away trouble nobody else."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tts import TTS, Voice
from tts.lm.running import RunningBatch
from tts.pipeline import Settings
from tts.serve.engine import BusyError, Ended, Engine, Job, Sound, _Sentence
from tts.streaming import Chunk
from tts.text.frontend import Frontend

TEXTS = [
    "A lone seal sang all night. Nine men ran a mile!",
    "Some rain fell.",
    "[pause 0.2s] Our aim was low, and a seal sang. [pause 0.3s]",
    "Nine men ran a mile, and some rain fell all day. It was low.\n\nA seal sang!",
]


@pytest.fixture(scope="module")
def tts(tiny_model: Path) -> TTS:
    return TTS.load(tiny_model)


@pytest.fixture(scope="module")
def voices(tts: TTS, make_speech: Any) -> list[Voice]:
    return [Voice.from_audio(make_speech(2.0 + n, speaker=n), model=tts.model) for n in range(2)]


class Client:
    """Hears a request out."""

    def __init__(self, tts: TTS, text: str, voice: Voice, **settings: Any) -> None:
        self.text, self.settings = text, Settings(steps=2, chunk=5, **settings)
        self.events: queue.Queue[Any] = queue.Queue()
        utterances = Frontend(tts.model.symbols)(text)
        self.job = Job(utterances, voice, self.settings, self.events.put)

    def sounds(self) -> Iterator[Sound]:
        while isinstance(event := self.events.get(timeout=60), Sound):
            yield event
        assert isinstance(event, Ended)
        if event.error is not None:
            raise event.error

    def chunks(self) -> list[Chunk]:
        return [sound.chunk for sound in self.sounds()]


def joined(chunks: list[Chunk]) -> Tensor:
    return torch.cat([chunk.wav for chunk in chunks])


@pytest.fixture
def engine(tts: TTS, request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = Engine(tts, **getattr(request, "param", {}))
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("engine", [{"workers": 2}, {"workers": 1, "batch": 4}], indirect=True)
def test_everybody_gets_what_they_would_get_alone(engine: Engine, tts: TTS, voices: list[Voice]) -> None:
    settings: list[dict[str, Any]] = [{}, {"seed": 3, "speed": 1.3}, {"temperature": 0.0}, {"seed": 9}]
    clients = [Client(tts, text, voices[n % 2], **settings[n]) for n, text in enumerate(TEXTS)]
    for client in clients:
        engine.submit(client.job)
    made = [client.chunks() for client in clients]
    for n, (client, chunks) in enumerate(zip(clients, made, strict=True)):
        alone = list(tts.stream(client.text, voices[n % 2], client.settings))
        assert len(joined(chunks)) == len(joined(alone))
        torch.testing.assert_close(joined(chunks), joined(alone), atol=2e-4, rtol=1e-3)
        words = [[word.text for chunk in side for word in chunk.words] for side in (chunks, alone)]
        assert words[0] == words[1] and words[0]
        told = [[c.done.words for c in side if c.done] for side in (chunks, alone)]
        for one, other in zip(*told, strict=True):
            assert [w.start for w in one] == pytest.approx([w.start for w in other], abs=0.011)
    assert engine.counts.lm_rows > 1.2 * engine.counts.lm_steps  # steps were shared
    if engine.batch > 1:
        assert engine.counts.chunks > engine.counts.chunk_batches


def test_who_does_not_ask_for_the_reading_gets_the_same_sound_without(
    engine: Engine, tts: TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(tts, TEXTS[3], voices[0])
    alone = joined(list(tts.stream(client.text, voices[0], client.settings)))
    monkeypatch.setattr(tts.reader, "read", None)
    client.job.read = False
    engine.submit(client.job)
    chunks = client.chunks()
    torch.testing.assert_close(joined(chunks), alone, atol=2e-4, rtol=1e-3)
    assert all(chunk.done is None for chunk in chunks)


@pytest.mark.parametrize("engine", [{"slots": 1, "queue": 1}], indirect=True)
def test_a_full_queue_says_so_and_a_cancelled_request_makes_room(
    engine: Engine, tts: TTS, voices: list[Voice]
) -> None:
    clients = [Client(tts, TEXTS[0], voices[0]) for _ in range(3)]
    engine.submit(clients[0].job)
    engine.submit(clients[1].job)
    with pytest.raises(BusyError) as busy:
        engine.submit(clients[2].job)
    assert busy.value.retry_after >= 1
    engine.cancel(clients[2].job)  # it was never taken in: nothing happens
    engine.cancel(clients[1].job)
    assert engine.waiting == 0 and clients[1].chunks() == []
    engine.submit(clients[2].job)
    next(clients[0].sounds())
    engine.cancel(clients[0].job)
    assert engine.active == 1  # the place was free at once: the next one has it
    alone = joined(list(tts.stream(TEXTS[0], voices[0], clients[2].settings)))
    torch.testing.assert_close(joined(clients[2].chunks()), alone, atol=2e-4, rtol=1e-3)
    engine.cancel(clients[2].job)  # it has ended: nothing happens


def test_a_short_request_does_not_wait_for_the_end_of_a_long_one(
    engine: Engine, tts: TTS, voices: list[Voice]
) -> None:
    long, short = Client(tts, TEXTS[3] * 3, voices[0]), Client(tts, TEXTS[1], voices[0])
    engine.submit(long.job)
    next(long.sounds())
    engine.submit(short.job)
    short.chunks()
    assert not long.job.gone
    engine.cancel(long.job)


def test_the_unheard_are_written_two_at_a_time_and_nobody_comes_between(
    tts: TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [Client(tts, TEXTS[0], voices[0], seed=n) for n in range(5)]
    jobs = [client.job for client in clients]
    begun: list[Job] = []
    written = dict.fromkeys(jobs, 0)
    steps: list[tuple[set[Job], set[Job]]] = []  # whom each wrote for, and who had no first chunk then
    join, step = RunningBatch.join, RunningBatch.step

    def unheard() -> list[Job]:
        return [job for job in begun if written[job] <= job.size]  # one more tells that it is not the last

    def joined_by(batch: RunningBatch, key: Any, *args: Any) -> Any:
        assert len(unheard()) < 2
        begun.append(key)
        made = join(batch, key, *args)
        written[key] += made.token is not None
        return made

    def stepped(batch: RunningBatch) -> Any:
        steps.append(({row.key for row in batch._rows}, set(unheard())))  # type: ignore[misc]
        made = step(batch)
        for one in made:
            written[one.key] += one.token is not None  # type: ignore[index]
        return made

    monkeypatch.setattr(RunningBatch, "join", joined_by)
    monkeypatch.setattr(RunningBatch, "step", stepped)
    engine = Engine(tts)
    for client in clients:
        engine.submit(client.job)
    engine.start()
    for client in clients:
        client.chunks()
    engine.close()
    assert begun == jobs
    first = [rows for rows, waiting in steps if waiting]
    assert first == [waiting for _, waiting in steps if waiting]
    assert {len(rows) for rows in first} == {1, 2}  # five are odd
    assert any(len(rows) > 2 for rows, _ in steps)


def test_a_first_chunk_is_made_in_no_batch_with_later_ones(tts: TTS, voices: list[Voice]) -> None:
    engine = Engine(tts, batch=4)
    clients = [Client(tts, TEXTS[1], voices[0], seed=n) for n in range(4)]
    for n, client in enumerate(clients):
        engine.submit(client.job)
        client.job.prompt = tts.started(voices[0], client.settings)
        client.job.until = 1.0 + n if n < 2 else None  # two have been heard
        (utterance,) = client.job.utterances
        client.job.sentences.append(_Sentence(utterance, 0, [0] * 9, [0] * 9, [9], ended=True))
    taken = []
    while pieces := engine._take():
        for piece in pieces:
            piece.job.busy = True
        taken.append([piece.job for piece in pieces])
    jobs = [client.job for client in clients]
    assert taken == [[jobs[2], jobs[3]], [jobs[0], jobs[1]]]


@pytest.mark.parametrize("place", ["lm", "flow"])
def test_a_failure_is_told_and_the_engine_goes_on(
    place: str, engine: Engine, tts: TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = threading.Event()
    fail.set()
    target, name = (tts.model.lm, "prefix") if place == "lm" else (tts.model.acoustic, "decode_chunks")
    whole = getattr(target, name)

    def broken(*args: Any) -> Any:
        if fail.is_set():
            raise ValueError("broken")
        return whole(*args)

    monkeypatch.setattr(target, name, broken)
    bad, good = Client(tts, TEXTS[1], voices[0]), Client(tts, TEXTS[1], voices[0])
    engine.submit(bad.job)
    with pytest.raises(ValueError, match="broken"):
        bad.chunks()
    fail.clear()
    assert engine.alive and engine.active == 0
    engine.submit(good.job)
    assert len(joined(good.chunks())) > 0


def test_closing_tells_who_still_waits(tts: TTS, voices: list[Voice]) -> None:
    engine = Engine(tts, slots=1)
    engine.start()
    clients = [Client(tts, TEXTS[3], voices[0]) for _ in range(2)]
    for client in clients:
        engine.submit(client.job)
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 30
    for client in clients:
        with pytest.raises(RuntimeError, match="closing"):
            client.chunks()
    assert not engine.alive
