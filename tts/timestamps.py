"""When each word and phoneme is said, and the files that tell it: JSON, SRT, WebVTT, Praat's TextGrid.

The times come from a forced alignment of tokens (`tts.readback`): it tells where phonemes start. Where they end,
the next one starts, or the sound stops: that is told by the waveform.

Times are seconds from the start of the audio.
"""

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from codec.audio import check_output, write_whole
from codec.errors import UserError
from tts.text.words import Word as WrittenWord

SILENCE = 0.1  # seconds; shorter silences are stops: the closed lips of a p
QUIET = -40.0  # dB below the loudest 20 ms

LINE, LINES = 42, 2  # letters of a line and lines of a subtitle, as broadcasters have it
LEAST = 1e-3  # seconds: what files of subtitles can tell apart


@dataclass(frozen=True)
class Phone:
    """A phoneme group and when it is said."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Word:
    """A written word, with its marks, and when it is said."""

    text: str
    start: float
    end: float
    phonemes: tuple[Phone, ...] = ()

    def shifted(self, seconds: float) -> "Word":
        """The same so much later."""
        phones = tuple(replace(p, start=p.start + seconds, end=p.end + seconds) for p in self.phonemes)
        return Word(self.text, self.start + seconds, self.end + seconds, phones)


@dataclass(frozen=True)
class Cue:
    """A sentence and when it is said.

    Attributes:
        text: as written.
        start, end: seconds.
        words: in order.
        notes: more to tell of it in JSON.
    """

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------- making them


def timed_words(
    words: Sequence[WrittenWord],
    groups: Sequence[str],
    starts: Sequence[float],
    wav: Tensor,
    sample_rate: int,
) -> tuple[Word, ...]:
    """Words with their times.

    Args:
        words: of a sentence, with the numbers of their groups.
        groups: all phoneme groups of the sentence, written out.
        starts: when each begins, seconds from the start of `wav`.
        wav: (samples,) the sentence's sound.
        sample_rate: Hz.
    """
    spans = _spans(starts, len(wav) / sample_rate, silences(wav, sample_rate))
    phones = [Phone(text, *span) for text, span in zip(groups, spans, strict=True)]
    return tuple(
        Word(one.text, phones[one.first].start, phones[one.last - 1].end, tuple(phones[one.first : one.last]))
        for one in words
    )


def _spans(
    starts: Sequence[float], total: float, quiet: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Start and end of each group: from its start to the next one's, without the silence between them."""
    bounds = [min(max(0.0, start), total) for start in [*starts, total]]
    spans: list[tuple[float, float]] = []
    at = 0.0
    for start, following in pairwise(bounds):
        start, following = max(start, at), max(following, at)
        # what seems to start in a silence starts when that is over
        over = next((end for begun, end in quiet if begun <= start < end), start)
        start = min(over, following)
        stop = next((begun for begun, end in quiet if start < begun < following <= end + SILENCE), following)
        spans.append((start, stop))
        at = stop
    return spans


class RunningWords:
    """The words of a sentence while the LM writes it: each is told once, when the LM has gone on from it.

    The times are the LM's own, in whole tokens: no sound is needed, nor the sentence's end. Pauses count to the
    word before them.

    Args:
        words: of the sentence, with the numbers of their groups.
        groups: all phoneme groups of the sentence, written out.
        token: seconds of a token.
        start: of the sentence in the whole speech, seconds.
        lag: seconds that the durations are late by, see `durations_lag`.
    """

    def __init__(
        self,
        words: Sequence[WrittenWord],
        groups: Sequence[str],
        token: float,
        *,
        start: float = 0.0,
        lag: float = 0.0,
    ) -> None:
        self.words, self.groups, self.token, self.start, self.lag = words, groups, token, start, lag
        self._told = 0

    def __call__(self, durations: Sequence[int], group: int) -> list[Word]:
        """The words that have ended since the last call.

        Args:
            durations: tokens of each group so far.
            group: whose tokens are being written; the number of groups at the end.
        """
        bounds = [self.start + max(0.0, n * self.token - self.lag) for n in accumulate(durations, initial=0)]
        phones = [Phone(text, *span) for text, span in zip(self.groups, pairwise(bounds), strict=True)]
        told: list[Word] = []
        for word in self.words[self._told :]:
            if word.last > group:
                break
            own = tuple(phones[word.first : word.last])
            told.append(Word(word.text, own[0].start, own[-1].end, own))
        self._told += len(told)
        return told


def durations_lag(lag: float, token: float) -> float:
    """How late durations in whole tokens are: they are read late, and rounded down, by half a token on average."""
    return max(0.0, lag - token / 2)


def silences(wav: Tensor, sample_rate: int, least: float = SILENCE) -> list[tuple[float, float]]:
    """Start and end of every silence of at least so many seconds in (samples,), to 10 ms."""
    step = max(1, sample_rate // 100)
    if len(wav) < 2 * step:
        return []
    power = F.avg_pool1d(F.pad(wav.float().square()[None], (step // 2, step + step // 2)), 2 * step, step)[0]
    sound = (power >= power.max() * 10 ** (QUIET / 10)).tolist()
    found: list[tuple[float, float]] = []
    begun = 0
    for n, heard in enumerate([*sound, True]):
        if heard:
            if (n - begun) * step >= least * sample_rate:
                found.append((begun * step / sample_rate, n * step / sample_rate))
            begun = n + 1
    return found


# --------------------------------------------------------------------------------------------------- the files


def to_json(cues: Sequence[Cue], duration: float) -> str:
    """All that is known, times in seconds."""
    rows = [{**asdict(cue), **cue.notes} for cue in cues]
    for row in rows:
        del row["notes"]
    return (
        json.dumps(_rounded({"duration": duration, "sentences": rows}), ensure_ascii=False, indent=1) + "\n"
    )


def to_srt(cues: Sequence[Cue], duration: float) -> str:
    """SubRip subtitles: pieces of sentences of two lines at most."""
    blocks = [
        f"{n}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_lines(cue.text.replace('-->', '→'))}\n"
        for n, cue in enumerate(subtitles(cues), start=1)
    ]
    return "\n".join(blocks)


def to_vtt(cues: Sequence[Cue], duration: float) -> str:
    """WebVTT subtitles (W3C), with the time of every word in them."""
    blocks = ["WEBVTT\n"]
    for cue in subtitles(cues):
        said = " ".join(
            (f"<{_clock(word.start, '.')}>" if n else "") + escape(word.text, quote=False)
            for n, word in enumerate(cue.words)
        )
        text = said or escape(cue.text, quote=False)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def to_textgrid(cues: Sequence[Cue], duration: float) -> str:
    """Praat's TextGrid, long form: tiers of sentences, words and phonemes."""
    words = [word for cue in cues for word in cue.words]
    tiers: dict[str, Sequence[Cue | Word | Phone]] = {
        "sentences": cues,
        "words": words,
        "phonemes": [phone for word in words for phone in word.phonemes],
    }
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {duration:.6f}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for n, (name, intervals) in enumerate(tiers.items(), start=1):
        filled = list(_filled(intervals, duration))
        lines += [f"    item [{n}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {duration:.6f}"]
        lines.append(f"        intervals: size = {len(filled)}")
        for k, (start, end, text) in enumerate(filled, start=1):
            lines += [f"        intervals [{k}]:", f"            xmin = {start:.6f}"]
            lines += [
                f"            xmax = {end:.6f}",
                '            text = "{}"'.format(text.replace('"', '""')),
            ]
    return "\n".join(lines) + "\n"


Writer = Callable[[Sequence[Cue], float], str]

FORMATS: dict[str, Writer] = {
    ".json": to_json,
    ".srt": to_srt,
    ".vtt": to_vtt,
    ".TextGrid": to_textgrid,
}


def check_timestamps(path: str | Path, overwrite: bool = False) -> None:
    """Raise now what `write_timestamps` would raise after the work."""
    endings = [ending.lower() for ending in FORMATS]
    if Path(path).suffix.lower() not in endings:
        *first, last = FORMATS
        raise UserError(
            f"{str(path)!r}: timestamps are written as {', '.join(first)} or {last}; end it in one"
        )
    check_output(path, overwrite, endings=endings)


def write_timestamps(
    path: str | Path, cues: Sequence[Cue], duration: float, *, overwrite: bool = False
) -> None:
    """Write the times in the format that the file's ending names, whole or not at all.

    Raises:
        UserError: an ending of no format, or the file cannot be written.
    """
    path = Path(path)
    check_timestamps(path, overwrite)
    formats = {ending.lower(): writer for ending, writer in FORMATS.items()}
    write_whole(path, formats[path.suffix.lower()](cues, duration).encode())


def subtitles(cues: Sequence[Cue]) -> list[Cue]:
    """Cues of a length that can be read: long ones are cut between words into parts of like length."""
    return [part for cue in cues for part in _cut(cue)]


def _cut(cue: Cue) -> Iterator[Cue]:
    letters = [len(word.text) + 1 for word in cue.words]
    parts = -(-sum(letters) // (LINE * LINES))
    if parts <= 1:
        yield replace(cue, end=max(cue.end, cue.start + LEAST))
        return
    part: list[Word] = []
    done = count = 0
    for word, length in zip(cue.words, letters, strict=True):
        if part and done + length / 2 > (count + 1) * sum(letters) / parts:
            yield _of_words(part)
            part, count = [], count + 1
        part.append(word)
        done += length
    yield _of_words(part)


def _of_words(words: Sequence[Word]) -> Cue:
    text = " ".join(word.text for word in words)
    return Cue(text, words[0].start, max(words[-1].end, words[0].start + LEAST), tuple(words))


def _lines(text: str) -> str:
    width = LINE if len(text) > LINE else max(1, len(text))
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)) or text


def _clock(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    hours, minutes = whole // 3_600_000, whole // 60_000 % 60
    return f"{hours:02}:{minutes:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _filled(intervals: Sequence[Cue | Word | Phone], duration: float) -> Iterator[tuple[float, float, str]]:
    """Intervals without gaps from 0 to the end, silence as empty ones; Praat takes no others."""
    at = 0.0
    for one in intervals:
        start, end = max(at, one.start), min(one.end, duration)
        if end - start < 1e-6:
            continue  # of no length: two phonemes in one token, the first has none
        if start - at >= 1e-6:
            yield at, start, ""
            at = start
        yield at, end, one.text
        at = end
    if duration - at >= 1e-6:
        yield at, duration, ""


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
