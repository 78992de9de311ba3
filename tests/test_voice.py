"""The voice prompt: what is kept of a recording, what a file keeps of it, and what cannot be one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from codec.audio import normalize_loudness, trim_silence, write_audio
from codec.errors import AudioError, SpecError, UserError
from codec.spec import FrameSpec, TokenSpec
from tts.checkpoint import Model
from tts.text import DEFAULT_SYMBOLS, Frontend, TextError
from tts.voice import LOUDNESS, MAX_SECONDS, PROMPT_SECONDS, TAIL, Voice, encoded, quiet_end, read_speech

RATE = 24_000


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.load(tiny_model)


@pytest.fixture(scope="module")
def voice(model: Model, make_speech: Any) -> Voice:
    return Voice.from_audio(make_speech(3.0), model=model, origin="a vowel machine – Ü")


def same(a: Voice, b: Voice) -> bool:
    return (
        torch.equal(a.frames, b.frames)
        and torch.equal(a.tokens, b.tokens)
        and replace(a, frames=b.frames, tokens=b.tokens) == b
    )


# --------------------------------------------------------------------------------------------- of a recording


def test_voice_is_what_the_tokenizer_makes_of_the_recording(
    model: Model, voice: Voice, make_speech: Any
) -> None:
    wav = normalize_loudness(trim_silence(make_speech(3.0), RATE), RATE, LOUDNESS)
    frames = model.features(wav[None])[0]
    count = len(frames) // 4
    tokens = model.tokenizer.encode(frames[None, : 4 * count])[0][0]
    assert torch.equal(voice.tokens, tokens) and len(tokens) == count
    torch.testing.assert_close(voice.frames, frames[: 4 * count], rtol=2.0**-11, atol=1e-6)
    ids = model.tokenizer.read(tokens[None])[0]
    assert voice.phonemes == DEFAULT_SYMBOLS.decode(ids)
    groups = DEFAULT_SYMBOLS.groups(ids)
    assert len(voice.durations) == len(groups) and sum(voice.durations) == count
    assert voice.seconds == count * 4 * 256 / RATE
    assert voice.spec == TokenSpec() and voice.origin == "a vowel machine – Ü"
    aligned = voice.aligned(DEFAULT_SYMBOLS)
    assert aligned.groups == groups and list(aligned.tokens) == tokens.tolist()


def test_silence_around_and_loudness_do_not_matter(model: Model, voice: Voice, make_speech: Any) -> None:
    quiet = torch.cat([torch.zeros(RATE), make_speech(3.0) * 0.05, torch.zeros(RATE // 2)])
    other = Voice.from_audio(quiet, model=model)
    assert abs(other.seconds - voice.seconds) <= 0.25  # 0.1 s of what is around it is kept on either side
    wide = normalize_loudness(make_speech(3.0), RATE, -40.0)
    assert torch.equal(Voice.from_audio(wide, model=model).tokens, voice.tokens)


def test_with_a_transcript(model: Model, make_speech: Any) -> None:
    text = "Our aim is low."
    voice = Voice.from_audio(make_speech(3.0), text=text, model=model)
    (utterance,) = Frontend(DEFAULT_SYMBOLS, "en-us")(text)
    assert voice.phonemes == DEFAULT_SYMBOLS.decode(utterance.ids)
    assert len(voice.durations) == len(DEFAULT_SYMBOLS.groups(utterance.ids))
    assert sum(voice.durations) == len(voice.tokens) and min(voice.durations) >= 0
    german = Voice.from_audio(make_speech(3.0), text=text, language="de", model=model)
    assert german.phonemes != voice.phonemes


def test_long_recording_is_cut_to_the_prompt_limit(model: Model, make_speech: Any) -> None:
    wav = make_speech(14.0)
    voice = Voice.from_audio(wav, model=model)
    assert 0.6 * PROMPT_SECONDS - 0.5 < voice.seconds <= PROMPT_SECONDS + TAIL
    assert len(voice.frames) == 4 * len(voice.tokens) and sum(voice.durations) == len(voice.tokens)
    # the head of the recording, then silence
    head = normalize_loudness(trim_silence(wav, RATE)[: int((PROMPT_SECONDS + 1) * RATE)], RATE, LOUDNESS)
    frames, whole = encoded(model, head)
    silent = round(TAIL * RATE / 256)
    torch.testing.assert_close(
        voice.frames[: -silent - 8], frames[: len(voice.frames) - silent - 8], atol=0.02, rtol=0
    )
    assert voice.frames[6 - silent :].max() < -10 < frames.mean()
    # all that was read before is said, and nothing behind it
    assert model.symbols.decode(model.tokenizer.read(whole[None])[0]).startswith(voice.phonemes)


@pytest.mark.parametrize(
    ("durations", "most", "kept"),
    [
        ((2, 3, 4), 8, 2),
        ((4, 1, 1, 1, 4), 7, 2),  # token 4 is the quietest of those in the last 40 %
        ((5, 2, 1, 4), 9, 2),  # and 3, the quietest of all, is not
        ((2, 3, 0, 0, 4), 5, 4),
        ((9, 1), 5, 1),  # one that lasts is kept in any case: a prompt has a frame
        ((0, 0, 9, 1), 5, 3),
    ],
)
def test_cut_where_it_is_quiet_between_phonemes(durations: tuple[int, ...], most: int, kept: int) -> None:
    levels = torch.ones(12)
    levels[3], levels[4], levels[6] = 0.0, 0.1, 0.2
    assert quiet_end(durations, levels, most) == kept


@pytest.mark.parametrize(
    ("rate", "channels", "ending"), [(24_000, 2, "wav"), (44_100, 1, "wav"), (44_100, 2, "mp3")]
)
def test_any_format_is_nearly_the_same_prompt(
    model: Model, voice: Voice, make_speech: Any, tmp_path: Path, rate: int, channels: int, ending: str
) -> None:
    path = tmp_path / f"voice.{ending}"
    wav = make_speech(3.0, sample_rate=rate)
    soundfile.write(path, wav[:, None].expand(-1, channels).numpy(), rate)
    soundfile.write(tmp_path / "mono.wav", wav.numpy(), rate)
    other = Voice.from_audio(path, model=model)
    assert abs(other.seconds - voice.seconds) <= 0.1
    size = min(len(voice.frames), len(other.frames))
    loud = voice.frames[:size, :60] > -4  # what carries the speech; codecs and resamplers change the rest
    difference = (other.frames[:size, :60] - voice.frames[:size, :60])[loud].abs()
    if ending == "wav":
        assert same(other, Voice.from_audio(tmp_path / "mono.wav", model=model))
    assert float(difference.median()) < 0.15
    unlike = Voice.from_audio(make_speech(3.0, speaker=1), model=model).frames[:size, :60]
    assert float((unlike - voice.frames[:size, :60])[loud].abs().median()) > 0.5


# --------------------------------------------------------------------------------------------- bad recordings


def test_transcript_longer_than_the_recording(model: Model, make_speech: Any) -> None:
    with pytest.raises(UserError, match=r"phonemes cannot be aligned to .* longer than the speech"):
        Voice.from_audio(make_speech(1.2), text="nine men ran a mile " * 6, model=model)


def test_transcript_of_a_recording_too_long_to_align(model: Model, make_speech: Any, tmp_path: Path) -> None:
    wav = make_speech(4.0).repeat(16)  # 64 s
    with pytest.raises(
        AudioError, match=f"the waveform: with its text, at most {MAX_SECONDS:g} s can be used"
    ):
        Voice.from_audio(wav, text="nine men", model=model)
    assert Voice.from_audio(wav, model=model).seconds <= PROMPT_SECONDS


def test_transcript_without_a_sound_or_in_no_language(model: Model, make_speech: Any) -> None:
    with pytest.raises(TextError, match="can be spoken"):
        Voice.from_audio(make_speech(2.0), text="...", model=model)
    with pytest.raises(TextError, match="language 'klingonese' is unknown"):
        Voice.from_audio(make_speech(2.0), text="hello", language="klingonese", model=model)


@pytest.mark.parametrize(
    ("wav", "words"),
    [
        (torch.zeros(0), "has shape"),
        (torch.full((4800,), 0.1), "has shape"),
        (torch.full((2, RATE), 0.1), r"has shape \(2, 24000\); give \(samples,\)"),
        (torch.zeros(2 * RATE), "is silent"),
        (torch.full((2 * RATE,), torch.nan), "NaN or infinite"),
        (torch.cat([torch.full((RATE,), 0.1), torch.tensor([torch.inf])]), "NaN or infinite"),
        (
            torch.cat([torch.zeros(RATE), torch.full((480,), 0.5), torch.zeros(RATE)]),
            "only 0.2. s of it are not silence",
        ),
    ],
)
def test_waveforms_that_cannot_be_used(model: Model, wav: Tensor, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        Voice.from_audio(wav, model=model)
    with pytest.raises(AudioError, match=words):
        read_speech(wav, RATE)


def test_recording_of_which_next_to_nothing_is_sound(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "click.wav"
    write_audio(path, torch.cat([torch.zeros(RATE), torch.full((480,), 0.5), torch.zeros(RATE)]), RATE)
    with pytest.raises(AudioError, match=r"click\.wav: only 0\.2. s of it are not silence; give 1 s"):
        Voice.from_audio(path, model=model)


def test_recording_in_which_nothing_is_read(
    model: Model, make_speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model.tokenizer), "read", lambda *_: [[]])
    with pytest.raises(AudioError, match="the waveform: no speech can be read in it"):
        Voice.from_audio(make_speech(2.0), model=model)


# --------------------------------------------------------------------------------------------------- the file


def test_saved_voice_is_the_same_voice(voice: Voice, tmp_path: Path) -> None:
    path = tmp_path / "me.safetensors"
    voice.save(path)
    assert same(Voice.load(path), voice)
    assert [p.name for p in tmp_path.iterdir()] == ["me.safetensors"]


def test_save_does_not_overwrite_unless_told(voice: Voice, tmp_path: Path) -> None:
    path = tmp_path / "me.safetensors"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        voice.save(path)
    assert path.read_text() == "mine"
    voice.save(path, overwrite=True)
    assert same(Voice.load(path), voice)


def test_save_to_a_place_that_cannot_be(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"me\.wav: a voice is saved as \.safetensors"):
        voice.save(tmp_path / "me.wav")
    with pytest.raises(UserError, match="no such folder to write into"):
        voice.save(tmp_path / "gone" / "me.safetensors")
    assert list(tmp_path.iterdir()) == []


def broken(voice: Voice, path: Path, *, note: dict[str, object] | None = None, **tensors: Tensor) -> Path:
    """The voice's file with some of it exchanged."""
    voice.save(path)
    with safe_open(path, framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kept = json.loads(file.metadata()["voice"])
    save_file(held | tensors, path, metadata={"voice": json.dumps(kept | (note or {}))})
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": torch.zeros(3, dtype=torch.int32)},
        {"tokens": torch.zeros(0, dtype=torch.int32)},
        {"frames": torch.zeros(4, 100)},
        {"note": {"durations": [1, 2]}},
        {"note": {"durations": "many"}},
        {"note": {"spec": {"frames": {}, "rate": 3}}},
        {"note": {"spec": None}},
        {"note": {"phonemes": None, "durations": None}},
    ],
)
def test_file_whose_parts_do_not_belong_together(
    voice: Voice, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"me\.safetensors: not a saved voice of this program") as error:
        Voice.load(broken(voice, tmp_path / "me.safetensors", **change))
    assert "\n" not in str(error.value)


def test_file_with_values_that_cannot_be(voice: Voice, tmp_path: Path) -> None:
    wrong = voice.tokens.int().clone()
    wrong[0] = 625
    with pytest.raises(UserError, match=r"not a saved voice .*tokens are beyond its grid"):
        Voice.load(broken(voice, tmp_path / "a.safetensors", tokens=wrong))
    nan = voice.frames.half().clone()
    nan[3, 3] = torch.nan
    with pytest.raises(UserError, match="not a saved voice"):
        Voice.load(broken(voice, tmp_path / "b.safetensors", frames=nan))


def test_files_that_are_no_voices(voice: Voice, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.safetensors: no such voice file"):
        Voice.load(tmp_path / "gone.safetensors")
    with pytest.raises(UserError, match="no such voice file"):
        Voice.load(tmp_path)
    with pytest.raises(UserError, match=r"lm\.safetensors: not a saved voice"):
        Voice.load(tiny_model / "lm.safetensors")
    path = tmp_path / "me.safetensors"
    voice.save(path)
    for keep in (0, 7, 500):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UserError, match=r"me\.safetensors: not a saved voice"):
            Voice.load(path)


# -------------------------------------------------------------------------------------------- voice and model


def test_voice_of_another_grid_names_both(voice: Voice, model: Model) -> None:
    voice.require(model)
    for spec in (TokenSpec(codes=64), TokenSpec(FrameSpec(hop=320)), TokenSpec(frames_per_token=3)):
        with pytest.raises(SpecError) as error:
            replace(voice, spec=spec).require(model, "me.safetensors")
        assert str(spec) in str(error.value) and str(TokenSpec()) in str(error.value)
        assert f"me.safetensors and the model {model.folder} do not fit together" in str(error.value)


def test_voice_with_phonemes_the_model_does_not_know(voice: Voice, model: Model) -> None:
    fewer = replace(model, symbols=type(model.symbols)(model.symbols.symbols[:20]))
    with pytest.raises(SpecError, match=r"the voice and the model .* phoneme table does not have all of"):
        voice.require(fewer)


def test_a_voice_of_another_tokenizer_on_the_same_grid_is_refused(model: Model, voice: Voice) -> None:
    other = replace(model, tokenizer_id="0" * 16)
    assert other.spec == model.spec
    with pytest.raises(SpecError, match=rf"tokenizer {model.tokenizer_id}.*{'0' * 16}.*make the voice again"):
        voice.require(other)
