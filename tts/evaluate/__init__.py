"""Measure a model on a list of cases: is it understood, whose voice is it, how natural, how steady, at what cost.

>>> from tts import TTS
>>> from tts.evaluate import evaluate, read_cases
>>> results = evaluate(read_cases("cases.jsonl"), "runs/measured", TTS.load("runs/mine/model"))
>>> results.rows["text"]["wer"].value

Or ``python -m tts.evaluate cases.jsonl --out runs/measured``. See ``docs/evaluate.md`` for what each figure means.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tts.evaluate.cases import Case, read_cases
    from tts.evaluate.run import Results, evaluate

__all__ = ["Case", "Results", "evaluate", "read_cases"]


def __getattr__(name: str) -> Any:
    """Load torch only when something is asked for: ``python -m tts.evaluate --help`` is quick."""
    if name in ("Case", "read_cases"):
        from tts.evaluate import cases

        return getattr(cases, name)
    if name in __all__:
        from tts.evaluate import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
