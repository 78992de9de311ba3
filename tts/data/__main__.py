"""Command line of data: `python -m tts.data import|report`.

Exit status: 0 done, whatever the report found; 2 what was given cannot be used, with one line `error: ...`; 130
interrupted; 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from codec.errors import UserError

if TYPE_CHECKING:
    from tts.data.importers.run import Imported, Options
    from tts.data.report.reading import TokenReader

HELP = """\
usage: python -m tts.data COMMAND ...

  import    make a manifest of recordings in any common layout; cut long ones, let a recogniser write missing texts
                python -m tts.data import LJSpeech-1.1 --out lj.jsonl
  report    look at the data before training: what is wrong, and what to do about it
                python -m tts.data report lj.jsonl --html report.html --fix lj-fixed.jsonl

python -m tts.data COMMAND --help tells more."""

SHOWN = 20  # problems printed


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are as all others': one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _new_parser(name: str, description: str, epilog: str = "") -> _Parser:
    return _Parser(
        prog=f"python -m tts.data {name}",
        description=description,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# ----------------------------------------------------------------------------------------------------- import


def run_import(args: Sequence[str]) -> None:
    """``python -m tts.data import``: a manifest to train from."""
    parser = _new_parser(
        "import",
        "Make a manifest of a corpus. Nothing of the corpus is changed or copied.",
        "formats, in the order in which they are tried:\n" + _formats(),
    )
    parser.add_argument("source", type=Path, help="the corpus' folder, or the file that lists its recordings")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("manifest.jsonl"),
        help="manifest to write; .jsonl.gz writes Lhotse cuts; default: %(default)s",
    )
    parser.add_argument("--format", help="one of those below; default: find out")
    parser.add_argument("--audio", type=Path, metavar="FOLDER", help="where else to look for recordings")
    parser.add_argument(
        "--language",
        default="en-us",
        help="where the corpus does not say: en-us, de, fr-fr ...; default: %(default)s",
    )
    parser.add_argument("--speaker", help="where the corpus does not say; default: its folder's name")
    parser.add_argument(
        "--transcribe",
        metavar="MODEL",
        help="write missing texts with faster-whisper: a name as large-v3, or a folder",
    )
    parser.add_argument(
        "--ignore-text", action="store_true", help="as if the corpus had no texts: for --transcribe"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="of the recogniser; default: %(default)s",
    )
    parser.add_argument(
        "--vad",
        choices=("auto", "silero", "energy"),
        default="auto",
        help="finds the pauses in long recordings; default: silero where it is installed",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        nargs=2,
        default=(1.0, 15.0),
        metavar=("MIN", "MAX"),
        help="of the pieces that long recordings without a text are cut into; default: 1 15",
    )
    _add_common(parser)
    known = parser.parse_args(args)
    _require_new(known.out, known.force)
    _require_new(_listing(known.out), known.force)
    if not known.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"--out {known.out}: a manifest is written as .jsonl, or as Lhotse cuts: .jsonl.gz")
    if not 0.3 <= known.seconds[0] < known.seconds[1] <= 40.0:
        raise UserError(f"--seconds {known.seconds[0]:g} {known.seconds[1]:g}: give 0.3 <= MIN < MAX <= 40")
    if known.ignore_text and known.transcribe is None:
        raise UserError("--ignore-text leaves nothing to learn from; give --transcribe MODEL, too")

    from tts.data.importers.run import import_corpus
    from tts.data.importers.transcribe import FasterWhisper

    recogniser = None if known.transcribe is None else FasterWhisper(known.transcribe, device=known.device)
    done = import_corpus(known.source, known.out, _options(known), recogniser=recogniser)
    _tell(done, known.out)


def _listing(out: Path) -> Path:
    """Where the problems are listed that are too many to print."""
    return out.with_name(f"{out.name}.left_out.txt")


def _options(known: argparse.Namespace) -> Options:
    from tts.data.importers.run import Options

    return Options(
        format=known.format,
        audio=known.audio,
        language=known.language,
        speaker=known.speaker,
        ignore_text=known.ignore_text,
        vad=known.vad,
        shortest=known.seconds[0],
        longest=known.seconds[1],
        jobs=known.jobs,
    )


def _formats() -> str:
    from tts.data.importers.run import FORMATS

    return "\n".join(f"  {one.name:12} {one.what}" for one in FORMATS)


def _tell(done: Imported, out: Path) -> None:
    """What was imported, what was not, and what to do next."""
    for problem in done.problems[:SHOWN]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(done.problems) > SHOWN:
        listed = _listing(out)
        listed.write_text("".join(f"{problem}\n" for problem in done.problems), encoding="utf-8")
        print(f"left out: {len(done.problems) - SHOWN} more, all of them listed in {listed}", file=sys.stderr)
    hours = sum(done.seconds) / 3600
    speakers = len({entry.speaker for entry in done.entries})
    languages = ", ".join(sorted({str(entry.language) for entry in done.entries}))
    print(
        f"wrote {out}: {len(done.entries)} utterances, {hours:.2f} hours, {speakers} "
        f"{'speaker' if speakers == 1 else 'speakers'}, {languages}; read as {done.format}, "
        f"{len(done.problems)} left out"
    )
    for note in done.notes:
        print(f"note: {note}")
    print(
        f"look at it: python -m tts.data report {out}\ntrain:      python train.py all --manifest {out} --out runs/mine"
    )


# ----------------------------------------------------------------------------------------------------- report


def run_report(args: Sequence[str]) -> None:
    """``python -m tts.data report``: what is wrong with a corpus."""
    parser = _new_parser("report", "Look at the data of a manifest; tell what is wrong and what to do.")
    parser.add_argument("manifest", type=Path, help="as import writes it, or your own; Lhotse cuts, too")
    parser.add_argument(
        "--html", type=Path, default=Path("report.html"), help="page to write; default: %(default)s"
    )
    parser.add_argument(
        "--fix", type=Path, metavar="OUT.jsonl", help="write a new manifest without what is safe to drop"
    )
    parser.add_argument(
        "--drop", default="", metavar="KINDS", help="with --fix: findings to drop as well, as clipped,noisy"
    )
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="whose tokenizer reads; default: the embedded one"
    )
    parser.add_argument("--no-reading", action="store_true", help="do not check transcripts by a tokenizer")
    parser.add_argument(
        "--device", default="cpu", help="of the tokenizer, with --jobs 1; default: %(default)s"
    )
    parser.add_argument(
        "--dnsmos",
        type=int,
        default=100,
        metavar="N",
        help="utterances that DNSMOS hears where speechmos is installed, a second or more each; default: %(default)s",
    )
    parser.add_argument(
        "--players", type=int, default=10, metavar="N", help="in the page, of each kind; default: %(default)s"
    )
    _add_common(parser)
    known = parser.parse_args(args)
    kinds = [kind for kind in known.drop.split(",") if kind]
    _check_report(known, kinds)

    from rich.console import Console

    from tts.data.report.examine import examine
    from tts.data.report.fix import fix
    from tts.data.report.measure import dnsmos
    from tts.data.report.page import write_page
    from tts.data.report.terminal import show
    from tts.text.symbols import DEFAULT_SYMBOLS

    reader = None if known.no_reading else _reader(known.model, known.device)
    report = examine(
        known.manifest,
        reader=reader,
        rate=dnsmos() if known.dnsmos > 0 else None,
        symbols=DEFAULT_SYMBOLS if reader is None else reader.symbols,
        most_rated=max(1, known.dnsmos),
        jobs=known.jobs,
    )
    show(report, Console(soft_wrap=False))
    write_page(report, known.html, players=known.players)
    print(f"wrote {known.html}")
    if known.fix is not None:
        done = fix(report, known.fix, also_drop=kinds)
        dropped = ", ".join(f"{count} {kind}" for kind, count in done.dropped.items()) or "none"
        repaired = ", ".join(f"{count} {kind}" for kind, count in done.repaired.items()) or "none"
        print(f"wrote {known.fix}: {done.kept} utterances; dropped: {dropped}; repaired: {repaired}")


def _check_report(known: argparse.Namespace, kinds: Sequence[str]) -> None:
    from tts.data.report.checks import CHECKS

    names = [check.__name__ for check in CHECKS]
    if unknown := [kind for kind in kinds if kind not in names]:
        raise UserError(f"--drop {unknown[0]!r} is no kind of finding; one of {', '.join(names)}")
    if kinds and known.fix is None:
        raise UserError("--drop says what --fix leaves out; give --fix OUT.jsonl, too")
    _require_new(known.html, known.force)
    if known.fix is not None:
        _require_new(known.fix, known.force)
        if known.fix.suffix != ".jsonl":
            raise UserError(f"--fix {known.fix}: a manifest is written as .jsonl")


def _reader(model: Path | None, device: str) -> TokenReader:
    """The tokenizer of a model folder; of one still in training, too, once it has its tokenizer."""
    from codec.tokenizer.model import Tokenizer
    from tts.checkpoint import EMBEDDED, read_part
    from tts.data.report.reading import TokenReader
    from tts.text.symbols import SymbolTable

    folder = model or EMBEDDED
    missing = [name for name in ("features", "tokenizer") if not (folder / f"{name}.safetensors").is_file()]
    if missing:
        raise UserError(
            f"{folder}: no {missing[0]}.safetensors in it; give a model folder that train.py wrote"
        )
    features, _ = read_part(folder / "features.safetensors", device)
    tokenizer, note = read_part(folder / "tokenizer.safetensors", device)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(
            f"{folder / 'tokenizer.safetensors'}: holds a {type(tokenizer).__name__}, not a tokenizer"
        )
    return TokenReader(features, tokenizer, SymbolTable.from_list(note["symbols"]), device=device)


# ----------------------------------------------------------------------------------------------------- common


def _add_common(parser: _Parser) -> None:
    parser.add_argument("--jobs", type=int, default=1, help="processes; default: %(default)s")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def _require_new(path: Path, force: bool) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file inside it")
    if path.exists() and not force:
        raise UserError(f"{path} exists already; choose another name, or overwrite it with --force")


COMMANDS = {"import": run_import, "report": run_report}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, see above."""
    args = list(sys.argv[1:] if argv is None else argv)
    command = args[0] if args else "--help"
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if command in ("--help", "-h"):
                print(HELP)
            elif command in COMMANDS:
                COMMANDS[command](args[1:])
            else:
                raise UserError(f"{command!r} is no command of tts.data; one of {', '.join(COMMANDS)}")
            sys.stdout.flush()
        return 0
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whatever is still buffered must not fail again when Python exits
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")


def _fail(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
