"""Which characters and sounds a corpus has, hardly has, and lacks."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tts.data.manifest import Row
from tts.text.symbols import SymbolTable

HARDLY = 5  # times
# Holds every sound of American English (a phonetic pangram that linguists pass on).
_PANGRAMS = {
    "en": "That quick beige fox jumped in the air over each thin dog. Look out, I shout, for he's foiled you again, "
    "creating chaos. The pleasure was yours."
}
_NUMBERS = "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 30 40 50 60 70 80 90 100 1000 1000000 0.5"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

Phonemize = Callable[[list[str], str], list[str]]
"""(texts as written, language) -> phoneme strings."""


class Coverage(NamedTuple):
    """Of one language.

    Attributes:
        characters: how often each is written, small letters for capitals.
        sounds: how often each letter of the phonetic alphabet is said.
        rare_characters, rare_sounds: those there fewer than `HARDLY` times.
        missing_characters: letters from a to z that are never written, where the script is Latin.
        missing_sounds: those that the language's numbers and letter names need and the corpus lacks.
    """

    characters: Counter[str]
    sounds: Counter[str]
    rare_characters: list[str]
    rare_sounds: list[str]
    missing_characters: list[str]
    missing_sounds: list[str]


def coverage(
    rows: Sequence[Row], phonemes: dict[int, str], symbols: SymbolTable, phonemize: Phonemize
) -> dict[str, Coverage]:
    """What each language's texts cover.

    Args:
        rows: utterances.
        phonemes: by line.
        phonemize: says what the language needs.
    """
    languages: dict[str, list[Row]] = {}
    for row in rows:
        languages.setdefault(row.language, []).append(row)
    return {
        language: _one(language, group, phonemes, symbols, phonemize) for language, group in languages.items()
    }


def _one(
    language: str, rows: Sequence[Row], phonemes: dict[int, str], symbols: SymbolTable, phonemize: Phonemize
) -> Coverage:
    characters = Counter(char for row in rows for char in row.text.lower() if not char.isspace())
    sounds = sounds_of((phonemes.get(row.line, "") for row in rows), symbols)
    letters = {char for char in characters if char.isalpha()}
    latin = sum(characters[char] for char in _LETTERS) > 0.8 * sum(characters[char] for char in letters)
    needed = sounds_of(phonemize(needs(language, latin), language), symbols)
    return Coverage(
        characters,
        sounds,
        [char for char, count in characters.items() if count < HARDLY],
        [sound for sound, count in sounds.items() if count < HARDLY],
        [char for char in _LETTERS if latin and char not in letters],
        [sound for sound in needed if sound not in sounds],
    )


def needs(language: str, latin: bool) -> list[str]:
    """What everybody wants to hear in a language: numbers, names of letters, in English all its sounds."""
    pangram = _PANGRAMS.get(language.split("-")[0])
    return [
        _NUMBERS.replace(" ", ", "),
        *(_LETTERS.upper() if latin else ""),
        *([pangram] if pangram else []),
    ]


def sounds_of(phonemes: Iterable[str], symbols: SymbolTable) -> Counter[str]:
    """How often each base letter of the phonetic alphabet is in the strings."""
    return Counter(symbols.symbols[i] for ipa in phonemes for i in symbols.encode(ipa) if symbols.is_base(i))
