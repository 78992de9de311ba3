"""Choosing among candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tts.lm.model import Aligned
from tts.ranking import PACE, Candidate, by_reading, choose, pace
from tts.readback import Quality
from tts.text import Utterance

NOTHING = Utterance("", "", "", ())


def candidate(error: float, durations: Sequence[int] = (2,) * 10, *problems: str) -> Candidate:
    groups = [(1,)] * len(durations)
    prompt = Aligned([(1,)] * 10, [0] * 20, [2] * 10)
    tokens = Aligned(groups, [0] * sum(durations), durations)
    return Candidate(NOTHING, prompt, tokens, Quality(error, 1.0, problems))


def test_pace_is_phonemes_per_token_without_the_pauses() -> None:
    assert pace(Aligned([(1,)] * 10, [0] * 36, [2] * 9 + [18])) == 9 / 18
    assert pace(Aligned([(1,)] * 3, [0] * 3, [0, 3, 0])) == 3 / 3
    assert pace(Aligned()) == 1.0


def test_few_errors_and_the_prompts_pace_win() -> None:
    same, fast = candidate(0.1), candidate(0.1, (1,) * 10)
    assert by_reading([same, fast]) == pytest.approx([-0.1, -0.1 - PACE * math.log(2)])
    assert choose([fast, same]) is same
    better = candidate(0.02, (1,) * 10)
    assert choose([same, better]) is better
    assert choose([same, candidate(0.1)]) is same  # the first of equals


def test_candidates_that_read_well_go_first() -> None:
    bad = candidate(0.0, (2,) * 10, "8 phonemes missing")
    good = candidate(0.3)
    assert choose([bad, good]) is good
    worse = candidate(0.1, (2,) * 10, "9 phonemes missing")
    assert choose([worse, bad]) is bad


def test_the_ranker_is_any_callable() -> None:
    seen: list[Sequence[Candidate]] = []

    def longest(found: Sequence[Candidate]) -> list[int]:
        seen.append(found)
        return [len(one.tokens.tokens) for one in found]

    short, long = candidate(0.0), candidate(0.2, (3,) * 10)
    assert choose([short, long], longest) is long
    assert seen == [[short, long]]
    with pytest.raises(ValueError, match="the ranker gave 1 scores for 2 candidates"):
        choose([short, long], lambda found: [1.0])
