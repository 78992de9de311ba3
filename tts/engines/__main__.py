"""Which engine is the fastest here: ``python -m tts.engines --engine torch --engine llama.cpp:lm.gguf``.

Every engine writes the tokens of the same sentences behind the same voice; nothing is made of them. Exit status as
`tts.cli` has it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from codec.errors import UserError
from tts.cli import PROMPT, Parser, guarded, set_threads

if TYPE_CHECKING:
    from tts.lm.model import Aligned, Request, SpeechLM

TEXT = (
    "The quick brown fox jumps over the lazy dog. Nobody had seen the letter before it came back in spring. "
    "What a pity that the train was late! A river runs through the middle of the old town."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.engines",
        description="Compare engines of the LM: speed of one row and of a batch, and whether the tokens are torch's.",
        epilog="Write their files with python -m tts.export.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--engine",
        action="append",
        metavar="WORD",
        help="torch, compiled, transformers[:FOLDER], onnxruntime:FOLDER, llama.cpp:FILE, http://HOST:PORT/v1; may be "
        "repeated; default: torch and transformers",
    )
    parser.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    parser.add_argument("--voice", help="as infer.py takes it; default: the first that ships")
    parser.add_argument("--text", default=TEXT, help="sentences to write")
    parser.add_argument(
        "--runs", type=int, default=3, metavar="N", help="rounds, of which the best counts; default: 3"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processor cores to use; default: all")
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.threads is not None:
        set_threads(args.threads)
    if args.runs < 1:
        raise UserError(f"--runs {args.runs} is out of range; give a whole number from 1")

    from tts.checkpoint import EMBEDDED, Model
    from tts.engines.choose import TORCH, with_engine
    from tts.lm.model import Request
    from tts.pipeline import TTS
    from tts.text.frontend import Frontend

    model = Model.load(args.model)
    voice = TTS(model).voice(args.voice or next(iter(model.voices()), EMBEDDED / PROMPT))
    sentences = Frontend(model.symbols)(args.text)
    prompt = voice.aligned(model.symbols)
    requests = [Request(model.symbols.groups(one.ids), prompt, seed=n) for n, one in enumerate(sentences)]
    words = args.engine or [TORCH, "transformers"]
    lms = {word: with_engine(model, word).lm for word in words}
    wanted = _written(model.lm, requests, greedy=True)
    print(
        f"{len(requests)} sentences; tokens a second of work, and seconds of processor for each second of speech"
    )
    print(f"{'engine':40}  {'one row':>12}  {'a batch':>12}  {'processor':>9}  {'greedy tokens':>13}")
    for word, lm in lms.items():
        same = _same(_written(lm, requests, greedy=True), wanted)
        alone, batch = (_speed(lm, rows, args.runs) for rows in ([[one] for one in requests], [requests]))
        processor = batch[1] * model.spec.rate
        print(
            f"{word[-40:]:40}  {alone[0]:10.0f}/s  {batch[0]:10.0f}/s  {processor:9.3f}  {same:13.1%}",
            flush=True,
        )


def _written(lm: SpeechLM, requests: Sequence[Request], *, greedy: bool = False) -> list[Aligned]:
    from tts.lm.sampling import Sampling

    return lm.generate(requests, Sampling(temperature=0) if greedy else Sampling())


def _same(found: Sequence[Aligned], wanted: Sequence[Aligned]) -> float:
    """Share of tokens that come in the same place until the first that does not, over the sentences."""
    right = total = 0
    for one, other in zip(found, wanted, strict=True):
        pairs = list(zip(one.tokens, other.tokens, strict=False))
        right += next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
        total += len(other.tokens)
    return right / max(1, total)


def _speed(lm: SpeechLM, batches: Sequence[Sequence[Request]], runs: int) -> tuple[float, float]:
    """Tokens a second, and processor seconds a token, of the best of some rounds."""
    best = []
    for _ in range(runs):
        wall, processor, count = time.perf_counter(), time.process_time(), 0
        for requests in batches:
            count += sum(len(one.tokens) for one in _written(lm, requests))
        best.append(((time.perf_counter() - wall) / count, (time.process_time() - processor) / count))
    return 1 / min(wall for wall, _ in best), min(processor for _, processor in best)


if __name__ == "__main__":
    sys.exit(main())
