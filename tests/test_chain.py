"""The whole chain as its users run it: a corpus, `train.py all`, then `infer.py` on what it made."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tts import cli as infer
from tts.checkpoint import PARTS
from tts.training import cli
from tts.training.recipe import STAGES

# configs/tiny at a fraction of its size: seconds, not hours
SMALL = [
    *(f"--tokenizer.model.init_args.tokenizer.init_args.{k}" for k in ("dim=32", "heads=2", "layers=1")),
    "--tokenizer.model.init_args.tokenizer.init_args.quantizer.init_args.dim=32",
    *(
        f"--lm.model.init_args.lm.init_args.{k}"
        for k in ("hidden_size=32", "intermediate_size=64", "num_hidden_layers=1", "num_attention_heads=2")
    ),
    *(
        f"--acoustic.model.init_args.acoustic.init_args.dit.init_args.{k}"
        for k in ("dim=32", "heads=2", "layers=1", "hidden=64")
    ),
    *(
        f"--vocoder.model.init_args.vocoder.init_args.{k}"
        for k in ("dim=32", "intermediate_dim=64", "num_layers=1")
    ),
    "--vocoder.model.init_args.adversarial_from=1",
    "--data.init_args.num_workers=0",
    "--data.init_args.num_buckets=2",
    "--trainer.check_val_every_n_epoch=2",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
]


def train(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "all", *args, *SMALL])
    cli.main()


def steps(run: Path) -> list[int]:
    """Batches whose training loss was written down, in order."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "train/loss" in line]


def state(folder: Path) -> dict[str, float]:
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}


@pytest.mark.filterwarnings("ignore")
def test_a_corpus_becomes_a_model_that_speaks(
    make_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(speakers=2, utterances=3, seconds=1.6)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    arguments = ["--manifest", str(manifest), "--out", "mine"]
    train(monkeypatch, *arguments, "--trainer.max_steps=3")

    assert [path.name for path in place.iterdir()] == ["mine"]
    out, model = Path("mine"), Path("mine/model")
    assert set(state(model)) == set(PARTS)
    for stage in STAGES:
        names = {path.name for path in (out / stage).iterdir()}
        assert {"config.yaml", "checkpoints", "metrics.jsonl", "curves.png", "media"} <= names
        assert {path.name for path in (out / stage / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
        assert steps(out / stage) == (
            [0, 1, 2] if stage != "vocoder" else [0, 1]
        )  # two optimizers count twice

    # again: all is there, nothing is trained
    before = state(model)
    with monkeypatch.context() as patch:
        patch.setattr(cli, "run_stage", None)
        train(monkeypatch, *arguments, "--trainer.max_steps=3")
    assert state(model) == before

    # killed while the acoustic decoder was trained: it goes on, the others stay
    for part in ("acoustic", "vocoder"):
        (model / f"{part}.safetensors").unlink()
    train(monkeypatch, *arguments, "--trainer.max_steps=4")
    after = state(model)
    assert {part for part in after if after[part] != before[part]} == {"acoustic", "vocoder", "features"}
    assert steps(out / "acoustic") == [0, 1, 2, 3]
    last = torch.load(out / "acoustic" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4

    row = json.loads(manifest.read_text().splitlines()[0])
    capsys.readouterr()
    arguments = ["--voice", str(manifest.parent / row["audio"]), "--voice-text", row["text"], "--steps", "4"]
    assert (
        infer.main(["--model", str(model), "--text", "A lone seal sang.", "--out", "said.wav", *arguments])
        == 0
    )
    wav, rate = soundfile.read("said.wav")
    assert rate == 24_000 and 0.3 < len(wav) / rate < 20 and abs(wav).max() > 0
    assert "said.wav" in capsys.readouterr().out
