"""Written text -> what is said aloud: numbers, dates, money, units, abbreviations, symbols as words.

English is read in full (``english.py``). In other languages espeak-ng reads numbers, percentages and
currency signs by itself, with the stress and the liaisons that words from a list would lose; little is left
to do here.
"""

import re
import unicodedata

from tts.text import english


def normalize(text: str, language: str = "en-us") -> str:
    """The spoken form of ``text``, on one line; emoji and control characters are left out.

    Args:
        text: best one sentence at a time (``split_sentences``); any length works.
        language: espeak's code, see ``resolve_language``.
    """
    text = _tidy(text)
    text = english.expand(text) if language.lower()[:2] == "en" else _expand_other(text)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" (?=[,.;:!?…)])(?![.,]\d)", "", text).strip()


def _tidy(text: str) -> str:
    """One way to write dashes, ellipses and apostrophes; no pictures."""
    text = unicodedata.normalize("NFC", text).replace("’", "'").replace("\u00ad", "")
    text = re.sub(r"\s+", " ", text)
    text = re.sub(
        r"[!-~]{100,}", lambda m: re.sub(r"(.{50})", r"\1 ", m[0]), text
    )  # no word, and slow to read
    text = re.sub(r"\.{3,}|(?:\. ){2,}\.", "…", text)
    text = re.sub(r"\s*-{2,}\s*|\s+[-–]\s+(?![0-9])|\s+–\s+", " — ", text)
    return "".join(char for char in text if not _is_picture(char)).replace("`", "")


def _is_picture(char: str) -> bool:
    """Emoji, arrows, dingbats, control and private characters: nothing that is read aloud."""
    if char in "°©\u200c\u200d":  # the last two join and part letters in Persian and Indian scripts
        return False
    if char in "¶†‡•‣◦\ufe0e\ufe0f" or "\u2190" <= char <= "\u21ff" or char >= "\U0001f000":
        return True
    return unicodedata.category(char) in ("So", "Cc", "Cs", "Co", "Cn", "Cf")


def _expand_other(text: str) -> str:
    """Only what espeak-ng does not read as people do."""
    text = re.sub(r"([$€£¥])\s?([0-9][0-9.,]*[0-9]|[0-9])", r"\2 \1", text)
    text = re.sub(r"(?<=[0-9]):(?=[0-9])", " ", text)
    return re.sub(r"\b(?:[^\W\d_]\.\s?){2,}(?=\w)", lambda m: m[0].replace(".", " "), text)
