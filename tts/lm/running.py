"""A batch that runs: texts join it when they come and leave it when they end, at any step (continuous batching).

Every row has a prefill, positions and draws of its own, so it gets the tokens that `SpeechLM.write` gives it alone.
All rows share the columns of one cache and end at its last one; what a shorter row has too little is padding on its
left, which nothing looks at. Where rows come or go the cache is laid out anew, as long as its longest row. After Orca
(Yu et al. 2022, OSDI).
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from codec.nn.attention import KVCache
from tts.lm.model import Bounds, Request, SpeechLM, _Row, ragged
from tts.lm.sampling import Sampling

ROOM = 64  # positions laid out ahead; buffers grow where it is too little


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
    """A row of the batch.

    Attributes:
        caches: one a layer; of this row alone before it is laid out with the others.
        number: of the row in them.
        pad: positions of padding on its left.
    """

    key: Hashable
    row: _Row
    sampling: Sampling
    caches: list[KVCache]
    number: int = 0
    pad: int = 0


class RunningBatch:
    """Rows that are written together while they last. Not for several threads at once.

    Args:
        lm: the model.
        bounds: on durations, of all rows.
    """

    def __init__(self, lm: SpeechLM, bounds: Bounds = Bounds()) -> None:
        self.lm, self.bounds = lm, bounds
        self._rows: list[_Running] = []
        self._caches: list[KVCache] = []
        self._changed = False

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def join(self, key: Hashable, request: Request, sampling: Sampling = Sampling()) -> Step:
        """Take in a text, with all that is given before its first token, and draw that."""
        prefix = torch.tensor([self.lm.prefix(request)], device=self.lm.llama.lm_head.weight.device)
        caches = self.lm.llama.new_caches(prefix.shape[1])
        logits = self.lm.next_logits(prefix, caches)
        row = _Row(request.groups, torch.Generator().manual_seed(request.seed))
        one = _Running(key, row, sampling, caches)
        self._rows.append(one)
        self._changed = True
        steps = list(self._drawn([one], logits))
        self._sweep()
        return steps[0]

    def leave(self, key: Hashable) -> None:
        """Take out a text, wherever it is; its place is free at once."""
        kept = [one for one in self._rows if one.key != key]
        self._changed |= len(kept) < len(self._rows)
        self._rows = kept

    def move(self, key: Hashable, to: "RunningBatch") -> None:
        """Hand a text over to another batch of the same model; it goes on there where it is."""
        to._rows += [one for one in self._rows if one.key == key]
        to._changed = True
        self.leave(key)

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """One pass of the model for all rows: what is decided is fed, what follows is drawn."""
        if not self._rows:
            return []
        if self._changed:
            self._lay_out()
        # rows that have more decided than others have the rest of it fed in the next steps
        count = min(len(one.row.queue) for one in self._rows)
        device = self.lm.llama.lm_head.weight.device
        ids = torch.tensor([one.row.queue[:count] for one in self._rows], device=device)
        for one in self._rows:
            del one.row.queue[:count]
        pads = ragged([one.pad for one in self._rows], device)
        logits = self.lm.next_logits(ids, self._caches, pads)
        steps = list(self._drawn(self._rows, logits))
        self._sweep()
        return steps

    def _drawn(self, rows: list[_Running], logits: torch.Tensor) -> Iterator[Step]:
        """Draw for the rows that have nothing decided, those of the same settings at once."""
        kinds: dict[Sampling, list[int]] = {}
        for i, one in enumerate(rows):
            kinds.setdefault(one.sampling, []).append(i)
        for sampling, numbers in kinds.items():
            some = [rows[i].row for i in numbers]
            own = logits if len(numbers) == len(rows) else logits[numbers]
            written = {w.row: w for w in self.lm._choose(own, some, sampling, self.bounds)}
            for n, row in enumerate(some):
                token = written[n].token if n in written else None
                yield Step(rows[numbers[n]].key, token, row.group, row.done)

    def _sweep(self) -> None:
        """Let the rows go that have ended."""
        if any(one.row.done for one in self._rows):
            self._rows = [one for one in self._rows if not one.row.done]
            self._changed = True

    def _lay_out(self) -> None:
        """One cache a layer for the rows there are, without padding that all of them have."""
        views = [[cache.row(one.number, one.pad) for cache in one.caches] for one in self._rows]
        self._caches = [
            KVCache.joined([(view, 0) for view in layer], ROOM) for layer in zip(*views, strict=True)
        ]
        longest = self._caches[0].length
        for n, (one, view) in enumerate(zip(self._rows, views, strict=True)):
            one.caches, one.number, one.pad = self._caches, n, longest - view[0].length
        self._changed = False
