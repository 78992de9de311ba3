"""Transcripts against what a tokenizer reads in the speech, and how much may be expected of it.

No tokenizer reads without error, and one that never heard a language reads little of it. So a transcript is judged
by two things known from the corpus itself: how many errors the reader makes in the other utterances of the
language, and how many it makes against texts that belong to other recordings.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import edit_distance

from codec.audio import normalize_loudness, resample
from codec.tokenizer.model import Tokenizer
from tts.data.report.measure import Item, Measures
from tts.text.symbols import SymbolTable

LOUDNESS = -23.0  # LUFS, as for voice prompts
LEAST = 8  # utterances of a language from which errors are counted
CHANCE, CHANCE_SPREAD = 0.9, 0.07  # of phoneme errors against other texts, where there are fewer
BLIND = 0.75  # a reader whose errors are so near to chance reads nothing


class TokenReader:
    """The phonemes that a tokenizer's tokens say.

    Args:
        features: (B, samples) -> frames.
        tokenizer: reads those frames.
        symbols: its phoneme table.
        device: to run on.
    """

    def __init__(
        self, features: nn.Module, tokenizer: Tokenizer, symbols: SymbolTable, *, device: str = "cpu"
    ) -> None:
        self.features, self.tokenizer = features.eval().to(device), tokenizer.eval().to(device)
        self.symbols, self.device = symbols, device

    @torch.inference_mode()
    def __call__(self, wav: Tensor, sample_rate: int) -> list[int]:
        """(samples,) at ``sample_rate`` -> ids of the segments read."""
        rate = self.tokenizer.spec.frames.sample_rate
        wav = normalize_loudness(resample(wav, sample_rate, rate), rate, LOUDNESS)
        frames = self.features(wav[None].to(self.device))
        return self.symbols.segments(self.tokenizer.read(self.tokenizer.encode(frames)[0])[0])


class Expected(NamedTuple):
    """What a reader does with a language.

    Attributes:
        error: median phoneme error rate against the right texts.
        chance, spread: median and deviation of the rate against texts of other recordings.
        blind: whether the two are too near to tell anything.
    """

    error: float
    chance: float
    spread: float
    blind: bool

    @property
    def other_text(self) -> float:
        """The error rate from which on the text is that of another recording, as far as the reader can tell."""
        return max(self.chance - 2.5 * self.spread, (self.error + self.chance) / 2)


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    error: phoneme error rate of one utterance.
    surprise: how many deviations above what is expected.
    other: whether the text fits no better than that of another recording.
    """

    error: float
    surprise: float
    other: bool


def judge(
    items: Sequence[Item], measures: Mapping[int, Measures]
) -> tuple[dict[str, Expected], dict[int, Verdict]]:
    """What the reader does with each language, and what it holds of each utterance, by line."""
    by_language: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.row.line in measures and measures[item.row.line].errors is not None and item.segments:
            by_language[item.row.language].append(item)
    expected: dict[str, Expected] = {}
    verdicts: dict[int, Verdict] = {}
    for language, group in by_language.items():
        expected[language] = _expected(group, measures)
        if not expected[language].blind:
            verdicts |= _verdicts(group, measures, expected[language])
    return expected, verdicts


def error_rate(item: Item, measures: Mapping[int, Measures]) -> float:
    return (measures[item.row.line].errors or 0) / len(item.segments)


def _expected(group: Sequence[Item], measures: Mapping[int, Measures]) -> Expected:
    error = float(np.median([error_rate(item, measures) for item in group]))
    chance, spread = CHANCE, CHANCE_SPREAD
    if len(group) >= LEAST:
        rates = _against_others(group, measures)
        if len(rates) >= LEAST:
            chance = float(np.median(rates))
            spread = max(0.04, 1.4826 * float(np.median(np.abs(np.array(rates) - chance))))
    return Expected(error, chance, spread, error > BLIND * chance)


def _against_others(group: Sequence[Item], measures: Mapping[int, Measures], most: int = 400) -> list[float]:
    """Error rates of readings against the text of an utterance of like length."""
    order = sorted(group, key=lambda item: (len(item.segments), item.row.line))
    pairs = [(a, b) for a, b in pairwise(order) if a.segments != b.segments]
    pairs = pairs[:: max(1, len(pairs) // most)]
    return [
        edit_distance(list(b.segments), list(measures[a.row.line].read or ())) / len(b.segments)
        for a, b in pairs
    ]


def _verdicts(
    group: Sequence[Item], measures: Mapping[int, Measures], expected: Expected
) -> dict[int, Verdict]:
    usual = _usual(group, measures, expected.error)
    scores = [_score(item, measures, usual[item.row.speaker]) for item in group]
    # errors come in bursts: they scatter more than independent ones would
    scatter = max(1.0, 1.4826 * float(np.median(np.abs(np.array(scores) - np.median(scores)))))
    verdicts = {}
    for item, score in zip(group, scores, strict=True):
        rate = error_rate(item, measures)
        verdicts[item.row.line] = Verdict(rate, score / scatter, rate >= expected.other_text)
    return verdicts


def _usual(group: Sequence[Item], measures: Mapping[int, Measures], error: float) -> dict[str, float]:
    """What may be expected of each speaker: an accent is no wrong transcript."""
    by_speaker: dict[str, list[float]] = defaultdict(list)
    for item in group:
        by_speaker[item.row.speaker].append(error_rate(item, measures))
    return {
        speaker: max(error, float(np.median(rates))) if len(rates) >= LEAST else error
        for speaker, rates in by_speaker.items()
    }


def _score(item: Item, measures: Mapping[int, Measures], usual: float) -> float:
    """Errors beyond the usual, in deviations of as many independent errors."""
    count, usual = len(item.segments), min(max(usual, 0.05), 0.95)
    return ((measures[item.row.line].errors or 0) - count * usual) / math.sqrt(count * usual * (1 - usual))
