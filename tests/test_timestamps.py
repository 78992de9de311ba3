"""Times of words, and the files that tell them, parsed back."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from codec.errors import UserError
from tts.text.words import Word as Written
from tts.timestamps import (
    FORMATS,
    LINE,
    LINES,
    Cue,
    Phone,
    RunningWords,
    Word,
    durations_lag,
    silences,
    subtitles,
    timed_words,
    to_json,
    to_srt,
    to_textgrid,
    to_vtt,
    write_timestamps,
)

RATE = 24_000


def sound(*parts: tuple[float, float]) -> torch.Tensor:
    """(seconds, level) after each other."""
    pieces = []
    for seconds, level in parts:
        tone = torch.sin(torch.arange(round(seconds * RATE)) * 2 * torch.pi * 200 / RATE)
        pieces.append(level * tone)
    return torch.cat(pieces)


# ------------------------------------------------------------------------------------------------- making them


def test_silences_are_found_to_10_ms() -> None:
    wav = sound((0.15, 0.0), (0.4, 0.5), (0.08, 0.0), (0.3, 0.5), (0.25, 0.001), (0.2, 0.3), (0.2, 0.0))
    found = silences(wav, RATE)
    assert [round(x, 2) for span in found for x in span] == pytest.approx(
        [0.0, 0.15, 0.93, 1.18, 1.38, 1.58], abs=0.011
    )
    assert silences(wav[:100], RATE) == []
    assert silences(sound((0.5, 0.3)), RATE) == []


def test_a_word_lasts_until_the_next_or_until_the_sound_stops() -> None:
    # silence 0 to 0.2, sound to 1.0, silence to 1.5, sound to 2.0, silence to 2.3
    wav = sound((0.2, 0.0), (0.8, 0.5), (0.5, 0.0), (0.5, 0.5), (0.3, 0.0))
    words = [Written("Well,", 0, 2), Written("so", 2, 3), Written("what?", 3, 5)]
    starts = [0.05, 0.4, 0.7, 1.45, 1.7]
    first, second, third = timed_words(words, ["w", "ˈɛl", "sˈoʊ", "w", "ˈʌt"], starts, wav, RATE)
    expected = [(0.2, 0.7), (0.7, 1.0), (1.5, 2.0)]
    for word, (start, end) in zip((first, second, third), expected, strict=True):
        assert (word.start, word.end) == (pytest.approx(start, abs=0.011), pytest.approx(end, abs=0.011))
    assert [p.text for p in first.phonemes] == ["w", "ˈɛl"]
    assert first.phonemes[0].end == first.phonemes[1].start == pytest.approx(0.4)
    assert third.phonemes[1].start == pytest.approx(1.7)
    assert first.text == "Well,"


def test_times_never_go_back_or_beyond_the_end() -> None:
    wav = sound((1.0, 0.5))
    words = [Written(str(n), n, n + 1) for n in range(5)]
    times = timed_words(words, list("abcde"), [0.3, 0.1, 0.3, 0.9, 4.0], wav, RATE)
    bounds = [x for word in times for x in (word.start, word.end)]
    assert bounds == sorted(bounds) and bounds[0] >= 0 and bounds[-1] == 1.0
    assert timed_words([], [], [], wav, RATE) == ()


def test_shifting() -> None:
    word = Word("a", 0.1, 0.3, (Phone("ə", 0.1, 0.3),)).shifted(1.0)
    assert word == Word("a", 1.1, 1.3, (Phone("ə", 1.1, 1.3),))


def test_words_are_told_as_they_are_written() -> None:
    words = [Written("Well,", 0, 2), Written("so", 2, 3), Written("what?", 3, 5)]
    running = RunningWords(words, list("abcde"), 0.05, start=1.0, lag=0.01)
    told = [
        running([1, 0, 0, 0, 0], 0),
        running([1, 3, 0, 0, 0], 1),
        running([1, 3, 0, 0, 0], 2),
        running([1, 3, 0, 2, 1], 4),
        running([1, 3, 0, 2, 4], 5),
        running([1, 3, 0, 2, 4], 5),
    ]
    assert [[word.text for word in one] for one in told] == [[], [], ["Well,"], ["so"], ["what?"], []]
    rows = [
        (p.text, round(p.start, 3), round(p.end, 3)) for one in told for word in one for p in word.phonemes
    ]
    assert rows == [
        ("a", 1.0, 1.04),
        ("b", 1.04, 1.19),
        ("c", 1.19, 1.19),
        ("d", 1.19, 1.29),
        ("e", 1.29, 1.49),
    ]
    assert durations_lag(0.03, 0.04) == pytest.approx(0.01) and durations_lag(0.01, 0.04) == 0.0


# --------------------------------------------------------------------------------------------------- the files

QUOTED = Word('"Hi"', 0.25, 0.5, (Phone("h", 0.25, 0.3), Phone("ˈaɪ", 0.3, 0.5)))
REST = Word("<you> & me.", 0.7, 1.2345, (Phone("j", 0.7, 0.7), Phone("uː", 0.7, 1.2345)))
CUES = [
    Cue('"Hi" <you> & me.', 0.25, 1.2345, (QUOTED, REST), {"quality": {"error": 0.125, "attempts": 2}}),
    Cue("No --> words.", 3725.0, 3726.5),
]
DURATION = 3727.0


def test_json() -> None:
    read = json.loads(to_json(CUES, DURATION))
    assert read["duration"] == DURATION
    first, second = read["sentences"]
    assert first["text"] == '"Hi" <you> & me.' and (first["start"], first["end"]) == (0.25, 1.234)
    assert first["quality"] == {"error": 0.125, "attempts": 2}
    assert first["words"][0] == {
        "text": '"Hi"',
        "start": 0.25,
        "end": 0.5,
        "phonemes": [{"text": "h", "start": 0.25, "end": 0.3}, {"text": "ˈaɪ", "start": 0.3, "end": 0.5}],
    }
    assert second["words"] == []


def clock(text: str) -> float:
    hours, minutes, seconds = text.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_srt() -> None:
    blocks = to_srt(CUES, DURATION).strip().split("\n\n")
    read = [re.fullmatch(r"(\d+)\n(\S+) --> (\S+)\n(.*)", block, re.S) for block in blocks]
    assert all(read)
    rows = [(int(m[1]), clock(m[2]), clock(m[3]), m[4]) for m in read if m]
    assert rows == [(1, 0.25, 1.234, '"Hi" <you> & me.'), (2, 3725.0, 3726.5, "No → words.")]
    assert "00:00:00,250 --> 00:00:01,234" in blocks[0] and "01:02:05,000" in blocks[1]


def test_vtt() -> None:
    head, first, second = to_vtt(CUES, DURATION).strip().split("\n\n")
    assert head == "WEBVTT"
    assert first == '00:00:00.250 --> 00:00:01.234\n"Hi" <00:00:00.700>&lt;you&gt; &amp; me.'
    assert second == "01:02:05.000 --> 01:02:06.500\nNo --&gt; words."


def test_textgrid_has_no_gaps_and_no_empty_intervals() -> None:
    text = to_textgrid(CUES, DURATION)
    assert text.startswith(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 3727.000000\n'
    )
    tiers = text.split("    item [")[1:]
    names, rows = [], []
    for tier in tiers:
        names.append(re.search(r'name = "(\w+)"', tier)[1])  # type: ignore[index]
        found = re.findall(r'xmin = ([\d.]+)\n +xmax = ([\d.]+)\n +text = "(.*)"', tier)
        assert f"intervals: size = {len(found)}\n" in tier
        rows.append([(float(a), float(b), t.replace('""', '"')) for a, b, t in found])
    assert names == ["sentences", "words", "phonemes"]
    for tier_rows in rows:
        assert tier_rows[0][0] == 0.0 and tier_rows[-1][1] == DURATION
        assert all(a[1] == b[0] for a, b in pairwise(tier_rows))
        assert all(end > start for start, end, _ in tier_rows)
    assert rows[1] == [
        (0.0, 0.25, ""),
        (0.25, 0.5, '"Hi"'),
        (0.5, 0.7, ""),
        (0.7, 1.2345, "<you> & me."),
        (1.2345, DURATION, ""),
    ]
    assert [t for _, _, t in rows[2]] == ["", "h", "ˈaɪ", "", "uː", ""]  # j lasts no time


def test_long_sentences_become_subtitles_that_can_be_read() -> None:
    words = tuple(Word(f"word{n:02}", n / 2, n / 2 + 0.4) for n in range(40))
    text = " ".join(word.text for word in words)
    parts = subtitles([Cue(text, 0.0, 20.0, words)])
    assert len(parts) == -(-(len(text) + 1) // (LINE * LINES)) == 4
    assert " ".join(part.text for part in parts) == text
    assert [word for part in parts for word in part.words] == list(words)
    assert all((part.start, part.end) == (part.words[0].start, part.words[-1].end) for part in parts)
    assert max(len(part.words) for part in parts) - min(len(part.words) for part in parts) <= 1
    lines = [line for block in to_srt(parts, 20.0).split("\n\n") for line in block.strip().split("\n")[2:]]
    assert all(len(line) <= LINE for line in lines) and " ".join(lines) == text
    short = Cue("a", 1.0, 1.0, (Word("a", 1.0, 1.0),))
    assert subtitles([short])[0].end > 1.0


@pytest.mark.parametrize("ending", [*FORMATS, ".textgrid", ".SRT"])
def test_the_ending_chooses_the_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_timestamps(path, CUES, DURATION)
    formats = {key.lower(): writer for key, writer in FORMATS.items()}
    assert path.read_text(encoding="utf-8") == formats[ending.lower()](CUES, DURATION)
    with pytest.raises(UserError, match="exists already"):
        write_timestamps(path, CUES, DURATION)
    write_timestamps(path, [], 1.0, overwrite=True)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a\.txt': timestamps are written as \.json, \.srt, \.vtt or \.TextGrid"
    ):
        write_timestamps(tmp_path / "a.txt", CUES, DURATION)
    with pytest.raises(UserError, match="no such folder"):
        write_timestamps(tmp_path / "gone" / "a.srt", CUES, DURATION)
    assert list(tmp_path.iterdir()) == []
