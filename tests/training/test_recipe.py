"""The recipe: what is trained from what, in which order, and what is not done twice. Training itself is played."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from codec.errors import SpecError, UserError
from tts.checkpoint import Model, build, read_part
from tts.data.prepare import cuts_path, read_cuts
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.fit import parse_stage, run_stage
from tts.training.recipe import STAGES, Recipe, export

MODULES = {
    "tokenizer": "tts.training.tokenizer.TokenizerModule",
    "lm": "tts.training.lm.LMModule",
    "acoustic": "tts.training.acoustic.AcousticModule",
    "vocoder": "tts.training.vocoder.VocoderModule",
}
DATASETS = {
    "tokenizer": {"class_path": "tts.data.datasets.TokenizerDataset"},
    "lm": {
        "class_path": "tts.data.datasets.LMDataset",
        "init_args": {
            "layout": {
                "class_path": "tts.lm.layout.Layout",
                "init_args": {"symbols": len(DEFAULT_SYMBOLS), "codes": 625},
            }
        },
    },
    "acoustic": {"class_path": "tts.data.datasets.AcousticDataset"},
    "vocoder": {"class_path": "tts.data.datasets.VocoderDataset"},
}


@pytest.fixture
def configs(tmp_path: Path, tiny_configs: Any) -> Path:
    """A folder of configs of the smallest stages."""
    folder = tmp_path / "configs"
    folder.mkdir()
    for stage, module in MODULES.items():
        parts = {stage: tiny_configs[stage]}
        if stage == "vocoder":
            parts["features"] = tiny_configs["features"]
        data = {
            "class_path": "tts.training.data.SpeechData",
            "init_args": {"cuts": "?", "dataset": DATASETS[stage]},
        }
        config = {"model": {"class_path": module, "init_args": parts}, "data": data}
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(config))
    return folder


class Played:
    """Instead of training: notes its arguments and leaves a checkpoint of random weights behind.

    Args:
        dies_in: a stage that is cut off once, after its last checkpoint.
    """

    def __init__(self, dies_in: str = "") -> None:
        self.dies_in = dies_in
        self.calls: list[dict[str, Any]] = []

    @property
    def stages(self) -> list[str]:
        return [Path(call["folder"]).name for call in self.calls]

    def __call__(self, args: list[str]) -> None:
        resumed = [arg.partition("=")[2] for arg in args if arg.startswith("--ckpt_path=")]
        settings = parse_stage([arg for arg in args if not arg.startswith("--ckpt_path=")])
        folder = Path(settings["trainer"]["default_root_dir"])
        stage = folder.name
        self.calls.append({"folder": folder, "settings": settings, "resumed": resumed})
        parts = {
            name: build(settings["model"]["init_args"][name])
            for name in ("features", stage)
            if name in settings["model"]["init_args"]
        }
        state = {
            f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()
        }
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
        if stage == self.dies_in:
            self.dies_in = ""
            raise KeyboardInterrupt


@pytest.fixture
def make_recipe(make_corpus: Any, configs: Path, tmp_path: Path) -> Any:
    manifest = make_corpus(speakers=1, utterances=3, seconds=1.2)

    def make(*overrides: str, **settings: Any) -> Recipe:
        return Recipe(
            **{"manifest": manifest, "configs": configs, "out": tmp_path / "out", "overrides": overrides}
            | settings
        )

    return make


def test_stages_come_in_order_each_with_its_data(make_recipe: Any, tmp_path: Path) -> None:
    played = Played()
    out = tmp_path / "out"
    recipe = make_recipe("--trainer.max_steps=3", stage_overrides={"lm": ["--trainer.max_steps=5"]})
    model = recipe.run(played)
    assert played.stages == list(STAGES)
    settings = {stage: call["settings"] for stage, call in zip(STAGES, played.calls, strict=True)}
    assert {stage: one["trainer"]["max_steps"] for stage, one in settings.items()} == {
        "tokenizer": 3, "lm": 5, "acoustic": 3, "vocoder": 3
    }  # fmt: skip
    assert {stage: one["data"]["init_args"]["cuts"] for stage, one in settings.items()} == {
        "tokenizer": str(out / "prepared"),
        "lm": str(out / "tokens"),
        "acoustic": str(out / "tokens"),
        "vocoder": str(out / "prepared"),
    }
    assert not any(call["resumed"] for call in played.calls)
    # the parts are those of the checkpoints, and they make a model
    whole = Model.load(model)
    trained = torch.load(out / "acoustic" / "checkpoints" / "last.ckpt")["state_dict"]
    for name, value in whole.acoustic.state_dict().items():
        assert torch.equal(value, trained[f"acoustic.{name}"]), name
    # the tokens are that tokenizer's
    cut = next(iter(read_cuts(cuts_path(out / "tokens", "train"))))
    frames = torch.from_numpy(cut.load_frames().copy()).float()
    assert whole.tokenizer.encode(frames[None])[0][0].tolist() == cut.tokens
    assert sum(cut.durations) == len(cut.tokens)

    recipe.run(played)
    assert len(played.calls) == len(STAGES)  # nothing twice


@pytest.mark.parametrize("stage", ["tokenizer", "acoustic"])
def test_a_run_that_was_cut_off_goes_on(stage: str, make_recipe: Any, tmp_path: Path) -> None:
    played = Played(dies_in=stage)
    with pytest.raises(KeyboardInterrupt):
        make_recipe().run(played)
    done = list(STAGES[: STAGES.index(stage) + 1])
    assert played.stages == done
    make_recipe().run(played)
    assert played.stages == done + list(STAGES[STAGES.index(stage) :])
    resumed = {
        name: call["resumed"]
        for name, call in list(zip(played.stages, played.calls, strict=True))[len(done) :]
    }
    assert resumed.pop(stage) == [str(tmp_path / "out" / stage / "checkpoints" / "last.ckpt")]
    assert not any(resumed.values())
    Model.load(tmp_path / "out" / "model")


def test_other_inputs_are_an_error(make_recipe: Any, make_corpus: Any, tmp_path: Path) -> None:
    make_recipe().run(Played())
    played = Played()
    wider = "--model.init_args.acoustic.init_args.dit.init_args.hidden=96"
    with pytest.raises(UserError, match=r"out/acoustic was made from .*hidden 64, now 96; remove .*acoustic"):
        make_recipe(stage_overrides={"acoustic": [wider]}).run(played)
    other = make_corpus(speakers=1, utterances=3, seconds=1.0, folder="other")
    with pytest.raises(UserError, match="out/tokenizer was made from other data"):
        make_recipe(manifest=other).run(played)
    make_recipe("--trainer.max_steps=7", "--model.init_args.lr=0.5").run(
        played
    )  # how it is trained may change
    assert played.calls == []


def test_a_part_of_somebody_else_counts_as_finished(make_recipe: Any, tmp_path: Path) -> None:
    make_recipe(out=tmp_path / "first").run(Played())
    (tmp_path / "out" / "model").mkdir(parents=True)
    for part in ("vocoder", "features"):
        (tmp_path / "first" / "model" / f"{part}.safetensors").rename(
            tmp_path / "out" / "model" / f"{part}.safetensors"
        )
    played = Played()
    make_recipe().run(played)
    assert played.stages == ["tokenizer", "lm", "acoustic"]
    Model.load(tmp_path / "out" / "model")


@pytest.mark.parametrize(
    ("stage", "override", "error", "message"),
    [
        (
            "lm",
            "--model.init_args.lm.init_args.codes=99",
            SpecError,
            r"lm.yaml and tokenizer.yaml .*99 codes",
        ),
        ("vocoder", "--trainer.max_stepz=3", UserError, "trainer.max_stepz"),
        ("lm", "--trainer.default_root_dir=x", UserError, "default_root_dir=x: cannot be given here"),
        ("acoustic", "--model.init_args.acoustic.init_args.dit.init_args.patch=3", UserError, "patch 3"),
    ],
)
def test_settings_are_checked_before_anything_is_made(
    stage: str, override: str, error: type[Exception], message: str, make_recipe: Any, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        make_recipe(stage_overrides={stage: [override]}).run(Played())
    assert not (tmp_path / "out").exists()


def test_a_bad_manifest(make_recipe: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = make_recipe()
    with open(recipe.manifest, "a") as file:
        file.write(json.dumps({"audio": "gone.wav", "text": "a", "speaker": "s", "language": "en-us"}) + "\n")
    with pytest.raises(UserError, match=r"metadata.jsonl:4: no audio file"):
        recipe.run(Played())
    make_recipe(skip_bad=True).run(Played())
    assert "left out: " in caplog.text and "metadata.jsonl:4" in caplog.text


def test_export_takes_the_best_checkpoint_there_is(make_recipe: Any, tmp_path: Path) -> None:
    make_recipe().run(Played())
    run, part = tmp_path / "out" / "vocoder", tmp_path / "bare" / "vocoder.safetensors"
    last = torch.load(run / "checkpoints" / "last.ckpt")
    best = {"state_dict": {name: value + 1 for name, value in last["state_dict"].items()}}
    torch.save(best, run / "checkpoints" / "best.ckpt")
    name = "head.out.bias"
    for checkpoint, state in (("best", best), ("last", last)):
        export(run, part, DEFAULT_SYMBOLS, checkpoint=checkpoint)
        assert torch.equal(read_part(part)[0].state_dict()[name], state["state_dict"][f"vocoder.{name}"])
    assert part.with_name("features.safetensors").is_file()
    with pytest.raises(UserError, match="the run of another stage"):
        export(run, tmp_path / "bare" / "lm.safetensors", DEFAULT_SYMBOLS)
    with pytest.raises(UserError, match="no training run"):
        export(tmp_path, part, DEFAULT_SYMBOLS)


def test_every_stage_can_begin_with_the_weights_and_sizes_of_another_model(
    configs: Path, make_corpus: Any, tiny_model: Path, tmp_path: Path
) -> None:
    # configs of other sizes: what is begun with decides
    path = configs / "lm.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["lm"]["init_args"]["num_hidden_layers"] = 1
    path.write_text(yaml.safe_dump(config))
    recipe = Recipe(make_corpus(), configs, tmp_path / "out", start=tiny_model)
    for stage in STAGES:
        settings = parse_stage(recipe.arguments(stage))
        arguments = settings["model"]["init_args"]
        base, _ = read_part(tiny_model / f"{stage}.safetensors")
        assert Path(arguments["start"]) == tiny_model / f"{stage}.safetensors"
        begun = build(arguments[stage])
        assert {k: v.shape for k, v in begun.state_dict().items()} == {
            k: v.shape for k, v in base.state_dict().items()
        }
        module = run_stage(
            ["--config", str(configs / f"{stage}.yaml"), *recipe.arguments(stage)[2:]], run=False
        ).model
        own = getattr(module, stage).state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in base.state_dict().items())
