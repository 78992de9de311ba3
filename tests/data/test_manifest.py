import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.errors import UserError
from tts.data.manifest import ManifestError, read_manifest

GOOD: dict[str, object] = {"audio": "a.wav", "text": " Hello. ", "speaker": "ann", "language": "en-us"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000)
    soundfile.write(tmp_path / "a.wav", noise, 24_000)
    soundfile.write(tmp_path / "b.flac", noise, 16_000)
    soundfile.write(tmp_path / "blip.wav", noise[:2_400], 24_000)
    (tmp_path / "notes.wav").write_text("not audio")
    return tmp_path


def write(folder: Path, *lines: str | dict[str, object]) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), "utf-8")
    return path


def test_reads_rows(folder: Path) -> None:
    second = {**GOOD, "audio": str(folder / "b.flac"), "split": "test", "duration": 99, "mood": "calm"}
    rows, bad = read_manifest(write(folder, GOOD, "", second))
    assert bad == []
    first, other = rows
    assert (first.id, first.audio, first.text) == ("a.wav", (folder / "a.wav").resolve(), "Hello.")
    assert (first.speaker, first.language, first.duration) == ("ann", "en-us", 1.0)
    assert (first.split, first.line) == (None, 1)
    # the file knows its duration better than the manifest
    assert (other.duration, other.split, other.line) == (1.5, "test", 3)


def test_a_line_separator_inside_a_text_does_not_end_the_line(folder: Path) -> None:
    line = json.dumps({**GOOD, "text": "one\u2028two"}, ensure_ascii=False)
    rows, _ = read_manifest(write(folder, line))
    assert [row.text for row in rows] == ["one\u2028two"]


BROKEN: list[tuple[str | dict[str, object], str]] = [
    ("{oops", "not JSON"),
    ("[1, 2]", "not a JSON object but list"),
    ({key: GOOD[key] for key in ("audio", "speaker", "language")}, "key 'text' is missing"),
    ({**GOOD, "text": "  "}, "text is empty"),
    ({**GOOD, "speaker": 7}, "speaker is not a string but 7"),
    ({**GOOD, "split": "valid"}, "split 'valid' is none of train, dev, test"),
    ({**GOOD, "audio": "gone.wav"}, "no audio file"),
    ({**GOOD, "audio": "notes.wav"}, "not audio that can be read"),
    ({**GOOD, "audio": "blip.wav"}, "lasts 0.10 s, not 0.3 to 40 s"),
    (GOOD, "audio 'a.wav' is in line 1 already"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_a_broken_line_is_named_with_the_way_out(
    folder: Path, line: str | dict[str, object], reason: str
) -> None:
    path = write(folder, GOOD, line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert reason in message
    assert "--skip-bad" in message
    assert "\n" not in message


def test_skip_bad_goes_on_and_lists_every_broken_line(folder: Path) -> None:
    path = write(folder, *(line for line, _ in BROKEN[:-1]), GOOD)
    rows, bad = read_manifest(path, skip_bad=True)
    assert [row.line for row in rows] == [10]
    assert [one.line for one in bad] == list(range(1, 10))
    assert all(reason in str(one.error) for one, (_, reason) in zip(bad, BROKEN, strict=False))


def test_bounds_of_duration_can_be_moved(folder: Path) -> None:
    path = write(folder, {**GOOD, "audio": "blip.wav"})
    assert read_manifest(path, min_seconds=0.05)[0][0].duration == pytest.approx(0.1)
    with pytest.raises(ManifestError, match=r"lasts 1\.00 s"):
        read_manifest(write(folder, GOOD), max_seconds=0.5)


def test_a_manifest_without_a_usable_line_is_an_error_even_when_skipping(folder: Path) -> None:
    with pytest.raises(ManifestError, match="no usable line among 1"):
        read_manifest(write(folder, "{oops"), skip_bad=True)
    with pytest.raises(ManifestError, match="no usable line among 0"):
        read_manifest(write(folder))


def test_a_manifest_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: cannot read the manifest \(No such file"):
        read_manifest(folder / "nowhere.jsonl")
    (folder / "latin.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\xe9")
    with pytest.raises(ManifestError, match="not UTF-8 at byte"):
        read_manifest(folder / "latin.jsonl")
