"""``python -m tts.data``: what it prints and writes, and that whatever is given wrong costs one line and status 2."""

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import speak
from tts.data.__main__ import _reader, main
from tts.data.manifest import read_manifest


class Result(NamedTuple):
    status: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *args: object) -> Result: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(*args)`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> Result:
        capsys.readouterr()
        status = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def lj(tmp_path: Path) -> Path:
    """An LJSpeech of three good utterances, one that is nearly silent, and a line without a recording."""
    root = tmp_path / "LJ"
    (root / "wavs").mkdir(parents=True)
    texts = ("Soft fog.", "She fixes it.", "His coat.", "Thick ice.")
    for n, text in enumerate(texts):
        wav = speak(text, seed=n, sample_rate=22_050).numpy() * (1e-3 if n == 3 else 1.0)
        soundfile.write(root / "wavs" / f"{n}.wav", wav, 22_050)
    lines = [f"{n}|{text}|{text}\n" for n, text in enumerate(texts)]
    (root / "metadata.csv").write_text("".join(lines) + "9|Gone.|Gone.\n")
    return root


def test_import_then_report_then_fix(run: Run, lj: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run("import", "LJ", "--out", "lj.jsonl")
    assert done.status == 0
    assert "left out: LJ/metadata.csv:5: no recording '9'" in done.err
    assert (
        "wrote lj.jsonl: 4 utterances, 0.00 hours, 1 speaker, en-us; read as ljspeech, 1 left out" in done.out
    )
    assert "note: what does not say its language counts as en-us" in done.out
    assert [row.audio for row in read_manifest("lj.jsonl")[0]] == [lj / "wavs" / f"{n}.wav" for n in range(4)]

    done = run("report", "lj.jsonl", "--html", "lj.html", "--fix", "good.jsonl", "--model", tiny_model)
    assert done.status == 0
    assert "nearly silent" in done.out
    assert "wrote lj.html" in done.out
    assert "wrote good.jsonl: 3 utterances; dropped: 1 silent; repaired: none" in done.out
    assert len(read_manifest("good.jsonl")[0]) == 3
    assert '<h2 id="silent">' in (tmp_path / "lj.html").read_text(encoding="utf-8")

    done = run("report", "lj.jsonl", "--html", "lj.html")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: lj.html exists already; choose another name, or overwrite it with --force\n"
    assert run("report", "lj.jsonl", "--html", "lj.html", "--no-reading", "--force").status == 0


def test_many_problems_are_listed_in_a_file(run: Run, lj: Path, tmp_path: Path) -> None:
    with open(lj / "metadata.csv", "a", encoding="utf-8") as file:
        file.write("x|Gone.|Gone.\n" * 30)
    done = run("import", "LJ")
    assert done.err.count("left out: LJ/metadata.csv:") == 20
    assert "left out: 11 more, all of them listed in manifest.jsonl.left_out.txt" in done.err
    assert len((tmp_path / "manifest.jsonl.left_out.txt").read_text().splitlines()) == 31


def test_a_recogniser_is_named_on_the_command_line(
    run: Run, lj: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Whisper:
        supported_languages = ("en",)

        def __init__(self, model: str, **settings: object) -> None:
            assert (model, settings) == ("tiny", {"device": "cpu", "compute_type": "int8"})

        def transcribe(self, wav: Any, **_: object) -> tuple[list[SimpleNamespace], None]:
            text = f" {len(wav)} samples"
            return [
                SimpleNamespace(text=text, no_speech_prob=0.0, avg_logprob=0.0, compression_ratio=1.0)
            ], None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Whisper))
    done = run("import", "LJ/wavs", "--transcribe", "tiny", "--device", "cpu", "--speaker", "linda")
    assert "note: 4 texts are by faster-whisper tiny, and marked so (text_by)" in done.out
    line = json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[0])
    assert line == {
        "audio": "LJ/wavs/0.wav",
        "text": f"{9 * 1280} samples",
        "speaker": "linda",
        "language": "en-us",
        "text_by": "faster-whisper tiny",
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["import"], "the following arguments are required: source"),
        (["import", "nowhere"], "nowhere: no such file or folder; check the path"),
        (["import", "LJ", "--format", "vits"], "format 'vits' is unknown; one of"),
        (["import", "LJ", "--out", "x.csv"], "--out x.csv: a manifest is written as .jsonl"),
        (["import", "LJ", "--out", "LJ"], "LJ is a folder; name a file inside it"),
        (["import", "LJ", "--seconds", "9", "3"], "--seconds 9 3: give 0.3 <= MIN < MAX <= 40"),
        (["import", "LJ", "--ignore-text"], "--ignore-text leaves nothing to learn from; give --transcribe"),
        (["import", "LJ", "--language", "xx"], "language 'xx' is unknown"),
        (["report", "nowhere.jsonl"], "nowhere.jsonl: cannot read the manifest"),
        (["report", "x.jsonl", "--drop", "clipped"], "--drop says what --fix leaves out; give --fix"),
        (
            ["report", "x.jsonl", "--fix", "y.jsonl", "--drop", "ugly"],
            "--drop 'ugly' is no kind of finding; one of",
        ),
        (["report", "x.jsonl", "--fix", "y.csv"], "--fix y.csv: a manifest is written as .jsonl"),
        (["report", "x.jsonl", "--model", "LJ"], "LJ: no features.safetensors in it; give a model folder"),
        (["report", "x.jsonl", "--oops"], "unrecognized arguments: --oops"),
        (["oops"], "'oops' is no command of tts.data; one of import, report"),
    ],
)
def test_what_is_given_wrong_costs_one_line(run: Run, lj: Path, args: list[str], words: str) -> None:
    done = run(*args)
    assert done.status == 2
    assert done.err.startswith("error: ")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not Path("manifest.jsonl").exists() and not Path("report.html").exists()


def test_help_tells_commands_and_formats(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert "python -m tts.data import LJSpeech-1.1 --out lj.jsonl" in run().out
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["import", "--help"])
    shown = capsys.readouterr().out
    for name in (
        "shar",
        "lhotse",
        "kaldi",
        "vctk",
        "libritts",
        "librispeech",
        "ljspeech",
        "gpt-sovits",
        "folder",
    ):
        assert f"\n  {name} " in shown


def test_the_reader_reads_what_the_tokenizer_reads_and_travels(tiny_model: Path) -> None:
    reader = _reader(tiny_model, "cpu")
    wav = speak("soft fog covers the hills", sample_rate=16_000)
    read = reader(wav, 16_000)
    assert read and all(reader.symbols.is_segment(i) for i in read)
    assert pickle.loads(pickle.dumps(reader))(wav, 16_000) == read
    assert reader(0.2 * wav, 16_000) == read  # brought to one loudness first
    assert reader(torch.from_numpy(np.random.default_rng(0).standard_normal(8000)).float(), 16_000) != read
