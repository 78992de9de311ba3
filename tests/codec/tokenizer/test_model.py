"""The tokenizer: CTC paths against brute force, padding against no padding, tokens against frames."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from codec.errors import UserError
from codec.spec import FrameSpec, TokenSpec
from codec.tokenizer.fsq import EMAVQ, FSQ, Quantizer
from codec.tokenizer.model import Tokenizer, best_path, ctc_path, starts_to_durations

FLOOR = FrameSpec().floor


def small(quantizer: Quantizer | None = None, **settings: object) -> Tokenizer:
    """A small tokenizer in eval, its biases not zero, so that leaks across edges show."""
    sizes = {"symbols": 7, "dim": 32, "heads": 2, "layers": 1, "reader_layers": 1, "kernel": 5, "bands": 5}
    tokenizer = Tokenizer(quantizer or FSQ(32, (5, 5, 5)), **{**sizes, **settings})  # type: ignore[arg-type]
    for name, parameter in tokenizer.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    if isinstance(tokenizer.quantizer, FSQ):  # centre it, so that the codes are used alike
        tokenizer.quantizer.momentum = 1.0
        frames, lens = some_frames(200, dim=tokenizer.spec.frames.dim)
        tokenizer.train()(frames, lens)
    return tokenizer.eval()


def some_frames(*lens: int, dim: int = 100) -> tuple[Tensor, Tensor]:
    """Random frames padded with the floor, (B, T, dim), and their lengths."""
    frames = torch.full((len(lens), max(lens), dim), FLOOR)
    for row, n in zip(frames, lens, strict=True):
        row[:n] = 3.5 * torch.randn(n, dim) - 6
    return frames, torch.tensor(lens)


# -------------------------------------------------------------------------------------------------------- CTC


def collapse(path: tuple[int, ...]) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != 0]


def starts(path: tuple[int, ...]) -> list[int]:
    """Where a label begins on a path."""
    return [i for i, s in enumerate(path) if s != 0 and (i == 0 or path[i - 1] != s)]


@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], [1, 2, 1], [1, 1, 2], [2, 1, 2, 1, 2, 1]])
@pytest.mark.parametrize("seed", range(3))
def test_ctc_path_is_the_best_of_all_paths(labels: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    log_probs = (2 * torch.randn(6, 3)).log_softmax(-1)
    paths = [p for p in itertools.product(range(3), repeat=6) if collapse(p) == labels]
    best = max(paths, key=lambda p: float(log_probs[range(6), p].sum()))
    assert ctc_path(log_probs, torch.tensor(labels)).tolist() == starts(best)


def test_ctc_path_of_no_labels_is_empty() -> None:
    assert ctc_path(torch.zeros(4, 3), torch.zeros(0, dtype=torch.long)).tolist() == []


@pytest.mark.parametrize(("labels", "positions"), [([1, 2, 1], 2), ([1, 1], 2), ([1, 1, 1], 4)])
def test_ctc_path_refuses_more_labels_than_fit(labels: list[int], positions: int) -> None:
    with pytest.raises(UserError, match=f"{len(labels)} phonemes .* {positions} ") as error:
        ctc_path(torch.zeros(positions, 3).log_softmax(-1), torch.tensor(labels))
    assert "\n" not in str(error.value)
    ctc_path(torch.zeros(positions + 1, 3).log_softmax(-1), torch.tensor(labels))


def test_best_path_merges_repeats_then_drops_blanks_within_each_rows_length() -> None:
    symbols = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 3], [2, 2, 2, 0, 0, 3, 3, 1], [1, 2, 1, 2, 1, 2, 1, 2]])
    log_probs = torch.nn.functional.one_hot(symbols, 4).float().log_softmax(-1)
    assert best_path(log_probs, torch.tensor([8, 6, 0])) == [[1, 1, 2, 3], [2, 3], []]


# ------------------------------------------------------------------------------------------------- one grid


def test_spec_follows_from_strides_and_quantizer() -> None:
    assert small(FSQ(32)).spec == TokenSpec()
    spec = FrameSpec("encodec", 24_000, 320, 16, 0.0)
    tokenizer = small(EMAVQ(32, 50), strides=(3,), frames=spec, bands=4)
    assert tokenizer.spec == TokenSpec(spec, 3, 50)
    assert tokenizer.token_lens(torch.tensor([1, 3, 4, 7])).tolist() == [1, 1, 2, 3]
    codes, lens = tokenizer.encode(torch.randn(2, 7, 16))
    assert codes.shape == (2, 3) and lens.tolist() == [3, 3]


@pytest.mark.parametrize("strides", [(2, 2), (4,), (2, 1, 2)])
@pytest.mark.parametrize("quantizer", [FSQ(32, (5, 5, 5)), EMAVQ(32, 60)], ids=["fsq", "vq"])
@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_padded_batch(strides: tuple[int, ...], quantizer: Quantizer) -> None:
    tokenizer = small(quantizer, strides=strides)
    frames, lens = some_frames(37, 64, 20, 43)
    batch = tokenizer(frames, lens)
    garbage = torch.where(torch.arange(64)[None, :, None] < lens[:, None, None], frames, 99.0)
    for in_batch in (batch, tokenizer(garbage, lens)):
        for i, length in enumerate(lens.tolist()):
            alone = tokenizer(frames[i : i + 1, :length], lens[i : i + 1])
            n = math.ceil(length / 4)
            assert in_batch.lens[i] == n == alone.codes.shape[1]
            assert torch.equal(in_batch.codes[i, :n], alone.codes[0])
            for name, per in (("before", 2), ("after", 2), ("envelope", 1)):
                theirs, mine = getattr(in_batch, name)[i, : n * per], getattr(alone, name)[0]
                torch.testing.assert_close(theirs, mine, atol=1e-5, rtol=1e-5, msg=f"{name}, row {i}")


@torch.no_grad()
def test_encode_gives_the_codes_of_the_forward_pass() -> None:
    tokenizer = small()
    frames, lens = some_frames(37, 64)
    reading = tokenizer(frames, lens)
    codes, code_lens = tokenizer.encode(frames, lens)
    assert torch.equal(codes, reading.codes) and torch.equal(code_lens, reading.lens)
    assert len(codes.unique()) > 5
    assert torch.equal(tokenizer.encode(frames)[0], tokenizer(frames, torch.tensor([64, 64])).codes)


@pytest.mark.parametrize("quantizer", [FSQ(32, (5, 5, 5)), EMAVQ(32, 60)], ids=["fsq", "vq"])
@torch.no_grad()
def test_tokens_read_as_the_frames_did(quantizer: Quantizer) -> None:
    tokenizer = small(quantizer)
    frames, lens = some_frames(37, 64)
    reading = tokenizer(frames, lens)
    torch.testing.assert_close(
        tokenizer.token_log_probs(reading.codes, reading.lens), reading.after, atol=1e-5, rtol=1e-5
    )
    assert tokenizer.read(reading.codes, reading.lens) == best_path(reading.after, reading.lens * 2)
    assert tokenizer.read(reading.codes[:1, :10]) == tokenizer.read(reading.codes, reading.lens)[:1]


def test_probabilities_sum_to_one_in_reading_order() -> None:
    tokenizer = small()
    logits = torch.randn(1, 3, 14)
    log_probs = tokenizer._phonemes(logits)
    assert log_probs.shape == (1, 6, 7)
    for position in range(6):
        token, half = divmod(position, 2)
        expected = logits[0, token, 7 * half : 7 * half + 7].log_softmax(-1)
        torch.testing.assert_close(log_probs[0, position], expected)


def test_align_gives_starts_in_tokens_and_refuses_too_many_phonemes() -> None:
    tokenizer = small()
    tokens = torch.tensor([3, 50, 124, 7, 7])
    phonemes = torch.tensor([1, 2, 2, 5])
    expected = ctc_path(tokenizer.token_log_probs(tokens[None])[0], phonemes) / 2
    assert tokenizer.align(tokens, phonemes).tolist() == expected.tolist()
    with pytest.raises(UserError, match="10 reading positions"):
        tokenizer.align(tokens, torch.tensor([1, 2] * 6))


def test_durations_go_from_start_to_start_and_sum_to_all_tokens() -> None:
    assert starts_to_durations(torch.tensor([1.5, 3.0, 3.5, 6.5]), 9) == [3, 0, 3, 3]
    assert starts_to_durations(torch.tensor([2.0]), 9) == [9]
    assert starts_to_durations(torch.zeros(0), 9) == []
    tokenizer, tokens, phonemes = small(), torch.randint(125, (20,)), torch.tensor([1, 2, 2, 5, 4])
    starts = tokenizer.align(tokens, phonemes)
    durations = tokenizer.durations(tokens, phonemes)
    assert sum(durations) == 20
    assert [sum(durations[:i]) for i in range(1, 5)] == starts[1:].floor().tolist()


# ------------------------------------------------------------------------------------------------- envelope


def test_envelope_target_by_hand() -> None:
    tokenizer = small(frames=FrameSpec(dim=4), bands=2, strides=(2,), std=2.0)
    frames = torch.tensor(
        [
            [[1.0, 3, 0, 0], [5, 7, 0, 4], [0, 0, 8, 8], [0, 0, 8, 8], [9, 9, 9, 9]],
            [[2.0, 2, 6, 6], [2, 2, 6, 6], [-9, -9, 0, 0], [-9, -9, 0, 0], [-9, -9, 0, 0]],
        ]
    )
    # tokens of two frames, bands of two channels: row 0 is (4, 1), (0, 8); row 1 is (2, 6) alone
    expected = torch.tensor([[[1.0, -1.75], [-1, 1.75], [0, 0]], [[0, 0], [0, 0], [0, 0]]])
    torch.testing.assert_close(tokenizer.envelope_target(frames, torch.tensor([4, 2])), expected)


def test_envelope_target_does_not_know_a_steady_filter() -> None:
    tokenizer = small()
    frames, lens = some_frames(64, 40)
    louder = frames + torch.randn(1, 1, 100)
    torch.testing.assert_close(
        tokenizer.envelope_target(louder, lens), tokenizer.envelope_target(frames, lens), atol=1e-5, rtol=0
    )
