"""The way back: which phonemes say which word of the written text.

Between a word and its phonemes lie the normaliser's rules ("$3.50" becomes "three dollars fifty cents") and espeak,
which joins words ("at once" becomes "ɐtwˈʌns"). Neither tells where what came from, so it is found again: where
the words match one to one, that is all; elsewhere each word is read alone, and the letters of that reading are
laid against what was said, with the fewest edits (Levenshtein 1966).
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rapidfuzz.distance import Levenshtein

from tts.text.symbols import SymbolTable

_UNSPACED = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"  # kana and Chinese characters: each is a word
_WORD = re.compile(rf"{_UNSPACED}[^\w\s]*|(?:(?!{_UNSPACED})\S)+")


@dataclass(frozen=True)
class Word:
    """A word as it was written, with the marks around it, and the phoneme groups that say it.

    Attributes:
        text: as written, without spaces.
        first: number of its first group, see `SymbolTable.groups`.
        last: number of the group behind its last one.
    """

    text: str
    first: int
    last: int


Reading = Callable[[Sequence[str]], Sequence[str]]
"""Words, each read as if it stood alone."""


def find_words(
    written: Sequence[str],
    spoken: Sequence[str],
    ipa: str,
    symbols: SymbolTable,
    *,
    normalize: Reading,
    phonemize: Reading,
) -> tuple[Word, ...]:
    """The written words that have a sound, in order; together they own every phoneme group.

    Args:
        written: words as they were written.
        spoken: words as they are said, digits and signs read out.
        ipa: how they are said together, words parted by spaces.
        symbols: the phoneme table.
        normalize: written words -> what is said for each.
        phonemize: spoken words -> IPA of each.
    """
    heard = [sounds for word in ipa.split() if (sounds := _bases(word, symbols))]
    bases = [base for sounds in heard for base in sounds]
    said = [word for word in spoken if any(map(str.isalnum, word))]
    if not bases:
        return ()
    if not said:  # signs that espeak names
        return (Word(" ".join(written), 0, len(bases)),)
    if len(said) == len(heard):
        by_base = [n for n, sounds in enumerate(heard) for _ in sounds]
    else:
        by_base = owners([_bases(one, symbols) for one in phonemize(said)], bases)
    by_word = _spoken_by(written, said, normalize)
    starts: dict[int, int] = {}
    for group, n in enumerate(by_base):
        starts.setdefault(by_word[n], group)
    ends = [*list(starts.values())[1:], len(bases)]
    return tuple(Word(written[w], start, end) for (w, start), end in zip(starts.items(), ends, strict=True))


def split_words(text: str) -> list[str]:
    """The words of a text, with their marks; of scripts without spaces, the characters."""
    return _WORD.findall(text)


def owners(expected: Sequence[Sequence[Hashable]], observed: Sequence[Hashable]) -> list[int]:
    """For each observed thing the number of the sequence that it belongs to; they never go down.

    Args:
        expected: what each sequence would look like alone.
        observed: the sequences together, more or less.
    """
    flat = [one for sequence in expected for one in sequence]
    bounds = list(accumulate(map(len, expected)))
    found: list[int] = []
    for op in Levenshtein.opcodes(flat, list(observed)):
        e0, e1 = op.src_start, op.src_end
        for k in range(op.dest_end - op.dest_start):
            # what is too much belongs to what stands before it
            at = min(e0 + k, e1 - 1) if op.tag != "insert" else max(0, e0 - 1)
            found.append(min(bisect_right(bounds, at), len(expected) - 1))
    return found


def _spoken_by(written: Sequence[str], spoken: Sequence[str], normalize: Reading) -> list[int]:
    """For each spoken word the number of the written word that it comes from."""
    said = [_letters(word) for word in spoken]
    expected = [_letters(word) for word in written]
    unlike = [n for n, word in enumerate(expected) if word not in said]
    for n, reading in zip(unlike, normalize([written[n] for n in unlike]), strict=True):
        expected[n] = _letters(reading)
    letters = owners(expected, "".join(said))
    found: list[int] = []
    at = 0
    for word in said:
        own = letters[at : at + len(word)]
        at += len(word)
        found.append(max(own, key=own.count))  # most of its letters decide
    return list(accumulate(found, max))


def _letters(word: str) -> str:
    """What is compared of a word: no marks, no case."""
    return "".join(char for char in word.casefold() if char.isalnum())


def _bases(ipa: str, symbols: SymbolTable) -> list[int]:
    ids = symbols.encode(unicodedata.normalize("NFC", ipa))
    return [i for i in ids if symbols.is_base(i)]
