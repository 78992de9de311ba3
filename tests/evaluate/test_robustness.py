"""What counts as a skip, a repeat, babble; one letter a segment."""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.conftest import made
from tts.evaluate.cases import Case
from tts.evaluate.robustness import Robustness, Verdict, judge
from tts.evaluate.sample import Sample

TEXT = "thequickbrownfoxjumpsoverthelazydog"


@pytest.mark.parametrize(
    ("read", "verdict"),
    [
        (TEXT, Verdict(0, 0, 0, 0)),
        # single errors here and there are the reader's
        ("thekuickbrawnfxjumpsoverrthelazytog", Verdict(5, 0, 0, 0)),
        # missing: three segments are few, four are a skip, wherever they are
        ("thequickbrownjumpsoverthelazydog", Verdict(3, 0, 0, 0)),
        ("thequickbrownumpsoverthelazydog", Verdict(4, 1, 0, 0)),
        ("thequickbrownfoxjumpsover", Verdict(10, 1, 0, 0)),
        ("quickbrownfoxoverthelazydog", Verdict(8, 1, 0, 0)),
        ("quickbrowfoxoverthelay", Verdict(13, 2, 0, 0)),
        ("", Verdict(35, 1, 0, 0)),
        # one right segment in the middle of what is missing changes nothing
        ("thequicknjumpsoverthelazydog", Verdict(7, 1, 0, 0)),
        # said twice, in the middle, at the end, three times, and a bit differently the second time
        ("thequickbrownbrownfoxjumpsoverthelazydog", Verdict(5, 0, 1, 0)),
        (TEXT + "lazydog", Verdict(7, 0, 1, 0)),
        (TEXT + "dogdogdog", Verdict(9, 0, 1, 0)),
        ("thequickquickquickbrownfoxjumpsoverthelazydog", Verdict(10, 0, 1, 0)),
        ("thequickbrownfoxbrawnfoxjumpsoverthelazydog", Verdict(8, 0, 1, 0)),
        # three more are few
        ("thethequickbrownfoxjumpsoverthelazydog", Verdict(3, 0, 0, 0)),
        # too many that repeat nothing, and something else than wanted
        ("thequickbrownfoxjumpskivmeazoverthelazydog", Verdict(7, 0, 0, 1)),
        ("thequickbrownkivmeabawithelazydog", Verdict(11, 0, 0, 1)),
        # a skip and a repeat
        ("thebrownfoxjumpsoverthelazydoglazydog", Verdict(12, 1, 1, 0)),
    ],
)
def test_verdicts(read: str, verdict: Verdict) -> None:
    assert judge(TEXT, read) == verdict


def test_what_the_text_itself_repeats_is_no_repeat() -> None:
    assert judge("badabadabada", "badabadabada") == Verdict(0, 0, 0, 0)
    assert judge("badabadabada", "badabadabadabada") == Verdict(4, 0, 1, 0)
    assert judge("badabadabada", "badabada") == Verdict(4, 1, 0, 0)


READ = ("abcdefgh", "abcdefg", "abcd", "abcdefgh")


def sample(read: str | None, **known: int) -> Sample:
    wav = np.zeros(8, np.float32)
    return Sample(Case("a", "Hi.", Path("p.wav")), "text", made(wanted="abcdefgh", read=read, **known), wav)


def test_values_of_a_case() -> None:
    metric = Robustness()
    assert metric.measure(sample("abcd", held=2, endless=0, attempts=3)) == {
        "held": 1,
        "endless": 0,
        "attempts": 3,
        "sentences": 1,
        "read": "abcd",
        "wanted": "abcdefgh",
        "segments": 8,
        "segment_errors": 4,
        "skipped": 1,
        "repeated": 0,
        "babbled": 0,
    }
    assert metric.measure(sample(None)) == {}
    figures = {figure.key: figure for figure in metric.figures({})}
    cases = [
        metric.measure(sample(read, held=0, endless=0, attempts=2))
        for read in ("abcdefgh", "abcdefg", "abcd", "abcdefgh")
    ]
    shares = {key: figure.estimate(cases) for key, figure in figures.items()}
    assert shares["per"] is not None and shares["per"].value == 5 / 32
    assert shares["skips"] is not None and shares["skips"].value == 1 / 4
    assert shares["attempts"] is not None and shares["attempts"].value == 2
    assert shares["endless"] is not None and shares["endless"].value == 0
