"""Command line of training: `python train.py`.

Exit status: 0 done; 1 interrupted while training; 2 what was given cannot be used, with one line `error: ...`.
"""

import argparse
import logging
import os
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from codec.errors import UserError
from tts.checkpoint import build
from tts.data.prepare import Prepared, prepare
from tts.data.shar import write_shar
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.fit import SHARED, parse_stage, run_stage
from tts.training.recipe import STAGES, Recipe, export, extract

HELP = """\
usage: python train.py COMMAND ...

  all       train all four stages from a manifest, in order; started again, go on where it stopped
                python train.py all --manifest corpus/metadata.jsonl --out runs/mine

or each by itself:
  prepare   check a manifest, write phonemes, frames and audio to train from
  fit       train one stage
                python train.py fit --config configs/tiny/tokenizer.yaml
  extract   add the tokens of a trained tokenizer to prepared data
  shar      write prepared data as archives, for corpora that outgrow memory or a disk
  validate  measure a checkpoint on the validation data
  export    take the bare model out of a training run

python train.py COMMAND --help tells more."""

# What libraries warn of that no user can change, or that is meant so.
NOISE = (
    ".*LeafSpec.*",
    ".*weight_norm.*",
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*is smaller than the logging interval.*",
    ".*not supported by the model summary.*",
    ".*could not find the monitored key.*",  # no validation data: the last checkpoint is taken
)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are as all others': one line."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=f"python train.py {name}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run_all(args: list[str]) -> None:
    """``python train.py all``: a model folder from a manifest."""
    parser = _Parser("all", "Train all stages from a manifest, in order. Started again, it goes on.")
    _add_manifest(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument(
        "--configs", type=Path, default=SHARED.parent / "tiny", help="folder with one YAML a stage"
    )
    parser.add_argument("--device", default=_device(), help="that extracts the tokens; default: %(default)s")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="MODEL",
        help="begin with the weights, and the sizes, of this model folder: a new language, or more of the same",
    )
    parser.epilog = (
        "What follows is given to every stage, as --trainer.max_epochs=5; "
        "with the stage's name in front to one, as --lm.trainer.max_steps=2000."
    )
    known, others = parser.parse_known_args(args)
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        raise UserError("`all` starts its own processes: leave torchrun out, and give --trainer.devices=2")
    model = _recipe(known, others).run(_train)
    print(
        f'finished: {model}\nhear it:  python infer.py --model {model} --voice RECORDING --text "Hello there."'
    )


def _recipe(known: Namespace, others: Sequence[str]) -> Recipe:
    everywhere: list[str] = []
    single: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for other in others:
        stage, _, rest = other.removeprefix("--").partition(".")
        if not other.startswith("--") or "=" not in other:
            raise UserError(f"{other!r} is not understood; settings are given as --trainer.max_epochs=5")
        if stage in single:
            single[stage].append(f"--{rest}")
        else:
            everywhere.append(other)
    return Recipe(
        known.manifest,
        known.configs,
        known.out,
        everywhere,
        single,
        known.skip_bad,
        known.jobs,
        known.device,
        known.start,
    )


def _train(args: list[str]) -> None:
    """Train one stage of several: here, or where it wants several devices in a process of its own.

    Lightning starts the processes of the other devices by the command that started this one; they would do all of
    the recipe, too.
    """
    trainer = parse_stage([arg for arg in args if not arg.startswith("--ckpt_path")])["trainer"]
    if trainer["devices"] in (1, "1") and trainer["num_nodes"] == 1:
        run_stage(["fit", *args])
        return
    done = subprocess.run([sys.executable, str(SHARED.parents[1] / "train.py"), "fit", *args], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def run_prepare(args: list[str]) -> None:
    """``python train.py prepare``: data to train from."""
    parser = _Parser("prepare", "Check a manifest; write phonemes, frames and audio to train from.")
    _add_manifest(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the prepared data")
    parser.add_argument(
        "--config",
        type=Path,
        default=SHARED.parent / "tiny" / "vocoder.yaml",
        help="of the vocoder, which says what a frame is; default: log-mel",
    )
    known = parser.parse_args(args)
    try:
        features = parse_stage(["--config", str(known.config)])["model"]["init_args"]["features"]
    except KeyError:
        raise UserError(f"{known.config}: not the config of a vocoder, it names no features") from None
    done = prepare(known.manifest, known.out, build(features), skip_bad=known.skip_bad, jobs=known.jobs)
    _tell(done, known.out)


def run_extract(args: list[str]) -> None:
    """``python train.py extract``: prepared data with tokens."""
    parser = _Parser("extract", "Add the tokens of a trained tokenizer to prepared data.")
    parser.add_argument("--tokenizer", type=Path, required=True, help="its .safetensors file, from export")
    parser.add_argument(
        "--cuts", required=True, help="folder with prepared data, or folder or URL of its Shar"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the data with tokens")
    parser.add_argument("--device", default=_device(), help="default: %(default)s")
    parser.epilog = "In several processes: torchrun --nproc-per-node 8 train.py extract ..."
    known = parser.parse_args(args)
    if not known.tokenizer.is_file():
        raise UserError(f"{known.tokenizer}: no such tokenizer; `python train.py export` makes it")
    extract(known.tokenizer, known.cuts, known.out, device=known.device)
    print(f"tokens: {known.out}")


def run_shar(args: list[str]) -> None:
    """``python train.py shar``: prepared data in archives."""
    parser = _Parser(
        "shar",
        "Write prepared data, with tokens or without, as Shar: archives that training reads from front to back, on a "
        "disk or in an object store.",
    )
    parser.add_argument("--cuts", type=Path, required=True, help="folder with prepared data, or with tokens")
    parser.add_argument("--out", required=True, help="folder or URL to write to")
    parser.add_argument(
        "--shard-size",
        type=int,
        default=1000,
        help="cuts in a shard; default: %(default)s. Every process and worker "
        "that trains needs shards of its own",
    )
    parser.add_argument(
        "--group",
        type=int,
        default=8,
        help="utterances of a speaker that stay together; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the cuts; default: %(default)s")
    parser.add_argument("--force", action="store_true", help="write over a Shar that is there")
    known = parser.parse_args(args)
    done = write_shar(
        known.cuts,
        known.out,
        shard_size=known.shard_size,
        group=known.group,
        seed=known.seed,
        force=known.force,
    )
    print(f"shar: {known.out}, " + ", ".join(f"{count} {split}" for split, count in done.items()))


def run_export(args: list[str]) -> None:
    """``python train.py export``: the bare model of a finished run."""
    parser = _Parser("export", "Take the bare model out of a training run.")
    parser.add_argument("run", type=Path, help="folder with config.yaml and checkpoints/")
    parser.add_argument("part", type=Path, help=f"file to write: MODEL/({'|'.join(STAGES)}).safetensors")
    parser.add_argument("--storage", choices=("float32", "float16", "int8"), default="float32")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="default: %(default)s")
    known = parser.parse_args(args)
    if known.part.stem not in STAGES or known.part.suffix != ".safetensors":
        raise UserError(
            f"{known.part}: must be named after its stage, {'.safetensors, '.join(STAGES)}.safetensors"
        )
    export(known.run, known.part, DEFAULT_SYMBOLS, checkpoint=known.checkpoint, storage=known.storage)
    print(f"wrote {known.part}")


def _add_manifest(parser: _Parser) -> None:
    parser.add_argument(
        "--manifest", type=Path, required=True, help="JSON lines: audio, text, speaker, language"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out broken manifest lines, and list them"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that prepare the data; default: 1")


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _tell(done: Prepared, out: Path) -> None:
    for bad in done.bad:
        print(f"left out: {bad.error}", file=sys.stderr)
    print(f"prepared: {out}, " + ", ".join(f"{count} {split}" for split, count in done.cuts.items() if count))


COMMANDS = {
    "all": run_all,
    "prepare": run_prepare,
    "extract": run_extract,
    "shar": run_shar,
    "export": run_export,
}


def main() -> None:
    """Entry of ``python train.py``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its advertisements are information to it
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    command, args = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    try:
        if command in ("--help", "-h"):
            print(HELP, flush=True)
        elif command in COMMANDS:
            COMMANDS[command](args)
        elif command in ("fit", "validate"):
            run_stage([command, *args])
        else:
            names = ", ".join(("fit", "validate", *COMMANDS))
            raise UserError(f"{command!r} is no command of train.py; one of {names}")
    except UserError as error:
        _fail(str(error))
    except (
        PermissionError,
        NotADirectoryError,
        FileExistsError,
    ) as error:  # --out where nothing can be written
        _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(1)
    except BrokenPipeError:  # nobody reads what is printed; what is buffered must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
