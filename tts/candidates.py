"""How much it helps to draw more candidates and to take the best: ``python -m tts.candidates``.

The same cases are spoken and measured (`tts.evaluate`) with 1, 2, 4 ... candidates for each sentence. The differences
to the first are paired, case by case, so that their intervals do not hold how hard the cases are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import UserError
from tts.cli import Parser, guarded, set_threads

if TYPE_CHECKING:
    from tts.evaluate import Case, Results
    from tts.evaluate.figures import Estimate
    from tts.evaluate.sample import Metric
    from tts.pipeline import TTS, Settings

COUNTS = (1, 2, 4, 8)
SHOWN = ("wer", "per", "similarity", "rtf")
"""Figures of `tts.evaluate` that are told."""

TABLE, PLOT = "candidates.md", "candidates.png"


@dataclass(frozen=True)
class Row:
    """What came out with so many candidates.

    Attributes:
        count: candidates for each sentence.
        figures: by their keys in `tts.evaluate`.
        gained: differences to the first row, of figures that are measured on the sounds.
    """

    count: int
    figures: Mapping[str, Estimate]
    gained: Mapping[str, Estimate]


def compare(
    cases: Sequence[Case],
    out: Path,
    tts: TTS,
    settings: Settings,
    *,
    counts: Sequence[int] = COUNTS,
    metrics: Sequence[Metric],
    progress: bool = False,
) -> list[Row]:
    """Speak and measure the cases with every number of candidates; writes a table and a plot into `out`.

    Started again, it goes on where it was.

    Args:
        cases: see `tts.evaluate.read_cases`.
        out: folder to write into; the evaluations are in folders of it.
        tts: the model.
        settings: how to speak, but for the number of candidates.
        counts: how many candidates; the first is what the others are compared with.
        metrics: what to measure.
        progress: show bars on standard error.

    Raises:
        UserError: see `tts.evaluate.evaluate`.
    """
    from tts.evaluate import evaluate
    from tts.evaluate.chain import TEXT

    if not out.parent.is_dir():
        raise UserError(f"no such folder to write into: {out.parent}; make it, or correct --out")
    out.mkdir(exist_ok=True)
    rows: list[Row] = []
    first: Results | None = None
    for count in counts:
        made = evaluate(
            cases,
            out / f"n{count}",
            tts,
            replace(settings, candidates=count),
            rows=[TEXT],
            metrics=metrics,
            progress=progress,
        )
        first = first or made
        figures = {key: one for key, one in made.rows[TEXT].items() if key in SHOWN and one is not None}
        rows.append(Row(count, figures, {} if made is first else _gained(first, made)))
    labels = (
        {figure.key: (figure.label, figure.unit, figure.digits) for figure in first.figures} if first else {}
    )
    (out / TABLE).write_text(table(rows, labels), encoding="utf-8")
    plot(rows, labels, out / PLOT)
    return rows


def _gained(first: Results, other: Results) -> dict[str, Estimate]:
    """Differences to the first, figure by figure, over the same cases."""
    gained: dict[str, Estimate] = {}
    for figure in first.figures:
        if figure.key in SHOWN and figure.key != "rtf":
            found = figure.change(first.cases, other.cases)
            if found is not None:
                gained[figure.key] = found
    return gained


Labels = Mapping[str, tuple[str, str, int]]
"""Key of a figure -> its label, its unit ("%" or ""), digits after the point."""


def table(rows: Sequence[Row], labels: Labels) -> str:
    """The rows as a table in Markdown, with 95 % intervals."""
    keys = [key for key in SHOWN if any(key in row.figures for row in rows)]
    lines = ["| candidates | " + " | ".join(_heads(keys, labels)) + " |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for row in rows:
        cells = []
        for key in keys:
            cells.append(_shown(row.figures.get(key), labels[key]))
            if key != "rtf":
                cells.append(_shown(row.gained.get(key), labels[key], sign=True))
        lines.append(f"| {row.count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _heads(keys: Sequence[str], labels: Labels) -> list[str]:
    heads = []
    for key in keys:
        heads.append(labels[key][0])
        if key != "rtf":
            heads.append("change")
    return heads


def _shown(one: Estimate | None, label: tuple[str, str, int], *, sign: bool = False) -> str:
    if one is None:
        return "-"
    _, unit, digits = label
    scale = 100 if unit == "%" else 1
    form = f"{'+' if sign else ''}.{digits}f"
    value, low, high = (format(scale * x, form) for x in (one.value, one.low, one.high))
    return f"{value}{' %' if unit else ''} ({low} to {high})"


def plot(rows: Sequence[Row], labels: Labels, path: Path) -> None:
    """The figures over the number of candidates, with their intervals, as a picture."""
    from matplotlib.figure import Figure

    keys = [key for key in SHOWN if any(key in row.figures for row in rows)]
    figure = Figure(figsize=(3.2 * max(1, len(keys)), 3), layout="constrained")
    for n, key in enumerate(keys, start=1):
        label, unit, _ = labels[key]
        scale = 100 if unit == "%" else 1
        there = [(row.count, row.figures[key]) for row in rows if key in row.figures]
        counts, values = [count for count, _ in there], [scale * one.value for _, one in there]
        spread = [
            [scale * (one.value - one.low) for _, one in there],
            [scale * (one.high - one.value) for _, one in there],
        ]
        axes = figure.add_subplot(1, len(keys), n)
        axes.errorbar(counts, values, yerr=spread, marker="o", capsize=3)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("candidates")
        axes.set_title(label + (", %" if unit else ""), fontsize=9)
    figure.savefig(path, dpi=120)


# -------------------------------------------------------------------------------------------- the command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, see `tts.cli`."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.candidates",
        description="Measure how word errors, similarity and cost move with the number of candidates.",
        epilog="Example: python -m tts.candidates cases.jsonl --limit 100 --out runs/candidates",
        allow_abbrev=False,
    )
    parser.add_argument(
        "cases", metavar="CASES", help="a list of cases, as for tts.evaluate; see docs/evaluate.md"
    )
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder to write into, or to go on in")
    parser.add_argument(
        "--counts",
        default=",".join(map(str, COUNTS)),
        metavar="A,B",
        help="of candidates; default: %(default)s",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N cases")
    parser.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    parser.add_argument("--recogniser", default="base", metavar="NAME", help="as for tts.evaluate")
    parser.add_argument("--encoder", default="resemblyzer", metavar="NAME", help="as for tts.evaluate")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda ...; default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N", help="processor cores to use; default: all")
    return parser


def _run(args: argparse.Namespace) -> None:
    counts = _counts(args.counts)
    if args.threads is not None:
        set_threads(args.threads)
    import torch

    from tts.evaluate import read_cases
    from tts.evaluate.cost import Cost
    from tts.evaluate.recognise import Intelligibility, recogniser
    from tts.evaluate.robustness import Robustness
    from tts.evaluate.similarity import Similarity, encoder
    from tts.pipeline import TTS, Settings

    cases = read_cases(args.cases, limit=args.limit)
    metrics: list[Metric] = [
        Intelligibility(recogniser(args.recogniser, device=args.device, threads=torch.get_num_threads())),
        Similarity(encoder(args.encoder, device=args.device)),
        Robustness(),
        Cost(),
    ]
    for metric in metrics:
        metric.require()
    out = Path(args.out)
    tts = TTS.load(args.model, device=args.device)
    compare(cases, out, tts, Settings(seed=args.seed), counts=counts, metrics=metrics, progress=True)
    print((out / TABLE).read_text(encoding="utf-8"))
    print(f"wrote {out / TABLE} and {PLOT} beside it")


def _counts(given: str) -> list[int]:
    try:
        counts = [int(one) for one in given.split(",")]
    except ValueError as error:
        raise UserError(f"--counts {given!r} is no list of whole numbers; give for example 1,2,4") from error
    if min(counts) < 1 or len(set(counts)) < len(counts):
        raise UserError(f"--counts {given!r} must be different numbers from 1; give for example 1,2,4")
    return counts


if __name__ == "__main__":
    sys.exit(main())
