"""Markup inside a text: pauses, and words whose pronunciation is given.

    [pause 0.5s]  [pause 500ms]  [pause]  <break time="500ms"/>  <break strength="strong"/>
    <phoneme ph="təˈmɑːtoʊ">tomato</phoneme>      /təˈmɑːtoʊ/  (with a stress mark in it)
    <say-as interpret-as="characters">NASA</say-as>

The tags are SSML's (W3C, Speech Synthesis Markup Language 1.1); its other tags are left to the normaliser, which
leaves them out. What merely looks like markup, "and/or", "[sic]", "[pause for applause]", stays text.
"""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tts.text.errors import TextError

PAUSE = 0.5  # seconds of a pause that does not say how long
LONGEST_PAUSE = 60.0
STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 1.0, "x-strong": 1.5}
SPELLED = ("characters", "spell-out")

_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0}
_PAUSE = r"\[pause(?:\s+(?P<pause>[-+.]?\d[^\]\n]*))?\]"
_BREAK = r"<break\b(?P<break>[^<>]*)>(?:</break>)?"
_ELEMENT = r"<(?P<name>phoneme|say-as)\b(?P<attributes>[^<>]*)>"
_CLOSED = r"</(?P<closed>phoneme|say-as|break)\s*>"
_SLASHES = r"(?<![\w/:.])/(?P<ipa>(?=[^/\n]{0,79}[ˈˌ])[^/\n<>\[\]]{1,80})/(?![\w/])"
_MARKUP = re.compile("|".join((_PAUSE, _BREAK, _ELEMENT, _CLOSED, _SLASHES)))
_ATTRIBUTE = re.compile(r"""\s*([\w:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")


@dataclass(frozen=True)
class Plain:
    """Text as it stands."""

    text: str


@dataclass(frozen=True)
class Pause:
    """Silence of so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Given:
    """Words with their pronunciation, IPA as it was written."""

    text: str
    ipa: str


@dataclass(frozen=True)
class Spelled:
    """What is said letter by letter."""

    text: str


Piece = Plain | Pause | Given | Spelled


def read_markup(text: str) -> list[Piece]:
    """The pieces of a text, in order; what stands between them is not lost.

    Raises:
        TextError: markup that is meant and cannot be understood; the message names it.
    """
    return list(_pieces(text))


def _pieces(text: str) -> Iterator[Piece]:
    at = 0
    while match := _MARKUP.search(text, at):
        if match.start() > at:
            yield Plain(text[at : match.start()])
        piece, at = _piece(text, match)
        yield piece
    if at < len(text):
        yield Plain(text[at:])


def _piece(text: str, match: re.Match[str]) -> tuple[Piece, int]:
    """What a match means, and where the text goes on."""
    shown = match[0]
    if match["closed"]:
        raise TextError(f"{shown} closes nothing: put <{match['closed']} ...> before it, or take it out")
    if match["ipa"]:
        return Given(shown, match["ipa"]), match.end()
    if match["name"] is None:
        spec = match["break"]
        return Pause(_pause(shown, match["pause"]) if spec is None else _break(shown, spec)), match.end()
    name = match["name"]
    closed = re.compile(rf"</{name}\s*>").search(text, match.end())
    if match["attributes"].rstrip().endswith("/") or closed is None:
        raise TextError(f"{shown} is not closed: put </{name}> behind the words it is about")
    said = html.unescape(text[match.end() : closed.start()])
    if "<" in said or not said.strip():
        raise TextError(f"{shown} must hold words and no other tags, not {_short(said)!r}")
    said = " ".join(said.split())
    read: Callable[[str, str, str], Piece] = _phoneme if name == "phoneme" else _say_as
    return read(shown, match["attributes"], said), closed.end()


def _pause(shown: str, given: str | None) -> float:
    """The length of ``[pause ...]``."""
    return PAUSE if given is None else _seconds(shown, given, "[pause 0.5s]")


def _break(shown: str, given: str) -> float:
    """The length of ``<break ...>``."""
    form = '<break time="500ms"/>'
    attributes = _attributes(shown, given.strip().removesuffix("/"), form)
    if "time" in attributes:
        return _seconds(shown, attributes["time"], form)
    strength = attributes.get("strength", "medium")
    if strength not in STRENGTHS:
        raise TextError(f"{shown} has no strength of SSML's ({', '.join(STRENGTHS)}): write {form}")
    return STRENGTHS[strength]


def _phoneme(shown: str, given: str, said: str) -> Given:
    form = '<phoneme ph="təˈmɑːtoʊ">tomato</phoneme>'
    attributes = _attributes(shown, given, form)
    alphabet = attributes.get("alphabet", "ipa")
    if alphabet != "ipa":
        raise TextError(f"{shown} is in the alphabet {alphabet!r}: only ipa is known; write {form}")
    if not attributes.get("ph", "").strip():
        raise TextError(f"{shown} does not say how: write {form}")
    return Given(said, attributes["ph"])


def _say_as(shown: str, given: str, said: str) -> Spelled:
    form = '<say-as interpret-as="characters">NASA</say-as>'
    how = _attributes(shown, given, form).get("interpret-as")
    if how not in SPELLED:
        raise TextError(f"{shown} asks for {how!r}: only {' and '.join(SPELLED)} are known; write {form}")
    if not any(map(str.isalnum, said)):
        raise TextError(f"{shown} holds nothing that can be spelled: {_short(said)!r}")
    return Spelled(said)


def _attributes(shown: str, given: str, form: str) -> dict[str, str]:
    """Names and values of a tag's attributes."""
    found: dict[str, str] = {}
    at = 0
    given = given.rstrip()
    while at < len(given):
        match = _ATTRIBUTE.match(given, at)
        if match is None:
            raise TextError(f"{_short(shown)} cannot be read at {_short(given[at:].strip())!r}: write {form}")
        found[match[1].lower()] = html.unescape(match[2] if match[2] is not None else match[3])
        at = match.end()
    return found


def _seconds(shown: str, given: str, form: str) -> float:
    """ "500ms" or "0.5 s" as seconds."""
    match = re.fullmatch(r"\+?(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", given.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise TextError(f"{shown} does not say how long in s or ms: write {form}")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > LONGEST_PAUSE:
        raise TextError(f"{shown} is longer than {LONGEST_PAUSE:g} s: write a shorter pause, or several")
    return seconds


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
