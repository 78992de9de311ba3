"""Training of the tokenizer: its losses and measures in closed form, and that it learns what it is shown."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from codec.tokenizer.fsq import EMAVQ, FSQ, Quantizer
from codec.tokenizer.model import Tokenizer
from tts.data.batches import TokenizerBatch
from tts.data.datasets import pad
from tts.training.tokenizer import TokenizerModule, code_use, ctc_loss, phoneme_errors

FLOOR = math.log(1e-7)


def module(quantizer: Quantizer, **settings: Any) -> TokenizerModule:
    """A small tokenizer that reads the letters a to z as 1 to 26."""
    tokenizer = Tokenizer(
        quantizer, symbols=27, dim=64, heads=2, layers=1, reader_layers=1, kernel=5, dropout=0.0, bands=10
    )
    return TokenizerModule(tokenizer, **{"lr": 3e-3, "warmup": 10, "total": 1000, **settings})


def labels_of(text: str) -> Tensor:
    return torch.tensor([ord(c) - 96 for c in text if c.isalpha()])


def batch_of(utterances: Any) -> TokenizerBatch:
    frames, frame_lens = pad([u.frames for u in utterances], FLOOR)
    labels, label_lens = pad([labels_of(u.text) for u in utterances], 0)
    return TokenizerBatch(
        frames, frame_lens, labels, label_lens, torch.tensor([u.speaker for u in utterances])
    )


# ---------------------------------------------------------------------------------------------------- overfit


@pytest.mark.parametrize("quantizer", [FSQ(64, (5, 5, 5)), EMAVQ(64, 64, decay=0.9)], ids=["fsq", "vq"])
def test_it_learns_to_read_four_utterances_from_their_tokens(
    quantizer: Quantizer, utterances: Any, fit: Any
) -> None:
    stage, batch = module(quantizer), batch_of(utterances)
    metrics = fit(stage, batch, 400, gradient_clip_val=1.0)  # 200 are nearly enough, 300 nearly always

    tokenizer = stage.tokenizer
    codes, lens = tokenizer.encode(batch.frames, batch.frame_lens)
    wrong, total = phoneme_errors(
        tokenizer.read(codes, lens), [labels_of(u.text).tolist() for u in utterances]
    )
    assert wrong / total < 0.1
    assert metrics["val/per_after"] == pytest.approx(wrong / total)
    assert metrics["val/per_before"] < 0.1

    used, perplexity = code_use(
        torch.cat([row[:n] for row, n in zip(codes, lens, strict=True)]), quantizer.codes
    )
    assert metrics["val/codes_used"] == pytest.approx(used)
    assert metrics["val/perplexity"] == pytest.approx(perplexity)
    assert perplexity > 10


# ----------------------------------------------------------------------------------------------------- losses


def test_ctc_loss_is_minus_the_log_probability_of_all_paths_per_label() -> None:
    log_probs = (2 * torch.randn(3, 5, 3)).log_softmax(-1)
    labels, label_lens = torch.tensor([[1, 2, 1], [2, 0, 0], [1, 1, 2]]), torch.tensor([3, 1, 3])
    lens = torch.tensor([5, 4, 3])  # the last is too short for a repeated label
    batch = TokenizerBatch(torch.empty(0), torch.empty(0), labels, label_lens, torch.empty(0))
    losses = []
    for row, n, wanted in ((0, 5, [1, 2, 1]), (1, 4, [2])):
        paths = [
            p
            for p in itertools.product(range(3), repeat=n)
            if [symbol for symbol, _ in itertools.groupby(p) if symbol] == wanted
        ]
        likelihood = sum(math.exp(float(log_probs[row, range(n), p].sum())) for p in paths)
        losses.append(-math.log(likelihood) / len(wanted))
    assert float(ctc_loss(log_probs, lens, batch)) == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_parts(utterances: Any) -> None:
    stage = module(FSQ(64, (5, 5, 5), diversity=0.5), before_weight=0.2, envelope_weight=3.0).eval()
    batch = batch_of(utterances)
    with torch.no_grad():
        total, parts, reading = stage.losses(batch, batch.frames)
    weights = {"ctc": 1.0, "ctc_before": 0.2, "envelope": 3.0, "quantizer": 1.0}
    torch.testing.assert_close(total, sum(weights[name] * part for name, part in parts.items()))
    assert all(float(part) > 0 for part in parts.values())

    target = stage.tokenizer.envelope_target(batch.frames, batch.frame_lens)
    rows = [(reading.envelope[i, :n] - target[i, :n]).abs() for i, n in enumerate(reading.lens)]
    torch.testing.assert_close(parts["envelope"], torch.cat(rows).mean())
    torch.testing.assert_close(parts["ctc"], ctc_loss(reading.after, 2 * reading.lens, batch))
    torch.testing.assert_close(parts["ctc_before"], ctc_loss(reading.before, 2 * reading.lens, batch))


def test_training_reads_changed_frames_but_tells_the_unchanged_envelope(utterances: Any, fit: Any) -> None:
    class Louder(nn.Module):
        floors: ClassVar[list[float]] = []

        def forward(self, frames: Tensor, floor: float) -> Tensor:
            self.floors.append(floor)
            return frames + 7

    stage, batch = module(FSQ(64, (5, 5, 5)), augment=Louder()), batch_of(utterances[:2])
    seen: list[tuple[bool, Tensor, Tensor]] = []
    losses = stage.losses

    def spy(batch: TokenizerBatch, frames: Tensor) -> Any:
        seen.append((stage.training, batch.frames, frames))
        return losses(batch, frames)

    stage.losses = spy  # type: ignore[method-assign]
    fit(stage, batch, 2)
    assert [training for training, _, _ in seen] == [True, True, False]
    for training, targets, frames in seen:
        torch.testing.assert_close(targets, batch.frames)
        torch.testing.assert_close(frames, batch.frames + (7 if training else 0))
    assert Louder.floors == [FLOOR, FLOOR]


# --------------------------------------------------------------------------------------------------- measures


def test_code_use_in_closed_form() -> None:
    used, perplexity = code_use(torch.tensor([[0, 1], [2, 3]]), 8)
    assert (used, round(perplexity, 5)) == (0.5, 4.0)
    used, perplexity = code_use(torch.full((9,), 5), 8)
    assert (used, round(perplexity, 5)) == (0.125, 1.0)
    _, perplexity = code_use(torch.tensor([0, 0, 1]), 8)
    assert perplexity == pytest.approx(3 / 2 ** (2 / 3))
    used, perplexity = code_use(torch.arange(8).repeat(5), 8)
    assert (used, round(perplexity, 5)) == (1.0, 8.0)


def test_phoneme_errors_are_substitutions_deletions_and_insertions() -> None:
    wanted = [[1, 2, 3], [4, 5], [6], [7, 8, 9]]
    assert phoneme_errors(wanted, wanted) == (0, 9)
    assert phoneme_errors([[1, 9, 3], [4], [6, 6], [9, 7, 8]], wanted) == (1 + 1 + 1 + 2, 9)
    assert phoneme_errors([[], [], [], []], wanted) == (9, 9)
