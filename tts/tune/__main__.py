"""Command line of fine-tuning: `python -m tts.tune`.

Exit status: 0 the tuned model is better and in OUT/model; 1 it is not, and nothing is there; 2 what was given cannot
be used, with one line `error: ...`.
"""

import argparse
import logging
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from codec.errors import UserError

if TYPE_CHECKING:
    from tts.tune.run import Tuning


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m tts.tune --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, see above."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        args, others = _parser().parse_known_args(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _run(args, others)
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tts.tune",
        description="Adapt a model to recordings, measure before and after, and keep what is better.",
        epilog="Anything else is given to both trainings, as --trainer.accelerator=gpu.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="JSON lines: audio, text, speaker, language"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--model", type=Path, help="model folder to begin with; default: the embedded model")
    parser.add_argument(
        "--lora",
        type=int,
        metavar="RANK",
        help="of the adapters, 0 for all weights; default: by hours of speech",
    )
    parser.add_argument("--steps", type=int, help="of each training, at most; default: by hours of speech")
    parser.add_argument(
        "--lr", type=float, help="peak learning rate; default: 1e-3 for adapters, 2e-4 for all"
    )
    parser.add_argument(
        "--replay",
        type=Path,
        action="append",
        default=[],
        metavar="TOKENS",
        help="folder of cuts the base was trained on (of train.py extract), mixed in so that other voices survive",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out broken manifest lines, and list them"
    )
    parser.add_argument("--no-evaluation", action="store_true", help="keep the result unmeasured")
    parser.add_argument("--recogniser", default="base.en", help="faster-whisper model, by name or folder")
    return parser


def _run(args: argparse.Namespace, others: Sequence[str]) -> int:
    from tts.checkpoint import EMBEDDED
    from tts.training.fit import run_stage
    from tts.tune.run import Tuning

    for other in others:
        if not other.startswith("--trainer.") or "=" not in other:
            raise UserError(
                f"{other!r} is not understood; trainer settings are given as --trainer.accelerator=gpu"
            )
    for name, value, least in (("lora", args.lora, 0), ("steps", args.steps, 1)):
        if value is not None and value < least:
            raise UserError(f"--{name} {value} is out of range; give a whole number from {least}")
    if args.lr is not None and not 0 < args.lr < 1:
        raise UserError(f"--lr {args.lr} is out of range; give a number between 0 and 1")
    kept = args.out / "model"
    if kept.exists():
        raise UserError(f"{kept} is there already; choose another --out")
    tuning = Tuning(
        args.manifest,
        args.out,
        args.model or EMBEDDED,
        lora=args.lora,
        steps=args.steps,
        lr=args.lr,
        replay=args.replay,
        skip_bad=args.skip_bad,
        overrides=tuple(others),
    )
    tuning.run(lambda arguments: run_stage(["fit", *arguments]))
    if not args.no_evaluation and not _better(tuning, args.recogniser):
        print(
            f"kept the base; the tuned model is in {tuning.tuned}, pages to listen to in {args.out / 'evaluation'}"
        )
        return 1
    shutil.copytree(tuning.tuned, kept)
    voices = sorted(path.stem for path in (kept / "voices").glob("*.safetensors"))
    voice = f"--voice {voices[0]} " if voices else "--voice RECORDING "
    print(f'finished: {kept}\nhear it:  python infer.py --model {kept} {voice}--text "Hello there."')
    return 0


def _better(tuning: "Tuning", recogniser: str) -> bool:
    from tts.evaluate.recognise import Intelligibility, Whisper
    from tts.evaluate.robustness import Robustness
    from tts.evaluate.sample import Metric
    from tts.evaluate.similarity import Resemblyzer, Similarity
    from tts.tune.verdict import measure

    metrics: list[Metric] = []
    for metric in (
        Intelligibility(Whisper(recogniser)),
        Similarity(Resemblyzer(), progress=False),
        Robustness(),
    ):
        try:
            metric.require()
            metrics.append(metric)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    verdict = measure(tuning, metrics)
    for reason in verdict.reasons:
        print(reason)
    return verdict.better


if __name__ == "__main__":
    sys.exit(main())
