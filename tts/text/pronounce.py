"""Pronunciations that are given: into the models' alphabet, and into a sentence that espeak reads.

While a sentence is normalised and read, a nonsense word stands in for each word whose pronunciation is given, so
that the words around it are read as they would be beside a word of that kind ("an", not "a"; "Nguyen's"). Then its
reading is found in the sentence's, and replaced.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from tts.text.errors import TextError
from tts.text.normalize import normalize
from tts.text.phonemize import phonemize
from tts.text.symbols import Kind, SymbolTable, is_vowel

_STRESS = "ˈˌ"
_NOT_SAID = dict.fromkeys(map(ord, ".‿-|‖·\u0361\u035c"))  # syllables, links and ties: espeak writes none
_VOICELESS, _SIBILANTS = frozenset("ptkfθ"), frozenset("szʃʒʂʐɕʑ")


def clean_ipa(ipa: str, symbols: SymbolTable, language: str = "") -> str:
    """IPA as people write it -> as the models learnt it: espeak's.

    Stress stands right before the vowel, not before the syllable; ties and dots between syllables go; in English
    ``r`` is ``ɹ``. Several words become one.

    Raises:
        TextError: a character has no symbol, or there is no sound in it.
    """
    plain = unicodedata.normalize("NFC", ipa).translate(_NOT_SAID)
    if language.startswith("en"):
        plain = plain.replace("r", "ɹ")
    for char in plain:
        kinds = {symbols.kind(i) for i in symbols.encode(char)}
        if not char.isspace() and (not kinds or Kind.PUNCTUATION in kinds):
            raise TextError(
                f"{char!r} in the pronunciation {ipa!r} is no IPA symbol that is known; write IPA"
            )
    if not any(symbols.is_base(i) for i in symbols.encode(plain)):
        raise TextError(f"there is no sound in the pronunciation {ipa!r}; write IPA")
    return "".join(_stress_vowels(word) for word in plain.split())


def _stress_vowels(word: str) -> str:
    """Each stress mark moved from the start of its syllable to the syllable's vowel."""
    out, pending = "", ""
    for char in word:
        if char in _STRESS:
            if pending:
                return word
            pending = char
        elif pending and is_vowel(char):
            out, pending = out + pending + char, ""
        else:
            out += char
    # a syllable without a vowel keeps its mark where it was
    return out if not pending else word


@functools.lru_cache(maxsize=4096)
def spell(text: str, language: str) -> str:
    """IPA of a text read letter by letter, digit by digit, as one word; marks by their names, if they have one."""
    named = [normalize(char, language) for char in text if not char.isspace()]
    readings = phonemize([name for name in named if _has_name(name)], language)
    return "".join("".join(ipa.split()) for ipa in readings)


def _has_name(spoken: str) -> bool:
    return any(map(str.isalnum, spoken))


class StandIns:
    """The nonsense words of one text.

    Args:
        text: none of them is in it.
        language: of the text.
    """

    def __init__(self, text: str, language: str) -> None:
        self.language, plain = language, text.casefold()
        middle = "vov"
        while f"{middle}i" in plain:
            middle += "ov"
        kinds = [(start, end) for start in ("zu", "o") for end in "bts"]
        self._words = {kind: f"{kind[0]}{middle}i{kind[1]}" for kind in kinds}
        self._pattern = re.compile("|".join(self._words.values()), re.IGNORECASE)

    def word_for(self, written: str, ipa: str) -> str:
        """A word that begins and ends as the pronunciation does, with a capital where the written one has one."""
        letters = [char for char in ipa if char not in _STRESS and unicodedata.category(char) in ("Ll", "Lo")]
        last = letters[-1] if letters else ""
        end = "s" if last in _SIBILANTS else "t" if last in _VOICELESS else "b"
        word = self._words["o" if letters and is_vowel(letters[0]) else "zu", end]
        return word.capitalize() if written[:1].isupper() else word

    def count(self, text: str) -> int:
        """How many stand in a text."""
        return len(self._pattern.findall(text))

    def restore(self, text: str, written: Iterator[str]) -> str:
        """A text with what they stand for, the next of ``written`` for each."""
        return self._pattern.sub(lambda _: next(written), text)

    def read(self, text: str, given: Sequence[str]) -> tuple[str, str]:
        """A sentence with stand-ins -> it normalised, with the stand-ins still in it, and its IPA, with what is given.

        Args:
            text: a written sentence.
            given: the IPA of each of its stand-ins.
        """
        spoken = normalize(text, self.language)
        ipa = phonemize([spoken], self.language)[0]
        if self.count(spoken) == len(given) == len(self._read_as.findall(ipa)):
            words = iter(given)
            return spoken, self._read_as.sub(lambda _: next(words), ipa)
        return self._read_apart(text, given)

    def _read_apart(self, text: str, given: Sequence[str]) -> tuple[str, str]:
        """`read` where a stand-in cannot be found again: what stands between them, piece by piece."""
        pieces = [normalize(piece, self.language) for piece in self._pattern.split(text)]
        spoken = _interleaved(pieces, self._pattern.findall(text))
        return spoken, _interleaved(phonemize(pieces, self.language), given)

    @functools.cached_property
    def _read_as(self) -> re.Pattern[str]:
        """How espeak reads them, wherever it puts the stress."""
        readings = phonemize(list(self._words.values()), self.language)
        bare = sorted({re.sub(f"[{_STRESS}]", "", ipa) for ipa in readings}, key=len, reverse=True)
        anywhere = (f"[{_STRESS}]?" + f"[{_STRESS}]?".join(map(re.escape, ipa)) for ipa in bare)
        return re.compile("|".join(anywhere))


def _interleaved(pieces: Sequence[str], words: Sequence[str]) -> str:
    """Pieces with words between them, on one line."""
    rows = zip(pieces, [*words, ""], strict=True)
    line = " ".join(one for row in rows for one in row if one)
    return re.sub(r" (?=[,.;:!?…])", "", line)
