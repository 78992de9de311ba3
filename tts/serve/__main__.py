"""Command line: `python -m tts.serve` speaks to OpenAI's clients, and shows a page."""

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from codec.errors import UserError
from tts.cli import Parser, guarded
from tts.options import PRECISIONS

LOOPBACK = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end; the exit status is as `tts.cli`'s."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.serve",
        description="Speak over HTTP, as OpenAI's clients ask for it.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    add("--host", default=LOOPBACK, help="address to listen at; 0.0.0.0 for all; default: %(default)s")
    add("--port", type=int, default=8000, help="default: %(default)s")
    add("--api-key-file", metavar="FILE", type=Path, help="ask for the key that this file holds")
    add("--voices", metavar="FOLDER", type=Path, help="keep uploaded voices here; default: until the end")
    add("--device", default="cpu", help="cpu, cuda ...; default: %(default)s")
    add(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="flow16 and mixed are faster where the processor multiplies bfloat16; default: %(default)s",
    )
    add("--slots", type=int, default=8, metavar="N", help="requests worked on at once; default: %(default)s")
    add("--queue", type=int, default=16, metavar="N", help="requests that may wait; default: %(default)s")
    add("--workers", type=int, metavar="N", help="threads that make sound; default: a core each, a GPU one")
    add(
        "--batch", type=int, metavar="N", help="chunks made at once by a thread; default: 4, on a GPU --slots"
    )
    add("--max-chars", type=int, default=4096, metavar="N", help="of a text; default: %(default)s")
    add("--max-upload", type=int, default=20, metavar="MIB", help="of a recording; default: %(default)s")
    add("--timeout", type=float, default=300, metavar="S", help="for a request; default: %(default)s")
    add(
        "--drain",
        type=int,
        default=60,
        metavar="S",
        help="to end what runs when told to end; default: %(default)s",
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    for name in ("slots", "workers", "batch", "max_chars", "max_upload", "timeout"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            raise UserError(
                f"--{name.replace('_', '-')} {getattr(args, name)} is out of range; give more than 0"
            )
    if args.queue < 0 or not 0 <= args.port < 65536:
        raise UserError(
            f"--queue {args.queue} --port {args.port}: give a queue from 0 and a port from 0 to 65535"
        )
    try:
        import uvicorn

        from tts.serve.app import Options, create_app
        from tts.serve.engine import BATCH, Engine
        from tts.serve.guard import read_key
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; install it with: pip install -e '.[serve]'") from error
    from tts.pipeline import TTS

    tts = TTS.load(args.model, device=args.device, precision=args.precision)
    on_cpu = tts.device.type == "cpu"
    engine = Engine(
        tts,
        slots=args.slots,
        queue=args.queue,
        workers=args.workers or (len(os.sched_getaffinity(0)) if on_cpu else 1),
        batch=args.batch or (BATCH if on_cpu else args.slots),
    )
    options = Options(
        model="embedded" if args.model is None else Path(args.model).resolve().name,
        api_key=None if args.api_key_file is None else read_key(args.api_key_file),
        max_chars=args.max_chars,
        max_upload=args.max_upload * 2**20,
        timeout=args.timeout,
        voices=args.voices,
    )
    # uvicorn ends what runs at SIGTERM, then raises it again: that it was told to end is no failure
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        create_app(engine, options),
        host=args.host,
        port=args.port,
        log_level="info",
        access_log=False,
        timeout_graceful_shutdown=args.drain,
        server_header=False,
    )


if __name__ == "__main__":
    raise SystemExit(main())
