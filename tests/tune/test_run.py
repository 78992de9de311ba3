"""The whole way from a manifest to a tuned model, a few steps on a model of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codec.errors import UserError
from tts import TTS
from tts.checkpoint import ADAPTER, Model, read_part
from tts.data.prepare import read_cuts
from tts.training.fit import run_stage
from tts.tune.__main__ import main
from tts.tune.held_out import STRENGTHS, Choice, best_strength, blended, held_out_loss, reading_error
from tts.tune.run import Tuning, best_prompt
from tts.tune.sentences import ENGLISH
from tts.tune.verdict import Verdict, other_cases, own_cases

QUIET = (
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.logger=false",
)


def train(arguments: list[str]) -> None:
    run_stage(["fit", *arguments])


@pytest.fixture
def manifest(make_corpus: Callable[..., Path]) -> Path:
    return make_corpus(speakers=2, utterances=3, seconds=2.4)


def weights(model: Model) -> dict[str, dict[str, torch.Tensor]]:
    return {
        part: dict(getattr(model, part).state_dict()) for part in ("tokenizer", "lm", "acoustic", "vocoder")
    }


def changed(a: Model, b: Model) -> set[str]:
    """The parts of which some weight differs."""
    left, right = weights(a), weights(b)
    return {part for part in left if any(not torch.equal(v, right[part][k]) for k, v in left[part].items())}


@pytest.fixture
def all_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps on random weights may lower no loss; here all that is learnt counts as a gain."""
    monkeypatch.setattr("tts.tune.run.best_strength", lambda *_: Choice(1.0, 0.2, 0.1))
    monkeypatch.setattr("tts.tune.run.reading_error", lambda *_: 0.1)


@pytest.mark.parametrize("lora", [2, 0])
@pytest.mark.usefixtures("all_helps")
def test_lm_and_acoustic_are_tuned_and_the_rest_is_the_base(
    lora: int, manifest: Path, tiny_model: Path, tmp_path: Path
) -> None:
    tuning = Tuning(manifest, tmp_path / "out", tiny_model, lora=lora, steps=3, overrides=QUIET)
    folder = tuning.run(train)

    assert (folder / ADAPTER).is_file() == (lora > 0)
    assert (folder / "lm.safetensors").is_file() == (lora == 0)
    base, tuned = Model.load(tiny_model), Model.load(folder)
    assert changed(base, tuned) == {"lm", "acoustic"}
    assert tuned.tokenizer_id == base.tokenizer_id
    tts = TTS(tuned)
    voices = sorted(path.stem for path in (folder / "voices").glob("*.safetensors"))
    assert len(voices) == 2
    spoken = tts.synthesize("A lone seal.", tts.voice(voices[0]), steps=2)
    assert spoken.duration > 0.2 and spoken.wav.isfinite().all()

    # started again, nothing is trained again, and what was tuned is what it was
    again = Tuning(manifest, tmp_path / "out", tiny_model, lora=lora, steps=3, overrides=QUIET).run(
        lambda arguments: pytest.fail(f"trained again: {arguments}")
    )
    assert not changed(tuned, Model.load(again))

    cases = own_cases(tuning, base)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    held_out = [row["text"] for row in lines if row["split"] == "dev"]
    assert sorted(case.text for case in cases) == sorted([*held_out, *ENGLISH])
    assert len({case.id for case in cases}) == len(cases)
    prompts = {case.speaker: best_prompt(base, [c for c in tuning.cuts("train") if c.id.startswith(case.speaker)])
               for case in cases if case.speaker}  # fmt: skip
    for case in cases:
        assert case.speaker and case.prompt == Path(prompts[case.speaker].recording.sources[0].source)


@pytest.mark.parametrize("lora", [2, 0])
def test_a_stage_that_learnt_nothing_of_use_stays_as_it_was(
    lora: int, manifest: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = iter([Choice(0.0, 1.0, 1.0), Choice(0.5, 1.0, 0.9)])  # of the LM, of the decoder
    monkeypatch.setattr("tts.tune.run.best_strength", lambda *_: next(choices))
    tuning = Tuning(manifest, tmp_path / "out", tiny_model, lora=lora, steps=3, overrides=QUIET)
    assert changed(Model.load(tiny_model), Model.load(tuning.run(train))) == {"acoustic"}


@pytest.mark.parametrize(("after", "parts"), [(0.11, {"acoustic"}), (0.10, {"acoustic", "lm"})])
def test_an_lm_that_writes_what_reads_worse_stays_as_it_was(
    after: float,
    parts: set[str],
    manifest: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors, said = iter([0.10, after]), []

    def read(tts: TTS, *rest: Any) -> float:
        said.append(rest)
        return next(errors)

    monkeypatch.setattr("tts.tune.run.best_strength", lambda *_: Choice(1.0, 0.2, 0.1))
    monkeypatch.setattr("tts.tune.run.reading_error", read)
    tuning = Tuning(manifest, tmp_path / "out", tiny_model, lora=2, steps=3, overrides=QUIET)
    assert changed(Model.load(tiny_model), Model.load(tuning.run(train))) == parts
    texts, voices = said[0]
    assert set(texts["en-us"]) > set(ENGLISH) and len(voices) == 2


@pytest.mark.parametrize("lora", [2, 0])
@pytest.mark.usefixtures("all_helps")
def test_half_of_what_was_learnt_is_half_way_from_the_base(
    lora: int, manifest: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = Tuning(manifest, tmp_path / "out", tiny_model, lora=lora, steps=3, overrides=QUIET)
    base, whole = weights(Model.load(tiny_model)), weights(Model.load(tuning.run(train)))
    monkeypatch.setattr("tts.tune.run.best_strength", lambda *_: Choice(0.5, 0.2, 0.1))
    half = weights(Model.load(tuning.run(train)))
    for stage in ("lm", "acoustic"):
        for name, weight in half[stage].items():
            expected = (base[stage][name] + whole[stage][name]) / 2
            torch.testing.assert_close(weight, expected, msg=f"{stage}.{name}")


@pytest.mark.parametrize(
    ("losses", "choice"),
    [
        ((1.0, 0.9, 0.75, 0.70, 0.70), Choice(0.75, 1.0, 0.70)),
        ((1.0, 0.9, 0.72, 0.70, 0.70), Choice(0.5, 1.0, 0.72)),  # nine tenths of the gain
        ((1.0, 0.9, 0.95, 1.1, 1.3), Choice(0.25, 1.0, 0.9)),
        ((1.0, 1.0, 1.1, 1.2, 1.3), Choice(0.0, 1.0, 1.0)),
    ],
)
def test_no_more_strength_than_brings_nearly_all(
    losses: tuple[float, ...], choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, learnt = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(base.weight)
    torch.nn.init.ones_(learnt.weight)
    at = dict(zip((0.0, *STRENGTHS), losses, strict=True))
    monkeypatch.setattr("tts.tune.held_out.held_out_loss", lambda net, _: at[float(net.weight.detach())])
    assert best_strength(base, learnt, []) == choice
    assert float(learnt.weight.detach()) == 1 and float(blended(base, learnt, 0.25).weight.detach()) == 0.25


def test_reading_error_is_what_the_tokenizer_misreads() -> None:
    tts = TTS.load()
    voices = {name: tts.voice(name) for name in sorted(tts.model.voices())[:1]}
    clear = reading_error(tts, {"en-us": ENGLISH[:4]}, voices)
    assert clear < 0.3
    assert reading_error(tts, {"en-us": ENGLISH[:4]}, voices) == clear  # the same draws
    torch.nn.init.normal_(tts.model.lm.llama.lm_head.weight)
    assert reading_error(tts, {"en-us": ENGLISH[:4]}, voices) > clear + 0.2


def test_held_out_loss_is_the_same_for_the_same_weights_and_knows_better_ones(
    manifest: Path, tiny_model: Path, tmp_path: Path
) -> None:
    tuning = Tuning(manifest, tmp_path / "out", tiny_model, lora=0, lr=1e-3, steps=15, overrides=QUIET)
    folder = tuning.run(train)
    for stage in ("lm", "acoustic"):
        known = tuning.cuts("train")
        before, again, after = (
            held_out_loss(read_part(one / f"{stage}.safetensors")[0], known)
            for one in (tiny_model, tiny_model, folder)
        )
        assert before == again
        assert after < before


def test_base_data_is_replayed_as_much_as_is_new(
    manifest: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tts.tune.run.LEAST_REPLAY", 0.0)
    first = Tuning(manifest, tmp_path / "first", tiny_model, steps=1, overrides=QUIET)
    first.run(train)
    seen: list[list[str]] = []
    tuning = Tuning(
        manifest, tmp_path / "second", tiny_model, steps=1, replay=[tmp_path / "first" / "tokens"] * 3
    )

    def noted(arguments: list[str]) -> None:
        seen.append(arguments)
        train([*arguments, *QUIET])

    tuning.run(noted)
    new = sum(cut.duration for cut in tuning.cuts("train"))
    replayed = sum(cut.duration for cut in read_cuts(tmp_path / "second" / "replay" / "cuts_train.jsonl.gz"))
    assert new <= replayed < new + 3
    assert "replay" in Path(seen[0][1]).read_text()


def test_what_is_new_keeps_its_share_beside_more_base_data(
    manifest: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tts.tune.run.LEAST_REPLAY", 0.0)
    Tuning(manifest, tmp_path / "first", tiny_model, steps=1, overrides=QUIET).run(train)
    monkeypatch.setattr("tts.tune.run.LEAST_REPLAY", 25.0)
    base = [tmp_path / "first" / "tokens"] * 4
    tuning = Tuning(manifest, tmp_path / "second", tiny_model, steps=1, replay=base, overrides=QUIET)
    tuning.run(train)
    new = tuning.cuts("train")
    mixed = list(read_cuts(tmp_path / "second" / "replay" / "cuts_train.jsonl.gz"))
    copies = [cut for cut in mixed if "~" in cut.id]
    replayed = sum(cut.duration for cut in mixed if "~" not in cut.id)
    assert replayed >= 25
    shown = sum(cut.duration for cut in [*new, *copies])
    assert abs(shown - replayed) <= sum(cut.duration for cut in new) / 2
    assert len({cut.id for cut in copies}) == len(copies)


def test_other_voices_are_those_of_the_base(tiny_model: Path, tmp_path: Path) -> None:
    assert other_cases(TTS.load(tiny_model), tmp_path / "none") == []  # it has no voices
    cases = other_cases(TTS.load(), tmp_path / "prompts")
    assert {case.speaker for case in cases} == set(TTS.load().model.voices())
    assert all(case.prompt.is_file() for case in cases)


def test_what_cannot_be_tuned_is_named(manifest: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: no such manifest"):
        Tuning(tmp_path / "none.jsonl", tmp_path / "out", tiny_model).check()
    adapted = tmp_path / "adapted"
    adapted.mkdir()
    (adapted / ADAPTER).write_bytes(b"")
    with pytest.raises(UserError, match="is tuned with adapters itself"):
        Tuning(manifest, tmp_path / "out", adapted).check()
    Tuning(manifest, tmp_path / "out", tiny_model).check()
    other = tmp_path / "other.jsonl"
    other.write_text(manifest.read_text() + "\n")
    with pytest.raises(UserError, match="holds the tuning of another base or manifest"):
        Tuning(other, tmp_path / "out", tiny_model).check()


@pytest.mark.parametrize(("better", "status"), [(True, 0), (False, 1)])
def test_only_what_is_better_is_kept(
    better: bool,
    status: int,
    manifest: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "tts.tune.verdict.measure", lambda tuning, metrics: Verdict(better, False, ("this is why",))
    )
    out = tmp_path / "out"
    arguments = [
        "--manifest",
        str(manifest),
        "--out",
        str(out),
        "--model",
        str(tiny_model),
        "--steps",
        "1",
        *QUIET,
    ]
    assert main(arguments) == status
    printed = capsys.readouterr().out
    assert "this is why" in printed
    assert (out / "model" / ADAPTER).is_file() == better
    assert (out / "tuned" / ADAPTER).is_file()
    assert ("finished" in printed) == better and ("kept the base" in printed) != better


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora", "-1"], "--lora -1 is out of range"),
        (["--steps", "0"], "--steps 0 is out of range"),
        (["--lr", "3"], "--lr 3.0 is out of range"),
        (["--speed"], "'--speed' is not understood"),
        (["--steps", "x"], "invalid int value: 'x'"),
        ([], "no such manifest"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--manifest", str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and message in error
