"""codec.nn.masks against masks written out by hand."""

from __future__ import annotations

import torch

from codec.nn.masks import chunk_causal_mask, length_mask


def test_length_mask_is_true_before_each_rows_end() -> None:
    expected = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(length_mask(torch.tensor([3, 0, 9]), 4), expected)


def test_chunk_causal_mask_shows_the_own_chunk_and_earlier_ones() -> None:
    mask = chunk_causal_mask(torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 2, 9]]))
    expected = torch.tensor(
        [
            [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
            [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(mask, expected[:, None])


def test_one_chunk_sees_everything_and_chunks_of_one_are_causal() -> None:
    assert chunk_causal_mask(torch.zeros(1, 5, dtype=torch.long)).all()
    assert torch.equal(chunk_causal_mask(torch.arange(5)[None])[0, 0], torch.ones(5, 5).tril().bool())
