"""``python infer.py``: what it writes and prints, and that whatever is given wrong costs one line and status 2."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytest
import soundfile
import torch

from codec.spec import FrameSpec
from tts import Settings, Voice, checkpoint
from tts.checkpoint import build, write_part
from tts.cli import _parser, main
from tts.text import DEFAULT_LANGUAGE, DEFAULT_SYMBOLS

RATE = 24_000
ROOT = Path(__file__).resolve().parents[1]
ONE = "A lone seal sang to nobody."
MORE = "Some rain fell all day on the town. Nine men ran a mile in it! Our aim is low, said the others."
WROTE = re.compile(
    r"^wrote  (\S+): ([0-9.]+) s, made in [0-9.]+ s, [0-9.]+ times (faster|slower) than real time$", re.M
)


class Result(NamedTuple):
    status: int
    out: str
    err: str


class Infer(Protocol):
    def __call__(self, *args: object, stdin: bytes | None = None) -> Result: ...


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def infer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Infer:
    """``infer(*args, stdin=)`` runs the command line in an empty folder; standard input is a terminal unless given."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object, stdin: bytes | None = None) -> Result:
        kind = Terminal if stdin is None else io.TextIOWrapper
        monkeypatch.setattr("sys.stdin", kind(io.BytesIO(stdin or b"")))
        capfd.readouterr()
        status = main([str(arg) for arg in args])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def model(tiny_model: Path, recordings: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a recording and two voices."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("infer") / "model"))
    shutil.copy(recordings["flac"], folder / "prompt.flac")
    (folder / "voices").mkdir()
    loaded = checkpoint.Model.load(folder)
    for name, seconds, origin in (("anna", 2.0, "made in a test"), ("zoe", 3.0, "")):
        wav = torch.from_numpy(soundfile.read(recordings["good"], dtype="float32")[0])[
            : round(seconds * RATE)
        ]
        Voice.from_audio(wav, model=loaded, origin=origin).save(folder / "voices" / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def recordings(make_speech: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recordings good and bad, by what is the matter with them."""
    folder = tmp_path_factory.mktemp("recordings")
    speech, high = make_speech(3.0).numpy(), make_speech(3.0, sample_rate=44_100).numpy()
    nan = speech.copy()
    nan[1000] = np.nan
    click = np.zeros(2 * RATE, np.float32)
    click[RATE : RATE + 400] = 0.5
    sounds: dict[str, tuple[Any, int]] = {
        "good.wav": (speech, RATE),
        "other.wav": (make_speech(3.0, speaker=1).numpy(), RATE),
        "flac.flac": (speech, RATE),
        "ogg.ogg": (speech, RATE),
        "stereo.wav": (np.stack([speech, speech], 1), RATE),
        "high.wav": (high, 44_100),
        "mp3.mp3": (np.stack([high, high], 1), 44_100),
        "long.wav": (make_speech(14.0).numpy(), RATE),
        "nothing.wav": (speech[:0], RATE),
        "short.wav": (speech[: round(0.2 * RATE)], RATE),
        "silent.wav": (np.zeros(2 * RATE, np.float32), RATE),
        "click.wav": (click, RATE),
    }
    for name, (wav, rate) in sounds.items():
        soundfile.write(folder / name, wav, rate)
    soundfile.write(folder / "nan.wav", nan, RATE, subtype="FLOAT")
    (folder / "zero.wav").touch()
    (folder / "text.wav").write_text("This is not audio.")
    (folder / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "cut.flac").write_bytes((folder / "flac.flac").read_bytes()[:60])
    (folder / "folder.wav").mkdir()
    (folder / "text.safetensors").write_text("This is no voice.")
    return {path.stem if path.suffix != ".safetensors" else path.name: path for path in folder.iterdir()}


def samples(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    wav: np.ndarray[Any, np.dtype[np.float32]]
    wav, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE and wav.ndim == 1
    return wav


def refused(result: Result, *words: str) -> None:
    """Status 2, one line, these words in it; and nothing was written into the (empty) working folder."""
    assert result.status == 2 and result.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.err), result.err
    for word in words:
        assert word in result.err, result.err
    assert list(Path.cwd().iterdir()) == []


# ------------------------------------------------------------------------------------------------------ speaking


def test_a_text_alone_speaks(infer: Infer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EMBEDDED", model)
    checkpoint._embedded.cache_clear()
    try:
        status, out, err = infer("--text", ONE)
    finally:
        checkpoint._embedded.cache_clear()
    assert (status, err) == (0, "")
    first, second, third, fourth = out.splitlines()
    assert re.fullmatch(r"check  1 of 1 sentences read well, \d+% phoneme errors, 0 made again", fourth)
    assert re.fullmatch(rf"model  {model}, the embedded one: 0\.\d million parameters, on cpu", first)
    said = re.fullmatch(
        rf"voice  {model}/prompt\.flac: ([0-9.]+) s, read in it by the tokenizer: (\S+)", second
    )
    assert said
    voice = Voice.from_audio(model / "prompt.flac", model=checkpoint.Model.load(model))
    assert (said[1], said[2]) == (f"{voice.seconds:.2f}", voice.phonemes)
    wrote = WROTE.fullmatch(third)
    assert wrote and wrote[1] == "out.wav"
    wav = samples(Path("out.wav"))
    assert f"{len(wav) / RATE:.2f}" == wrote[2]
    assert len(wav) > 5000 and float(np.abs(wav).max()) > 0.01


def test_same_seed_same_samples(infer: Infer, model: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert infer("--model", model, "--text", ONE, "--seed", seed, "--out", f"{name}.wav").status == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
    assert not np.array_equal(samples(Path("a.wav")), samples(Path("c.wav")))


def test_speed_divides_the_duration(infer: Infer, model: Path) -> None:
    lengths = {}
    for speed in (1, 0.5, 1.25):
        assert infer("--model", model, "--text", ONE, "--speed", speed, "--out", f"{speed}.wav").status == 0
        lengths[speed] = len(samples(Path(f"{speed}.wav"))) / 256 + 1  # frames
    assert lengths[0.5] == 2 * lengths[1] and lengths[1.25] == round(lengths[1] / 1.25)


@pytest.mark.parametrize("option", ["temperature", "steps", "guidance"])
def test_every_setting_reaches_the_model(infer: Infer, model: Path, option: str) -> None:
    # more steps of the solver, and guidance, on the same tokens; another temperature draws others
    for name, value in (("a", 0), ("b", 2)):
        value += option == "steps"
        assert (
            infer("--model", model, "--text", ONE, f"--{option}", value, "--out", f"{name}.wav").status == 0
        )
    assert not np.array_equal(samples(Path("a.wav")), samples(Path("b.wav")))


@pytest.mark.parametrize(
    ("ending", "kind"), [("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3")]
)
def test_every_format_has_the_printed_duration(infer: Infer, model: Path, ending: str, kind: str) -> None:
    status, out, err = infer("--model", model, "--text", MORE, "--out", f"speech.{ending}")
    assert status == 0
    wrote = WROTE.search(out)
    assert wrote and wrote[1] == f"speech.{ending}"
    info = soundfile.info(f"speech.{ending}")
    assert info.format == kind and info.channels == 1 and info.samplerate == RATE
    assert abs(info.duration - float(wrote[2])) < 0.02
    assert list(Path.cwd().iterdir()) == [Path.cwd() / f"speech.{ending}"]
    assert "3/3" in err and "sentence" in err  # several sentences have a progress bar


def test_a_long_text_is_its_sentences_with_pauses(infer: Infer, model: Path) -> None:
    (Path.cwd() / "text.txt").write_text(MORE, encoding="utf-8")
    assert infer("--model", model, "--text-file", "text.txt").status == 0
    wav = samples(Path("out.wav"))
    silent = np.flatnonzero(wav == 0)
    runs = [run for run in np.split(silent, np.flatnonzero(np.diff(silent) > 1) + 1) if len(run) > 1000]
    pause = round(0.15 * RATE)
    assert [abs(len(run) - pause) <= 8 for run in runs] == [True, True]
    assert float(np.abs(np.diff(wav))[runs[0][0] - 3 : runs[0][-1] + 3].max()) < 0.01  # no click


def test_text_from_everywhere_is_the_same_speech(infer: Infer, model: Path) -> None:
    text = "Größe – “naïve” café costs £3.50."
    Path("text.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())  # as Windows' editor writes it
    ways: list[tuple[list[object], bytes | None]] = [
        (["--text", text], None),
        (["--text-file", "text.txt"], None),
        (["--text-file", "-"], text.encode()),
        ([], text.encode() + b"\n"),
    ]
    for n, (args, stdin) in enumerate(ways):
        assert infer("--model", model, *args, "--out", f"{n}.wav", stdin=stdin).status == 0
    assert len({Path(f"{n}.wav").read_bytes() for n in range(len(ways))}) == 1


def test_an_existing_file_is_overwritten_only_by_force(infer: Infer, model: Path) -> None:
    Path("out.wav").write_text("mine")
    status, out, err = infer("--model", model, "--text", ONE)
    assert (status, out) == (2, "") and Path("out.wav").read_text() == "mine"
    assert err == "error: 'out.wav' exists already; choose another name, or overwrite it with --force\n"
    assert infer("--model", model, "--text", ONE, "--force").status == 0
    assert len(samples(Path("out.wav"))) > 5000


# ---------------------------------------------------------------------------- checks, times, pronunciations


@pytest.fixture
def unread(model: Path, tmp_path: Path) -> Path:
    """The same model, whose tokenizer is now expected to read well, and does not: its weights are random."""
    folder = Path(shutil.copytree(model, tmp_path / "models" / "unread"))
    (folder / "reading.json").unlink()
    return folder


def test_sentences_that_read_badly_are_warned_of(infer: Infer, unread: Path) -> None:
    status, out, err = infer("--model", unread, "--text", MORE, "--retries", 1)
    assert status == 0 and len(samples(Path("out.wav"))) > 5000
    lines = [line for line in err.splitlines() if line.startswith("warning: ")]
    pattern = r"warning: sentence (\d) of 3, '(.*)', may be said wrongly: .*phoneme.*, after 2 attempts"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [(m[1], m[2]) for m in found if m] == [
        (str(n), t) for n, t in enumerate(re.findall(r"\S.*?[.!]", MORE), 1)
    ]
    assert re.search(r"^check  0 of 3 sentences read well, \d+% phoneme errors, 3 made again$", out, re.M)


def test_many_warnings_are_cut_short(infer: Infer, unread: Path) -> None:
    _, _, err = infer("--model", unread, "--text", f"{MORE} {MORE} {MORE}", "--retries", 0)
    lines = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 6 and lines[-1] == "warning: so may be 4 others" and "at once" in lines[0]


def test_strict_writes_nothing(infer: Infer, unread: Path) -> None:
    args = ("--model", unread, "--text", ONE, "--retries", 1, "--timestamps", "a.srt", "--strict")
    status, out, err = infer(*args)
    assert status == 2 and out == ""
    assert (
        err.startswith(f"error: sentence 1, {ONE!r}, reads badly after 2 attempts (") and err.count("\n") == 1
    )
    assert [path.name for path in Path.cwd().iterdir()] == ["models"]


def test_strict_is_silent_where_all_is_well(infer: Infer, model: Path) -> None:
    status, _, err = infer("--model", model, "--text", ONE, "--strict")
    assert (status, err) == (0, "")


@pytest.mark.parametrize("ending", ["json", "srt", "vtt", "TextGrid"])
def test_timestamps_are_written_beside_the_speech(infer: Infer, model: Path, ending: str) -> None:
    text = "Dr. Smith paid $3.50."
    status, out, err = infer("--model", model, "--text", text, "--timestamps", f"a.{ending}")
    assert (status, err) == (0, "") and f"wrote  a.{ending}: the times of 4 words\n" in out
    written = Path(f"a.{ending}").read_text(encoding="utf-8")
    if ending == "json":
        read = json.loads(written)
        assert read["duration"] == round(len(samples(Path("out.wav"))) / RATE, 3)
        (sentence,) = read["sentences"]
        assert [word["text"] for word in sentence["words"]] == text.split()
        assert sentence["quality"]["attempts"] == 1
    else:
        assert "$3.50." in written
    status, _, err = infer("--model", model, "--text", text, "--timestamps", f"a.{ending}", "--out", "b.wav")
    assert status == 2 and f"'a.{ending}' exists already" in err and not Path("b.wav").exists()


def test_a_lexicon_changes_what_is_said(infer: Infer, model: Path) -> None:
    Path("words.txt").write_text("seal\tˈwɪn\n", encoding="utf-8")
    for name, text, more in (
        ("a", ONE, ()),
        ("b", ONE, ("--lexicon", "words.txt")),
        ("c", ONE.replace("seal", "<phoneme ph='ˈwɪn'>seal</phoneme>"), ()),
    ):
        assert infer("--model", model, "--text", text, "--out", f"{name}.wav", *more).status == 0
    assert Path("b.wav").read_bytes() == Path("c.wav").read_bytes() != Path("a.wav").read_bytes()


def test_a_pause_is_as_long_as_it_says(infer: Infer, model: Path) -> None:
    lengths = []
    for n, pause in enumerate(("0s", "800ms")):
        assert (
            infer("--model", model, "--text", f"Our aim. [pause {pause}] A seal.", "--out", f"{n}.wav").status
            == 0
        )
        lengths.append(len(samples(Path(f"{n}.wav"))))
    # no pause, no comma: the first sentence has a mark already, so both say the same
    assert lengths[1] - lengths[0] == round(0.8 * RATE)


def test_candidates_reach_the_model(infer: Infer, model: Path) -> None:
    for name, count in (("a", 1), ("b", 6)):
        assert (
            infer("--model", model, "--text", ONE, "--candidates", count, "--out", f"{name}.wav").status == 0
        )
    assert not np.array_equal(samples(Path("a.wav")), samples(Path("b.wav")))


@pytest.mark.parametrize(
    "option", [("--timestamps", "a.srt"), ("--strict",), ("--retries", "1"), ("--lexicon", "x")]
)
def test_what_is_about_a_text_does_not_go_with_conversion(
    infer: Infer, model: Path, recordings: dict[str, Path], option: tuple[str, ...]
) -> None:
    refused(infer("--model", model, "--convert", recordings["good"], *option), f"{option[0]} is about a text")


# -------------------------------------------------------------------------------------------------------- voices


@pytest.mark.parametrize("kind", ["good", "flac", "ogg", "stereo", "high", "mp3", "long"])
def test_recordings_of_any_kind_are_voices(
    infer: Infer, model: Path, recordings: dict[str, Path], kind: str
) -> None:
    status, out, err = infer("--model", model, "--text", ONE, "--voice", recordings[kind])
    assert (status, err) == (0, "")
    said = re.search(r"^voice  \S+: ([0-9.]+) s, read in it by the tokenizer: \S+$", out, re.M)
    assert said and float(said[1]) == pytest.approx(
        8.0 if kind == "long" else 3.0, abs=1.0 if kind == "long" else 0.4
    )


def test_a_saved_voice_is_its_recording(infer: Infer, model: Path, recordings: dict[str, Path]) -> None:
    same = ("--model", model, "--text", ONE, "--seed", 4)
    status, out, _ = infer(
        *same, "--voice", recordings["mp3"], "--save-voice", "me.safetensors", "--out", "a.wav"
    )
    assert status == 0 and "saved  me.safetensors\n" in out
    status, out, _ = infer(*same, "--voice", "me.safetensors", "--out", "b.wav")
    assert status == 0 and "voice  me.safetensors: " in out and "phonemes: " in out
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
    assert infer(*same, "--out", "c.wav").status == 0
    assert not np.array_equal(samples(Path("a.wav")), samples(Path("c.wav")))
    assert Voice.load("me.safetensors").origin == "mp3.mp3"


@pytest.mark.parametrize("stdin", [None, b"", b"\n"])
def test_a_voice_is_saved_without_a_text(
    infer: Infer, model: Path, recordings: dict[str, Path], stdin: bytes | None
) -> None:
    args = ("--model", model, "--voice", recordings["good"], "--save-voice", "me.safetensors")
    status, out, err = infer(*args, stdin=stdin)
    assert (status, err) == (0, "") and "wrote" not in out
    assert [p.name for p in Path.cwd().iterdir()] == ["me.safetensors"]
    status, _, err = infer(*args, stdin=stdin)
    assert status == 2 and "'me.safetensors' exists already" in err and "--force" in err
    assert infer(*args, "--force", stdin=stdin).status == 0


def test_the_text_of_a_voice_can_be_given(infer: Infer, model: Path, recordings: dict[str, Path]) -> None:
    args = (
        "--model",
        model,
        "--text",
        ONE,
        "--voice",
        recordings["good"],
        "--voice-text",
        "Some rain fell all day.",
    )
    _, out, err = infer(*args)
    assert err == "" and " s, said in it: sˌʌmɹˈeɪn" in out
    _, out, err = infer(*args, "--voice-language", "de", "--force")
    assert err == "" and "sˌʌmɹˈeɪn" not in out


def test_voices_that_ship(infer: Infer, model: Path) -> None:
    status, out, err = infer("--model", model, "--list-voices")
    assert (status, err) == (0, "")
    anna, zoe = (Voice.load(model / "voices" / f"{name}.safetensors").seconds for name in ("anna", "zoe"))
    assert out.splitlines() == [
        "name  seconds  origin",
        f"anna  {anna:7.1f}  made in a test",
        f"zoe   {zoe:7.1f}  -",
        f"without --voice: {model}/prompt.flac",
    ]
    status, out, _ = infer("--model", model, "--text", ONE, "--voice", "anna")
    assert status == 0 and f"voice  anna: {anna:.2f} s, phonemes: " in out
    assert list(Path.cwd().iterdir()) == [Path.cwd() / "out.wav"]


def test_a_model_without_voices(
    infer: Infer, tiny_model: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EMBEDDED", model)
    status, out, _ = infer("--model", tiny_model, "--list-voices")
    assert status == 0 and out.splitlines()[1:] == [f"without --voice: {model}/prompt.flac"]
    monkeypatch.setattr(checkpoint, "EMBEDDED", tiny_model)
    refused(infer("--model", tiny_model, "--text", ONE), "no voice comes with this model; give a recording")


def test_conversion(infer: Infer, model: Path, recordings: dict[str, Path]) -> None:
    args = ("--model", model, "--convert", recordings["other"], "--steps", 4)
    status, out, err = infer(*args, "--voice", "anna", "--out", "a.wav")
    assert (status, err) == (0, "")
    wrote = WROTE.search(out)
    wav = samples(Path("a.wav"))
    assert wrote and f"{len(wav) / RATE:.2f}" == wrote[2] and abs(len(wav) / RATE - 3.0) < 0.4
    assert infer(*args, "--voice", recordings["other"], "--out", "b.wav", stdin=b"not read").status == 0
    assert infer(*args, "--voice", "anna", "--out", "c.flac").status == 0
    assert (
        float(np.abs(wav - samples(Path("c.flac"))).max()) < 1.5 / 2**15
    )  # each rounds to 16 bits in its way
    assert not np.array_equal(wav, samples(Path("b.wav")))


# ----------------------------------------------------------------------------------------------------- bad input

BAD: list[tuple[list[str], list[str]]] = [
    # recordings: {good} and such stand for files
    (["--voice", "gone.wav"], ["no such audio file: 'gone.wav'", "check the path"]),
    (["--voice", "gone"], ["no voice or file named 'gone'", "voices that ship: anna, zoe"]),
    (["--voice", "x" * 5000], ["name too long"]),
    (["--voice", ""], ["is a folder"]),
    (["--voice", "{folder}"], ["folder.wav' is a folder"]),
    (["--voice", "{text}"], ["text.wav' cannot be read as audio", "give a wav, flac, ogg or mp3"]),
    (["--voice", "{noise}"], ["noise.mp3' cannot be read as audio"]),
    (["--voice", "{cut}"], ["cut.flac'"]),
    (["--voice", "{zero}"], ["zero.wav' is empty (0 bytes)"]),
    (["--voice", "{nothing}"], ["nothing.wav' is empty (0 samples)"]),
    (["--voice", "{short}"], ["short.wav' is too short (0.20 s): give at least 1 s"]),
    (["--voice", "{silent}"], ["silent.wav' is silent"]),
    (["--voice", "{click}"], ["click.wav: only 0.2", "are not silence"]),
    (["--voice", "{nan}"], ["nan.wav' holds NaN or infinite samples (first at 0.04 s)"]),
    (["--voice", "gone.safetensors"], ["gone.safetensors: no such voice file"]),
    (["--voice", "{text.safetensors}"], ["text.safetensors: not a saved voice"]),
    (["--voice", "{model}/lm.safetensors"], ["lm.safetensors: not a saved voice"]),
    (["--voice-text", "hello"], ["--voice-text", "give --voice, too"]),
    (["--voice", "anna", "--voice-text", "hello"], ["a saved voice has its text already"]),
    (["--voice", "{good}", "--voice-text", " "], ["the text is empty"]),
    (["--voice", "{good}", "--voice-text", "far too much for it " * 20], ["text is longer than the speech"]),
    (
        ["--voice", "{good}", "--voice-text", "hi", "--voice-language", "klingonese"],
        ["'klingonese' is unknown"],
    ),
    # texts
    (["--text", ""], ["the text is empty: give at least one word"]),
    (["--text", " \n\t"], ["the text is empty"]),
    (["--text", "... !"], ["nothing in '... !' can be spoken"]),
    (["--text", "🙂 → *"], ["can be spoken"]),
    (["--language", "klingonese"], ["language 'klingonese' is unknown"]),
    (["--language", ""], ["language '' is unknown"]),
    (["--text", "A [pause 3] b"], ["[pause 3] does not say how long in s or ms"]),
    (["--text", "<phoneme ph='!'>b</phoneme>"], ["'!' in the pronunciation '!' is no IPA symbol"]),
    (["--lexicon", "gone.txt"], ["no such lexicon: 'gone.txt'"]),
    (["--lexicon", "{text.safetensors}"], ["line 1: 'This is no voice.' is not of the form word<TAB>IPA"]),
    # outputs
    (
        ["--out", "speech.docx"],
        ["cannot tell the audio format of 'speech.docx'", ".wav, .flac, .ogg or .mp3"],
    ),
    (["--out", "speech"], ["cannot tell the audio format"]),
    (["--out", "gone/speech.wav"], ["no such folder to write into: 'gone'"]),
    (["--out", "{folder}"], ["folder.wav' is a folder"]),
    (["--out", "{good}"], ["good.wav' exists already", "--force"]),
    (["--timestamps", "a.txt"], ["'a.txt': timestamps are written as .json, .srt, .vtt or .TextGrid"]),
    (["--timestamps", "gone/a.srt"], ["no such folder to write into: 'gone'"]),
    (["--out", "x" * 300 + ".wav"], ["name too long"]),
    (["--save-voice", "me.wav"], ["me.wav: a voice is saved as .safetensors"]),
    (["--save-voice", "gone/me.safetensors"], ["no such folder to write into: 'gone'"]),
    (["--save-voice", "{text.safetensors}"], ["text.safetensors' exists already", "--force"]),
    # settings
    (["--speed", "3"], ["speed 3.0 is out of range; give a number from 0.5 to 2"]),
    (["--speed", "nan"], ["speed nan is out of range"]),
    (["--speed", "-1"], ["speed -1.0 is out of range"]),
    (["--speed", "fast"], ["argument --speed: invalid float value: 'fast'; see --help"]),
    (["--temperature", "-0.1"], ["temperature -0.1 is out of range"]),
    (["--steps", "0"], ["steps 0 is out of range"]),
    (["--steps", "1.5"], ["argument --steps: invalid int value: '1.5'"]),
    (["--guidance", "11"], ["guidance 11.0 is out of range"]),
    (["--seed", "-1"], ["seed -1 is out of range"]),
    (["--candidates", "0"], ["candidates 0 is out of range; give a whole number from 1 to 64"]),
    (["--retries", "11"], ["retries 11 is out of range; give a whole number from 0 to 10"]),
    (["--seed", "9" * 30], ["is out of range"]),
    (["--threads", "0"], ["threads 0 is out of range"]),
    (["--threads", "100000"], ["threads 100000 is out of range"]),
    (["--device", "nonsense"], ["device 'nonsense' cannot be used here", "try cpu"]),
    (["--device", "meta"], ["device 'meta' cannot be used here"]),
    (["--model", "gone"], ["gone: no such model folder"]),
    # the command line itself
    (["--colour", "red"], ["unrecognized arguments: --colour red; see --help"]),
    (["--tex", "hi"], ["unrecognized arguments: --tex hi"]),
    (["hello"], ["unrecognized arguments: hello"]),
    (["--text"], ["argument --text: expected one argument"]),
    (["--text-file", "a.txt"], ["argument --text-file: not allowed with argument --text"]),
    (["--convert", "{good}"], ["argument --convert: not allowed with argument --text"]),
]


@pytest.mark.parametrize(("args", "words"), BAD, ids=[" ".join(args)[:40] for args, _ in BAD])
def test_bad_input(
    infer: Infer, model: Path, recordings: dict[str, Path], args: list[str], words: list[str]
) -> None:
    def fill(text: str) -> str:
        return re.sub(r"\{([\w.]+)\}", lambda m: str(model if m[1] == "model" else recordings[m[1]]), text)

    before = {path: path.read_bytes() for path in recordings.values() if path.is_file()}
    refused(infer("--model", model, "--text", ONE, *map(fill, args)), *words)
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("silent", "is silent"),
        ("short", "too short (0.20 s)"),
        ("nan", "NaN or infinite"),
        ("text", "cannot be read as audio"),
        ("folder", "is a folder"),
        ("click", "are not silence"),
    ],
)
def test_bad_recording_to_convert(
    infer: Infer, model: Path, recordings: dict[str, Path], kind: str, words: str
) -> None:
    # the voice is good, and still not saved: all or nothing
    args = ("--voice", "anna", "--save-voice", "me.safetensors")
    refused(infer("--model", model, "--convert", recordings[kind], *args), words, recordings[kind].name)


def test_no_recording_to_convert(infer: Infer, model: Path) -> None:
    refused(infer("--model", model, "--convert", "gone.wav"), "no such audio file: 'gone.wav'")


def test_text_files_that_cannot_be_read(infer: Infer, model: Path, recordings: dict[str, Path]) -> None:
    refused(
        infer("--model", model, "--text-file", "gone.txt"), "no such text file: 'gone.txt'", "check the path"
    )
    refused(infer("--model", model, "--text-file", model), "is a folder; name a text file inside it")
    refused(infer("--model", model, "--text-file", recordings["zero"]), "the text is empty")
    latin = recordings["zero"].with_name("latin.txt")
    latin.write_bytes("Das ist schön.".encode("latin-1"))
    refused(
        infer("--model", model, "--text-file", latin), "latin.txt' is not text in UTF-8 (byte 0xf6 at 11)"
    )
    refused(infer("--model", model, "--text-file", recordings["mp3"]), "mp3.mp3' is not text in UTF-8")


def test_standard_input_without_a_text(infer: Infer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(infer("--model", model), "no text to speak; give --text", "--text-file", "pipe a text in")
    refused(infer("--model", model, "--text-file", "-"), "no text to speak")
    refused(infer("--model", model, stdin=b""), "the text is empty")
    refused(
        infer("--model", model, stdin=b"sch\xf6n"), "standard input is not text in UTF-8 (byte 0xf6 at 3)"
    )
    monkeypatch.setattr("sys.stdin", None)
    assert main(["--model", str(model)]) == 2


def test_models_that_cannot_be_used(
    infer: Infer, model: Path, tiny_configs: Any, tmp_path_factory: Any
) -> None:
    broken = Path(shutil.copytree(model, tmp_path_factory.mktemp("broken") / "model"))
    config = {
        "class_path": "codec.vocoders.vocos.VocosVocoder",
        "init_args": {"dim": 8, "spec": {"hop": 320}},
    }
    write_part(broken / "vocoder.safetensors", build(config), config, DEFAULT_SYMBOLS)
    args = ("--model", broken, "--text", ONE)
    refused(
        infer(*args),
        "vocoder.safetensors and the tokenizer do not fit",
        str(FrameSpec(hop=320)),
        str(FrameSpec()),
    )
    (broken / "vocoder.safetensors").write_bytes(b"not safetensors")
    refused(infer(*args), "vocoder.safetensors: cannot be read as safetensors")
    (broken / "vocoder.safetensors").unlink()
    refused(infer(*args), "not a whole model, vocoder missing")
    refused(infer("--model", broken / "gone", "--list-voices"), "no such model folder")


def test_a_disk_that_is_full(infer: Infer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    args = ("--model", model, "--text", ONE)
    refused(infer(*args), "'out.wav' cannot be written (No space left on device)")


@pytest.mark.parametrize("where", ["tts.pipeline.TTS.load", "tts.pipeline.TTS.synthesize", "os.replace"])
def test_an_interrupted_run_leaves_nothing(
    infer: Infer, model: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupt)
    assert infer("--model", model, "--text", ONE) == Result(130, "", "interrupted\n")
    assert list(Path.cwd().iterdir()) == []


def test_help_tells_the_defaults() -> None:
    text, settings = " ".join(_parser().format_help().split()), Settings()
    for name in ("speed", "seed", "temperature", "candidates", "retries"):
        told = re.search(rf"--{name} [XN] [^-]*default: ([0-9.]+)", text)
        assert told and float(told[1]) == getattr(settings, name), name
    for name in ("steps", "guidance"):
        assert re.search(rf"--{name} [XN] [^-]*default: the model's own", text), name
        assert getattr(settings, name) is None
    assert _parser().parse_args([]).language == DEFAULT_LANGUAGE == settings.language


# ---------------------------------------------------------------------------------------------- as a real process


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """``start(*args)`` -> Popen of ``python infer.py`` in an empty folder."""
    started: list[subprocess.Popen[Any]] = []

    def run(*args: object, **pipes: Any) -> subprocess.Popen[Any]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | pipes
        command = [sys.executable, str(ROOT / "infer.py"), *map(str, args)]
        # an ASCII terminal: phonemes and all must not make it fail
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=False, **pipes
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_process_speaks_what_is_piped_in(start: Any, model: Path, tmp_path: Path) -> None:
    process = start("--model", model, "--threads", 1, "--out", "é.wav", stdin=subprocess.PIPE)
    out, err = process.communicate(ONE.encode(), timeout=300)
    assert (process.returncode, err) == (0, b"")  # and not a warning of any library
    assert [line.split()[0] for line in out.splitlines()] == [b"model", b"voice", b"wrote", b"check"]
    assert b"wrote  ?.wav: " in out
    assert len(samples(tmp_path / "é.wav")) > 5000


def test_process_refuses_with_status_2(start: Any, model: Path, tmp_path: Path) -> None:
    process = start("--model", model, "--text", "...")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, b"")
    assert err == b"error: nothing in '...' can be spoken: give at least one word\n"
    assert list(tmp_path.iterdir()) == []


def test_process_whose_output_nobody_reads(start: Any, model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("--model", model, "--list-voices", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (141, b"")


def test_help_loads_no_models_library() -> None:
    code = (
        "import sys\nfrom tts.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'soundfile', 'safetensors'} & set(sys.modules), 'slow'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: infer.py ") and "--save-voice FILE" in done.stdout
