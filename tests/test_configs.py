"""Every YAML under configs/ parses through the command line, builds at its stated size, and fits its neighbours."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.strategies import StrategyRegistry
from torch import nn

from codec.errors import UserError
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.fit import parse_stage, run_stage
from tts.training.recipe import STAGES, check_configs

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "serve")

# Millions of parameters of the part that inference needs.
SIZES = {
    "tiny": {"tokenizer": (5, 6), "lm": (12, 16), "acoustic": (9, 12), "vocoder": (4, 6)},
    "base": {"tokenizer": (95, 110), "lm": (450, 550), "acoustic": (280, 330), "vocoder": (13, 14)},
    "encodec": {"tokenizer": (5, 6), "lm": (12, 16), "acoustic": (9, 12), "vocoder": (7, 8)},
}


class Stage(NamedTuple):
    """What `python train.py fit --config PATH` makes of a file, and what is written in it."""

    config: Namespace
    model: Any
    data: Any
    written: dict[str, Any]

    @property
    def part(self) -> Any:
        return getattr(self.model, self.model.part)


@cache
def stage(path: Path) -> Stage:
    # mel filters look at their own values, which the meta device has none of
    device = "cpu" if path.stem == "vocoder" else "meta"
    with torch.device(device):
        built = run_stage(["--config", str(path)], run=False)
    return Stage(built.config, built.model, built.datamodule, read(path))


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def parameters(module: nn.Module) -> float:
    """In millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")


def test_every_file_is_a_stage() -> None:
    assert set(CONFIGS.rglob("*.yaml")) == {*FILES, CONFIGS / "trainer.yaml", *CONFIGS.glob("serve/*.yaml")}
    assert {(path.parent.name, path.stem) for path in FILES} == {(k, s) for k in SIZES for s in SIZES[k]}


@each_file
def test_builds_at_its_stated_size(path: Path) -> None:
    built = stage(path)
    assert built.model.part == path.stem
    low, high = SIZES[path.parent.name][path.stem]
    assert low < parameters(built.part) < high
    if stated := re.search(r"^# ([\d.]+) M parameters", path.read_text(encoding="utf-8")):
        assert parameters(built.part) == pytest.approx(float(stated[1]), abs=0.8)
    if path.stem != "vocoder":
        assert all(p.is_meta for p in built.model.parameters())


@each_file
def test_own_settings_go_before_shared_ones(path: Path) -> None:
    built = stage(path)
    wanted = read(CONFIGS / "trainer.yaml")["trainer"] | built.written["trainer"]
    for key, value in wanted.items():
        if not isinstance(value, dict | list):
            assert built.config.trainer[key] == value, key


@each_file
def test_nothing_fails_only_when_training_starts(path: Path) -> None:
    built = stage(path)
    trainer, steps = built.config.trainer, built.model.total
    assert trainer.strategy in {"auto", *StrategyRegistry.available_strategies()}
    assert trainer.use_distributed_sampler is False  # the data's own sampler splits the batches
    if not built.model.automatic_optimization:
        assert trainer.gradient_clip_val is None  # Lightning clips only where it optimises itself
        if trainer.max_steps > 0 and len(built.model.discriminators):  # it counts every optimizer's
            steps += max(0, steps - built.model.adversarial_from)
    if trainer.max_steps > 0:
        assert trainer.max_steps == steps, "the training ends before or after its learning rate does"


@each_file
def test_data_is_what_the_model_takes(path: Path) -> None:
    built = stage(path)
    dataset = built.data.dataset([])
    if path.stem == "tokenizer":
        assert dataset.spec == built.part.spec.frames
        assert built.part.symbols >= len(DEFAULT_SYMBOLS)
    elif path.stem == "lm":
        assert dataset.layout == built.part.layout
    elif path.stem == "acoustic":
        assert dataset.spec == built.part.spec
    else:
        assert built.model.features.spec == built.part.spec
        assert dataset.samples % built.part.spec.hop == 0


@pytest.mark.parametrize("size", SIZES)
def test_stages_fit_each_other(size: str) -> None:
    files = {name: CONFIGS / size / f"{name}.yaml" for name in STAGES}
    check_configs({name: read(path) for name, path in files.items()}, DEFAULT_SYMBOLS)
    assert stage(files["vocoder"]).model.features.spec == stage(files["tokenizer"]).part.spec.frames


@pytest.mark.parametrize(
    "setting",
    [
        "modle",
        "model.init_args.lmm",
        "model.init_args.lm.init_args.hidden",
        "data.init_args.cutz",
        "trainer.step",
    ],
)
def test_unknown_keys_are_errors(setting: str, tmp_path: Path) -> None:
    config = read(CONFIGS / "tiny" / "lm.yaml")
    *folders, last = setting.split(".")
    place = config
    for folder in folders:
        place = place[folder]
    place[last] = 1
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=last) as raised:
        parse_stage(["--config", str(path)])
    assert "\n" not in str(raised.value)
