"""The command line: ``python -m tts.benchmark``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tts.benchmark import __main__ as command
from tts.benchmark import reference
from tts.benchmark import section as section_module
from tts.benchmark.__main__ import SECTIONS, chosen, main, sections
from tts.benchmark.section import Bench, Plan, Point


def test_tables_and_json(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "speed.json"
    arguments = ["--only", "lm, acoustic", "--model", str(tiny_model), "--json", str(out)]
    arguments += ["--runs", "2", "--quick", "--threads", "1"]
    monkeypatch.setattr(section_module.Plan, "quick", lambda plan: small(plan))
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "LM float32, flow float32" in printed.out and "rounds    2" in printed.out
    assert "lm: decoding; words 5, threads 1\nbatch" in printed.out
    assert "acoustic: the flow decoder alone, one utterance in chunks; chunk 12" in printed.out
    assert "times as long for twice the sound, ours: " in printed.out
    assert "acoustic against steps" in printed.err and "lm against" not in printed.out
    made = json.loads(out.read_text())
    assert [(one["section"], one["against"]) for one in made["tables"]] == [
        ("lm", "batch"),
        ("lm", "words"),
        ("lm", "threads"),
        ("acoustic", "seconds"),
        ("acoustic", "chunk"),
        ("acoustic", "steps"),
        ("acoustic", "threads"),
    ]
    line = made["tables"][0]["lines"][0]
    assert line["label"] == "ids a second, one at a time"
    assert [len(cell["values"]) for cell in line["cells"]] == [2]
    assert made["plan"]["usual"]["words"] == 5
    # what is there stays, unless told otherwise
    assert main(arguments) == 2
    assert "speed.json' exists already; choose another name" in capsys.readouterr().err


def small(plan: Plan) -> Plan:
    usual = Point(words=5, seconds=1, steps=1)
    return Plan(plan.runs, usual, (5,), (1, 2), (1,), (1,), (1,), (12,), sentences=1, ids=4, large=2**12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "no section named 'speed'; give some of parts,batch,lm,acoustic,stream,memory"),
        (["--only", ","], "no section to measure"),
        (["--runs", "0"], "runs 0 is out of range; give a whole number from 1 to 1000"),
        (["--runs", "x"], "argument --runs: invalid int value: 'x'; see --help"),
        (["--threads", "0"], "threads 0 is out of range"),
        (["--json", "."], "--json '.' is a folder; name a file"),
        (["--json", "nowhere/speed.json"], "no such folder to write into: nowhere"),
        (["--model", "nowhere"], "nowhere: no such model folder"),
        (["--voice", "nobody"], "no voice or file named 'nobody'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_cannot_be_used(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    model = [] if "--model" in arguments else ["--model", str(tiny_model)]
    assert main([*model, *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}") and printed.err.count("\n") == 1
    assert printed.out == ""


def test_without_transformers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "find_spec", lambda name: None)
    assert main(["--only", "lm"]) == 2
    assert capsys.readouterr().err == (
        "error: the reference needs transformers, not installed here; "
        'run pip install ".[benchmark]", or give --only acoustic\n'
    )


def test_sections_come_in_our_order(bench: Bench) -> None:
    assert chosen("stream,lm") == ["lm", "stream"]
    made = sections(SECTIONS, bench)
    assert [section.name for section in made] == list(SECTIONS)
    varied = {against for section in made for against in section.varied}
    assert varied == {"words", "seconds", "batch", "threads", "steps", "chunk"}


def test_the_plan_covers_what_is_promised() -> None:
    plan = Plan(command.RUNS, Point())
    assert {10, 40, 120} <= set(plan.words) and {1, 4, 16} <= set(plan.batch)
    assert {2, 20} <= set(plan.steps) and plan.sentences == 16
    quick: Any = plan.quick()
    assert quick.ids < plan.ids and max(quick.words) <= plan.words[0]


def test_help_loads_nothing() -> None:
    code = (
        "import sys; from tts.benchmark.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--only" in done.stdout and done.stdout.endswith("False\n")
