"""Robustness: what the tokenizer reads in the tokens, against the text: skips, repeats, babble, no end.

Errors next to each other, or with one right segment between them, make a *stretch* (`tts.readback`). In a stretch

- a *skip*: four segments or more are missing;
- a *repeat*: four or more are too many, and around them a run of three or more stands twice, but for a quarter of it;
- *babble*: four or more are too many and repeat nothing, or eight or more are wrong.

Two more come from the LM: it *holds* a phoneme, or *fails to end*, where a phoneme, or the last one of a sentence with
the pause behind it, lasted as long as one may and it was made to go on.

Four segments are a syllable or two: less than that, a reader that is wrong one time in seven also does on good speech.
How often it still does, the row of the reference's own tokens tells.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein

from tts.evaluate.figures import Figure, Values
from tts.evaluate.sample import Metric, Sample
from tts.readback import Stretch, stretches

# The pipeline judges with limits that are calibrated to its tokenizer; a ruler's are the same for every model.
LOST = 4
"""Segments missing or too many in one stretch."""
WRONG = 8
"""Errors in one stretch of about the right length."""
ALIKE = 0.25
"""Share of errors up to which two runs are the same."""


class Verdict(NamedTuple):
    """What is wrong with a reading: its errors, and how many skips, repeats and stretches of babble."""

    errors: int
    skips: int
    repeats: int
    babble: int


class Robustness(Metric):
    """Phoneme errors of the reading, and the shares of cases with each failure."""

    name = "robustness"
    by = f"read-back, {LOST} and {WRONG} segments"

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        return (
            Figure("per", "phoneme errors, read back", "segment_errors", "segments", "%", 1, "low"),
            Figure("skips", "cases with a skip", "skipped", None, "%", 1, "low", single=False),
            Figure("repeats", "cases with a repeat", "repeated", None, "%", 1, "low", single=False),
            Figure("babble", "cases with babble", "babbled", None, "%", 1, "low", single=False),
            Figure("attempts", "attempts at a sentence", "attempts", "sentences"),
            Figure("held", "cases with a phoneme held too long", "held", None, "%", 1, "low", single=False),
            Figure("endless", "cases that fail to end", "endless", None, "%", 1, "low", single=False),
        )

    def measure(self, sample: Sample) -> Values:
        made = sample.made
        values: Values = {}
        if made.held is not None and made.endless is not None:
            values |= {"held": int(made.held > 0), "endless": int(made.endless > 0)}
            values |= {"attempts": made.attempts, "sentences": made.sentences}
        if made.read is None or not made.wanted:
            return values
        verdict = judge(made.wanted, made.read)
        return values | {
            "read": made.read,
            "wanted": made.wanted,
            "segments": len(made.wanted),
            "segment_errors": verdict.errors,
            "skipped": int(verdict.skips > 0),
            "repeated": int(verdict.repeats > 0),
            "babbled": int(verdict.babble > 0),
        }


def judge(wanted: str, read: str) -> Verdict:
    """What is wrong with what was read, one character a segment; see the module."""
    ids = [ord(segment) for segment in read]
    found = list(stretches([ord(segment) for segment in wanted], ids))
    skips = sum(one.missing >= LOST for one in found)
    surplus = [one for one in found if -one.missing >= LOST]
    repeats = sum(is_repeat(ids, one) for one in surplus)
    wrong = sum(abs(one.missing) < LOST and one.errors >= WRONG for one in found)
    return Verdict(sum(one.errors for one in found), skips, repeats, len(surplus) - repeats + wrong)


def is_repeat(read: Sequence[int], stretch: Stretch) -> bool:
    """Whether a run occurs twice in a row around the stretch: one as long as the surplus, or as a whole part of it."""
    surplus = -stretch.missing
    lengths = {round(surplus / times) + off for times in range(1, surplus) for off in (-1, 0, 1)}
    return any(_twice(read, stretch, length) for length in lengths if length >= LOST - 1)


def _twice(read: Sequence[int], stretch: Stretch, length: int) -> bool:
    # an alignment may put the surplus anywhere from the first of the two runs to the second
    for start in range(max(0, stretch.read[0] - length), stretch.read[1] - length + 1):
        middle, end = start + length, start + 2 * length
        if end > len(read):
            break
        if Levenshtein.distance(read[start:middle], read[middle:end]) <= ALIKE * length:
            return True
    return False
