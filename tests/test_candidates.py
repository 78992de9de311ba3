"""The comparison over numbers of candidates: paired differences, the table, the plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tts import TTS, Settings
from tts.candidates import PLOT, TABLE, compare, main
from tts.evaluate import Case, read_cases
from tts.evaluate.figures import Figure, Values
from tts.evaluate.sample import Metric, Sample

TEXTS = ("Some rain fell.", "A lone seal sang to nobody.", "Nine men ran a mile in it.", "Our aim is low.")


class Errors(Metric):
    """So many word errors, by case and by how often it was asked: as if more candidates helped."""

    name = by = "errors"

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        return (
            Figure("wer", "word error rate", "word_errors", "words", "%", 1, "low"),
            Figure("similarity", "similarity", "similarity", digits=3, better="high"),
        )

    def measure(self, sample: Sample) -> Values:
        count = self.asked[sample.case.id] = self.asked.get(sample.case.id, 0) + 1
        hard = int(sample.case.id)
        return {"word_errors": hard + (2 if count == 1 else 0), "words": 10, "similarity": 0.5 + 0.1 * count}


@pytest.fixture
def cases(tmp_path: Path, make_speech: Any) -> list[Case]:
    soundfile.write(tmp_path / "p.wav", make_speech(2.0).numpy(), 24_000)
    rows = [json.dumps({"text": text, "prompt": "p.wav"}) for text in TEXTS]
    (tmp_path / "cases.jsonl").write_text("\n".join(rows) + "\n")
    return read_cases(tmp_path / "cases.jsonl")


def test_differences_are_paired(cases: list[Case], tiny_model: Path, tmp_path: Path) -> None:
    tts, out = TTS.load(tiny_model), tmp_path / "out"
    first, second = compare(cases, out, tts, Settings(steps=1), counts=(1, 3), metrics=[Errors()])
    assert (first.count, second.count) == (1, 3)
    assert first.figures["wer"].value == pytest.approx((1 + 2 + 3 + 4 + 8) / 40) and first.gained == {}
    assert second.figures["wer"].value == pytest.approx(10 / 40)
    # every case has lost two errors of ten: no draw of cases says anything else
    gained = second.gained["wer"]
    assert (gained.value, gained.low, gained.high) == pytest.approx((-0.2, -0.2, -0.2))
    assert second.gained["similarity"].value == pytest.approx(0.1)
    lines = (out / TABLE).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| candidates | word error rate | change | similarity | change |"
    assert lines[1] == "|---|---|---|---|---|"
    assert lines[2].startswith("| 1 | 45.0 % (") and lines[2].count(" - ") == 2
    assert "| -20.0 % (-20.0 to -20.0) | 0.700 (0.700 to 0.700) | +0.100 (+0.100 to +0.100) |" in lines[3]
    assert (out / PLOT).read_bytes().startswith(b"\x89PNG")
    # the sounds are really those of so many candidates
    settings = [
        json.loads((out / f"n{n}" / "results.json").read_text())["made_with"]["candidates"] for n in (1, 3)
    ]
    assert settings == [1, 3]


@pytest.mark.parametrize("counts", ["1,x", "0,1", "2,2", ""])
def test_bad_counts(counts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cases.jsonl", "--out", str(tmp_path / "out"), "--counts", counts]) == 2
    assert capsys.readouterr().err.startswith(f"error: --counts {counts!r} ")
