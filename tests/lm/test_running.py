"""Rows of a running batch are what each is alone, whoever comes and goes beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codec.nn.attention import KVTable
from tts.checkpoint import Model
from tts.lm.model import Aligned, Bounds, Request, SpeechLM
from tts.lm.running import POSITIONS, RunningBatch, Step
from tts.lm.sampling import Sampling

BOUNDS = Bounds(longest=6)
SAMPLINGS = [Sampling(), Sampling(temperature=0.0), Sampling(temperature=1.3)]


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> SpeechLM:
    return Model.load(tiny_model).lm


def request(number: int) -> Request:
    """Texts and prompts of all lengths, groups of one to three symbols."""
    random = torch.Generator().manual_seed(number)

    def draw(high: int, count: int) -> list[int]:
        return torch.randint(1, high, (count,), generator=random).tolist()

    groups = tuple(tuple(draw(40, 1 + i % 3)) for i in range(2 + 3 * number))
    spoken = tuple((i,) for i in draw(40, number))
    durations = tuple(draw(5, number))
    return Request(groups, Aligned(spoken, draw(600, sum(durations)), durations), seed=number)


def alone(lm: SpeechLM, number: int) -> Aligned:
    return lm.generate([request(number)], SAMPLINGS[number % 3], BOUNDS)[0]


class Collected:
    """Tokens and durations of every row, as its steps tell them."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.durations: dict[int, list[int]] = {}
        self.done: list[int] = []

    def add(self, step: Step) -> None:
        key = int(str(step.key))
        tokens = self.tokens.setdefault(key, [])
        durations = self.durations.setdefault(key, [0] * len(request(key % 10).groups))
        if step.token is not None:
            tokens.append(step.token)
            durations[step.group] += 1
        if step.done:
            self.done.append(key)


def test_rows_of_a_changing_batch_are_what_each_is_alone(lm: SpeechLM) -> None:
    batch, got = RunningBatch(lm, BOUNDS), Collected()
    joins = {0: [3], 2: [0, 5], 9: [1, 2], 30: [4]}  # step: who comes
    at = 0
    while at <= max(joins) or len(batch):
        for number in joins.get(at, []):
            got.add(batch.join(number, request(number), SAMPLINGS[number % 3]))
        for step in batch.step():
            got.add(step)
        at += 1
    assert sorted(got.done) == list(range(6))
    for number in range(6):
        expected = alone(lm, number)
        assert got.tokens[number] == list(expected.tokens)
        assert got.durations[number] == list(expected.durations)


def test_who_leaves_changes_nothing_for_the_others(lm: SpeechLM) -> None:
    batch, got = RunningBatch(lm, BOUNDS), Collected()
    for number in (5, 3, 4):
        got.add(batch.join(number, request(number), SAMPLINGS[number % 3]))
    for _ in range(6):
        for step in batch.step():
            got.add(step)
    batch.leave(5)  # the longest one, with which all padding goes
    assert len(batch) == 2
    while len(batch):
        for step in batch.step():
            got.add(step)
    assert sorted(got.done) == [3, 4]
    for number in (3, 4):
        assert got.tokens[number] == list(alone(lm, number).tokens)


def test_who_moves_goes_on_in_the_other_batch(lm: SpeechLM) -> None:
    first, other, got = RunningBatch(lm, BOUNDS), RunningBatch(lm, BOUNDS), Collected()
    for number, batch in ((5, other), (3, first), (4, first)):
        got.add(batch.join(number, request(number), SAMPLINGS[number % 3]))
    for _ in range(4):
        for step in [*first.step(), *other.step()]:
            got.add(step)
    first.move(3, other)
    assert (len(first), len(other)) == (1, 2)
    while len(first) or len(other):
        for step in [*first.step(), *other.step()]:
            got.add(step)
    for number in (3, 4, 5):
        assert got.tokens[number] == list(alone(lm, number).tokens)


def test_more_rows_than_are_tried_ahead_are_what_each_is_alone(lm: SpeechLM) -> None:
    batch, got = RunningBatch(lm, BOUNDS), Collected()
    keys = [10 * copy + number for copy in range(POSITIONS // 6) for number in range(4)]
    assert POSITIONS // len(keys) == 1  # no place for a trial, and one id a row at a time
    for key in keys:
        got.add(batch.join(key, request(key % 10), SAMPLINGS[key % 3]))
    while len(batch):
        for step in batch.step():
            got.add(step)
    for key in keys:
        expected = lm.generate([request(key % 10)], SAMPLINGS[key % 3], BOUNDS)[0]
        assert got.tokens[key] == list(expected.tokens)


def test_a_phoneme_that_ends_costs_no_step(lm: SpeechLM) -> None:
    """Two rows: a step for every token, as the next phoneme is fed on trial; but for phonemes without a token."""
    batch, got, steps = RunningBatch(lm, BOUNDS), Collected(), 0
    for number in (6, 7):
        got.add(batch.join(number, request(number), Sampling()))
    while len(batch) == 2:
        for step in batch.step():
            got.add(step)
        steps += 1
    for number in got.done:
        empty = got.durations[number].count(0)
        assert steps <= len(got.tokens[number]) + empty
        assert steps < len(got.tokens[number]) + len(request(number).groups) - 2


def test_rows_see_no_more_than_the_longest_needs(lm: SpeechLM) -> None:
    batch = RunningBatch(lm, BOUNDS)
    batch.join("long", request(9))
    for key in ("short", "other"):
        batch.join(key, request(1))
    assert isinstance(batch._caches, KVTable)
    assert batch._caches.lengths == [len(lm.prefix(request(n))) for n in (9, 1, 1)]
    batch.leave("long")
    assert max(batch._caches.lengths) == len(lm.prefix(request(1)))
    batch.leave("other")
    assert isinstance(batch._caches, list)  # a row by itself has caches of its own: nothing is masked


def test_nothing_runs_in_an_empty_batch(lm: SpeechLM) -> None:
    batch = RunningBatch(lm)
    assert batch.step() == [] and len(batch) == 0
    batch.leave("nobody")
