"""A whole evaluation on a model of random weights: what is made, measured, kept, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from codec.errors import UserError
from tests.evaluate.conftest import TEXTS, Loudness, Parrot, lower
from tts import TTS, Settings
from tts.evaluate import Results, evaluate
from tts.evaluate.cases import Case
from tts.evaluate.chain import Chain
from tts.evaluate.cost import Cost
from tts.evaluate.folder import Journal
from tts.evaluate.prosody import Prosody
from tts.evaluate.recognise import Intelligibility
from tts.evaluate.robustness import Robustness
from tts.evaluate.run import batches, check_rows, conditions, fingerprint
from tts.evaluate.sample import Metric
from tts.evaluate.similarity import Similarity

SETTINGS = Settings(steps=1, guidance=0.0, retries=0, batch=3)


class Counted:
    """How many batches of text were spoken, and stops at one of them."""

    def __init__(self, tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches, self.stop_at, self.speak = 0, -1, tts._speak_batch
        monkeypatch.setattr(tts, "_speak_batch", self)

    def __call__(self, *args: Any) -> Any:
        if self.batches == self.stop_at:
            raise KeyboardInterrupt
        self.batches += 1
        return self.speak(*args)


@pytest.fixture
def counted(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(tts, monkeypatch)


def heard(recogniser: Parrot) -> list[Metric]:
    return [Intelligibility(recogniser, lower)]


def run(cases: Sequence[Case], out: Path, tts: TTS, **given: Any) -> Results:
    given = {"settings": SETTINGS, "metrics": [Prosody(), Robustness(), Cost()], "players": 0} | given
    return evaluate(cases, out, tts, **given)


def test_everything(tts: TTS, cases: list[Case], tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = [*heard(Parrot()), Similarity(Loudness()), Prosody(), Robustness(), Cost()]
    results = run(cases, out, tts, metrics=metrics)

    assert list(results.rows) == ["text", "tokens", "vocoder", "recording"]
    assert results.counts == {"text": 3, "tokens": 2, "vocoder": 2, "recording": 2}
    # heard is always the first text, three words: no error in 3, then 10 in 10 and 7 in 7
    wer = results.rows["text"]["wer"]
    assert wer is not None and wer.cases == 3
    wrong = [sound["word_errors"] for sound in results.cases if sound["row"] == "text"]
    assert wrong == [0, 10, 7] and wer.value == 17 / 20
    assert results.rows["text"]["right"] is not None and results.rows["text"]["right"].value == 1 / 3
    assert results.rows["vocoder"]["per"] is None and results.rows["recording"]["rtf"] is None
    assert results.rows["tokens"]["rtf_lm"] is None and results.rows["tokens"]["rtf_acoustic"] is not None
    assert results.memory["main"] > 2**26

    read = json.loads((out / "results.json").read_text())
    assert read["rows"]["text"]["wer"] == vars(wer)
    assert read["measured_by"]["intelligibility"] == "parrot"
    assert read["contexts"]["similarity"]["different"]["cases"] == 4
    lines = [json.loads(line) for line in (out / "cases.jsonl").read_text().splitlines()]
    assert [(line["id"], line["row"]) for line in lines[:4]] == [
        ("one", "text"),
        ("two", "text"),
        ("three", "text"),
        ("one", "tokens"),
    ]
    for line in lines:
        assert soundfile.info(out / line["audio"]).duration == pytest.approx(line["seconds"], abs=1e-3)
        assert line["heard"] == "some rain fell" and -1 <= line["similarity"] <= 1.00001
    assert lines[1]["text"] == TEXTS[1]
    assert (out / "index.html").is_file()


def test_finished_cases_are_not_made_again(
    tts: TTS, cases: list[Case], tmp_path: Path, counted: Counted
) -> None:
    out, parrot = tmp_path / "out", Parrot()
    first = run(cases[:2], out, tts, rows=["text"], metrics=heard(parrot))
    assert (counted.batches, parrot.calls) == (1, 2)  # three sentences
    again = run(cases[:2], out, tts, rows=["text"], metrics=heard(parrot))
    assert (counted.batches, parrot.calls) == (1, 2)
    assert again.rows == first.rows and again.cases == first.cases
    # more cases, then another metric, then another recogniser: only what is new
    run(cases, out, tts, rows=["text"], metrics=heard(parrot))
    assert (counted.batches, parrot.calls) == (2, 3)
    run(cases, out, tts, rows=["text"], metrics=[*heard(parrot), Robustness()])
    other = Parrot("nothing", name="other")
    fewer = run(cases[:1], out, tts, rows=["text"], metrics=heard(other))
    assert (counted.batches, parrot.calls, other.calls) == (2, 3, 1)
    assert fewer.counts == {"text": 1} and [sound["heard"] for sound in fewer.cases] == ["nothing"]


def test_an_interrupted_one_goes_on(tts: TTS, cases: list[Case], tmp_path: Path, counted: Counted) -> None:
    out, settings = tmp_path / "out", replace(SETTINGS, batch=2)
    whole = run(cases, tmp_path / "whole", tts, settings=settings)
    assert counted.batches == 2  # a case of two sentences is not torn
    counted.batches, counted.stop_at = 0, 1
    with pytest.raises(KeyboardInterrupt):
        run(cases, out, tts, settings=settings)
    assert not (out / "results.json").exists()
    counted.stop_at = -1
    results = run(cases, out, tts, settings=settings)
    assert counted.batches == 2
    for mine, theirs in zip(results.cases, whole.cases, strict=True):
        assert (mine["id"], mine["row"], mine["seed"]) == (theirs["id"], theirs["row"], theirs["seed"])
        a, b = (soundfile.read(r.folder / s["audio"])[0] for r, s in ((results, mine), (whole, theirs)))
        assert a == pytest.approx(b, abs=1e-3)


def test_a_sound_that_was_lost_is_made_again(
    tts: TTS, cases: list[Case], tmp_path: Path, counted: Counted
) -> None:
    results = run(cases[:1], tmp_path / "out", tts, rows=["text"])
    lost = tmp_path / "out" / results.cases[0]["audio"]
    before = lost.read_bytes()
    lost.unlink()
    run(cases[:1], tmp_path / "out", tts, rows=["text"])
    assert counted.batches == 2 and lost.read_bytes() == before


def test_results_never_mix(tts: TTS, cases: list[Case], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(cases[:1], out, tts, rows=["text"])
    with pytest.raises(UserError) as caught:
        run(cases[:1], out, tts, rows=["text"], settings=replace(SETTINGS, steps=3, seed=1))
    assert str(caught.value) == (
        f"{out} was made with something else: seed 0 there and 1 now, steps 1 there and 3 now; "
        "choose another --out, or start anew with --force"
    )
    changed = TTS(replace(tts.model, lm=_other(tts.model.lm)))
    with pytest.raises(UserError, match="made with something else: fingerprint"):
        run(cases[:1], out, changed, rows=["text"])
    with pytest.raises(
        UserError, match=f"^case 'one' has another text or recording than when {out} was made"
    ):
        run([replace(cases[0], text="Other words.")], out, tts, rows=["text"])
    # a reference is nothing to the text row; a language that the case names is no setting
    run([replace(cases[0], reference=cases[1].reference)], out, tts, rows=["text"])
    run(cases[:1], out, tts, rows=["text"], settings=replace(SETTINGS, language="de", strict=True))


def _other(module: torch.nn.Module) -> Any:
    from copy import deepcopy

    other = deepcopy(module)
    next(other.parameters()).data[0] += 1
    return other


def test_force_starts_anew_and_takes_away_only_what_is_its_own(
    tts: TTS, cases: list[Case], tmp_path: Path, counted: Counted
) -> None:
    out = tmp_path / "out"
    run(cases, out, tts, rows=["text"])
    (out / "notes.txt").write_text("mine")
    results = run(cases[:1], out, tts, rows=["text"], settings=replace(SETTINGS, seed=4), force=True)
    assert counted.batches == 3
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in (out / "audio" / "text").iterdir()] == ["one.wav"]
    assert results.made_with["seed"] == 4


def test_folders_that_are_something_else(tts: TTS, cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    for force in (False, True):
        with pytest.raises(UserError, match="photos holds something else than an evaluation"):
            run(cases, tmp_path / "photos", tts, force=force)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    with pytest.raises(UserError, match=r"no such folder to write into: .*nowhere"):
        run(cases, tmp_path / "nowhere" / "out", tts)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; name a folder"):
        run(cases, tmp_path / "file", tts)


def test_rows(cases: list[Case]) -> None:
    assert check_rows(None, cases) == ["text", "tokens", "vocoder", "recording"]
    assert check_rows(None, cases[2:]) == ["text"]
    assert check_rows(["recording", "text"], cases) == ["text", "recording"]
    with pytest.raises(UserError, match="row 'vocoder' needs cases with a reference, and none has one"):
        check_rows(["vocoder"], cases[2:])
    with pytest.raises(UserError, match="no row named 'sound'; give some of text,tokens,vocoder,recording"):
        check_rows(["sound"], cases)
    with pytest.raises(UserError, match="no rows to make"):
        check_rows([], cases)


def test_batches_hold_whole_cases_of_like_length(tts: TTS, cases: list[Case]) -> None:
    def ids(size: int) -> list[list[str]]:
        return [
            [case.id for case in batch] for batch in batches(Chain(tts, replace(SETTINGS, batch=size)), cases)
        ]

    assert ids(1) == [["one"], ["three"], ["two"]]
    assert ids(2) == [["one", "three"], ["two"]]
    assert ids(4) == [["one", "three", "two"]]


def test_a_text_that_cannot_be_spoken_is_named(tts: TTS, cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^case 'dots': nothing in '\.\.\.' can be spoken"):
        run([cases[0], replace(cases[1], id="dots", text="...")], tmp_path / "out", tts)


def test_a_missing_package_is_told_before_anything_is_made(
    tts: TTS, cases: list[Case], tmp_path: Path, counted: Counted
) -> None:
    class Missing(Prosody):
        def require(self) -> None:
            raise UserError("not installed")

    with pytest.raises(UserError, match="not installed"):
        run(cases, tmp_path / "out", tts, metrics=[Missing()])
    assert counted.batches == 0 and not (tmp_path / "out").exists()


def test_what_a_model_is_known_by(tts: TTS, tiny_model: Path, tmp_path: Path) -> None:
    known = conditions(tts, SETTINGS)
    copy = TTS.load(shutil.copytree(tiny_model, tmp_path / "elsewhere"))
    assert known["fingerprint"] == fingerprint(copy)
    copy.reader.calibration = replace(copy.reader.calibration, error=0.5)
    assert known["fingerprint"] != fingerprint(copy)
    assert known["ranker"] == "by_reading" and known["steps"] == 1 and known["device"] == "cpu"
    assert "language" not in known and "strict" not in known
    mixed = conditions(TTS.load(tiny_model, precision="mixed", engine="transformers"), SETTINGS)
    assert mixed["precision"] == "mixed" and mixed["engine"] == "transformers"
    assert not {"precision", "engine"} & known.keys()  # what was measured before there were these goes on
    assert json.loads(json.dumps(known)) == known


def test_the_journal_survives_being_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.put({"x": 1}, "a", "b")
    journal.put({"x": 2}, "a", "c")
    journal.put({"x": 3}, "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole + '{"key": ["a", "d"], "value": "é'.encode()[:-1])
    again = Journal(path)
    assert again.get("a", "b") == {"x": 3} and again.get("a", "c") == {"x": 2} and again.get("a", "d") is None
    assert path.read_bytes() == whole
    again.put("new", "a", "d")
    assert Journal(path).get("a", "d") == "new"
    path.write_text('{"key": 1}\n')
    with pytest.raises(
        UserError, match=r"journal\.jsonl:1 is broken; start the evaluation anew with --force"
    ):
        Journal(path)
