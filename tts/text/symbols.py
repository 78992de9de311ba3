"""Phonemes as ids: one fixed table of IPA characters for all languages.

A phoneme string is read character by character. Every character is one of four kinds:

- base: an IPA letter, a sound of its own (``t``, ``ɚ``, ``ŋ``);
- modifier: says more about the base before it (``ː``, ``ʰ``, a combining tilde, a tone digit);
- stress: ``ˈ`` or ``ˌ``, belongs to the base after it;
- punctuation: ``.``, ``,`` ...; a pause or a tune, no sound.

Bases and modifiers together are *segments*: what a listener can hear, and what the tokenizer reads.
Spaces separate words in strings and have no id. Id 0 is no symbol: it pads, and it is CTC's blank.
"""

import enum
import functools
import logging
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

log = logging.getLogger(__name__)

BLANK = "<blank>"

_STRESS = "ˈˌ"
_PUNCTUATION = ".,!?;:—…\"'()¡¿"
_VOWELS = "iyɨʉɯuɪʏʊᵻᵿeøɘɵɤoəɚɛœɜɝɞʌɔæɐaɶɑɒ"
_CONSONANTS = "pbtdʈɖcɟkɡqɢʔʡmɱnɳɲŋɴʙrʀⱱɾɽɸβfvθðszʃʒʂʐçʝxɣχʁħʕʜʢhɦɬɮʋɹɻjɰlɭʎʟwʍɥɕʑɧɺɫɓɗʄɠʛʘǀǃǂǁ"
_MODIFIERS = (
    "ːˑʰʱʲʷˠˤⁿˡʼ˞ᵊᵝˀˢᶻ123456789˥˦˧˨˩"
    "\u0303\u0361\u035c\u0329\u030d\u032f\u0325\u030a\u032c\u032a\u033a\u033b\u0308\u033d"
    "\u0306\u031e\u031d\u031f\u0320\u0324\u0330\u0339\u031c\u0334\u031a\u0300\u0301\u0302\u0304\u030b\u030f\u030c"
)

# Other ways to write what the table has: look-alikes, retired IPA letters, punctuation of other scripts.
_SAME_AS: dict[str, str] = {
    "g": "ɡ", "ε": "ɛ", "ꭓ": "χ", "ɩ": "ɪ", "ɷ": "ʊ", "Φ": "ɸ", "φ": "ɸ", "ɿ": "ɨ", "ı": "ɯ",
    "ʦ": "ts", "ʣ": "dz", "ʧ": "tʃ", "ʤ": "dʒ", "ʨ": "tɕ", "ʥ": "dʑ", "ʮ": "ʉ",
    "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‹": '"', "›": '"', "‟": '"', "＂": '"',
    "「": '"', "」": '"', "『": '"', "』": '"', "《": '"', "》": '"', "〈": '"', "〉": '"',
    "‘": "'", "’": "'", "‚": "'", "`": "'", "＇": "'",
    "。": ".", "．": ".", "｡": ".", "।": ".", "॥": ".", "۔": ".", "։": ".", "።": ".", "။": ".", "·": ".",
    "，": ",", "、": ",", "､": ",", "،": ",", "၊": ",", "፣": ",", "՝": ",",
    "！": "!", "՜": "!", "？": "?", "؟": "?", "՞": "?", "；": ";", "؛": ";", "፤": ";", "：": ":", "፡": ":",
    "–": "—", "―": "—", "⸺": "—", "⋯": "…", "‥": "…",
    "[": "(", "]": ")", "{": "(", "}": ")", "（": "(", "）": ")", "［": "(", "］": ")",
    "【": "(", "】": ")", "〔": "(", "〕": ")", "｛": "(", "｝": ")",
}  # fmt: skip

# Marks of writing, not of sound: left out without a word.
_SILENT = frozenset("-_|\u2010\u2011\u203f#*^~\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f")


class Kind(enum.Enum):
    """What a symbol does in a phoneme string."""

    BLANK = "blank"
    BASE = "base"
    MODIFIER = "modifier"
    STRESS = "stress"
    PUNCTUATION = "punctuation"


def kind_of(symbol: str) -> Kind:
    """The kind of one symbol, by Unicode category where it is not one of the lists above."""
    if symbol == BLANK:
        return Kind.BLANK
    if symbol in _STRESS:
        return Kind.STRESS
    category = unicodedata.category(symbol[0])
    if symbol in _MODIFIERS or category[0] == "M" or category in ("Lm", "Sk", "Nd"):
        return Kind.MODIFIER
    return Kind.PUNCTUATION if category[0] == "P" else Kind.BASE


def is_vowel(symbol: str) -> bool:
    """Whether a symbol is the letter of a vowel."""
    return symbol in _VOWELS


@dataclass(frozen=True)
class SymbolTable:
    """Symbols and their ids: the id of a symbol is its place in ``symbols``.

    Args:
        symbols: ``symbols[0]`` is the blank; the others are single characters, each once.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.symbols or self.symbols[0] != BLANK:
            raise ValueError(f"symbols[0] must be {BLANK!r}, got {self.symbols[:1]}")
        if wrong := [s for s in self.symbols[1:] if len(s) != 1 or s.isspace()]:
            raise ValueError(f"symbols must be single characters, not spaces, got {wrong}")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols twice: {sorted(s for s in self.symbols if self.symbols.count(s) > 1)}")

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @cached_property
    def _kinds(self) -> tuple[Kind, ...]:
        return tuple(kind_of(symbol) for symbol in self.symbols)

    def encode(self, ipa: str) -> list[int]:
        """Ids of a phoneme string, without its spaces.

        A character that is not in the table is read as its look-alike or in its parts (``ã`` as ``a`` and a
        tilde); where that does not help it is dropped, with one warning for each such character.
        """
        return [i for char in unicodedata.normalize("NFC", ipa) for i in self._encode_char(char)]

    def _encode_char(self, char: str) -> list[int]:
        if (known := self._ids.get(char)) is not None:
            return [known]
        if char.isspace() or char in _SILENT:
            return []
        parts = _SAME_AS.get(char) or unicodedata.normalize("NFD", char)
        if parts == char:
            _warn_unknown(char)
            return []
        return [i for part in parts for i in self._encode_char(part)]

    def decode(self, ids: Iterable[int]) -> str:
        """The phoneme string of ``ids``, without spaces; blanks are left out."""
        return "".join(self.symbols[i] for i in ids if i != 0)

    def kind(self, i: int) -> Kind:
        """What the symbol with id ``i`` does."""
        return self._kinds[i]

    def is_base(self, i: int) -> bool:
        """Whether id ``i`` is a letter of its own."""
        return self._kinds[i] is Kind.BASE

    def is_segment(self, i: int) -> bool:
        """Whether id ``i`` can be heard: a base or a modifier."""
        return self._kinds[i] in (Kind.BASE, Kind.MODIFIER)

    def segments(self, ids: Iterable[int]) -> list[int]:
        """``ids`` without stress, punctuation and blanks."""
        return [i for i in ids if self.is_segment(i)]

    def sounds(self, ids: Iterable[int]) -> list[int]:
        """``ids`` without punctuation and blanks: segments with their stress."""
        return [i for i in ids if self._kinds[i] not in (Kind.PUNCTUATION, Kind.BLANK)]

    def groups(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """One group a base: its stress marks, itself, its modifiers, the punctuation that follows.

        What stands before the first base joins the first group, and stress that no base follows joins the
        last. So the groups joined are ``ids``, and every group holds exactly one base, unless there is none.
        """
        groups: list[list[int]] = []
        has_base = True
        for i in ids:
            kind = self._kinds[i]
            if not groups or (has_base and kind in (Kind.BASE, Kind.STRESS)):
                groups.append([])
                has_base = False
            groups[-1].append(i)
            has_base = has_base or kind is Kind.BASE
        if len(groups) > 1 and not has_base:
            tail = groups.pop()
            groups[-1] += tail
        return [tuple(group) for group in groups]

    def extended(self, new_symbols: Iterable[str]) -> "SymbolTable":
        """This table with ``new_symbols`` (those it lacks) after its own, which keep their ids."""
        return SymbolTable(tuple(dict.fromkeys((*self.symbols, *new_symbols))))

    def to_list(self) -> list[str]:
        """The symbols, to save with a model; ``from_list`` reads them back."""
        return list(self.symbols)

    @classmethod
    def from_list(cls, symbols: Iterable[str]) -> "SymbolTable":
        """The table that ``to_list`` wrote."""
        return cls(tuple(symbols))


@functools.cache
def _warn_unknown(char: str) -> None:
    """Log once a process that ``char`` is dropped."""
    log.warning("no symbol for %r (U+%04X %s): left out", char, ord(char), unicodedata.name(char, "unnamed"))


DEFAULT_SYMBOLS = SymbolTable((BLANK, *_PUNCTUATION, *_STRESS, *_VOWELS, *_CONSONANTS, *_MODIFIERS))
