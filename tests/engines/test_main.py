"""The comparison of engines: a line for each, and whether its tokens are torch's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tts.checkpoint import EMBEDDED
from tts.engines.__main__ import _same, main
from tts.lm.model import Aligned


def test_a_line_for_every_engine(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    voice = ["--voice", str(EMBEDDED / "prompt.flac")]
    assert main(["--model", str(tiny_model), *voice, "--text", "Ten. Two.", "--runs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["torch", "transformers"]
    assert all(line.endswith("100.0%") and "/s" in line for line in lines[2:])


def test_what_cannot_be_compared(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "0"]) == 2
    assert "--runs 0 is out of range" in capsys.readouterr().err


def test_tokens_count_until_the_first_other_one() -> None:
    one, other = Aligned(tokens=[1, 2, 3, 4]), Aligned(tokens=[1, 2, 9, 4])
    assert _same([one, other], [one, one]) == 6 / 8
    assert _same([Aligned(tokens=[1])], [one]) == 1 / 4
