"""What is wrong with a corpus: one check a kind of finding.

Bounds were set on real and synthetic speech so that clean corpora come out without a finding, see docs/data.md.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tts.data.manifest import Bad, Row
from tts.data.report.measure import Item, Measures
from tts.data.report.reading import Expected, Verdict
from tts.text.symbols import SymbolTable

SILENT = -50.0  # LUFS
LEVEL_DB = 12.0  # from the corpus' median
FLAT_PEAKS = 3
SNR_DB, BACKGROUND = 15.0, 2.8  # estimate, which is some 6 dB above the true one; DNSMOS
NARROW = 8_500.0  # Hz; the models' frames reach to 12,000
SLOWEST, FASTEST = 4.0, 25.0  # sounds per second of speech
IMPOSSIBLE = 30.0  # sounds per second of recording
SURPRISE, EXCESS = 5.0, 0.15  # deviations, and error rate above the usual
SURPRISE_HALFWAY = 3.0  # deviations, where the error rate is nearer to that of another text
EDGE, KEPT = 1.0, 0.3  # seconds of silence at an end; what is kept of it
SHORT, LONG = 0.3, 40.0  # as `read_manifest` takes them
COPY = 0.985  # correlation of two courses of energy
MARKUP = re.compile(r"[<>\[\]{}|\\^~_=*]|&\w+;|https?://")


class Repair(NamedTuple):
    """Another piece of the recording, seconds."""

    offset: float
    duration: float


@dataclass(frozen=True)
class Finding:
    """Attributes:
    line: of the manifest.
    id: of the utterance, "" where the line has none.
    what: the value, in words.
    badness: the worst come first.
    action: "drop", a repair, or None where nothing is safe to do by itself.
    expected, read: phonemes of the text and of the recording, where they contradict each other.
    """

    line: int
    id: str
    what: str
    badness: float = 0.0
    action: str | Repair | None = None
    expected: str = ""
    read: str = ""


@dataclass(frozen=True)
class Group:
    """Findings of one kind.

    Attributes:
        kind: short name, for ``--drop``.
        title: what they are.
        advice: what to do about it.
        safe: what ``--fix`` does and why that is safe; "" where it does nothing.
        findings: the worst first.
    """

    kind: str
    title: str
    advice: str
    safe: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Corpus:
    """All that the checks look at.

    Attributes:
        items: utterances whose line can be used.
        bad: lines that cannot.
        unspeakable: utterances whose text has no sound or no known language, and why.
        measures: by line.
        unreadable: lines whose recording cannot be read, and why.
        expected: what the reader does with each language; empty without a reader.
        verdicts: what it holds of each line.
        symbols: the phoneme table.
    """

    items: Sequence[Item]
    bad: Sequence[Bad]
    unspeakable: Mapping[int, str]
    measures: Mapping[int, Measures]
    unreadable: Mapping[int, str]
    expected: Mapping[str, Expected]
    verdicts: Mapping[int, Verdict]
    symbols: SymbolTable

    def measured(self) -> Iterator[tuple[Item, Measures]]:
        """Utterances that could be measured, are not silent, and no shorter or longer than training takes."""
        for item in self.items:
            m = self.measures.get(item.row.line)
            if m is not None and m.loudness >= SILENT and SHORT <= item.row.duration <= LONG:
                yield item, m

    def sounds(self, item: Item) -> int:
        """How many sounds the text has: letters of the phonetic alphabet without their modifiers."""
        return sum(map(self.symbols.is_base, item.segments))


def check(corpus: Corpus) -> list[Group]:
    """All findings, the kinds in the order in which they matter; kinds without any are left out."""
    groups = [one(corpus) for one in CHECKS]
    return [group for group in groups if group.findings]


def _group(kind: str, title: str, advice: str, safe: str, findings: Iterator[Finding]) -> Group:
    return Group(kind, title, advice, safe, tuple(sorted(findings, key=lambda one: (-one.badness, one.line))))


def unusable(corpus: Corpus) -> Group:
    rows = {item.row.line: item.row for item in corpus.items}

    def find() -> Iterator[Finding]:
        for bad in corpus.bad:
            message = str(bad.error).partition(f":{bad.line}: ")[2].partition("; mend the line")[0]
            yield Finding(bad.line, "", message or str(bad.error), action="drop")
        for problems in (corpus.unspeakable, corpus.unreadable):
            for line, why in problems.items():
                yield Finding(line, rows[line].id if line in rows else "", why, action="drop")
        for row in rows.values():
            if not SHORT <= row.duration <= LONG:
                what = f"{row.duration:.2f} s long, training takes {SHORT:g} to {LONG:g} s"
                yield Finding(row.line, row.id, what, action="drop")

    return _group(
        "unusable",
        "cannot be used",
        "Mend the line or the recording; cut long recordings at pauses with `python -m tts.data import`.",
        "Dropped: training would stop at them.",
        find(),
    )


def silent(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item in corpus.items:
            m = corpus.measures.get(item.row.line)
            if m is not None and m.loudness < SILENT:
                level = "digital silence" if math.isinf(m.loudness) else f"{m.loudness:.0f} LUFS"
                yield Finding(item.row.line, item.row.id, level, -m.loudness, "drop")

    return _group(
        "silent",
        "nearly silent",
        "Record again with more gain, or look for the channel or file that holds the speech.",
        "Dropped: at such a level there is more of the microphone than of a voice.",
        find(),
    )


def contradicted(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item, m in corpus.measured():
            verdict = corpus.verdicts.get(item.row.line)
            if verdict is None:
                continue
            expected = corpus.expected[item.row.language]
            usual = expected.error
            halfway = (usual + expected.chance) / 2  # to the text of another recording
            odd = verdict.error > usual + EXCESS and verdict.surprise > SURPRISE
            if not (
                verdict.other or odd or (verdict.error > halfway and verdict.surprise > SURPRISE_HALFWAY)
            ):
                continue
            doubtful = is_noisy(m)  # then it may be the reader who is wrong
            like = ", no better than the text of another recording" if verdict.other else ""
            like += ", but it is noisy" if doubtful else ""
            yield Finding(
                item.row.line,
                item.row.id,
                f"{verdict.error:.0%} phoneme errors, usual are {usual:.0%}{like}",
                verdict.error + 10 * verdict.other,
                "drop" if verdict.other and not doubtful else None,
                corpus.symbols.decode(item.segments),
                corpus.symbols.decode(m.read or ()),
            )

    return _group(
        "contradicted",
        "the recording says something else than the text",
        "Listen, and correct the text. Many in a row: texts and files have slipped against each other.",
        "Dropped where the reading fits no better than to the text of another recording; the others stay, and what is "
        "too noisy to read.",
        find(),
    )


def impossible(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item, _ in corpus.measured():
            rate = corpus.sounds(item) / item.row.duration
            if rate > IMPOSSIBLE:
                what = f"{rate:.0f} sounds a second; people say 10 to 20"
                yield Finding(item.row.line, item.row.id, what, rate, "drop")

    return _group(
        "impossible",
        "more text than can be said in the time",
        "The text is too long or the recording is cut off; correct it.",
        "Dropped: the text cannot be aligned with the speech, training would leave it out anyway.",
        find(),
    )


def pace(corpus: Corpus) -> Group:
    by_language: dict[str, list[tuple[Item, int, float]]] = defaultdict(list)
    for item, m in corpus.measured():
        count = corpus.sounds(item)
        if count and m.speech > 0 and count / item.row.duration <= IMPOSSIBLE:
            by_language[item.row.language].append((item, count, math.log(count / m.speech)))

    def find() -> Iterator[Finding]:
        for group in by_language.values():
            rates = np.array([rate for _, _, rate in group])
            usual = float(np.median(rates))
            spread = max(0.12, 1.4826 * float(np.median(np.abs(rates - usual))))
            for item, count, rate in group:
                z = (rate - usual) / math.sqrt(
                    spread**2 + 0.3 / count
                )  # the fewer sounds, the more it varies
                odd = abs(z) > 4.5 and len(group) >= 8
                if odd or not SLOWEST <= math.exp(rate) <= FASTEST:
                    what = f"{math.exp(rate):.1f} sounds a second of speech, usual are {math.exp(usual):.1f}"
                    yield Finding(item.row.line, item.row.id, what, abs(z))

    return _group(
        "pace",
        "said far faster or slower than the rest",
        "Listen: of the too fast the text says more than the recording, of the too slow less, or somebody else speaks.",
        "",
        find(),
    )


def clipped(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item, m in corpus.measured():
            if m.flat_peaks >= FLAT_PEAKS:
                rate = m.flat_peaks / item.row.duration
                what = f"{m.flat_peaks} peaks cut off at {m.peak:.1f} dBFS ({rate:.1f} a second)"
                yield Finding(item.row.line, item.row.id, what, rate)

    return _group(
        "clipped",
        "clipped",
        "Record again with less gain, or use the original before it was made louder. Leave them out (--drop clipped) "
        "where there is enough else; a few in a hundred do no harm.",
        "",
        find(),
    )


def is_noisy(m: Measures) -> bool:
    """By DNSMOS where it heard the utterance, else by the level."""
    return m.snr < SNR_DB if m.mos is None else m.mos[1] < BACKGROUND


def noisy(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item, m in corpus.measured():
            if is_noisy(m):
                heard = "" if m.mos is None else f"DNSMOS background {m.mos[1]:.1f} of 5, "
                badness = -m.snr / 100 if m.mos is None else 10 - m.mos[1]
                yield Finding(item.row.line, item.row.id, f"{heard}SNR estimate {m.snr:.0f} dB", badness)

    return _group(
        "noisy",
        "noisy",
        "Leave them out (--drop noisy), or clean them first: the model learns the noise as part of the voice.",
        "",
        find(),
    )


def narrow(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item, m in corpus.measured():
            if m.top <= NARROW:
                stored = m.sample_rate > 2.2 * m.top
                like = f", stored at {m.sample_rate / 1000:g} kHz" if stored else ""
                what = f"nothing above {m.top / 1000:.1f} kHz, {_material(m.top)}{like}"
                yield Finding(item.row.line, item.row.id, what, -m.top)

    return _group(
        "narrow",
        "low bandwidth: 16 kHz material or less, whatever the file says",
        "Look for the originals: the models' frames reach to 12 kHz, and the voice will sound dull. They are good for "
        "the tokenizer; leave them out for the other stages (--drop narrow) where there is enough else.",
        "",
        find(),
    )


def _material(top: float) -> str:
    rate = next(rate for rate in (8_000, 11_025, 12_000, 16_000, 48_000) if top <= rate / 2 + 500)
    return f"like {rate / 1000:g} kHz material"


def copies(corpus: Corpus) -> Group:
    """The same recording twice: the same samples, or the same course of energy at the same length."""
    first: dict[str, Item] = {}
    found: dict[int, Finding] = {}
    for item, m in corpus.measured():
        other = first.setdefault(m.digest, item)
        if other is not item:
            found[item.row.line] = _copy(item, other, "the same samples as")
    rest = [(item, m) for item, m in corpus.measured() if item.row.line not in found]
    for one, other in _alike(rest):
        if other.row.line not in found and one.row.line not in found:
            found[other.row.line] = _copy(other, one, "the same recording in another form as", exact=False)
    return _group(
        "copies",
        "recordings that are there twice",
        "Keep one. Where their texts differ, at least one of them is wrong.",
        "Of exact copies with one text the first is kept, and one outside the training split before one inside it; "
        "others stay.",
        iter(found.values()),
    )


def _copy(item: Item, other: Item, how: str, *, exact: bool = True) -> Finding:
    same_text = _plain(item.row.text) == _plain(other.row.text)
    if exact and other.row.split in ("train", None) and item.row.split in ("dev", "test"):
        item, other = other, item
    differs = "" if same_text else ", with another text"
    what = f"{how} line {other.row.line} ({other.row.id}){differs}"
    return Finding(
        item.row.line, item.row.id, what, 0 if same_text else 1, "drop" if exact and same_text else None
    )


def _alike(measured: Sequence[tuple[Item, Measures]]) -> Iterator[tuple[Item, Item]]:
    """Pairs of utterances equally long, within 50 ms, whose energy runs alike; the earlier line first."""
    order = sorted(measured, key=lambda one: one[0].row.duration)
    durations = np.array([item.row.duration for item, _ in order])
    shapes = (
        np.stack([m.shape for _, m in order]).astype(np.float32) if order else np.zeros((0, 1), np.float32)
    )
    ends = np.searchsorted(durations, durations + 0.05, side="right")
    for i, end in enumerate(ends):
        for j in np.flatnonzero(shapes[i + 1 : end] @ shapes[i] > COPY) + i + 1:
            first, second = sorted((order[i][0], order[j][0]), key=lambda item: item.row.line)
            yield first, second


def overlaps(corpus: Corpus) -> Group:
    by_file: dict[object, list[Row]] = defaultdict(list)
    for item in corpus.items:
        by_file[item.row.audio, item.row.channel].append(item.row)

    def find() -> Iterator[Finding]:
        for rows in by_file.values():
            rows.sort(key=lambda row: (row.offset or 0.0, row.line))
            for before, row in pairwise(rows):
                shared = (before.offset or 0.0) + before.duration - (row.offset or 0.0)
                if shared > 0.1 and (before.offset, before.duration) != (row.offset, row.duration):
                    yield Finding(row.line, row.id, f"shares {shared:.2f} s with line {before.line}", shared)

    return _group(
        "overlaps",
        "pieces of one recording that overlap",
        "Each piece should hold what its text says and no more; cut the recording again.",
        "",
        find(),
    )


def repeated(corpus: Corpus) -> Group:
    """The same text by the same speaker, or in training and in another split."""
    by_text: dict[str, list[Row]] = defaultdict(list)
    for item, _ in corpus.measured():
        by_text[_plain(item.row.text)].append(item.row)

    def find() -> Iterator[Finding]:
        for rows in by_text.values():
            speakers = Counter(row.speaker for row in rows)
            for speaker, count in speakers.items():
                if count > 2 or (count == 2 and len(rows[0].text) > 20):
                    row = next(row for row in rows if row.speaker == speaker)
                    yield Finding(
                        row.line, row.id, f"{speaker!r} says {_short(row.text)!r} {count} times", count
                    )

    return _group(
        "repeated",
        "texts that one speaker says more than once",
        "Fine where they were recorded twice on purpose; else a list was joined with itself, or files were mixed up.",
        "",
        find(),
    )


def leaks(corpus: Corpus) -> Group:
    trained = {_plain(item.row.text) for item in corpus.items if item.row.split in ("train", None)}

    def find() -> Iterator[Finding]:
        for item in corpus.items:
            if item.row.split in ("dev", "test") and _plain(item.row.text) in trained:
                what = f"{_short(item.row.text)!r} is in {item.row.split} and in training"
                yield Finding(item.row.line, item.row.id, what)

    return _group(
        "leaks",
        "texts of dev or test that are trained on, too",
        "Figures on these flatter the model; leave them out of one side.",
        "",
        find(),
    )


def edges(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item, m in corpus.measured():
            if max(m.lead, m.tail) <= EDGE or m.speech <= 0:
                continue
            row = item.row
            lead, tail = (max(0.0, end - KEPT) if end > EDGE else 0.0 for end in (m.lead, m.tail))
            repair = Repair(round((row.offset or 0.0) + lead, 3), round(row.duration - lead - tail, 3))
            what = f"{m.lead:.1f} s of silence before, {m.tail:.1f} s after"
            yield Finding(
                row.line, row.id, what, m.lead + m.tail, repair if repair.duration >= SHORT else None
            )

    return _group(
        "edges",
        "long silence before or after the speech",
        "Trim them: the models learn to wait.",
        f"Trimmed to {KEPT:g} s of it, by offset and duration: the recordings stay as they are.",
        find(),
    )


def level(corpus: Corpus) -> Group:
    measured = list(corpus.measured())
    usual = float(np.median([m.loudness for _, m in measured])) if measured else 0.0

    def find() -> Iterator[Finding]:
        for item, m in measured:
            if abs(m.loudness - usual) > LEVEL_DB:
                word = "quieter" if m.loudness < usual else "louder"
                what = f"{m.loudness:.0f} LUFS, {abs(m.loudness - usual):.0f} dB {word} than the median"
                yield Finding(item.row.line, item.row.id, what, abs(m.loudness - usual))

    return _group(
        "level",
        "far louder or quieter than the rest",
        "Often another microphone or session. Bring them to one loudness, or leave the odd ones out (--drop level).",
        "",
        find(),
    )


def markup(corpus: Corpus) -> Group:
    def find() -> Iterator[Finding]:
        for item in corpus.items:
            if signs := MARKUP.findall(item.row.text):
                what = f"{' '.join(dict.fromkeys(signs))} in {_short(item.row.text)!r}"
                yield Finding(item.row.line, item.row.id, what, len(signs))

    return _group(
        "markup",
        "texts with signs that nobody says",
        "Write what is said: no tags such as [laughs], no markup, no addresses.",
        "",
        find(),
    )


def _plain(text: str) -> str:
    """A text by its letters and digits alone."""
    return "".join(char for char in text.lower() if char.isalnum())


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


CHECKS: tuple[Callable[[Corpus], Group], ...] = (
    unusable,
    silent,
    contradicted,
    impossible,
    copies,
    pace,
    clipped,
    noisy,
    narrow,
    overlaps,
    edges,
    markup,
    level,
    repeated,
    leaks,
)
