"""Command line of the benchmark: ``python -m tts.benchmark``.

Exit status as `tts.cli` has it. Only argparse is imported before the arguments are read, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import UserError
from tts.cli import PROMPT, Parser, guarded, no_decoder_notes, set_threads
from tts.options import PRECISIONS, selected

if TYPE_CHECKING:
    from tts.benchmark.section import Bench, Section

SECTIONS = ("parts", "batch", "lm", "acoustic", "stream", "memory")
RUNS, QUICK_RUNS, MOST_RUNS = 7, 3, 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.benchmark",
        description="Measure how fast a model speaks and in how much memory, beside plain reference implementations. "
        "Progress is on standard error, tables are on standard output.",
        epilog="Example: python -m tts.benchmark --only lm,stream --json speed.json",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--only",
        metavar="A,B",
        default=",".join(SECTIONS),
        help="sections, of %(default)s; default: all",
    )
    parser.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    parser.add_argument(
        "--voice",
        help="a recording, a saved voice, or the name of one that ships; default: the first that ships",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="to compute in, see tts/precision.py; default: %(default)s",
    )
    parser.add_argument(
        "--runs", type=int, metavar="N", help=f"rounds; default: {RUNS}, with --quick {QUICK_RUNS}"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, for a first look")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor cores, at most; default: as torch has it"
    )
    parser.add_argument("--json", metavar="FILE", help="write the tables with every round's figures, too")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    return parser


def _run(args: argparse.Namespace) -> None:
    """Check everything that can be checked at once, then measure, printing each table as it gets done."""
    names = chosen(args.only)
    runs = args.runs if args.runs is not None else QUICK_RUNS if args.quick else RUNS
    if not 1 <= runs <= MOST_RUNS:
        raise UserError(f"runs {runs} is out of range; give a whole number from 1 to {MOST_RUNS}")
    if args.json is not None:
        check_json(Path(args.json), args.force)

    import torch

    from tts.benchmark.measure import thread_counts
    from tts.benchmark.reference import require_transformers
    from tts.benchmark.section import Bench, Plan, Point
    from tts.checkpoint import EMBEDDED
    from tts.pipeline import TTS

    if names != ["acoustic"]:
        require_transformers()
    if args.threads is not None:
        set_threads(args.threads)
    most = torch.get_num_threads()
    tts = TTS.load(args.model, precision=args.precision)
    usual = Point(threads=most, steps=tts.model.acoustic.steps)
    plan = Plan(runs=runs, usual=usual, threads=thread_counts(most))
    with no_decoder_notes():
        voice = tts.voice(args.voice or next(iter(tts.model.voices()), EMBEDDED / PROMPT))
    bench = Bench(tts, voice, plan.quick() if args.quick else plan)
    told = conditions(bench)
    print("\n".join(f"{name:10}{value}" for name, value in told.items()), flush=True)
    tables = []
    for section in sections(names, bench):
        for table in section.tables():
            print(f"\n{table}", flush=True)
            tables.append(table.to_dict())
    print("\nmedians over rounds, in brackets their quartiles")
    if args.json is not None:
        from codec.audio import write_whole

        made = {"conditions": told, "plan": asdict(bench.plan), "tables": tables}
        write_whole(args.json, json.dumps(made, indent=1).encode())
        print(f"wrote {args.json}")


def chosen(names: str) -> list[str]:
    """The sections named, in our order.

    Raises:
        UserError: there is no such section, or none is named.
    """
    return selected(names, SECTIONS, "section")


def check_json(path: Path, force: bool) -> None:
    """Raise before any work what would keep the file from being written."""
    if path.is_dir():
        raise UserError(f"--json {str(path)!r} is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"no such folder to write into: {path.parent}; make it, or correct --json")
    if path.exists() and not force:
        raise UserError(f"{str(path)!r} exists already; choose another name, or overwrite it with --force")


def sections(names: Sequence[str], bench: Bench) -> list[Section]:
    """The sections named."""
    from tts.benchmark.acoustic import Acoustic
    from tts.benchmark.lm import LM
    from tts.benchmark.memory import Memory
    from tts.benchmark.parts import Batch, Parts
    from tts.benchmark.stream import Stream

    made = {one.name: one for one in (Parts, Batch, LM, Acoustic, Stream, Memory)}
    return [made[name](bench) for name in names]


def conditions(bench: Bench) -> dict[str, Any]:
    """What was measured, and where."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    model = bench.tts.model
    sizes = {
        part: sum(p.numel() for p in getattr(model, part).parameters()) / 1e6
        for part in ("tokenizer", "lm", "acoustic", "vocoder")
    }
    flow = str(model.acoustic.dit.get_parameter("blocks.0.attention.q_proj.weight").dtype)
    try:
        compared = version("transformers")
    except PackageNotFoundError:
        compared = "none"
    return {
        "model": f"{model.folder}: {', '.join(f'{part} {size:.1f} M' for part, size in sizes.items())}",
        "precision": f"LM {model.lm.llama.precision}, flow {flow.removeprefix('torch.')}",
        "voice": f"{bench.voice.seconds:.2f} s",
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, transformers {compared}",
        "rounds": bench.plan.runs,
    }


if __name__ == "__main__":
    sys.exit(main())
