"""The chain on a model of random weights: what goes in decides what comes out, and the parts are joined as said."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor, nn

from codec.audio import fade, normalize_loudness, write_audio
from codec.errors import AudioError, SpecError, UserError
from codec.spec import TokenSpec
from tts import TTS, Settings, Voice
from tts.lm.model import Aligned, Request
from tts.lm.sampling import Sampling
from tts.pipeline import (
    PARAGRAPH_PAUSE,
    PAUSE,
    PIECE,
    QualityError,
    Sentence,
    Speech,
    draw_seed,
    joined,
    placed,
    split_at_pauses,
)
from tts.ranking import Candidate
from tts.readback import Calibration, Quality, Reader, Reading
from tts.text import Lexicon, TextError
from tts.timestamps import Word
from tts.voice import LOUDNESS, read_speech

RATE, HOP = 24_000, 256
ONE = "A lone seal sang to nobody."
MORE = "Some rain fell all day on the town. Nine men ran a mile in it!\n\nOur aim is low, said the others."


@pytest.fixture(scope="module")
def tts(tiny_model: Path) -> TTS:
    return TTS.load(tiny_model)


@pytest.fixture(scope="module")
def voice(tts: TTS, make_speech: Any) -> Voice:
    return Voice.from_audio(make_speech(3.0), model=tts.model)


def tokens(speech: Speech) -> list[list[int]]:
    return [list(sentence.tokens.tokens) for sentence in speech.sentences]


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=1e-3, atol=1e-4))


# -------------------------------------------------------------------------------------------------- synthesize


def test_a_sentence_is_tokens_then_frames_then_samples(tts: TTS, voice: Voice) -> None:
    speech = tts.synthesize(ONE, voice, seed=3)
    (sentence,) = speech.sentences
    assert sentence.text == ONE and sentence.phonemes.startswith("ɐ lˈoʊn sˈiːl")
    written = sentence.tokens
    assert len(written.groups) == len(written.durations) and sum(written.durations) == len(written.tokens)
    assert [i for group in written.groups for i in group] == tts.model.symbols.encode(sentence.phonemes)
    # the same by hand: noise of the same seed, one solver run, one vocoder run
    count = 4 * len(written.tokens)
    noise = torch.randn(count, 100, generator=torch.Generator().manual_seed(3 * 1_000_003))
    symbols = tts.model.symbols
    prompt, ids = (voice.frames, voice.told(symbols)), written.told(symbols)
    (frames,) = tts.model.acoustic.decode([prompt], [ids], [noise])
    with torch.inference_mode():
        wav = tts.model.vocoder(frames[None])[0]
    assert float(wav.abs().max()) < 0.99
    assert torch.equal(sentence.wav, wav) and torch.equal(speech.wav, fade(wav, RATE))
    assert speech.sample_rate == RATE and speech.duration == (count - 1) * HOP / RATE
    assert speech.seconds_taken > 0


def test_same_seed_same_samples(tts: TTS, voice: Voice) -> None:
    first, again, other = (tts.synthesize(MORE, voice, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.wav, again.wav) and tokens(first) == tokens(again)
    assert tokens(first) != tokens(other)
    quiet = tts.synthesize(MORE, voice, seed=1, temperature=0.0)
    assert tokens(quiet) == tokens(tts.synthesize(MORE, voice, seed=2, temperature=0.0)) != tokens(first)


def test_equal_sentences_of_a_text_differ(tts: TTS, voice: Voice) -> None:
    speech = tts.synthesize(f"{ONE} {ONE}", voice)
    first, second = tokens(speech)
    assert first != second
    assert first == tokens(tts.synthesize(ONE, voice))[0]


def test_text_voice_steps_and_guidance_all_matter(tts: TTS, voice: Voice, make_speech: Any) -> None:
    base = tts.synthesize(ONE, voice).wav
    other = Voice.from_audio(make_speech(3.0, speaker=1), model=tts.model)
    # another voice's frames with this one's tokens: only the decoder can tell
    lent = replace(voice, frames=other.frames[: len(voice.frames)])
    assert len(lent.frames) == len(voice.frames)
    for wav in (
        tts.synthesize(ONE, lent).wav,
        tts.synthesize(ONE, voice, steps=5).wav,
        tts.synthesize(ONE, voice, guidance=0.0).wav,
    ):
        assert wav.shape == base.shape and float((wav - base).abs().max()) > 1e-3
    assert tokens(tts.synthesize(ONE, other)) != tokens(tts.synthesize(ONE, voice))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_batch_of_texts_is_each_text_alone(tts: TTS, voice: Voice, batch: int) -> None:
    texts = [ONE, MORE, "No.", MORE]
    alone = [tts.synthesize(text, voice, seed=5) for text in texts]
    together = tts.synthesize(texts, voice, seed=5, batch=batch)
    assert [len(speech.sentences) for speech in together] == [1, 3, 1, 3]
    for one, many in zip(alone, together, strict=True):
        assert tokens(one) == tokens(many)
        assert [s.text for s in one.sentences] == [s.text for s in many.sentences]
        assert close(one.wav, many.wav)
    assert tts.synthesize([], voice) == []


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
def test_speed_divides_the_duration(tts: TTS, voice: Voice, speed: float) -> None:
    usual, other = tts.synthesize(ONE, voice), tts.synthesize(ONE, voice, speed=speed)
    assert tokens(usual) == tokens(other)
    count = 4 * len(tokens(usual)[0])
    assert len(usual.wav) == (count - 1) * HOP and len(other.wav) == (round(count / speed) - 1) * HOP


def test_another_speed_is_the_same_frames_further_apart(tts: TTS) -> None:
    class Ramp(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            return frames.flatten(1)

    ramp = TTS(replace(tts.model, vocoder=Ramp()))
    frames = torch.stack([torch.linspace(0, 0.9, 10), torch.linspace(0.5, -0.4, 10)], dim=1)
    slow = ramp.vocode(frames, 0.5).view(20, 2)
    # half a frame's step each; after the last frame there is nothing to go on to
    torch.testing.assert_close(slow[:, 0], (torch.arange(20) * 0.05).clamp(max=0.9))
    torch.testing.assert_close(slow[:, 1], (0.5 - torch.arange(20) * 0.05).clamp(min=-0.4))
    # never beyond full scale; what is below the knee stays as it is
    loud = ramp.vocode(frames * 3)
    assert loud.abs().max() < 1
    quiet = (frames * 3).flatten().abs() <= 0.9
    assert torch.equal(loud[quiet], (frames * 3).flatten()[quiet])


def test_progress_goes_from_none_to_all(tts: TTS, voice: Voice) -> None:
    calls: list[tuple[int, int]] = []
    tts.synthesize([MORE, ONE], voice, batch=2, progress=lambda *call: calls.append(call))
    assert calls == [(0, 4), (2, 4), (4, 4)]


def test_short_words_have_a_sound(tts: TTS, voice: Voice) -> None:
    for text in ("a", "I", "Oh!", "Hm"):
        for seed in range(3):
            assert len(tts.synthesize(text, voice, seed=seed).wav) >= 3 * HOP


def test_what_cannot_be_spoken(tts: TTS, voice: Voice) -> None:
    for text in ("", " \n", "...", "🙂"):
        with pytest.raises(TextError, match="give at least one word"):
            tts.synthesize(["Hello.", text], voice)
    with pytest.raises(TextError, match="language 'klingonese' is unknown"):
        tts.synthesize(ONE, voice, language="klingonese")
    with pytest.raises(SpecError, match="codes=64"):
        tts.synthesize(ONE, replace(voice, spec=TokenSpec(codes=64)))
    with pytest.raises(TypeError, match="loudness"):
        tts.synthesize(ONE, voice, loudness=3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("speed", [0.49, 2.01, math.nan, -1.0]),
        ("temperature", [-0.1, 2.1, math.nan]),
        ("steps", [0, 201]),
        ("guidance", [-0.1, 10.1, math.inf]),
        ("seed", [-1, 2**32]),
        ("batch", [0, -3]),
        ("candidates", [0, 65]),
        ("retries", [-1, 11]),
    ],
)
def test_settings_out_of_range(name: str, values: list[float]) -> None:
    for value in values:
        given: dict[str, Any] = {name: value}
        with pytest.raises(UserError, match=f"^{name} {value} is out of range; give a"):
            Settings(**given)


def test_largest_seed(tts: TTS, voice: Voice) -> None:
    assert len(tts.synthesize("No.", voice, seed=2**32 - 1).wav)


# ----------------------------------------------------------------------------------------------------- joining


def test_sentences_are_joined_with_pauses() -> None:
    wavs = [torch.full((n,), level) for n, level in ((3000, 0.1), (2000, 0.2), (1000, 0.3))]
    ends = (False, True, True)
    parts = [Sentence("", "", wav, Aligned(), end) for wav, end in zip(wavs, ends, strict=True)]
    short, long = (torch.zeros(round(seconds * RATE)) for seconds in (PAUSE, PARAGRAPH_PAUSE))
    pieces = [fade(wavs[0], RATE), short, fade(wavs[1], RATE), long, fade(wavs[2], RATE)]
    assert torch.equal(joined(parts, RATE), torch.cat(pieces))
    assert float(joined(parts, RATE).diff().abs().max()) < 0.005  # no click


def test_speech_of_a_long_text_is_its_sentences(tts: TTS, voice: Voice) -> None:
    speech = tts.synthesize(MORE, voice)
    assert [s.text for s in speech.sentences] == [
        "Some rain fell all day on the town.",
        "Nine men ran a mile in it!",
        "Our aim is low, said the others.",
    ]
    assert [s.ends_paragraph for s in speech.sentences] == [False, True, True]
    lengths = [len(s.wav) for s in speech.sentences]
    assert len(speech.wav) == sum(lengths) + round(PAUSE * RATE) + round(PARAGRAPH_PAUSE * RATE)
    start = lengths[0] + round(PAUSE * RATE)
    middle = slice(200, lengths[1] - 200)
    assert torch.equal(speech.wav[start:][: lengths[1]][middle], speech.sentences[1].wav[middle])
    assert not speech.wav[lengths[0] : start].any()


def test_pauses_that_the_text_asks_for(tts: TTS, voice: Voice) -> None:
    text = (
        "[pause 0.4s] Some rain fell. [pause 1.25s] Nine men ran.<break time='0s'/>\n\nOur aim. [pause 300ms]"
    )
    speech = tts.synthesize(text, voice)
    lengths = [len(one.wav) for one in speech.sentences]
    silent = [round(seconds * RATE) for seconds in (0.4, 1.25, 0.0, 0.3)]
    assert len(speech.wav) == sum(lengths) + sum(silent)
    starts = [silent[0], silent[0] + lengths[0] + silent[1], silent[0] + sum(lengths[:2]) + silent[1]]
    assert [one.start for one in speech.sentences] == [start / RATE for start in starts]
    assert not speech.wav[: silent[0]].any() and not speech.wav[-silent[3] :].any()
    assert not speech.wav[starts[0] + lengths[0] : starts[1]].any()
    with_usual = tts.synthesize("Some rain fell. Nine men ran on.", voice)
    assert with_usual.sentences[0].lead == 0.0 and with_usual.sentences[0].pause is None


# -------------------------------------------------------------------------------------- checked, and made again


class Fussy(Reader):
    """Finds something wrong with what does not start with a token divisible by `by`."""

    def __init__(self, tts: TTS, by: int) -> None:
        super().__init__(tts.model.tokenizer, tts.model.symbols, Calibration())
        self.by = by

    def read(self, rows: Any) -> list[Reading]:
        return [Reading(list(row), one.log_probs) for row, one in zip(rows, super().read(rows), strict=True)]

    def judge(self, wanted: Any, read: Any, **_: Any) -> Quality:
        return Quality(read[0] / 1000, 1.0, ("it begins wrongly",) if read[0] % self.by else ())


@pytest.fixture
def fussy(tiny_model: Path) -> Any:
    """``fussy(by)`` -> a TTS whose reader is `Fussy`."""

    def make(by: int) -> TTS:
        tts = TTS.load(tiny_model)
        tts.reader = Fussy(tts, by)
        return tts

    return make


Drawn = list[tuple[list[int], float]]


def spied(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Seeds and temperature of every call of the LM from now on."""
    calls: Drawn = []
    generate = tts.model.lm.generate

    def spy(requests: list[Request], sampling: Sampling, bounds: Any) -> list[Aligned]:
        calls.append(([request.seed for request in requests], sampling.temperature))
        return generate(requests, sampling, bounds)

    monkeypatch.setattr(tts.model.lm, "generate", spy)
    return calls


def test_what_reads_badly_is_made_again_so_often(fussy: Any, voice: Voice, monkeypatch: Any) -> None:
    tts = fussy(10**6)  # nothing is ever good
    calls = spied(tts, monkeypatch)
    speech = tts.synthesize(ONE, voice, seed=3, retries=3, candidates=1)
    assert calls == [
        ([3 * 1_000_003], 0.6),
        ([draw_seed(3, 0, 1)], 0.6),
        ([draw_seed(3, 0, 2)], 0.3),
        ([draw_seed(3, 0, 3)], pytest.approx(0.15)),
    ]
    (sentence,) = speech.sentences
    assert sentence.quality is not None and not sentence.quality.ok
    assert sentence.quality.attempts == 4 and sentence.quality.problems == ("it begins wrongly",)
    # the best of all attempts is kept: of this reader's, the one with the lowest first token
    alone = [
        tts.model.lm.generate(
            [Request(sentence.tokens.groups, voice.aligned(tts.model.symbols), s)],
            Sampling(temperature=t),
            tts.bounds,
        )[0]
        for (s,), t in list(calls)
    ]
    assert min(one.tokens[0] for one in alone) == sentence.tokens.tokens[0]


def test_what_reads_well_is_taken_at_once(fussy: Any, voice: Voice, monkeypatch: Any) -> None:
    tts = fussy(1)
    calls = spied(tts, monkeypatch)
    speech = tts.synthesize(ONE, voice)
    assert len(calls) == 1 and speech.quality == [Quality(speech.quality[0].error, 1.0, (), 1)]


def test_only_sentences_that_read_badly_are_made_again(fussy: Any, voice: Voice, monkeypatch: Any) -> None:
    tts = fussy(3)
    calls = spied(tts, monkeypatch)
    speech = tts.synthesize(f"{MORE} {MORE}", voice, retries=9, candidates=1)
    attempts = [one.attempts for one in speech.quality]
    assert max(attempts) > 1 and min(attempts) == 1, attempts
    # each attempt has those that are left, and nobody else
    assert [len(seeds) for seeds, _ in calls] == [
        sum(n >= k for n in attempts) for k in range(1, max(attempts) + 1)
    ]
    assert all(one.ok == (row[0] % 3 == 0) for one, row in zip(speech.quality, tokens(speech), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_retries_do_not_depend_on_neighbours(fussy: Any, voice: Voice, batch: int) -> None:
    tts = fussy(3)
    texts = [ONE, MORE, MORE, "No."]
    alone = [tts.synthesize(text, voice, seed=5, retries=4) for text in texts]
    assert max(one.attempts for speech in alone for one in speech.quality) > 1
    for one, many in zip(alone, tts.synthesize(texts, voice, seed=5, retries=4, batch=batch), strict=True):
        assert tokens(one) == tokens(many) and one.quality == many.quality
        assert close(one.wav, many.wav)
    again = tts.synthesize(MORE, voice, seed=5, retries=4)
    assert torch.equal(again.wav, alone[1].wav)


def test_without_retries_and_without_chance_there_is_one_attempt(fussy: Any, voice: Voice) -> None:
    tts = fussy(10**6)
    for changes in ({"retries": 0}, {"temperature": 0.0}):
        (quality,) = tts.synthesize(ONE, voice, **changes).quality
        assert quality.attempts == 1 and not quality.ok


def test_strict_makes_it_an_error_before_any_audio(fussy: Any, voice: Voice, monkeypatch: Any) -> None:
    tts = fussy(10**6)
    monkeypatch.setattr(tts.model.acoustic, "decode", None)
    with pytest.raises(QualityError) as error:
        tts.synthesize(MORE, voice, strict=True, retries=1, batch=1)
    assert str(error.value) == (
        "sentence 2, 'Nine men ran a mile in it!', reads badly after 2 attempts (it begins wrongly): "
        "try another seed or more retries"
    )
    assert isinstance(error.value, UserError)
    monkeypatch.undo()
    assert fussy(1).synthesize(ONE, voice, strict=True).quality[0].ok


def test_candidates_are_drawn_in_one_batch_and_the_best_is_kept(
    fussy: Any, voice: Voice, monkeypatch: Any
) -> None:
    tts = fussy(1)
    calls = spied(tts, monkeypatch)
    speech = tts.synthesize(MORE, voice, seed=2, candidates=4)
    assert [len(seeds) for seeds, _ in calls] == [8, 4]  # of three sentences; a batch has 8 rows
    assert len({seed for seeds, _ in calls for seed in seeds}) == 12
    for n, sentence in enumerate(speech.sentences):
        drawn = [
            tts.model.lm.generate(
                [Request(sentence.tokens.groups, voice.aligned(tts.model.symbols), draw_seed(2, n, k))],
                Sampling(temperature=0.6),
                tts.bounds,
            )[0]
            for k in range(4)
        ]
        assert list(sentence.tokens.tokens) in [list(one.tokens) for one in drawn]
    assert tokens(tts.synthesize(MORE, voice, seed=2)) == tokens(speech)  # as many as by default
    one = tts.synthesize(MORE, voice, seed=2, candidates=1)
    assert tokens(one) != tokens(speech)


def test_the_ranker_is_asked(tts: TTS, voice: Voice) -> None:
    seen: list[list[Candidate]] = []

    def shortest(found: Any) -> list[float]:
        seen.append(list(found))
        return [-len(one.tokens.tokens) for one in found]

    speech = tts.synthesize(ONE, voice, candidates=5, ranker=shortest)
    (found,) = seen
    assert len(found) == 5 and len({tuple(one.tokens.tokens) for one in found}) == 5
    assert len(speech.sentences[0].tokens.tokens) == min(len(one.tokens.tokens) for one in found)
    assert found[0].prompt == voice.aligned(tts.model.symbols)
    assert found[0].utterance.text == ONE
    first = tts.synthesize(ONE, voice, candidates=1)
    assert list(found[0].tokens.tokens) == tokens(first)[0]  # one candidate is the first of many


def test_time_is_told_by_part(tts: TTS, voice: Voice) -> None:
    speech = tts.synthesize(MORE, voice)
    assert set(speech.parts) == {"text", "lm", "check", "acoustic", "vocoder"}
    assert 0.5 * speech.seconds_taken < sum(speech.parts.values()) <= speech.seconds_taken


def test_draws_have_seeds_of_their_own() -> None:
    # torch's generator takes 32 bits
    seeds = {draw_seed(s, n, k) % 2**32 for s in (0, 1, 2**32 - 1) for n in range(300) for k in range(40)}
    assert len(seeds) == 3 * 300 * 40
    assert draw_seed(7, 3) == 7 * 1_000_003 + 3


# --------------------------------------------------------------------------------------------------- timestamps


def test_words_have_times_in_the_whole_speech(tts: TTS, voice: Voice) -> None:
    speech = tts.synthesize("Dr. Smith paid $3.50.\n\nHe left at once [pause 1s] again.", voice)
    assert [word.text for word in speech.words] == [
        "Dr.",
        "Smith",
        "paid",
        "$3.50.",
        "He",
        "left",
        "at",
        "once",
        "again.",
    ]
    bounds = [x for word in speech.words for x in (word.start, word.end)]
    assert all(b >= a - 1e-9 for a, b in pairwise(bounds))
    assert bounds[0] >= 0 and bounds[-1] <= speech.duration + 1e-9
    for sentence in speech.sentences:
        end = sentence.start + len(sentence.wav) / RATE
        assert all(sentence.start <= word.start <= word.end + 1e-9 <= end + 2e-9 for word in sentence.words)
        phones = [phone for word in sentence.words for phone in word.phonemes]
        assert "".join(p.text for p in phones) == "".join(c for c in sentence.phonemes if c not in " .,")
    assert [cue.text for cue in speech.cues] == ["Dr. Smith paid $3.50.", "He left at once", "again."]
    assert speech.cues[1].notes["quality"]["attempts"] == 1


def test_times_are_those_of_the_alignment(tts: TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    def starts(log_probs: Tensor, groups: Any) -> list[float]:
        return [0.1 * n for n in range(len(groups))]

    monkeypatch.setattr(tts.reader, "starts", starts)
    monkeypatch.setattr("tts.timestamps.silences", lambda *_: [])
    for speed in (1.0, 2.0):
        speech = tts.synthesize("Our aim is low.", voice, speed=speed)
        total = speech.duration
        expected = [min(0.1 * n / speed, total) for n in (0, 2, 4, 6)]  # aʊɚ is three letters of IPA
        assert [word.text for word in speech.words] == ["Our", "aim", "is", "low."]
        counts = [len(word.phonemes) for word in speech.words]
        at = [0.1 * sum(counts[:n]) / speed for n in range(4)]
        assert [word.start for word in speech.words] == pytest.approx([min(one, total) for one in at])
        assert speech.words[-1].end == total and expected[0] == 0.0


def test_where_nothing_can_be_aligned_the_lms_durations_tell(
    tts: TTS, voice: Voice, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tts.reader, "starts", lambda *_: None)
    monkeypatch.setattr("tts.timestamps.silences", lambda *_: [])
    speech = tts.synthesize(ONE, voice, speed=0.8)
    written = speech.sentences[0].tokens
    token = 1 / tts.model.spec.rate
    ends = (torch.tensor(written.durations).cumsum(0) * token - (0.03 - token / 2)) / 0.8
    counts = torch.tensor([len(word.phonemes) for word in speech.words]).cumsum(0)
    expected = [float(ends[n - 1]) for n in counts]
    assert [word.end for word in speech.words[:-1]] == pytest.approx(expected[:-1], abs=1e-4)


def test_sentences_come_one_by_one_and_are_the_whole(tts: TTS, voice: Voice) -> None:
    text = " ".join([MORE] * 3)
    whole = tts.synthesize(text, voice, batch=1)
    stream = tts.sentences(text, voice, batch=1)
    parts = list(stream)
    assert torch.equal(joined(parts, RATE), whole.wav)
    assert [one.words for one in parts] == [one.words for one in whole.sentences]
    assert [one.start for one in parts] == [one.start for one in whole.sentences]


def test_a_long_text_is_not_held_at_once(tts: TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made before the first sentence is given away is a window of batches, however long the text."""
    calls = spied(tts, monkeypatch)
    stream = tts.sentences(" ".join([MORE] * 12), voice, batch=2)  # 36 sentences
    next(stream)
    assert sum(len(seeds) for seeds, _ in calls) == 8 * 4  # candidates
    for _ in range(7):
        next(stream)
    assert sum(len(seeds) for seeds, _ in calls) == 8 * 4
    next(stream)
    assert sum(len(seeds) for seeds, _ in calls) == 16 * 4


def test_places_are_those_of_the_joined_samples() -> None:
    def sentence(samples: int, **given: Any) -> Sentence:
        return Sentence(
            "", "", torch.full((samples,), 0.3), Aligned(), words=(Word("a", 0.01, 0.02),), **given
        )

    parts = [
        sentence(3000, lead=0.1),
        sentence(2000),
        sentence(1000, ends_paragraph=True),
        sentence(4000, pause=0.0),
        sentence(500, pause=0.7),
    ]
    wav, rows = joined(parts, RATE), list(placed(parts, RATE))
    for one in rows:
        start = round(one.start * RATE)
        assert torch.equal(wav[start + 150 : start + len(one.wav) - 150], one.wav[150:-150])
        assert one.words == (Word("a", one.start + 0.01, one.start + 0.02),)
    silent = [0.1, PAUSE, PAUSE, PARAGRAPH_PAUSE, 0.0, 0.7]
    assert len(wav) == 10500 + sum(round(seconds * RATE) for seconds in silent)


def test_a_lexicon_and_markup_reach_the_models(tts: TTS, voice: Voice) -> None:
    speech = tts.synthesize("A seal, /ˈwɪn/.", voice, lexicon=Lexicon({"seal": "ˈsɛl"}))
    assert speech.sentences[0].phonemes == "ɐ sˈɛl, wˈɪn."
    assert [word.text for word in speech.words] == ["A", "seal,", "/ˈwɪn/."]
    with pytest.raises(TextError, match="does not say how long"):
        tts.synthesize("A [pause 3] b", voice)


# --------------------------------------------------------------------------------------------------- conversion


def test_converted_speech_is_the_recordings_tokens_in_the_voices_frames(
    tts: TTS, voice: Voice, make_speech: Any, tmp_path: Path
) -> None:
    path, model = tmp_path / "you.wav", tts.model
    write_audio(path, make_speech(2.5, speaker=1), RATE)
    wav = normalize_loudness(read_speech(path, RATE), RATE, LOUDNESS)
    ids = model.tokenizer.encode(model.features(wav[None]))[0][0]
    noise = torch.randn(4 * len(ids), 100, generator=torch.Generator().manual_seed(7 * 1_000_003))
    prompt = (
        voice.frames,
        voice.told(model.symbols),
    )  # what the recording says, nobody told: its tokens are bare
    (frames,) = model.acoustic.decode([prompt], [ids], [noise], steps=4, guidance=0.0)
    with torch.inference_mode():
        expected = model.vocoder(frames[None])[0]
    settings = Settings(seed=7, steps=4, guidance=0.0)
    speech = tts.convert(path, voice, settings)
    torch.testing.assert_close(speech.wav, fade(expected, RATE))
    assert speech.sample_rate == RATE and abs(speech.duration - 2.5) < 0.3 and speech.sentences == []
    assert torch.equal(tts.convert(path, voice, settings).wav, speech.wav)
    other = tts.convert(path, voice, replace(settings, seed=8))
    assert other.wav.shape == speech.wav.shape and not torch.equal(other.wav, speech.wav)
    fast = tts.convert(path, voice, replace(settings, speed=1.25))
    assert len(fast.wav) == (round(4 * len(ids) / 1.25) - 1) * HOP


def test_long_recordings_are_converted_in_pieces(tts: TTS, voice: Voice, make_speech: Any) -> None:
    wav, calls = make_speech(20.0), []
    speech = tts.convert(
        wav, voice, Settings(steps=1, guidance=0.0), progress=lambda *call: calls.append(call)
    )
    assert calls == [(0, 2), (2, 2)]
    assert abs(speech.duration - len(read_speech(wav, RATE)) / RATE) < 2 * 4 * HOP / RATE


def test_recordings_that_cannot_be_converted(tts: TTS, voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"no such audio file: .*gone\.wav"):
        tts.convert(tmp_path / "gone.wav", voice)
    with pytest.raises(AudioError, match="is silent"):
        tts.convert(torch.zeros(2 * RATE), voice)


def test_cuts_are_where_it_is_quiet() -> None:
    rate, pauses = 8_000, (4.0, 7.5, 13.0, 18.2, 22.0)
    wav = torch.rand(round(27.3 * rate)) - 0.5
    for pause in pauses:
        wav[round(pause * rate) :][: round(0.2 * rate)] *= 0.01
    pieces = split_at_pauses(wav, rate, 10.0)
    assert torch.equal(torch.cat(pieces), wav)
    cuts = torch.tensor([len(piece) for piece in pieces]).cumsum(0)[:-1] / rate
    assert [round(float(cut), 2) for cut in cuts - torch.tensor([7.5, 13.0, 22.0])] == pytest.approx(
        [0.1, 0.1, 0.1], abs=0.06
    )


@pytest.mark.parametrize("seconds", [0.3, 9.99, 10.0, 10.01, 12.4, 20.1, 33.0])
def test_no_piece_is_too_long_or_too_short(seconds: float) -> None:
    rate = 1_000
    for quiet in (0, -1):  # the quietest place at the start of the search, and at its end
        level = torch.linspace(0.1, 1, round(seconds * rate)).flip(0) if quiet else torch.ones(1)
        pieces = split_at_pauses(torch.ones(round(seconds * rate)) * level, rate, 10.0)
        assert sum(map(len, pieces)) == round(seconds * rate)
        assert all(len(piece) <= 10 * rate for piece in pieces)
        assert len(pieces) == 1 or all(len(piece) >= 2.5 * rate for piece in pieces)
    assert PIECE > 1


# ------------------------------------------------------------------------------------------------------- voices


def test_voice_by_name_by_file_and_by_recording(tiny_model: Path, make_speech: Any, tmp_path: Path) -> None:
    tts = TTS.load(tiny_model)
    folder = tmp_path / "model"
    (folder / "voices").mkdir(parents=True)
    tts = TTS(replace(tts.model, folder=folder))
    recording = tmp_path / "me.flac"
    soundfile.write(recording, make_speech(2.0).numpy(), RATE)
    made = tts.voice(recording)
    made.save(folder / "voices" / "anna.safetensors")
    for name in ("anna", folder / "voices" / "anna.safetensors", str(folder / "voices" / "anna.safetensors")):
        assert torch.equal(tts.voice(name).frames, made.frames)
    said = tts.voice(recording, text="Some rain fell.")
    assert said.phonemes.startswith("sˌʌm") and said.phonemes != made.phonemes
    with pytest.raises(UserError, match=r"no voice or file named 'bob'; voices that ship: anna; or give"):
        tts.voice("bob")
    with pytest.raises(AudioError, match=r"no such audio file: 'bob\.wav'"):
        tts.voice("bob.wav")
    with pytest.raises(UserError, match="a saved voice has its text already"):
        tts.voice("anna", text="Some rain fell.")


def test_a_folder_of_its_name_does_not_hide_a_voice(
    tts: TTS, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model" / "voices").mkdir(parents=True)
    voice.save(tmp_path / "model" / "voices" / "anna.safetensors")
    (tmp_path / "anna").mkdir()
    monkeypatch.chdir(tmp_path)
    found = TTS(replace(tts.model, folder=Path("model"))).voice("anna")
    assert torch.equal(found.tokens, voice.tokens)


def test_saved_voice_of_another_grid(tts: TTS, voice: Voice, tmp_path: Path) -> None:
    path = tmp_path / "me.safetensors"
    replace(voice, spec=replace(voice.spec, codes=700)).save(path)
    with pytest.raises(SpecError, match=r"me\.safetensors and the model .*codes=700.*codes=625"):
        tts.voice(path)


@pytest.mark.parametrize("device", ["nonsense", "", "meta", "cuda:99", "xpu", "vulkan"])
def test_devices_that_cannot_be_used(tiny_model: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"^device '{device}' cannot be used here .*; try cpu$"):
        TTS.load(tiny_model, device=device)
