"""The command line: ``python -m tts.evaluate``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tts.evaluate import sample as sample_module
from tts.evaluate.__main__ import METRICS, _parser, chosen, main, make_metrics

FREE = "prosody,robustness,cost"  # metrics that need no package


def test_from_list_to_page(
    case_list: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [str(case_list), "--model", str(tiny_model), "--out", str(out), "--metrics", FREE]
    arguments += [
        "--limit",
        "2",
        "--rows",
        "text,recording",
        "--steps",
        "1",
        "--guidance",
        "0",
        "--retries",
        "0",
    ]
    arguments += ["--seed", "7", "--players", "1", "--threads", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "text, 2 cases" in printed.out and "recording, 2 cases" in printed.out
    assert "left out: intelligibility, similarity, naturalness" in printed.out
    assert f"wrote {out / 'index.html'}" in printed.out
    results = json.loads((out / "results.json").read_text())
    assert results["made_with"]["seed"] == 7 and results["made_with"]["steps"] == 1
    assert set(results["rows"]) == {"text", "recording"}
    # the same again goes on, other settings do not
    assert main(arguments) == 0
    assert "speak" not in capsys.readouterr().err
    assert main([*arguments, "--seed", "8"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "wer"], "no metric named 'wer'; give some of intelligibility,similarity,"),
        (["--metrics", ","], "no metric to measure"),
        (["--limit", "0"], "limit 0 is out of range"),
        (["--limit", "x"], "argument --limit: invalid int value: 'x'; see --help"),
        (["--threads", "0"], "threads 0 is out of range; give a whole number from 1 to 256"),
        (["--players", "-1"], "players -1 is out of range"),
        (["--steps", "0"], "steps 0 is out of range"),
        (["--rows", "noise"], "no row named 'noise'"),
        (["--naturalness", "ears"], "no judge of naturalness named 'ears'"),
        (["--encoder", "nothing:here"], "speaker encoder 'nothing:here' cannot be had"),
        (["--model", "nowhere"], "nowhere: no such model folder"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_cannot_be_used(
    case_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [str(case_list), "--out", str(tmp_path / "out")]
    given += [] if "--metrics" in arguments else ["--metrics", "naturalness" if "ears" in arguments else FREE]
    if "--encoder" in arguments:
        given[-1] = "similarity"
    assert main([*given, *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}") and printed.err.count("\n") == 1
    assert printed.out == "" and not (tmp_path / "out").exists()


def test_missing_packages_are_told_in_one_line(
    case_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "find_spec", lambda name: None)
    assert main([str(case_list), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "error: intelligibility needs jiwer, whisper-normalizer, faster-whisper, not installed here; "
        'run pip install ".[evaluate]", or leave it out with --metrics\n'
    )


def test_metrics_are_made_as_named() -> None:
    arguments = [
        "cases",
        "--out",
        "x",
        "--recogniser",
        "large-v3",
        "--encoder",
        "microsoft/wavlm-base-plus-sv",
    ]
    args = _parser().parse_args([*arguments, "--naturalness", "utmos"])
    assert [metric.name for metric in make_metrics(METRICS, args)] == list(METRICS)
    by = [metric.by for metric in make_metrics(["intelligibility", "similarity", "naturalness"], args)]
    assert by == ["faster-whisper large-v3, int8", "microsoft/wavlm-base-plus-sv", "UTMOS22 strong"]
    assert chosen("cost, similarity") == ["similarity", "cost"]


def test_help_loads_nothing() -> None:
    code = (
        "import sys; from tts.evaluate.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--recogniser" in done.stdout and done.stdout.endswith("False\n")
