"""``python -m tts.align``: times of recordings whose times are known, and what its command line does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor, nn

from codec.errors import AudioError, UserError
from tts import checkpoint
from tts.align import Aligner, main
from tts.checkpoint import Model
from tts.readback import Calibration
from tts.text import DEFAULT_SYMBOLS, Frontend, Lexicon, TextError

RATE, TOKEN = 24_000, 4 * 256
TEXT = "Some rain fell. A lone seal sang."


class Oracle(nn.Module):
    """A tokenizer that reads off a ramp of frames where in the recording it is, and knows what is said there.

    Args:
        said: (seconds, phoneme id), in order.
    """

    def __init__(self, real: Any, said: list[tuple[float, int]]) -> None:
        super().__init__()
        self.spec, self.reads_per_token = real.spec, 2
        self.weight = nn.Parameter(torch.zeros(1))
        self.said = said
        self.rows: list[int] = []
        self._starts = type(real).starts

    def encode(self, frames: Tensor) -> tuple[Tensor, None]:
        self.rows.append(frames.shape[1] // 4)
        return frames[:, ::4, 0].round().long(), None

    def token_log_probs(self, tokens: Tensor, lens: Tensor) -> Tensor:
        logits = torch.zeros(len(tokens), 2 * tokens.shape[1], len(DEFAULT_SYMBOLS))
        logits[..., 0] = 10.0
        for b, row in enumerate(tokens.tolist()):
            for n, token in enumerate(row[: int(lens[b])]):
                for half in (0, 1):
                    low, high = ((token + (half + d) / 2) * TOKEN / RATE for d in (0, 1))
                    for seconds, symbol in self.said:
                        if low <= seconds < high:
                            logits[b, 2 * n + half, symbol] = 20.0
        return logits.log_softmax(-1)

    def starts(self, log_probs: Tensor, phonemes: Tensor) -> Tensor:
        out: Tensor = self._starts(self, log_probs, phonemes)  # type: ignore[arg-type]
        return out


class Ramp(nn.Module):
    """Frames that say which token they belong to."""

    def forward(self, wav: Tensor) -> Tensor:
        count = wav.shape[1] // 256 + 1
        return (torch.arange(count) // 4).float()[None, :, None].expand(len(wav), -1, 100)


def oracle(tiny_model: Path, said: list[tuple[float, int]]) -> Aligner:
    """An aligner that hears exactly what is said, 30 ms late as a trained one does."""
    model = Model.load(tiny_model)
    fake = Oracle(model.tokenizer, [(seconds + 0.03, symbol) for seconds, symbol in said])
    aligner = Aligner(replace(model, tokenizer=fake, features=Ramp()))  # type: ignore[arg-type]
    aligner.reader.calibration = Calibration()  # the tiny model's own lets everything pass
    return aligner


def timetable(text: str, step: float) -> list[tuple[float, int]]:
    """The segments of a text, one every `step` seconds."""
    ids = [i for one in Frontend()(text) for i in one.ids]
    return [(0.1 + n * step, i) for n, i in enumerate(DEFAULT_SYMBOLS.segments(ids))]


def noise(seconds: float) -> Tensor:
    return 0.1 * torch.randn(round(seconds * RATE))


@pytest.mark.parametrize("step", [0.06, 0.08, 0.15])
def test_words_are_where_they_are_said(tiny_model: Path, step: float) -> None:
    said = timetable(TEXT, step)
    found = oracle(tiny_model, said)(noise(0.5 + len(said) * step), TEXT)
    assert found.quality is not None and (found.quality.error, found.quality.coverage) == (0.0, 1.0)
    assert [cue.text for cue in found.cues] == ["Some rain fell. A lone seal sang."]
    words = [word for cue in found.cues for word in cue.words]
    assert [word.text for word in words] == TEXT.split()
    at = 0
    for word in words:
        # reading positions are half a token apart
        assert word.start == pytest.approx(said[at][0], abs=TOKEN / RATE / 2)
        at += len(DEFAULT_SYMBOLS.segments(DEFAULT_SYMBOLS.encode("".join(p.text for p in word.phonemes))))
    assert at == len(said)


def test_long_recordings_are_read_in_pieces_and_timed_as_one(tiny_model: Path) -> None:
    text = "\n\n".join([TEXT] * 12)
    said = timetable(text, 0.12)
    aligner = oracle(tiny_model, said)
    found = aligner(noise(0.5 + len(said) * 0.12), text)
    assert len(aligner.model.tokenizer.rows) > 2 and max(aligner.model.tokenizer.rows) < 15.1 * RATE / TOKEN
    assert len(found.cues) == 12
    starts = [s for n, (s, _) in enumerate(said) if n % (len(said) // 12) == 0]
    assert [cue.start for cue in found.cues] == pytest.approx(starts, abs=TOKEN / RATE / 2)
    assert found.quality is not None and found.quality.error < 0.01  # where it is cut, one may be lost


def test_a_reading_alone(tiny_model: Path) -> None:
    said = timetable("Our aim.", 0.1)
    found = oracle(tiny_model, said)(noise(1.5), None)
    assert found.read == DEFAULT_SYMBOLS.decode(i for _, i in said)
    assert found.quality is None and found.cues == [] and found.seconds == 1.5


def test_another_text_reads_badly(tiny_model: Path) -> None:
    said = timetable(TEXT, 0.1)
    found = oracle(tiny_model, said)(noise(4.0), "Nobody knows it.")
    assert found.quality is not None and not found.quality.ok and found.quality.error > 0.5


def test_a_lexicon_and_a_language(tiny_model: Path) -> None:
    said = timetable("/ˈwɪn/ and win", 0.1)
    aligner = oracle(tiny_model, said)
    words = Lexicon({"nguyen": "ˈwɪn"})
    assert aligner(noise(2.0), "Nguyen and win", lexicon=words).quality.error == 0.0  # type: ignore[union-attr]
    assert aligner(noise(2.0), "Nguyen and win").quality.error > 0.2  # type: ignore[union-attr]
    assert aligner(noise(2.0), "ja", language="de").quality.error > 0.5  # type: ignore[union-attr]


def test_what_cannot_be_aligned(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = Aligner(Model.load(tiny_model))
    with pytest.raises(UserError, match=r"the text is longer than the speech \(\d+ phonemes in 0\.5 s\)"):
        aligner(noise(0.5), "Nobody knows what it was that it wanted there.")
    with pytest.raises(AudioError, match="no such audio file"):
        aligner(tmp_path / "gone.wav", "A")
    with pytest.raises(TextError, match="can be spoken"):
        aligner(noise(0.5), "...")
    monkeypatch.setattr("tts.align.LONGEST", 1.0)
    with pytest.raises(UserError, match="longer than 1 s; cut it and its text into parts"):
        aligner(noise(1.1), "A")


# -------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def folder(tiny_model: Path, make_speech: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and a recording."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "model")
    soundfile.write("me.wav", make_speech(3.0).numpy(), RATE)
    return tmp_path


ARGS = ("me.wav", "--model", "model", "--text", "Some rain fell all day.")


def test_the_words_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGS]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("read   ") and out[1].startswith("check  ")
    assert [line.split()[2] for line in out[2:]] == ["Some", "rain", "fell", "all", "day."]
    times = [float(x) for line in out[2:] for x in line.split()[:2]]
    assert times == sorted(times) and times[-1] <= 3.0
    assert main(["me.wav", "--model", "model"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("ending", ["json", "srt", "vtt", "TextGrid"])
def test_every_format_is_written(folder: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGS, "--out", f"me.{ending}"]) == 0
    text = Path(f"me.{ending}").read_text(encoding="utf-8")
    assert "rain" in text
    assert f"wrote  me.{ending}: the times of 5 words" in capsys.readouterr().out
    assert main([*ARGS, "--out", f"me.{ending}"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert Path(f"me.{ending}").read_text(encoding="utf-8") == text
    assert main([*ARGS, "--out", f"me.{ending}", "--force"]) == 0


def test_a_manifest_is_read_and_calibrates(
    make_corpus: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(speakers=1, utterances=3)
    with manifest.open("a") as file:
        row = json.loads(manifest.read_text().splitlines()[0])
        file.write(json.dumps({**row, "audio": "gone.wav"}) + "\n")
        soundfile.write(manifest.parent / "short.wav", 0.1 * torch.randn(8000).numpy(), RATE)
        file.write(json.dumps({**row, "audio": "short.wav"}) + "\n")
    args = ["--manifest", str(manifest), "--model", "model"]
    assert main([*args, "--out", "readings.jsonl"]) == 0
    captured = capsys.readouterr()
    assert "gone.wav" in captured.err and "short.wav: the text is longer than the speech" in captured.err
    lines = [json.loads(line) for line in Path("readings.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [
        "speaker0_0.wav",
        "speaker0_1.wav",
        "speaker0_2.wav",
        "short.wav",
    ]
    assert "problem" in lines[3] and "error" not in lines[3]
    aligner = Aligner(Model.load("model"))
    alone = aligner(Path(lines[1]["audio"]), lines[1]["text"])
    assert lines[1]["read"] == alone.read
    assert [text for text, _, _ in lines[1]["words"]] == lines[1]["text"].split()
    wanted = sum(len(line["wanted"]) for line in lines[:3])
    error = sum(line["error"] * len(line["wanted"]) for line in lines[:3]) / wanted
    assert f"3 recordings, {error:.1%} phoneme errors" in captured.out

    before = json.loads(Path("model/reading.json").read_text())
    assert main([*args, "--calibrate"]) == 2
    assert "reading.json exists already; replace it with --force" in capsys.readouterr().err
    assert main([*args, "--calibrate", "--force"]) == 0
    note = json.loads(Path("model/reading.json").read_text())
    assert note["error"] == pytest.approx(error, abs=1e-3) and note["skip"] == before["skip"]
    assert Aligner(Model.load("model")).reader.calibration.error == note["error"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give a recording or --manifest FILE, one of them"),
        (["me.wav", "--manifest", "m.jsonl"], "one of them"),
        (["me.wav", "--calibrate"], "--calibrate needs many recordings"),
        (["me.wav", "--out", "a.srt"], "--out is for the times of a text"),
        (
            ["me.wav", "--text", "Hi", "--out", "a.txt"],
            "timestamps are written as .json, .srt, .vtt or .TextGrid",
        ),
        (["me.wav", "--text", "Hi", "--out", "gone/a.srt"], "no such folder to write into: 'gone'"),
        (["me.wav", "--text-file", "gone.txt"], "no such text file: 'gone.txt'"),
        (["gone.wav", "--text", "Hi"], "no such audio file: 'gone.wav'"),
        (["me.wav", "--text", "..."], "nothing in '...' can be spoken"),
        (["me.wav", "--text", "Hi", "--language", "klingonese"], "language 'klingonese' is unknown"),
        (["me.wav", "--text", "Hi", "--lexicon", "gone.txt"], "no such lexicon: 'gone.txt'"),
        (["me.wav", "--text", "Hi", "--device", "nonsense"], "device 'nonsense' cannot be used here"),
        (["--manifest", "gone.jsonl"], "gone.jsonl"),
        (["--manifest", "gone.jsonl", "--out", "a.srt"], "end the name in .jsonl"),
        (["me.wav", "--colour"], "unrecognized arguments: --colour; see --help"),
    ],
)
def test_bad_input(folder: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert main([*args, "--model", "model"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(folder.iterdir()) == before


def test_the_embedded_model_is_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "EMBEDDED", folder / "model")
    checkpoint._embedded.cache_clear()
    try:
        assert main(["me.wav", "--text", "Some rain fell."]) == 0
    finally:
        checkpoint._embedded.cache_clear()
    assert "fell." in capsys.readouterr().out
