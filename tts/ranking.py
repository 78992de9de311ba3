"""Which of several candidates is the best one.

A ranker is any callable that takes the candidates for one sentence and gives each a score; the highest wins.
Drawing more and choosing is "inference-time scaling" (Llasa, Ye et al. 2025, arXiv 2502.04128).

>>> tts.synthesize("Hello.", voice, candidates=4, ranker=lambda found: [-one.quality.error for one in found])
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts.lm.model import Aligned
from tts.readback import Quality
from tts.text.frontend import Utterance

PACE = 0.1
"""What speaking e times as fast as the prompt costs, in phoneme errors per phoneme."""


@dataclass(frozen=True)
class Candidate:
    """One way the LM wrote a sentence.

    Attributes:
        utterance: what was to be said.
        prompt: the voice prompt's tokens and phonemes.
        tokens: what was written.
        quality: how it reads.
        log_probs: (M, symbols) what it was read from, a tensor.
    """

    utterance: Utterance
    prompt: Aligned
    tokens: Aligned
    quality: Quality
    log_probs: Any = field(default=None, repr=False, compare=False)


Ranker = Callable[[Sequence[Candidate]], Sequence[float]]
"""Candidates for one sentence -> a score for each; the highest is taken, the first of equals."""


def by_reading(candidates: Sequence[Candidate]) -> list[float]:
    """Few phoneme errors first, and a pace near the prompt's. It needs no audio and costs nothing."""
    return [
        -one.quality.error - PACE * abs(math.log(pace(one.tokens) / pace(one.prompt))) for one in candidates
    ]


def pace(aligned: Aligned) -> float:
    """Phonemes per token: how fast somebody speaks. The longest tenth, which holds the pauses, is left out.

    1 where nothing is said.
    """
    spoken = sorted(aligned.durations)[: math.ceil(0.9 * len(aligned.durations))]
    return len(spoken) / sum(spoken) if sum(spoken) else 1.0


def choose(candidates: Sequence[Candidate], ranker: Ranker = by_reading) -> Candidate:
    """The best of those that read well; where none does, of all.

    Raises:
        ValueError: the ranker gives another number of scores.
    """
    good = [one for one in candidates if one.quality.ok] or list(candidates)
    scores = list(ranker(good))
    if len(scores) != len(good):
        raise ValueError(f"the ranker gave {len(scores)} scores for {len(good)} candidates")
    return good[max(range(len(good)), key=scores.__getitem__)]
