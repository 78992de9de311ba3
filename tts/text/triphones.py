"""Which phoneme each token says, and between which it stands: what the decoder is told beside the token.

A token alone leaves open what the text knows: a phoneme in ten cannot be read back from it. Triphones, because a
phoneme so short that it has no token of its own is then told by its neighbours.
"""

from collections.abc import Sequence

from tts.text.symbols import SymbolTable

CONTEXT = 3
"""Phonemes told with a token: the one before, its own, the one after."""

NOTHING = -1
"""In place of a phoneme where there is none, or none is known."""


def told(
    tokens: Sequence[int], groups: Sequence[tuple[int, ...]], durations: Sequence[int], symbols: SymbolTable
) -> list[tuple[int, ...]]:
    """(token, phoneme before, its phoneme, phoneme after) for each token.

    Args:
        tokens: of an utterance, or the first of it.
        groups: phoneme groups of the whole utterance.
        durations: tokens of each group.
        symbols: the table of the phonemes.
    """
    of_token = [group for group, count in enumerate(durations) for _ in range(count)]
    around = triphones(groups, symbols)
    return [(token, *around[group]) for token, group in zip(tokens, of_token, strict=False)]


def triphones(groups: Sequence[tuple[int, ...]], symbols: SymbolTable) -> list[tuple[int, int, int]]:
    """Each group's phoneme between those before and after it. Stress and length are left to the tokens."""
    bases = [next(iter(symbols.segments(group)), NOTHING) for group in groups]
    padded = [NOTHING, *bases, NOTHING]
    return list(zip(padded, bases, padded[2:], strict=False))
