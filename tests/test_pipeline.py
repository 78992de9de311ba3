"""The chain on a model of random weights: what goes in decides what comes out, and the parts are joined as said."""

from __future__ import annotations

import math
from dataclasses import replace
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
from tts.lm.model import Aligned
from tts.pipeline import PARAGRAPH_PAUSE, PAUSE, PIECE, Sentence, Speech, joined, split_at_pauses
from tts.text import TextError
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
    ids = torch.tensor(written.tokens)
    (frames,) = tts.model.acoustic.decode([(voice.frames, voice.tokens)], [ids], [noise])
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
    torch.testing.assert_close(slow[:, 0], torch.linspace(0, 0.9, 20))
    torch.testing.assert_close(slow[:, 1], torch.linspace(0.5, -0.4, 20))
    # never beyond full scale, and one gain for all of it
    loud = ramp.vocode(frames * 3)
    torch.testing.assert_close(loud, frames.flatten() * 0.99 / 0.9)


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


# --------------------------------------------------------------------------------------------------- conversion


def test_converted_speech_is_the_recordings_tokens_in_the_voices_frames(
    tts: TTS, voice: Voice, make_speech: Any, tmp_path: Path
) -> None:
    path, model = tmp_path / "you.wav", tts.model
    write_audio(path, make_speech(2.5, speaker=1), RATE)
    wav = normalize_loudness(read_speech(path, RATE), RATE, LOUDNESS)
    ids = model.tokenizer.encode(model.features(wav[None]))[0][0]
    noise = torch.randn(4 * len(ids), 100, generator=torch.Generator().manual_seed(7 * 1_000_003))
    (frames,) = model.acoustic.decode([(voice.frames, voice.tokens)], [ids], [noise], steps=4, guidance=0.0)
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
