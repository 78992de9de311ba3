"""The LM's sequence, written out by hand."""

from __future__ import annotations

import pytest

from tts.lm.layout import IGNORE, Layout

LAYOUT = Layout(symbols=10, codes=5)
BOS, TEXT_END, EOS = 10, 11, 12
GROUPS = [(1, 2), (3,), (4, 5)]


def test_the_vocabulary_is_symbols_then_specials_then_codes() -> None:
    assert (LAYOUT.bos, LAYOUT.text_end, LAYOUT.eos, LAYOUT.first_code) == (BOS, TEXT_END, EOS, 13)
    assert LAYOUT.vocab_size == 18


def test_a_training_example_by_hand() -> None:
    ids, labels = LAYOUT(GROUPS, [0, 1, 4, 3], [1, 0, 3])
    text = [BOS, 1, 2, 3, 4, 5, TEXT_END]
    # each group is announced one ahead of its own tokens
    assert ids == [*text, 1, 2, 3, 13, 4, 5, TEXT_END, 14, 17, 16]
    assert labels == [*[IGNORE] * 8, 3, 13, 4, 5, TEXT_END, 14, 17, 16, EOS]


def test_labels_are_the_ids_that_follow() -> None:
    ids, labels = LAYOUT(GROUPS, [0, 1, 4, 3], [1, 0, 3])
    assert len(ids) == len(labels)
    assert all(label in (IGNORE, following) for label, following in zip(labels, [*ids[1:], EOS], strict=True))


def test_one_group_and_none() -> None:
    assert LAYOUT([(7,)], [2], [1]) == (
        [BOS, 7, TEXT_END, 7, TEXT_END, 15],
        [IGNORE, IGNORE, IGNORE, TEXT_END, 15, EOS],
    )
    assert LAYOUT([], [], []) == ([BOS, TEXT_END], [IGNORE, EOS])


@pytest.mark.parametrize(("tokens", "durations"), [([0, 1], [1, 1]), ([0, 1], [1, 1, 1]), ([], [0, 0, 0, 0])])
def test_parts_that_do_not_belong_together_are_refused(tokens: list[int], durations: list[int]) -> None:
    with pytest.raises(ValueError, match="3 groups"):
        LAYOUT(GROUPS, tokens, durations)
