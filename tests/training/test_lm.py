"""Training of the LM: after some steps on a few texts it writes their tokens, each with its length."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tts.data.batches import IGNORE, LMBatch
from tts.data.datasets import pad
from tts.lm.model import Aligned, Bounds, Request, SpeechLM
from tts.lm.sampling import Sampling
from tts.training.lm import LMModule

SYMBOLS, CODES = 20, 40


def spoken(seed: int, count: int = 7) -> Aligned:
    """A random text with random tokens."""
    draws = random.Random(seed)
    groups = [
        tuple(draws.randrange(1, SYMBOLS) for _ in range(draws.choice([1, 1, 2]))) for _ in range(count)
    ]
    durations = [draws.choice([0, 1, 2, 3, 5]) if i else 2 for i in range(count)]
    return Aligned(groups, [draws.randrange(CODES) for _ in range(sum(durations))], durations)


def test_it_learns_to_write_the_tokens_of_three_texts(fit: Any) -> None:
    lm = SpeechLM(
        symbols=SYMBOLS,
        codes=CODES,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    texts = [spoken(seed) for seed in range(3)]
    texts.append(
        Aligned(*([*a, *b] for a, b in zip(vars(texts[0]).values(), vars(spoken(3)).values(), strict=True)))
    )
    examples = [lm.layout(t.groups, t.tokens, t.durations) for t in texts]
    batch = LMBatch(
        pad([torch.tensor(ids) for ids, _ in examples], 0)[0],
        pad([torch.tensor(labels) for _, labels in examples], IGNORE)[0],
    )

    metrics = fit(LMModule(lm, lr=3e-3, warmup=10, total=1000), batch, 100)

    assert metrics["val/loss"] < 0.1 and metrics["val/token_accuracy"] == 1
    with torch.no_grad():
        loss, right = lm.loss(*batch)
    assert float(right) == 1
    assert float(loss) == pytest.approx(metrics["val/loss"], rel=1e-3)
    # three texts as they are, and the second half of the fourth behind its first half, the voice prompt
    requests = [*(Request(t.groups) for t in texts[:3]), Request(spoken(3).groups, texts[0])]
    written = lm.generate(requests, Sampling(temperature=0), Bounds(most_empty=7))
    for mine, theirs in zip(written, [*texts[:3], spoken(3)], strict=True):
        assert mine.tokens == list(theirs.tokens)
        assert mine.durations == list(theirs.durations)
