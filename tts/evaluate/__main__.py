"""Command line of the evaluation: ``python -m tts.evaluate CASES --out FOLDER``.

Exit status: 0 done; 2 what was given cannot be used, with one line `error: ...`; 130 interrupted, the same command
goes on. Only argparse is imported before the arguments are read, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from codec.errors import UserError
from tts.options import PRECISIONS, selected

if TYPE_CHECKING:
    from tts.evaluate.sample import Metric

METRICS = ("intelligibility", "similarity", "naturalness", "prosody", "robustness", "cost")
SETTINGS = ("seed", "temperature", "steps", "guidance", "candidates", "retries", "batch")
MAX_THREADS = 256


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are as all others': one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, see above."""
    try:
        args = _parser().parse_args(argv)
        logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _run(args)
        return 0
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except OSError as error:  # a closed folder, a full disk
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")


def _fail(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tts.evaluate",
        description="Measure a model on a list of cases. Stopped and started again, it goes on.",
        epilog="Example: python -m tts.evaluate cases.jsonl --model runs/mine/model --out runs/measured",
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "cases",
        metavar="CASES",
        help='JSON lines, {"text": ..., "prompt": ...} and more, or a meta.lst of Seed-TTS-eval; see docs/evaluate.md',
    )
    what.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N cases")
    what.add_argument(
        "--rows",
        metavar="A,B",
        help="of text (the model), tokens, vocoder, recording (the oracles, of cases with a reference); "
        "default: all that the cases allow",
    )
    what.add_argument(
        "--metrics", metavar="A,B", default=",".join(METRICS), help="of %(default)s; default: all"
    )
    what.add_argument("--language", default="en-us", help="of cases that name none; default: %(default)s")

    where = parser.add_argument_group("where to")
    where.add_argument("--out", metavar="FOLDER", required=True, help="folder to write into, or to go on in")
    where.add_argument("--force", action="store_true", help="start anew where the folder holds an evaluation")
    where.add_argument(
        "--players", type=int, metavar="N", help="cases to hear and see in the page, the worst; default: 40"
    )

    by = parser.add_argument_group("what measures")
    by.add_argument(
        "--recogniser",
        metavar="NAME",
        default="base",
        help="a model of faster-whisper by name (large-v3 ...) or folder; default: %(default)s",
    )
    by.add_argument(
        "--encoder",
        metavar="NAME",
        default="resemblyzer",
        help="of speakers: resemblyzer, or a transformers or speechbrain model by name or folder "
        "(microsoft/wavlm-base-plus-sv, speechbrain/spkrec-ecapa-voxceleb); default: %(default)s",
    )
    by.add_argument(
        "--naturalness",
        metavar="NAME",
        default="dnsmos",
        help="dnsmos, distillmos or utmos; default: %(default)s",
    )

    how = parser.add_argument_group("how to speak; defaults as infer.py's")
    how.add_argument("--seed", type=int, metavar="N")
    how.add_argument("--temperature", type=float, metavar="X")
    how.add_argument("--steps", type=int, metavar="N")
    how.add_argument("--guidance", type=float, metavar="X")
    how.add_argument("--candidates", type=int, metavar="N", help="continuations to choose from")
    how.add_argument("--retries", type=int, metavar="N", help="new tries at a sentence that reads badly")
    how.add_argument("--batch", type=int, metavar="N", help="sentences made at once")
    how.add_argument("--precision", default="float32", choices=PRECISIONS, help="default: %(default)s")
    how.add_argument(
        "--engine", default="torch", help="what runs the LM, as in infer.py; default: %(default)s"
    )
    how.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...; default: %(default)s")
    how.add_argument("--threads", type=int, metavar="N", help="processor cores to use; default: all")
    return parser


def _run(args: argparse.Namespace) -> None:
    """Check everything that can be checked at once, then make and measure, then print."""
    from tts.evaluate.cases import read_cases

    names = chosen(args.metrics)
    cases = read_cases(args.cases, limit=args.limit, language=args.language)
    if args.threads is not None and not 1 <= args.threads <= MAX_THREADS:
        raise UserError(
            f"threads {args.threads} is out of range; give a whole number from 1 to {MAX_THREADS}"
        )
    if args.players is not None and args.players < 0:
        raise UserError(f"players {args.players} is out of range; give a whole number from 0")

    import torch

    from tts.evaluate.page import PLAYERS
    from tts.evaluate.report import report
    from tts.evaluate.run import check_rows, evaluate
    from tts.pipeline import TTS, Settings

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    given: dict[str, Any] = {
        name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None
    }
    settings = Settings(**given)
    rows = None if args.rows is None else [row.strip() for row in args.rows.split(",") if row.strip()]
    check_rows(rows, cases)
    metrics = make_metrics(names, args)
    for metric in metrics:
        metric.require()
    results = evaluate(
        cases,
        Path(args.out),
        TTS.load(args.model, device=args.device, precision=args.precision, engine=args.engine),
        settings,
        rows=rows,
        metrics=metrics,
        force=args.force,
        players=PLAYERS if args.players is None else args.players,
        progress=True,
    )
    print(report(results, [name for name in METRICS if name not in names]))
    print(f"\nwrote {results.folder / 'index.html'}, results.json and cases.jsonl beside it")


def chosen(names: str) -> list[str]:
    """The metrics named, in our order.

    Raises:
        UserError: there is no such metric, or none is named.
    """
    return selected(names, METRICS, "metric")


def make_metrics(names: Sequence[str], args: argparse.Namespace) -> list[Metric]:
    """The metrics named, with what measures them."""
    import torch

    from tts.evaluate.cost import Cost
    from tts.evaluate.naturalness import Naturalness, judge
    from tts.evaluate.prosody import Prosody
    from tts.evaluate.recognise import Intelligibility, recogniser
    from tts.evaluate.robustness import Robustness
    from tts.evaluate.similarity import Similarity, encoder

    threads = torch.get_num_threads()
    made: dict[str, Metric] = {
        "intelligibility": Intelligibility(recogniser(args.recogniser, device=args.device, threads=threads)),
        "similarity": Similarity(encoder(args.encoder, device=args.device), progress=True),
        "naturalness": Naturalness(judge(args.naturalness, threads=threads)),
        "prosody": Prosody(),
        "robustness": Robustness(),
        "cost": Cost(),
    }
    return [made[name] for name in names]


if __name__ == "__main__":
    sys.exit(main())
