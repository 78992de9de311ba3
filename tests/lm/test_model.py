"""The LM's sampling loop: what it feeds itself, its bounds, and rows of a batch against the same rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tts.lm.layout import IGNORE, Groups
from tts.lm.model import Aligned, Bounds, Request, SpeechLM
from tts.lm.sampling import Sampling

SYMBOLS, CODES = 12, 30
TEXT: Groups = [(1,), (2, 3), (4,), (5, 6, 7), (8,)]
PROMPT = Aligned([(9,), (10, 11), (1,)], [3, 4, 5, 6], [2, 0, 2])


def small() -> SpeechLM:
    """An LM with random weights, large enough to make up its mind."""
    lm = SpeechLM(
        symbols=SYMBOLS,
        codes=CODES,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ).eval()
    for parameter in lm.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.25)
    return lm


class Stubborn(nn.Module):
    """Stands in for the Llama: always the same logits, whatever it reads."""

    def __init__(self, lm: SpeechLM, *, onward: float) -> None:
        super().__init__()
        self.lm_head = lm.llama.lm_head
        self.logits = torch.randn(1, 1, lm.layout.vocab_size)
        self.logits[:, :, : lm.layout.first_code] = onward

    def new_caches(self, capacity: int) -> list[Any]:
        return []

    def forward(self, ids: Tensor, caches: list[Any], **_: Any) -> Tensor:
        return self.logits.expand(len(ids), -1, -1)


def stubborn(onward: float) -> SpeechLM:
    lm = small()
    lm.llama = Stubborn(lm, onward=onward)  # type: ignore[assignment]
    return lm


# --------------------------------------------------------------------------------------------------- training


@torch.no_grad()
def test_loss_is_the_cross_entropy_of_what_is_not_ignored() -> None:
    lm = small()
    first = lm.layout.first_code
    ids, labels = torch.randint(lm.layout.vocab_size, (2, 9)), torch.full((2, 9), IGNORE)
    labels[0, 3:8] = torch.tensor([1, first, first + 3, 2, first + 9])
    labels[1, 5:7] = torch.tensor([lm.layout.eos, first + 29])
    log_probs = lm(ids).log_softmax(-1)
    labels[0, 4] = first + log_probs[0, 4, first:].argmax()  # right, unless a symbol is likelier
    picked = [(b, i) for b in range(2) for i in range(9) if labels[b, i] != IGNORE]
    expected = -sum(float(log_probs[b, i, labels[b, i]]) for b, i in picked) / 7
    speech = [(b, i) for b, i in picked if labels[b, i] >= first]
    right = sum(int(log_probs[b, i].argmax() == labels[b, i]) for b, i in speech) / 4
    assert right > 0

    loss, accuracy = lm.loss(ids, labels)

    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert accuracy.item() == pytest.approx(right)


# ----------------------------------------------------------------------------------------------------- prefix


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("prompt", [Aligned(), PROMPT, Aligned(PROMPT.groups, [3, 4], [0, 2, 0])])
def test_prefix_is_the_beginning_of_the_training_sequence(count: int, prompt: Aligned) -> None:
    lm = small()
    target, tokens, durations = TEXT[:count], list(range(20, 20 + count)), [1] * count

    prefix = lm.prefix(Request(target, prompt))

    groups = [*prompt.groups, *target]
    ids, _ = lm.layout(groups, [*prompt.tokens, *tokens], [*prompt.durations, *durations])
    assert prefix == ids[: len(prefix)]
    assert ids[len(prefix)] == lm.layout.first_code + 20  # what is drawn first is the target's first token


# ------------------------------------------------------------------------------------------------- generation


def fed_to(lm: SpeechLM, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Everything the Llama reads from now on."""
    fed: list[Tensor] = []
    forward = lm.llama.forward

    def spy(ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        fed.append(ids.clone())
        return forward(ids, *args, **kwargs)

    monkeypatch.setattr(lm.llama, "forward", spy)
    return fed


@pytest.mark.parametrize("prompt", [Aligned(), PROMPT])
@pytest.mark.parametrize("seed", [0, 2, 6, 7])
def test_what_it_reads_while_it_writes_is_a_training_sequence(
    prompt: Aligned, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = small()
    fed = fed_to(lm, monkeypatch)
    (written,) = lm.generate([Request(TEXT, prompt, seed)], Sampling(temperature=1.5))
    assert sum(written.durations) == len(written.tokens) > 5
    ids, _ = lm.layout(
        [*prompt.groups, *TEXT], [*prompt.tokens, *written.tokens], [*prompt.durations, *written.durations]
    )
    assert torch.cat(fed, 1)[0].tolist() == ids


def test_every_token_is_written_with_its_group_in_order() -> None:
    lm = small()
    request = Request(TEXT, seed=3)
    steps = list(lm.write([request], Sampling(temperature=1.5)))
    written = [token for step in steps for token in step]
    whole = lm.generate([request], Sampling(temperature=1.5))[0]
    assert [w.token for w in written] == whole.tokens
    assert [w.group for w in written] == [g for g, n in enumerate(whole.durations) for _ in range(n)]
    assert all(0 <= w.token < CODES and w.row == 0 for w in written)


def test_a_seed_repeats_itself_and_another_differs() -> None:
    lm = small()
    a, b, c = (lm.generate([Request(TEXT, PROMPT, seed)])[0] for seed in (1, 1, 2))
    assert a == b
    assert a.tokens != c.tokens


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5), Sampling(temperature=0)])
def test_a_row_of_a_batch_equals_the_row_alone(sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = small()
    requests = [
        Request(TEXT, PROMPT, seed=1),
        Request(TEXT[:1], seed=2),
        Request([*TEXT, *TEXT, *TEXT], seed=3),
        Request(TEXT[1:4], Aligned([(2,)], [7], [1]), seed=4),
        Request(TEXT, PROMPT, seed=5),
    ]
    fed = fed_to(lm, monkeypatch)
    together = lm.generate(requests, sampling)
    assert [len(ids) for ids in fed[:2]] == [4, 5]  # the beginning that two rows share is read once
    alone = [lm.generate([request], sampling)[0] for request in requests]
    assert together == alone
    assert len({len(row.tokens) for row in together}) > 2  # each row ended on its own


def durations(lm: SpeechLM, groups: Groups, bounds: Bounds) -> Sequence[int]:
    (written,) = lm.generate([Request(groups)], Sampling(temperature=1.0), bounds)
    assert len(written.tokens) == sum(written.durations)
    return written.durations


def test_no_phoneme_is_longer_than_its_bound() -> None:
    lm = stubborn(onward=-50.0)
    bounds = Bounds(longest=3, longest_pause=5, pauses=frozenset({7}))
    assert durations(lm, TEXT, bounds) == [3, 3, 3, 5, 3]  # (5, 6, 7) ends in the pause


@pytest.mark.parametrize(
    ("most_empty", "expected"),
    [
        (0, [1, 1, 1, 1, 1]),
        (1, [0, 1, 0, 1, 0]),
        (2, [0, 0, 1, 0, 0]),
        (9, [0, 0, 0, 0, 1]),  # a text is never written as nothing
    ],
)
def test_no_more_phonemes_in_a_row_are_empty_than_its_bound(most_empty: int, expected: list[int]) -> None:
    assert durations(stubborn(onward=50.0), TEXT, Bounds(most_empty=most_empty)) == expected


def lasting(temperature: float, **changes: Any) -> tuple[list[int], float]:
    """400 durations of phonemes that end with the same probability at every token, and that probability."""
    lm = stubborn(onward=-2.0)
    logits = lm.llama.logits[0, 0]  # type: ignore[index]
    onward = float(logits.softmax(-1)[: lm.layout.first_code].sum())
    sampling = Sampling(temperature=temperature, **changes)
    rows = lm.generate([Request([(1,)] * 20, seed=s) for s in range(20)], sampling, Bounds(1000, 1000, 1000))
    return [n for row in rows for n in row.durations], onward


@pytest.mark.parametrize("changes", [{}, {"temperature": 1.5, "top_k": 3}, {"top_p": 0.1}])
def test_going_on_has_the_models_probability_however_tokens_are_drawn(changes: dict[str, Any]) -> None:
    """The announcements are given by the text: their probabilities together are that of going on."""
    durations, onward = lasting(**{"temperature": 1.0, **changes})
    mean = sum(durations) / len(durations)
    assert mean == pytest.approx((1 - onward) / onward, rel=0.2)  # of a geometric distribution


@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.6])
def test_a_low_temperature_leaves_out_the_ends_of_the_durations(temperature: float) -> None:
    durations, onward = lasting(temperature)
    # the quantiles of a geometric distribution: the last n with (1 - onward) ** n >= 1 - q
    low, high = (int(math.log(0.5 + side * temperature / 2) / math.log(1 - onward)) for side in (1, -1))
    assert low <= min(durations) <= max(durations) <= high
    assert min(durations) <= low + 2 and max(durations) >= high - 2  # all between them is drawn
