"""A batch that runs: texts join it when they come and leave it when they end, at any step (continuous batching).

Every row has a prefill, positions and draws of its own, so it gets the tokens that `SpeechLM.write` gives it alone.
Rows of any length stand side by side in one table of keys and values. After Orca (Yu et al. 2022, OSDI).

A token and what follows where its phoneme ends there, the announcement of the next but one, are fed in one step: most
of a step's time goes by for its weights, whatever it feeds. If the phoneme goes on, the announcement is taken back; if
not, the step has drawn the next phoneme's first token, too. So a row takes a step for a token and none for a phoneme:
two in three of what it took. It is speculative decoding (Leviathan et al. 2023, arXiv 2211.17192) without a second
model to guess: the text tells what may come. Of a row by itself on a CPU it would make nothing faster.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from codec.nn.attention import KVCache, KVTable
from tts.lm.model import Bounds, Request, SpeechLM, _Row
from tts.lm.sampling import Sampling

ROOM = 64  # positions laid out ahead; buffers grow where it is too little

POSITIONS = 24
"""Ids that a step feeds on a CPU, of all rows together: up to there most of its time goes by for the weights."""

MOST = 8
"""Ids of a row that a step feeds elsewhere: no announcement has more."""


class Step(NamedTuple):
    """What a step did for one row.

    Attributes:
        key: whose row.
        token: that was written; None where the step only fed what was decided.
        group: number of the phoneme group it belongs to.
        done: whether the text has ended; the row is gone then.
    """

    key: Hashable
    token: int | None
    group: int
    done: bool


@dataclass
class _Running:
    """A row of the batch."""

    key: Hashable
    row: _Row
    sampling: Sampling


class RunningBatch:
    """Rows that are written together while they last. Not for several threads at once.

    Args:
        lm: the model.
        bounds: on durations, of all rows.
    """

    def __init__(self, lm: SpeechLM, bounds: Bounds = Bounds()) -> None:
        self.lm, self.bounds = lm, bounds
        self._rows: list[_Running] = []
        self._caches: list[KVCache] | KVTable = []  # of a row by itself; of several

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def join(self, key: Hashable, request: Request, sampling: Sampling = Sampling()) -> Step:
        """Take in a text, with all that is given before its first token, and draw that."""
        prefix = torch.tensor([self.lm.prefix(request)], device=self._device)
        caches = self.lm.llama.new_caches(prefix.shape[1] + ROOM)
        logits = self.lm.next_logits(prefix, caches)
        row = _Row(request.groups, torch.Generator().manual_seed(request.seed))
        one = _Running(key, row, sampling)
        step = next(self._drawn([one], logits))
        if not step.done:
            self._take_in(one, caches)
        return step

    @torch.inference_mode()
    def leave(self, key: Hashable) -> None:
        """Take out a text, wherever it is; its place is free at once."""
        for number in [n for n, one in enumerate(self._rows) if one.key == key]:
            self._let_go(number)

    @torch.inference_mode()
    def move(self, key: Hashable, to: "RunningBatch") -> None:
        """Hand a text over to another batch of the same model; it goes on there where it is."""
        for number in [n for n, one in enumerate(self._rows) if one.key == key]:
            caches = self._caches.row(number) if isinstance(self._caches, KVTable) else self._caches
            to._take_in(self._rows[number], caches)
            self._let_go(number)

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """One pass of the model for all rows: what is decided is fed, what follows is drawn."""
        if not self._rows:
            return []
        if not isinstance(self._caches, KVTable):
            row = self._rows[0].row
            ids, row.queue = torch.tensor([row.queue], device=self._device), []
            steps = list(self._drawn(self._rows, self.lm.next_logits(ids, self._caches)))
        else:
            steps = self._step_of_several(self._caches)
        for number in reversed(range(len(self._rows))):
            if self._rows[number].row.done:
                self._let_go(number)
        return steps

    def _step_of_several(self, table: KVTable) -> list[Step]:
        most = max(1, POSITIONS // len(self._rows)) if self._device.type == "cpu" else MOST
        fed: list[list[int]] = []
        known: list[int] = []  # how much of it is decided
        for row in (one.row for one in self._rows):
            queue, row.queue = row.queue[:most], row.queue[most:]
            row.tried = [] if row.queue else list(self.lm.announced(row)[: most - len(queue)])
            fed.append([*queue, *row.tried])
            known.append(len(queue))
        width = max(map(len, fed))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in fed], device=self._device)
        logits = self.lm.llama(ids, table).float()
        rows = torch.arange(len(fed), device=self._device)
        ends = torch.tensor([[n - 1, len(row) - 1] for n, row in zip(known, fed, strict=True)])
        decided, tried = logits[rows, ends.T.to(self._device)]
        steps = list(self._drawn(self._rows, decided, tried))
        for number, (one, ids_fed) in enumerate(zip(self._rows, fed, strict=True)):
            # what was tried in vain does not count
            table.lengths[number] += len(ids_fed) - len(one.row.tried)
            one.row.tried = []
        return steps

    @property
    def _device(self) -> torch.device:
        return self.lm.llama.lm_head.weight.device

    def _drawn(self, rows: list[_Running], logits: Tensor, tried: Tensor | None = None) -> Iterator[Step]:
        """Draw for the rows that have nothing decided, those of the same settings at once."""
        kinds: dict[Sampling, list[int]] = {}
        for i, one in enumerate(rows):
            kinds.setdefault(one.sampling, []).append(i)
        for sampling, numbers in kinds.items():
            some = [rows[i].row for i in numbers]
            ahead = None if tried is None else tried[numbers]
            written = {w.row: w for w in self.lm._choose(logits[numbers], some, sampling, self.bounds, ahead)}
            for n, row in enumerate(some):
                token = written[n].token if n in written else None
                yield Step(rows[numbers[n]].key, token, row.group, row.done)

    def _take_in(self, one: _Running, caches: list[KVCache]) -> None:
        """A row more, the last."""
        if not self._rows:
            self._caches = caches
        elif isinstance(self._caches, KVTable):
            self._caches.add(caches)
        else:
            table = KVTable()
            table.add(self._caches)
            table.add(caches)
            self._caches = table
        self._rows.append(one)

    def _let_go(self, number: int) -> None:
        """A row less; the last one takes its place. What is left of a table is the caches of one row, or nothing."""
        last = self._rows.pop()
        if number < len(self._rows):
            self._rows[number] = last
        if isinstance(self._caches, KVTable):
            self._caches.drop(number)
            if len(self._rows) == 1:
                self._caches = self._caches.row(0)
        else:
            self._caches = []
