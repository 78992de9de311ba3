"""Command line of the hub: ``python -m tts.hub push|pull``.

Exit status as `tts.cli` has it. Only argparse is imported before the arguments are read, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import UserError
from tts.cli import Parser, guarded

if TYPE_CHECKING:
    from tts.hub.names import Name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.hub",
        description="Model folders to and from the Hugging Face hub, with card, licence, figures and checksums.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="push|pull")
    push = commands.add_parser("push", help="put a model folder on the hub", allow_abbrev=False)
    push.add_argument("folder", type=Path, metavar="FOLDER", help="a model folder")
    push.add_argument("name", metavar="NAME", help="owner/model, or owner/model@tag")
    push.add_argument("--licence", "--license", default="", metavar="ID", help="apache-2.0, cc-by-4.0 ...")
    push.add_argument(
        "--language",
        action="append",
        default=[],
        metavar="CODE",
        help="that it speaks: en, de ...; may be repeated",
    )
    push.add_argument(
        "--evaluation",
        type=Path,
        metavar="OUT",
        help="of python -m tts.evaluate on this model; goes onto the card",
    )
    push.add_argument("--private", action="store_true", help="seen by nobody else")
    pull = commands.add_parser("pull", help="fetch a model folder", allow_abbrev=False)
    pull.add_argument("name", metavar="NAME", help="owner/model, or owner/model@revision")
    pull.add_argument(
        "--out", type=Path, metavar="FOLDER", help="copy it here; default: it stays in the cache"
    )
    for command in (push, pull):
        command.add_argument("--hub", type=Path, metavar="FOLDER", help="a folder that acts as the hub")
    return parser


def _run(args: argparse.Namespace) -> None:
    from tts.hub.hubs import hub_of
    from tts.hub.names import Name

    name, hub = Name.read(args.name), hub_of(args.hub)
    if args.command == "pull":
        _pull(name, args)
        return
    if name.revision and not re.fullmatch(r"[\w.-]+", name.revision):
        raise UserError(f"{name.revision!r} is no tag; give letters, digits, dots and dashes, as v1.0")

    from tts.hub.push import push

    revision = push(
        args.folder,
        name,
        hub,
        licence=args.licence,
        languages=args.language,
        evaluation=args.evaluation,
        private=args.private,
    )
    print(f"pushed {args.folder} as {name}; this state, for ever: {name.name}@{revision}")


def _pull(name: Name, args: argparse.Namespace) -> None:
    from tts.hub.hubs import hub_of
    from tts.hub.names import pull

    if args.out is not None and args.out.exists():
        raise UserError(f"{str(args.out)!r} exists already; choose another folder")
    folder = pull(name, hub_of(args.hub))
    if args.out is not None:
        shutil.copytree(folder, args.out)
    print(f"pulled {name}, checksums right: {args.out or folder}")
    print(f"this state, for ever: {name.name}@{folder.name}")


if __name__ == "__main__":
    sys.exit(main())
