"""Command line of the exports: ``python -m tts.export``.

Exit status as `tts.cli` has it. Only argparse is imported before the arguments are read, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import UserError
from tts.cli import Parser, guarded

if TYPE_CHECKING:
    from tts.checkpoint import Model

NEEDS = {
    "transformers": ("tokenizers",),
    "gguf": ("gguf",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}
PRECISIONS = {
    "transformers": ("float32", "float16", "bfloat16"),
    "gguf": ("f16", "f32", "q8_0"),
    "onnx": ("float32", "int8"),
}
"""By target; the first is the default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.export",
        description="Write a model for other programs: the LM as a plain Llama that transformers, vLLM, SGLang or "
        "llama.cpp run, or all parts as ONNX.",
        epilog="Example: python -m tts.export --to transformers served --dtype float16",
        allow_abbrev=False,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; for gguf, a file")
    parser.add_argument("--to", required=True, choices=tuple(NEEDS), help="what to write")
    parser.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    told = "; ".join(f"{target}: {', '.join(kinds)}" for target, kinds in PRECISIONS.items())
    parser.add_argument("--dtype", metavar="KIND", help=f"of the weights; {told}; default: the first")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    return parser


def _run(args: argparse.Namespace) -> None:
    """Check everything that can be checked at once, then load and write."""
    kinds = PRECISIONS[args.to]
    kind = args.dtype or kinds[0]
    if kind not in kinds:
        raise UserError(f"--dtype {kind!r} is nothing that {args.to} has; give one of {', '.join(kinds)}")
    missing = [name for name in NEEDS[args.to] if find_spec(name) is None]
    if missing:
        raise UserError(
            f'--to {args.to} needs {", ".join(missing)}, not installed here; run pip install ".[export]"'
        )
    _check_out(args.out, args.to, force=args.force)

    from tts.checkpoint import Model

    for path in _write(Model.load(args.model), args.to, args.out, kind):
        print(f"wrote  {path}: {path.stat().st_size / 2**20:.2f} MiB")


def _check_out(out: Path, target: str, *, force: bool) -> None:
    if target == "gguf":
        if out.suffix != ".gguf" or out.is_dir():
            raise UserError(f"{str(out)!r} is no name for a gguf file; give one that ends in .gguf")
        if not out.parent.is_dir():
            raise UserError(f"no such folder to write into: {out.parent}; make it, or correct OUT")
        if out.exists() and not force:
            raise UserError(f"{str(out)!r} exists already; choose another name, or overwrite it with --force")
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"{str(out)!r} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise UserError(f"{str(out)!r} is not empty; choose another folder, or write into it with --force")


def _write(model: Model, target: str, out: Path, kind: str) -> list[Path]:
    if target == "transformers":
        from tts.export.as_transformers import export_transformers

        return export_transformers(model, out, dtype=kind)
    if target == "gguf":
        from tts.export.as_gguf import export_gguf

        return [export_gguf(model, out, kind=kind)]
    from tts.export.as_onnx import export_onnx

    return export_onnx(model, out, int8=kind == "int8")


if __name__ == "__main__":
    sys.exit(main())
