"""The seam: an engine turns ids into logits; the rest of the LM's work is done here, the same with every engine.

Shapes: B rows of a batch, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tts.lm.layout import Layout
from tts.lm.model import Bounds, Request, SpeechLM, Written, _Row
from tts.lm.sampling import Sampling

Ids = Sequence[Sequence[int]]


class Session(Protocol):
    """Role: a batch on its way."""

    def step(self, ids: Ids) -> Tensor:
        """Add ids to every row; returns the logits of what follows, (B, V) float32 on the CPU.

        Logits may lack a constant of their row's. Called first with the prefixes, of any length each; then with equally
        many ids for every row that goes on, and none for one that has ended, whose logits are not looked at.

        Raises:
            UserError: the engine cannot go on.
        """
        ...


class Engine(Protocol):
    """Role: runs the LM's weights."""

    def start(self, rows: int, positions: int) -> Session:
        """A new batch.

        Args:
            rows: B.
            positions: ids that a row has at most, its prefix included.
        """
        ...


class EngineLM(SpeechLM):
    """The LM with an engine in the place of its Llama; it has no weights of its own.

    Args:
        layout: of the vocabulary.
        engine: that runs it.
    """

    def __init__(self, layout: Layout, engine: Engine) -> None:
        nn.Module.__init__(self)  # not the LM's own, which makes a Llama
        self.layout, self.engine = layout, engine

    @torch.inference_mode()
    def write(
        self, requests: Sequence[Request], sampling: Sampling = Sampling(), bounds: Bounds = Bounds()
    ) -> Iterator[list[Written]]:
        """See `SpeechLM.write`."""
        rows = [_Row(request.groups, torch.Generator().manual_seed(request.seed)) for request in requests]
        fed: Ids = [self.prefix(request) for request in requests]
        # at most: every phoneme as long as it may be, and announced, and the end of the text
        most = (sum(bounds.of(g) + len(g) for g in request.groups) + 1 for request in requests)
        session = self.engine.start(
            len(rows), max(len(ids) + more for ids, more in zip(fed, most, strict=True))
        )
        while True:
            logits = session.step(fed)
            yield self._choose(logits, rows, sampling, bounds)
            live = [row for row in rows if not row.done]
            if not live:
                return
            count = min(len(row.queue) for row in live)
            fed = [[] if row.done else row.queue[:count] for row in rows]
            for row in live:
                del row.queue[:count]


def padded(ids: Ids) -> tuple[Tensor, Tensor]:
    """Ids filled up on the left with 0 to one length (B, T), and the padding of each row (B,)."""
    width = max(len(row) for row in ids)
    pads = [width - len(row) for row in ids]
    return torch.tensor([[0] * pad + list(row) for pad, row in zip(pads, ids, strict=True)]), torch.tensor(
        pads
    )


def alike(ids: Ids) -> list[list[int]]:
    """Ids for every row, zeros for those that have ended."""
    count = max(len(row) for row in ids)
    return [list(row) or [0] * count for row in ids]
