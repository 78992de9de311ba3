"""Command line of training: Lightning's own for one stage, `all` for a whole model, `export` for a finished run."""

import logging
import sys
import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback

from codec.errors import UserError
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.recipe import STAGES, Recipe, export

SHARED = Path(__file__).resolve().parents[2] / "configs" / "trainer.yaml"


def run_stage(args: list[str], *, run: bool = True) -> LightningCLI:
    """Do what ``python train.py fit ...`` does, with LightningCLI's arguments; `run` False only builds."""
    defaults = {"default_config_files": [str(SHARED)]}
    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        trainer_class=Trainer,
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=1,
        parser_kwargs={name: defaults for name in ("fit", "validate")} if run else defaults,
        args=args,
        run=run,
    )


def run_all(args: list[str]) -> None:
    """``python train.py all``: a model folder from a manifest."""
    parser = ArgumentParser(prog="train.py all", description="Train all stages from a manifest, in order.")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON lines: audio, text, speaker, language")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--configs", type=Path, default=SHARED.parent / "tiny", help="folder with one YAML a stage")
    parser.add_argument("--skip-bad", action="store_true", help="leave out broken manifest lines, and list them")
    parser.add_argument("--jobs", type=int, default=1, help="processes that prepare the data")
    parser.add_argument("--device", default="cpu", help="that extracts the tokens")
    parser.epilog = (
        "What follows is given to every stage's trainer, as --trainer.max_epochs=5; "
        "with the stage's name in front to one, as --lm.trainer.max_steps=2000."
    )
    known, others = parser.parse_known_args(args)
    recipe = _recipe(known, others)
    model = recipe.run(run_stage)
    print(f'finished: {model}\nhear it:  python infer.py --model {model} --voice RECORDING --text "Hello there."')


def _recipe(known: Namespace, others: list[str]) -> Recipe:
    everywhere: list[str] = []
    single: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for other in others:
        stage, _, rest = other.removeprefix("--").partition(".")
        if not other.startswith("--") or "=" not in other:
            raise UserError(f"{other!r} is not understood; settings are given as --trainer.max_epochs=5")
        (single[stage] if stage in single else everywhere).append(f"--{rest}" if stage in single else other)
    return Recipe(
        known.manifest, known.configs, known.out, everywhere, single, known.skip_bad, known.jobs, known.device
    )


def run_export(args: list[str]) -> None:
    """``python train.py export``: the bare model of a finished run."""
    parser = ArgumentParser(prog="train.py export", description="Take the bare model out of a training run.")
    parser.add_argument("run", type=Path, help="folder with config.yaml and checkpoints/")
    parser.add_argument("part", type=Path, help=f"file to write: <model>/({'|'.join(STAGES)}).safetensors")
    parser.add_argument("--storage", choices=("float32", "float16", "int8"), default="float32")
    parser.add_argument("--checkpoint", default="best", help="best or last")
    known = parser.parse_args(args)
    if known.part.stem not in STAGES:
        raise UserError(f"{known.part}: must be named after its stage, one of {', '.join(STAGES)}")
    export(known.run, known.part, DEFAULT_SYMBOLS, checkpoint=known.checkpoint, storage=known.storage)


def main() -> None:
    """Entry of ``python train.py``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*|.*LeafSpec.*|.*weight_norm.*")
    command, args = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    try:
        if command == "all":
            run_all(args)
        elif command == "export":
            run_export(args)
        else:
            run_stage(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
