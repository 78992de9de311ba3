"""`python train.py`: what is wrong is said in one line, and before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tts.checkpoint import build, write_part
from tts.data.prepare import cuts_path, read_cuts
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.cli import main
from tts.training.fit import one_line, run_stage

CONFIGS = Path(__file__).parents[2] / "configs"
LM = str(CONFIGS / "tiny" / "lm.yaml")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("fit", ...)`` in an empty folder -> exit status, standard output, standard error."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)

    def do(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["train.py", *args])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return do


def test_alone_it_says_what_there_is(run: Run) -> None:
    for args in ([], ["--help"]):
        status, out, err = run(*args)
        assert (status, err) == (0, "")
        for command in ("all", "prepare", "fit", "extract", "shar", "validate", "export"):
            assert f"\n  {command} " in out


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], str]:
    """``file("name.yaml", text)`` -> its path."""

    def make(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return make


BROKEN = {
    "no config": (["fit"], ["--config configs/tiny/lm.yaml"]),
    "no such command": (["fitt"], ["'fitt'", "validate"]),
    "no such file": (["fit", "--config", "nope.yaml"], ["nope.yaml", "does not exist"]),
    "unknown key": (["fit", "--config", LM, "--trainer.max_stepz=3"], ["trainer.max_stepz"]),
    "bad value": (["fit", "--config", LM, "--trainer.max_steps=many"], ["trainer.max_steps", "int", "many"]),
    "bad choice": (
        ["fit", "--config", LM, "--trainer.precision=bf17"],
        ["trainer.precision", "bf17", "bf16-mixed"],
    ),
    "unknown setting": (
        ["fit", "--config", LM, "--model.init_args.lm.init_args.hiden=3"],
        ["SpeechLM", "hiden"],
    ),
    "no such class": (["fit", "--config", LM, "--model.init_args.lm.class_path=tts.no.X"], ["tts.no.X"]),
    "stray word": (["fit", "--config", LM, "stray"], ["stray"]),
    "no checkpoint": (["fit", "--config", LM, "--ckpt_path=gone.ckpt"], ["gone.ckpt", "no such checkpoint"]),
    "not built": (
        ["fit", "--config", LM, "--data.init_args.max_duration=null"],
        ["max_duration or max_cuts must be given"],
    ),
    "no data": (["fit", "--config", LM], ["data/tokens", "train.py extract", "train.py all"]),
    "all: nothing": (["all"], ["--manifest", "--out"]),
    "all: no such manifest": (["all", "--manifest", "m.jsonl", "--out", "o"], ["m.jsonl"]),
    "all: no configs": (["all", "--manifest", "m", "--out", "o", "--configs", "c"], ["c/tokenizer.yaml"]),
    "all: unknown key": (["all", "--manifest", "m", "--out", "o", "--trainer.stepz=3"], ["trainer.stepz"]),
    "all: not a setting": (
        ["all", "--manifest", "m", "--out", "o", "quick"],
        ["'quick'", "--trainer.max_epochs=5"],
    ),
    "extract: no tokenizer": (["extract", "--tokenizer", "t", "--cuts", "c", "--out", "o"], ["t:", "export"]),
    "extract: nothing there": (["extract", "--tokenizer", LM, "--cuts", "c", "--out", "o"], ["lm.yaml"]),
    "shar: no data": (["shar", "--cuts", "c", "--out", "o"], ["c/cuts_train", "prepare the corpus first"]),
    "prepare: other config": (
        ["prepare", "--manifest", "m", "--out", "o", "--config", LM],
        ["lm.yaml", "names no features"],
    ),
    "export: no run": (["export", "r", "m/lm.safetensors"], ["r:", "no training run"]),
    "export: a name": (["export", "r", "m/lm.pt"], ["m/lm.pt", "lm.safetensors"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_is_one_line(what: str, run: Run) -> None:
    args, words = BROKEN[what]
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 500, err
    for word in words:
        assert word in err, err
    assert not list(Path.cwd().iterdir())


def test_a_broken_config_file_is_named(run: Run, file: Callable[[str, str], str]) -> None:
    text = Path(LM).read_text()
    broken = {
        "key.yaml": (text + "  max_stepz: 3\n", "trainer.max_stepz"),
        "deep.yaml": (text.replace("hidden_size", "hiden_size"), "hiden_size"),
        "value.yaml": (text.replace("lr: 1.0e-3", "lr: fast"), "fast"),
        "yaml.yaml": ("model: [1, 2", "pars"),
    }
    for name, (content, word) in broken.items():
        status, out, err = run("fit", "--config", file(name, content))
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert name in err and word in err, err
        status, _, err = run("fit", f"--config={file(name, content)}")
        assert status == 2 and name in err


def test_a_page_of_errors_becomes_a_line() -> None:
    page = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.pytorch.core.module.LightningModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'a.Stage':
        Parser key "lm":
          Problem with given class_path 'b.Part':
            Option 'hiden' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'a.Stage', 'init_args': {'hiden': 3}}"""
    line = "model: a.Stage: lm: b.Part: Option 'hiden' is not accepted"
    assert one_line(page, ["fit", "--config", "x.yaml"]) == f"x.yaml: {line}"
    assert one_line(page, ["fit", "--config", "x.yaml", "--model.init_args.hiden=3"]) == line


@pytest.fixture
def prepared(make_corpus: Any, run: Run, tmp_path: Path) -> Path:
    """Four utterances, prepared by the command."""
    manifest = make_corpus(speakers=2, utterances=2, seconds=1.2)
    status, out, _ = run("prepare", "--manifest", str(manifest), "--out", str(tmp_path / "prepared"))
    assert status == 0 and "2 train, 2 dev" in out
    return tmp_path / "prepared"


def test_a_stage_by_hand(prepared: Path, run: Run, tiny_configs: Any, tmp_path: Path) -> None:
    part = tmp_path / "tokenizer.safetensors"
    tokenizer = build(tiny_configs["tokenizer"])
    write_part(part, tokenizer, tiny_configs["tokenizer"], DEFAULT_SYMBOLS)
    tokens = tmp_path / "tokens"
    status, _, _ = run("extract", "--tokenizer", str(part), "--cuts", str(prepared), "--out", str(tokens))
    assert status == 0
    cuts = list(read_cuts(cuts_path(tokens, "dev")))
    assert len(cuts) == 2 and all(sum(cut.durations) == len(cut.tokens) for cut in cuts)

    small = [
        f"--model.init_args.lm.init_args.{k}"
        for k in ("hidden_size=32", "num_attention_heads=2", "num_hidden_layers=1", "intermediate_size=32")
    ]
    data = [f"--data.init_args.cuts={tokens}", "--data.init_args.num_workers=0"]
    fit = ["fit", "--config", LM, *small, *data, "--trainer.log_every_n_steps=1", "--trainer.logger=false"]
    status, _, err = run(*fit, "--trainer.max_steps=2", "--trainer.accelerator=cpu")
    assert status == 0, err
    assert [path.name for path in Path.cwd().iterdir()] == ["runs"]
    folder = Path("runs/lm")
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "checkpoints",
        "metrics.jsonl",
        "curves.png",
        "media",
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["trainer"]["default_root_dir"] == "runs/lm"
    assert config["model"]["init_args"]["lm"]["init_args"]["hidden_size"] == 32
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [0, 1]
    assert any("val/loss" in line for line in lines)

    status, _, err = run(*fit, "--trainer.max_steps=3")  # what is there is not overwritten
    assert status == 2 and "--ckpt_path runs/lm/checkpoints/last.ckpt" in err and "default_root_dir" in err
    before = (folder / "config.yaml").read_bytes()
    run("validate", "--config", "runs/lm/config.yaml", "--ckpt_path", "runs/lm/checkpoints/best.ckpt")
    assert (folder / "config.yaml").read_bytes() == before
    status, _, err = run(*fit, "--trainer.max_steps=3", "--ckpt_path=runs/lm/checkpoints/last.ckpt")
    assert status == 0, err
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [0, 1, 2]
    wider = "--model.init_args.lm.init_args.hidden_size=64"
    status, _, err = run(
        *fit, wider, "--ckpt_path=runs/lm/checkpoints/last.ckpt", "--trainer.default_root_dir=wide"
    )
    assert (
        status == 2
        and "last.ckpt: a checkpoint of another model: size mismatch" in err
        and err.count("\n") == 1
    )
    status, out, _ = run("shar", "--cuts", str(tokens), "--out", "shar", "--shard-size", "1")
    assert (status, out) == (0, "shar: shar, 2 train, 2 dev\n")
    streamed = ["--data.init_args.cuts=shar", "--trainer.default_root_dir=streamed", "--trainer.max_steps=2"]
    status, _, err = run(*fit, *streamed, "--trainer.accelerator=cpu")
    assert status == 0 and Path("streamed/checkpoints/best.ckpt").is_file(), err
    status, _, _ = run("export", "runs/lm", "model/lm.safetensors", "--storage", "float16")
    assert status == 0 and Path("model/lm.safetensors").is_file()


def test_data_that_does_not_fit_the_model(prepared: Path, run: Run, file: Callable[[str, str], str]) -> None:
    cases = [
        (LM, "prepared data without tokens"),
        (CONFIGS / "encodec" / "tokenizer.yaml", "frames of 100 numbers from audio at 24000 Hz"),
    ]
    for config, message in cases:
        status, _, err = run("fit", "--config", str(config), f"--data.init_args.cuts={prepared}")
        assert status == 2 and message in err and err.count("\n") == 1, err
    status, _, err = run("fit", "--config", LM, f"--ckpt_path={file('x.ckpt', 'no zip')}")
    assert status == 2 and "x.ckpt: not a checkpoint" in err
    assert not list(Path.cwd().iterdir())


def test_building_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.device("meta"):
        built = run_stage(["--config", LM], run=False)
    assert built.model.part == "lm" and built.datamodule.folders == ["data/tokens"]
    assert not list(tmp_path.iterdir())
