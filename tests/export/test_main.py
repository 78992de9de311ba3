"""The command line: writes what it says, overwrites nothing, and says in one line what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tts.checkpoint import Model
from tts.export import __main__ as command
from tts.export.__main__ import main
from tts.export.note import FILE, Note


def test_writes_each_file_and_overwrites_none(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers")
    out, words = tmp_path / "lm", ["--to", "transformers", "--model", str(tiny_model), "--dtype", "float16"]
    assert main([str(out), *words]) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == sorted(
        line.split(": ")[0].rsplit("/", 1)[1] for line in printed.splitlines()
    )
    Note.read((out / FILE).read_text(), "x").require(Model.load(tiny_model), "x")
    assert main([str(out), *words]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([str(out), *words, "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["OUT", "--to", "gguf"], "ends in .gguf"),
        (["OUT/none/lm.gguf", "--to", "gguf"], "no such folder to write into"),
        (["OUT/file.gguf", "--to", "gguf"], "exists already"),
        (["OUT/file.gguf", "--to", "onnx"], "is a file; name a folder"),
        (["OUT/new", "--to", "onnx", "--dtype", "q8_0"], "give one of float32, int8"),
        (["OUT/new", "--to", "tensorflow"], "invalid choice"),
        (["OUT/new", "--to", "transformers", "--model", "OUT/none"], "no such model folder"),
    ],
)
def test_what_cannot_be_done(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: name)  # as if all were installed
    (tmp_path / "file.gguf").touch()
    assert main([word.replace("OUT", str(tmp_path)) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.gguf"]


def test_what_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main([str(tmp_path / "out"), "--to", "onnx"]) == 2
    assert (
        'needs onnx, onnxscript, onnxruntime, not installed here; run pip install ".[export]"'
        in capsys.readouterr().err
    )
