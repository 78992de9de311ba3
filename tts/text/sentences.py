"""Text -> sentences of a length that is good to speak: sentencex finds the ends, this file evens them out.

Lengths are in Latin letters; a Chinese character, kana or hangul syllable counts three, as it takes as long.
"""

import re
from dataclasses import dataclass

import sentencex

_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
# Where to cut what is too long, best first; the mark stays with the part before it.
_CUTS = (
    r"(?<=[;:])\s+|(?<=[；：。！？])|\s*(?=[—–])|(?<=…)\s*",
    r"(?<=,)\s+|(?<=[،，、])\s*",
    r"\s+",
    r"(?<=.)(?=.)",
)
# Ends of no sentence that sentencex takes for one.
_GOES_ON = re.compile(r"\b(?:e\.\s?g|i\.\s?e|cf|vs|Mon|Tue|Wed|Thu|Fri)\.$")
_HARD_WRAP = 50  # letters: a longer line that ends without a mark goes on in the next


@dataclass(frozen=True)
class Sentence:
    """What is spoken in one go.

    Args:
        text: the words as they were written, on one line.
        ends_paragraph: whether a longer pause follows.
    """

    text: str
    ends_paragraph: bool = False


def split_sentences(
    text: str, language: str = "en", *, max_chars: int = 200, min_chars: int = 25
) -> list[Sentence]:
    """Sentences of ``text`` in order; none for empty text.

    Args:
        language: any code; its first part chooses the abbreviations that end no sentence.
        max_chars: longer sentences are cut at semicolons, commas, spaces: the first of these that there is.
        min_chars: shorter ones are spoken together with their neighbours in the paragraph.
    """
    sentences: list[Sentence] = []
    for paragraph in _paragraphs(text):
        found = _find(paragraph, language)
        pieces = [piece for sentence in found for piece in _cut(sentence, max_chars)]
        pieces = _join_short(pieces, min_chars, max_chars)
        sentences += [Sentence(piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    return sentences


def _paragraphs(text: str) -> list[str]:
    """Parted by empty lines, or by a line's end unless the text is only wrapped there."""
    paragraphs: list[str] = []
    goes_on = False
    for line in text.splitlines():
        line = " ".join(line.split())
        if not line:
            goes_on = False
            continue
        if paragraphs and (goes_on or (_open_end(paragraphs[-1]) and line[0].islower())):
            paragraphs[-1] += " " + line
        else:
            paragraphs.append(line)
        goes_on = len(line) >= _HARD_WRAP or line[-1] in ",;-–—"
    return paragraphs


def _open_end(text: str) -> bool:
    return not re.search(r"[.!?…。！？]['\"”’)]*$", text)


def _find(paragraph: str, language: str) -> list[str]:
    code = language.split("-")[0]
    code = {"cmn": "zh", "yue": "zh", "hak": "zh", "nb": "no"}.get(code, code)
    found: list[str] = []
    ends = (re.split(r"(?<=…)\s+(?=[\"“]?[A-Z])", piece) for piece in sentencex.segment(code, paragraph))
    for piece in (part.strip() for parts in ends for part in parts):
        if not piece:
            continue
        if found and (_GOES_ON.search(found[-1]) or not any(char.isalnum() for char in piece)):
            found[-1] = _join(found[-1], piece)
        else:
            found.append(piece)
    return found


def _length(text: str) -> int:
    return len(text) + 2 * len(_WIDE.findall(text))


def _cut(sentence: str, max_chars: int) -> list[str]:
    """Halves, and halves of these, until no part is too long; cut near the middle, at the best mark."""
    if _length(sentence) <= max_chars:
        return [sentence]
    for cut in _CUTS:
        spans = [match.span() for match in re.finditer(cut, sentence)]
        fair = [span for span in spans if 0.2 * len(sentence) <= span[0] <= 0.8 * len(sentence)]
        if fair:
            start, end = min(fair, key=lambda span: abs(span[0] - len(sentence) / 2))
            return _cut(sentence[:start], max_chars) + _cut(sentence[end:], max_chars)
    return [sentence]


def _join_short(pieces: list[str], min_chars: int, max_chars: int) -> list[str]:
    """A short piece joins the next, the last one the one before it, while the two are not too long."""
    joined: list[str] = []
    for i, piece in enumerate(pieces):
        before = _length(joined[-1]) if joined else 0
        short = 0 < before < min_chars or (i == len(pieces) - 1 and _length(piece) < min_chars)
        if joined and short and before + _length(piece) < max_chars:
            joined[-1] = _join(joined[-1], piece)
        else:
            joined.append(piece)
    return joined


def _join(first: str, second: str) -> str:
    wide = _WIDE.match(second) or second[0] in "。！？」』"
    return first + ("" if wide and not first[-1].isascii() else " ") + second
