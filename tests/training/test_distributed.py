"""Two processes train as one with the doubled batch, whoever starts them; they go on together, and share extraction."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision
from torch import nn

from codec.errors import UserError
from tts.checkpoint import build, write_part
from tts.data.prepare import cuts_path
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.cli import run_all
from tts.training.extract import processes_of
from tts.training.fit import parse_stage, run_stage
from tts.training.logs import read_metrics
from tts.training.module import StageModule
from tts.training.recipe import Recipe, extract

HALF, WHOLE = 4, 8  # steps; an epoch has three batches of four
CONFIGS = Path(__file__).parents[2] / "configs"


def fit(config: Path, run: Path, steps: int, cuts: int, *others: str) -> list[str]:
    """The command that trains with batches of so many cuts on each device."""
    given = [f"--data.init_args.max_cuts={cuts}", f"--trainer.max_steps={steps}"]
    return ["fit", "--config", str(config), f"--trainer.default_root_dir={run}", *given, *others]


# In a process: several commands of train.py, one after another. FSDP is for GPUs, and Lightning insists on it, but
# not with a class of another name that says what the device is. (What torch 2.11 cannot do on a CPU is to collect the
# weights for a checkpoint.)
IN_TURN = """
import json, sys
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel
from tts.training.cli import main

class Sharded(FSDPStrategy):
    def _setup_model(self, model):
        return FullyShardedDataParallel(
            model, device_id=torch.device("cpu"), sharding_strategy=self.sharding_strategy, **self.kwargs
        )

if __name__ == "__main__":
    for args in json.loads(sys.argv[1]):
        sys.argv = ["train.py", *args]
        main()
"""


def state(run: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


def lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(file)


def same_losses(one: Path, other: Path) -> None:
    mine, theirs = read_metrics(one / "metrics.jsonl"), read_metrics(other / "metrics.jsonl")
    assert [step for step, _ in mine["train/loss"]] == list(range(WHOLE))
    for name in ("train/loss", "train/lr", "val/loss"):
        assert [step for step, _ in theirs[name]] == [step for step, _ in mine[name]]
        values = [[value for _, value in curves[name]] for curves in (theirs, mine)]
        assert len(set(values[0])) > 1
        assert values[0] == pytest.approx(values[1], rel=1e-5), name


def same_weights(one: Path, other: Path) -> None:
    weights = [state(run)["state_dict"] for run in (other, one)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_two_processes_do_what_one_does_with_the_doubled_batch(
    lm_config: Path, small_prepared: Path, tmp_path: Path, tiny_configs: Any, start: Any
) -> None:
    one, two, sharded = tmp_path / "one", tmp_path / "two", tmp_path / "sharded"
    run_stage(fit(lm_config, one, WHOLE, 4))

    # Lightning starts the second process
    both = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    start(sys.executable, "train.py", *fit(lm_config, two, HALF, 2, *both))
    half = state(two)
    assert half["global_step"] == HALF
    assert len(half["random"]) == 2 and half["SpeechData"]["ranks"] == 2

    # torchrun starts both, to go on, to train with sharded weights, and to extract tokens
    part = tmp_path / "tokenizer.safetensors"
    torch.manual_seed(0)
    write_part(part, build(tiny_configs["tokenizer"]), tiny_configs["tokenizer"], DEFAULT_SYMBOLS)
    (tmp_path / "in_turn.py").write_text(IN_TURN)
    last = f"--ckpt_path={two / 'checkpoints' / 'last.ckpt'}"
    fsdp = ["--trainer.strategy=in_turn.Sharded", "--trainer.strategy.auto_wrap_policy=[tts.lm.llama.Layer]"]
    tokens = [
        f"--tokenizer={part}",
        f"--cuts={small_prepared}",
        f"--out={tmp_path / 'shared'}",
        "--device=cpu",
    ]
    commands = [
        fit(lm_config, two, WHOLE, 2, *both, last),
        fit(
            lm_config, sharded, WHOLE, 2, "--trainer.devices=2", *fsdp, "--trainer.enable_checkpointing=false"
        ),
        ["extract", *tokens],
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    start(*torchrun, str(tmp_path / "in_turn.py"), json.dumps(commands))

    same_losses(one, two)
    same_weights(one, two)
    same_losses(one, sharded)
    extract(part, small_prepared, tmp_path / "alone")
    names = {cuts_path(".", split).name for split in ("train", "dev")}
    for name in names:
        assert lines(tmp_path / "shared" / name) == lines(tmp_path / "alone" / name)
    assert {path.name for path in (tmp_path / "shared").iterdir()} == names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("precision", "plugin", "kept"),
    [("bf16-mixed", MixedPrecision, torch.float32), ("bf16-true", HalfPrecision, torch.bfloat16)],
)
def test_half_precision_by_config(
    lm_config: Path, tmp_path: Path, precision: str, plugin: type[Any], kept: torch.dtype
) -> None:
    run = tmp_path / "run"
    stage = run_stage(fit(lm_config, run, 2, 4, f"--trainer.precision={precision}"))
    assert isinstance(stage.trainer.precision_plugin, plugin)
    assert {weight.dtype for weight in state(run)["state_dict"].values()} == {kept}
    losses = [value for _, value in read_metrics(run / "metrics.jsonl")["train/loss"]]
    assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)


@pytest.mark.parametrize("stage", ["lm", "acoustic"])
def test_the_large_models_can_be_sharded(stage: str) -> None:
    args = ["--config", str(CONFIGS / "base" / f"{stage}.yaml"), "--trainer.strategy=fsdp"]
    settings = parse_stage([*args, "--trainer.precision=bf16-true", "--trainer.gradient_clip_val=null"])
    trainer = settings["trainer"]
    assert (trainer["strategy"], trainer["precision"], trainer["devices"]) == ("fsdp", "bf16-true", 8)


@pytest.mark.parametrize(
    ("devices", "accelerator", "processes"),
    [
        (1, "cpu", 1),
        ("2", "cpu", 2),
        (8, "gpu", 8),
        ([0, 3], "gpu", 2),
        ("auto", "auto", 4),
        (-1, "gpu", 4),
        ("auto", "cpu", 1),
    ],
)
def test_as_many_processes_extract_as_train(
    devices: Any, accelerator: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes_of({"devices": devices, "accelerator": accelerator}) == processes


def test_the_recipe_extracts_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in (
        ("model/tokenizer.safetensors", ""),
        ("prepared/prepared.json", '{"fingerprint": "x"}'),
    ):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text)
    (tmp_path / "tokens").mkdir()
    calls: list[list[str]] = []
    status = 1

    def run(command: list[str], check: bool) -> Any:
        calls.append(command)
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(subprocess, "run", run)
    recipe = Recipe(tmp_path / "m.jsonl", CONFIGS / "tiny", tmp_path)
    with pytest.raises(UserError, match="extract` in 2 processes failed"):
        recipe._extract(2)
    status = 0
    for _ in range(2):  # the second time there is nothing to do
        recipe._extract(2)
    assert len(calls) == 2
    command = " ".join(calls[1])
    assert "torch.distributed.run --standalone --nproc-per-node=2" in command
    assert command.endswith(
        f"train.py extract --tokenizer {tmp_path}/model/tokenizer.safetensors "
        f"--cuts {tmp_path}/prepared --out {tmp_path}/tokens --device cpu"
    )


def test_all_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match=r"leave torchrun out, and give --trainer.devices=2"):
        run_all(["--manifest", "m.jsonl", "--out", "o"])


class Stage(StageModule):
    """A matrix and a vector."""

    def __init__(self) -> None:
        super().__init__(lr=1.0, warmup=1, total=2)
        self.model = nn.Linear(3, 2)


def test_matrices_stay_matrices_to_the_optimizer_when_they_are_sharded() -> None:
    stage = Stage()
    stage.setup("fit")
    stage.model.weight = nn.Parameter(stage.model.weight.detach().flatten())
    decayed, others = stage.optimize(stage.model, betas=(0.9, 0.99), weight_decay=0.5)[
        "optimizer"
    ].param_groups
    assert [p.shape for p in decayed["params"]] == [(6,)] and decayed["weight_decay"] == 0.5
    assert [p.shape for p in others["params"]] == [(2,)] and others["weight_decay"] == 0
