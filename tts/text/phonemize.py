"""Spoken text -> IPA, by espeak-ng through phonemizer; the library and its data come as a wheel.

espeak starts at the first call and keeps one voice per language. Its output is cleaned where, for a few
languages, ASCII stands for IPA: ``s.`` is a retroflex, not the end of a sentence.
"""

import difflib
import functools
import logging
import re
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tts.text.errors import TextError

DEFAULT_LANGUAGE = "en-us"

# What people and data sets write -> espeak's code. A region that espeak does not know is left off by itself.
_ALIASES = {"en": "en-us", "eng": "en-us", "fr": "fr-fr", "zh": "cmn", "zh-hk": "yue", "iw": "he"}
_ALIASES |= {"no": "nb", "nn": "nb", "in": "id", "chr": "chr-US-Qaaa-x-west", "en-uk": "en-gb"}

# Its rules end the process with a segmentation fault on ordinary sentences (espeak-ng 1.52).
_CRASHES = frozenset({"kl"})

# Marks kept as they are. As in phonemizer, a point or comma between two digits belongs to the number; so does
# a point between two lone letters (d.h.) to the abbreviation.
_MARKS = re.escape(';:!?¡¿—–―…⋯‥"«»“”„‟‹›(){}[]。．｡।॥۔።။，、､،၊፣！？؟；؛：「」『』《》〈〉【】（）［］＂')
_ONE = rf"(?:[{_MARKS}]|(?<![0-9])[.,]|[.,](?![0-9]))(?<!\b[^\W\d_]\.(?=[^\W\d_]))"
_MARK = re.compile(rf"(\s*{_ONE}(?:[\s{_MARKS}.,])*)")

_RETROFLEX = {"t": "ʈ", "d": "ɖ", "s": "ʂ", "z": "ʐ", "n": "ɳ", "l": "ɭ", "r": "ɽ", "i": "ɨ"}
_ASCII_IPA = str.maketrans(
    {"S": "ʃ", "Z": "ʒ", "N": "ŋ", "X": "χ", "A": "ɑ", "`": "ʼ", "^": "ʲ", "?": "ʔ", ":": "ː"}
    | {"[": "\u032a", "#": "\u0325"}  # dental, voiceless
    | dict.fromkeys("-_.\"'~;*", "")
)
_TONAL = ("cmn", "hak", "yue", "vi", "th", "shn", "my")

_lock = threading.Lock()
_log = logging.getLogger(f"{__name__}.espeak")
_log.setLevel(logging.ERROR)  # phonemizer tells of every utterance with a foreign word


def phonemize(texts: Sequence[str], language: str = DEFAULT_LANGUAGE) -> list[str]:
    """IPA of each text: stress marked, a space between words, punctuation where it was.

    Args:
        texts: in spoken form (see ``normalize``); many at once cost less than many calls.
        language: a code of ``languages()`` or a common alias (``en``, ``zh``, ``de-at``).

    Raises:
        TextError: the language is unknown.
    """
    code = resolve_language(language)
    pieces = [_MARK.split(_clean_text(text)) for text in texts]
    chunks = list(dict.fromkeys(chunk for parts in pieces for chunk in parts[::2] if chunk.strip()))
    with _lock:
        spoken = _backend(code).phonemize(chunks, strip=True) if chunks else []
    ipa = {chunk: _clean_ipa(out, code) for chunk, out in zip(chunks, spoken, strict=True)}
    return [_join(parts, ipa) for parts in pieces]


def languages() -> set[str]:
    """Codes of the languages that can be spoken."""
    return set(_languages())


def resolve_language(language: str) -> str:
    """espeak's code for a code, an alias or an English name (``german``).

    Raises:
        TextError: unknown; the message names what comes near.
    """
    known = {name.lower(): code for code, name in _languages().items()}
    known |= {code.lower(): code for code in _languages()}
    known |= {alias: code for alias, code in _ALIASES.items() if alias not in known}
    wanted = language.strip().lower().replace("_", "-")
    while wanted and wanted not in known:
        wanted = wanted.rpartition("-")[0]  # a region that espeak does not know
    if not wanted:
        raise TextError(_unknown_language(language, known))
    return known[wanted]


def _unknown_language(language: str, known: dict[str, str]) -> str:
    word = language.strip().lower()
    near = [name for name in known if len(word) > 2 and word in name]
    near += difflib.get_close_matches(word, known, n=4, cutoff=0.6)
    codes = list(dict.fromkeys(known[name] for name in near))[:4]
    if not codes:
        return f"language {language!r} is unknown: give a code such as 'en-us', 'de', 'fr-fr', 'cmn' or 'ja'"
    listed = ", ".join(f"{code!r} ({_languages()[code]})" for code in codes)
    return f"language {language!r} is unknown: did you mean {listed}?"


def _clean_text(text: str) -> str:
    """One line, without what a C string cannot hold; one kind of apostrophe."""
    text = re.sub(r"\s+", " ", text.replace("’", "'"))
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cs"))


def _clean_ipa(ipa: str, code: str) -> str:
    ipa = re.sub(r"([tdsznlri])\.", lambda match: _RETROFLEX[match[1]], ipa)
    ipa = ipa.translate(_ASCII_IPA)
    if code.split("-")[0] in _TONAL:
        ipa = re.sub(r"ɜ(?!ː)", "3", ipa)  # espeak spells the tone digit 3 as the vowel it is in ASCII IPA
    return " ".join(ipa.split())


def _join(parts: list[str], ipa: dict[str, str]) -> str:
    """Chunks spoken, the marks between them as they were."""
    return "".join(ipa.get(part, "") if i % 2 == 0 else part for i, part in enumerate(parts)).strip()


def _start_espeak() -> Any:
    """phonemizer's wrapper class, told to use the wheel's library and data."""
    import espeakng_loader
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    return EspeakWrapper


@functools.cache
def _languages() -> dict[str, str]:
    """Code -> name of the voices that work: some have rules whose dictionary is in no release."""
    wrapper = _start_espeak()
    data = Path(str(wrapper._ESPEAK_DATA_PATH))
    voices = [v for v in wrapper().available_voices() if v.language not in _CRASHES]
    return {v.language: v.name.strip() for v in voices if _has_dictionary(data, v.identifier)}


def _has_dictionary(data: Path, identifier: str) -> bool:
    voice = (data / "lang" / identifier).read_text(encoding="utf-8")
    name = re.search(r"^dictionary\s+(\S+)", voice, re.M) or re.search(r"^language\s+([^\s-]+)", voice, re.M)
    return name is not None and (data / f"{name[1]}_dict").is_file()


@functools.cache
def _backend(code: str) -> Any:
    """The voice of one language, made once a process."""
    _start_espeak()
    from phonemizer.backend import EspeakBackend

    return EspeakBackend(code, with_stress=True, language_switch="remove-flags", logger=_log)
