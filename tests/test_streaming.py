"""Streams: what is joined is what is made at once, streams do not disturb each other, and cost grows with the text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codec.errors import UserError
from tts import TTS, Voice
from tts.pipeline import Settings
from tts.streaming import Chunk, utterances_of
from tts.text.errors import TextError
from tts.text.frontend import Frontend
from tts.timestamps import Word

TEXT = "A lone seal sang all night. Nine men ran a mile, and our aim was low!\n\nSome rain fell."


@pytest.fixture(scope="module")
def tts(tiny_model: Path) -> TTS:
    return TTS.load(tiny_model)


@pytest.fixture
def voice(tts: TTS, make_speech: Any) -> Voice:
    return Voice.from_audio(make_speech(3.0), model=tts.model)


def joined(chunks: Iterator[Chunk]) -> Tensor:
    return torch.cat([chunk.wav for chunk in chunks])


@pytest.mark.parametrize("chunk", [1, 5, 12])
@pytest.mark.parametrize("changes", [{}, {"speed": 1.3, "seed": 4}, {"guidance": 0.0, "speed": 0.7}])
def test_a_stream_is_what_is_made_at_once_with_the_same_mask(
    chunk: int, changes: dict[str, Any], tts: TTS, voice: Voice
) -> None:
    settings = Settings(steps=2, chunk=chunk, candidates=1, retries=0, **changes)
    whole = tts.synthesize(TEXT, voice, settings)
    chunks = list(tts.stream(TEXT, voice, settings))
    wav = joined(iter(chunks))
    assert len(wav) == len(whole.wav)
    torch.testing.assert_close(wav, whole.wav, atol=2e-4, rtol=1e-3)
    assert whole.wav.abs().max() > 0.01
    done = [one.done for one in chunks if one.done is not None]
    assert [one.utterance.text for one in done] == [one.text for one in whole.sentences]
    for said, sentence in zip(done, whole.sentences, strict=True):
        assert list(said.tokens.tokens) == list(sentence.tokens.tokens)
        assert said.tokens.durations == sentence.tokens.durations
        assert said.seconds == pytest.approx(len(sentence.wav) / whole.sample_rate)
        assert sentence.quality is not None and said.quality.error == sentence.quality.error
        assert [word.text for word in said.words] == [word.text for word in sentence.words]
        for one, other in zip(said.words, sentence.words, strict=True):
            assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.011)


def test_words_are_told_while_the_sentence_is_being_said(tts: TTS, voice: Voice) -> None:
    settings = Settings(steps=2, chunk=3, speed=1.25)
    heard, early = 0.0, 0
    told: list[Word] = []
    for chunk in tts.stream(TEXT, voice, settings):
        heard += len(chunk.wav) / chunk.sample_rate
        told += chunk.words
        early += bool(chunk.words) and chunk.done is None
        if chunk.done is not None:
            own = told[-len(chunk.done.words) :]
            assert [word.text for word in own] == [word.text for word in chunk.done.words]
            assert own[0].start >= chunk.done.start
            assert own[-1].end == pytest.approx(chunk.done.start + chunk.done.seconds, abs=0.1)
    assert [word.text for word in told] == TEXT.split()
    assert early > 3  # a tiny model's sentences are short, but not that short
    assert all(one.start <= one.end <= other.start + 1e-9 for one, other in pairwise(told))


def test_the_first_sound_comes_before_the_last_token(tts: TTS, voice: Voice) -> None:
    steps: list[int] = []
    write = tts.model.lm.write

    def counted(*args: Any, **settings: Any) -> Iterator[Any]:
        for step in write(*args, **settings):
            steps.append(1)
            yield step

    tts.model.lm.write = counted  # type: ignore[method-assign]
    try:
        stream = tts.stream("A lone seal sang all night while nine men ran a mile.", voice, steps=2, chunk=5)
        next(stream)
        first = len(steps)
        joined(stream)
    finally:
        del tts.model.lm.write
    assert first < len(steps) / 2


def test_interleaved_streams_give_what_each_gives_alone(tts: TTS, voice: Voice, make_speech: Any) -> None:
    other = Voice.from_audio(make_speech(2.0, speaker=1), model=tts.model)
    calls = [
        (TEXT, voice, {"seed": 1}),
        ("Our aim is low, and a seal sang.", other, {"seed": 2, "speed": 1.2}),
    ]

    def start(number: int) -> Iterator[Chunk]:
        text, who, changes = calls[number]
        return tts.stream(text, who, steps=2, chunk=4, **changes)

    alone = [joined(start(n)) for n in range(2)]
    streams = [start(n) for n in range(2)]
    made: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in zip_longest(*streams):  # one chunk of the one, one of the other
        for chunk, pieces in zip(pair, made, strict=True):
            pieces += [] if chunk is None else [chunk.wav]
    for pieces, whole in zip(made, alone, strict=True):
        assert torch.equal(torch.cat(pieces), whole)


def test_text_may_come_in_pieces(tts: TTS, voice: Voice) -> None:
    pulled: list[str] = []

    def pieces() -> Iterator[str]:
        for piece in (
            "Nine men ran ",
            "a mile. Some rain fell",
            " all day over the town. A lone",
            " seal sang.",
        ):
            pulled.append(piece)
            yield piece

    stream = tts.stream(pieces(), voice, steps=2)
    next(stream)
    assert len(pulled) == 2  # the first sentence is spoken once the second has begun
    said = [chunk.done.utterance.text for chunk in stream if chunk.done]
    assert said[-2:] == ["Some rain fell all day over the town.", "A lone seal sang."]


@pytest.mark.parametrize("size", [1, 3, 17, 1000])
def test_pieces_of_any_size_lose_nothing(size: int, tts: TTS) -> None:
    text = "Dr. Smith paid $3.50 on May 3rd. Nine men ran a mile! Was it low? It was.\n\nSome rain fell."
    found = utterances_of(
        (text[i : i + size] for i in range(0, len(text), size)), Frontend(tts.model.symbols)
    )
    assert " ".join(one.text for one in found).split() == text.split()


@pytest.mark.parametrize("size", [1, 7])
def test_markup_may_be_cut_by_the_pieces(size: int, tts: TTS) -> None:
    text = (
        'Hello there. [pause 0.5s] My name is /ˈʃɪv/ Smith. <break time="0.5s"/> '
        '<say-as interpret-as="characters">N.A.S.A. Is</say-as> was here. It is the end.'
    )
    frontend = Frontend(tts.model.symbols)
    found = list(utterances_of((text[i : i + size] for i in range(0, len(text), size)), frontend))
    whole = list(frontend(text))
    assert [p for one in found for p in one.phonemes.split()] == [
        p for one in whole for p in one.phonemes.split()
    ]
    assert sum(one.lead + (one.pause or 0) for one in found) == 1.0
    with pytest.raises(TextError, match="closed"):
        list(
            utterances_of(["It was <say-as interpret-as=", '"characters">NASA. And so on. And on.'], frontend)
        )


def test_the_prompt_is_taken_in_once(tts: TTS, voice: Voice) -> None:
    lengths: list[int] = []
    hook = tts.model.acoustic.dit.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    settings = Settings(steps=3, chunk=5, retries=0)
    try:
        joined(tts.stream(TEXT, voice, settings))
        tts.synthesize(TEXT, voice, settings)
    finally:
        hook.remove()
    assert lengths.count(len(voice.frames)) == 3  # once, at every solver step
    assert max(lengths[3:]) < len(voice.frames) + 300


def test_errors_come_with_the_first_chunk(tts: TTS, voice: Voice) -> None:
    with pytest.raises(UserError, match="out of range"):
        tts.stream("Hello.", voice, chunk=0)
    with pytest.raises(UserError):
        next(tts.stream("...", voice))
