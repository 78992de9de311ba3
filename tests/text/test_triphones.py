"""What the decoder is told beside each token."""

from tts.text.symbols import DEFAULT_SYMBOLS as TABLE
from tts.text.triphones import NOTHING, told, triphones


def groups_of(ipa: str) -> list[tuple[int, ...]]:
    return TABLE.groups(TABLE.encode(ipa))


def test_a_phoneme_stands_between_its_neighbours_without_stress_length_and_punctuation() -> None:
    k, a, t = (TABLE.encode(one)[0] for one in "kɑt")
    assert triphones(groups_of("kˈɑːt."), TABLE) == [(NOTHING, k, a), (k, a, t), (a, t, NOTHING)]
    assert triphones([], TABLE) == []


def test_every_token_tells_its_phoneme_and_one_without_tokens_is_told_by_its_neighbours() -> None:
    k, a, t = (TABLE.encode(one)[0] for one in "kɑt")
    rows = told([11, 12, 13], groups_of("kɑt"), [2, 0, 1], TABLE)
    assert rows == [(11, NOTHING, k, a), (12, NOTHING, k, a), (13, a, t, NOTHING)]


def test_the_first_tokens_of_an_utterance_know_what_follows() -> None:
    whole, groups = [11, 12, 13], groups_of("kɑt")
    assert told(whole[:2], groups, [1, 1, 1], TABLE) == told(whole, groups, [1, 1, 1], TABLE)[:2]
