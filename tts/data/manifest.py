"""The manifest a corpus comes with: JSON lines, one utterance a line.

    {"audio": "a/0001.flac", "text": "Good morning.", "speaker": "anna", "language": "en-us"}

``audio`` is absolute or relative to the manifest. Optional are

- ``offset`` and ``duration`` (seconds): the utterance is this piece of a longer recording. Without ``offset`` it
  is the whole recording, and ``duration`` is ignored: the file knows better;
- ``channel`` (from 0): the utterance is this channel, not the mean of all;
- ``split``: "train", "dev" or "test";
- ``text_by``: who wrote the text, where it was no person: the name of a recogniser.

Other keys are ignored. A line can also be a cut as Lhotse writes it, with one supervision in it. The file may be
packed with gzip (``.gz``).
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from codec.errors import UserError

SPLITS = ("train", "dev", "test")
REQUIRED = ("audio", "text", "speaker", "language")
ROUNDED = 0.05  # seconds by which a piece may end after its recording: others round, and headers estimate


class ManifestError(UserError):
    """A line of a manifest, or the whole of it, cannot be used."""


@dataclass(frozen=True)
class Row:
    """One usable line.

    Attributes:
        id: unique in its manifest: the audio path as the manifest gives it, and which piece of it.
        audio: absolute path.
        duration: seconds of the utterance, from the audio file itself where it is the whole of it.
        split: None where the manifest does not say.
        line: line number in the manifest, from 1.
        offset: seconds into the recording where the utterance starts; None where it is the whole recording.
        channel: the only one to use; None for the mean of all.
        text_by: the recogniser that wrote the text; None where nobody says so.
    """

    id: str
    audio: Path
    text: str
    speaker: str
    language: str
    duration: float
    split: str | None
    line: int
    offset: float | None = None
    channel: int | None = None
    text_by: str | None = None


@dataclass(frozen=True)
class Bad:
    """One line that was left out, and why."""

    line: int
    error: ManifestError


def read_manifest(
    path: str | Path, *, skip_bad: bool = False, min_seconds: float = 0.3, max_seconds: float = 40.0
) -> tuple[list[Row], list[Bad]]:
    """Read and check a manifest; audio files are opened, not decoded.

    Args:
        path: JSON lines, UTF-8, plain or packed with gzip.
        skip_bad: leave broken lines out and list them, where otherwise the first one raises.
        min_seconds, max_seconds: shorter and longer recordings are refused.

    Raises:
        ManifestError: at the first broken line, unless ``skip_bad``; if no line is left; if there is no file.
    """
    path = Path(path)
    rows: list[Row] = []
    bad: list[Bad] = []
    seen: dict[str, int] = {}
    lengths: dict[Path, float] = {}  # a long recording is in many lines, and some headers take long to read
    for number, line in numbered_lines(path):
        try:
            row = _row(line, number, path.parent, min_seconds, max_seconds, lengths)
            if row.id in seen:
                raise ValueError(f"audio {row.id!r} is in line {seen[row.id]} already")
        except ValueError as problem:
            error = line_error(path, number, problem)
            if not skip_bad:
                raise error from problem
            bad.append(Bad(number, error))
        else:
            seen[row.id] = number
            rows.append(row)
    if not rows:
        raise ManifestError(f"{path}: no usable line among {len(bad)}; give a manifest with at least one")
    return rows, bad


def line_error(path: str | Path, number: int, problem: object) -> ManifestError:
    """The error of one line: where, what, and the way out."""
    return ManifestError(f"{path}:{number}: {problem}; mend the line, or go on without it with --skip-bad")


def read_bytes(path: Path) -> bytes:
    """The manifest as it is."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise ManifestError(
            f"{path}: cannot read the manifest ({problem.strerror}); check the path"
        ) from problem


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, numbered from 1. Raises `ManifestError` where the file is no text."""
    data = read_bytes(path)
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ManifestError(f"{path}: not UTF-8 at byte {problem.start}; save it as UTF-8") from problem
    except (EOFError, OSError, zlib.error) as problem:
        raise ManifestError(f"{path}: ends in .gz and is no whole gzip file; pack it again") from problem
    # Only newlines end a line of JSON lines: str.splitlines would also cut at U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _row(
    line: str,
    number: int,
    folder: Path,
    min_seconds: float,
    max_seconds: float,
    lengths: dict[Path, float],
) -> Row:
    """Check one line. Raises `ValueError` with what is wrong and the value."""
    fields = _fields(line)
    split, text_by = fields.get("split"), fields.get("text_by")
    if split is not None and split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    if text_by is not None and not isinstance(text_by, str):
        raise ValueError(f"text_by is not a string but {text_by!r}")
    audio = (folder / fields["audio"]).resolve()
    if audio not in lengths:
        lengths[audio] = _duration(audio)
    offset, duration = _piece(fields, audio, lengths[audio])
    channel = _channel(fields, audio)
    if not min_seconds <= duration <= max_seconds:
        raise ValueError(f"{audio} lasts {duration:.2f} s, not {min_seconds:g} to {max_seconds:g} s")
    piece = "" if offset is None else f"#{offset:.3f}+{duration:.3f}"
    return Row(
        id=fields["audio"] + piece + ("" if channel is None else f"#channel{channel}"),
        audio=audio,
        text=fields["text"].strip(),
        speaker=fields["speaker"].strip(),
        language=fields["language"].strip(),
        duration=duration,
        split=split,
        line=number,
        offset=offset,
        channel=channel,
        text_by=text_by,
    )


def _piece(fields: dict[str, Any], audio: Path, length: float) -> tuple[float | None, float]:
    """Where the utterance starts in a recording of ``length`` seconds (None: it is all of it), and how long it is."""
    offset = fields.get("offset")
    if offset is None:
        return None, length
    wanted = fields.get("duration", length)
    for name, value in (("offset", offset), ("duration", wanted)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is not a number but {value!r}")
    duration = min(float(wanted), length - offset)
    if offset < 0 or duration <= 0 or ("duration" in fields and wanted - duration > ROUNDED):
        piece = f"from {offset:g} s" + (f" to {offset + wanted:g} s" if "duration" in fields else "")
        raise ValueError(f"{audio} lasts {length:.2f} s, there is nothing {piece}")
    return float(offset), duration


def _channel(fields: dict[str, Any], audio: Path) -> int | None:
    channel = fields.get("channel")
    if channel is None:
        return None
    count = soundfile.info(str(audio)).channels
    if not isinstance(channel, int) or isinstance(channel, bool) or not 0 <= channel < count:
        raise ValueError(f"{audio} has {count} channels, and none with the number {channel!r} (from 0)")
    return channel


def _fields(line: str) -> dict[str, Any]:
    try:
        fields: Any = json.loads(line)
    except json.JSONDecodeError as problem:
        raise ValueError(f"not JSON ({problem.msg} at column {problem.colno})") from problem
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object but {type(fields).__name__}")
    if "supervisions" in fields:
        fields = cut_fields(fields)
    for key in REQUIRED:
        if key not in fields:
            raise ValueError(f"key {key!r} is missing")
        if not isinstance(fields[key], str):
            raise ValueError(f"{key} is not a string but {fields[key]!r}")
        if not fields[key].strip():
            raise ValueError(f"{key} is empty")
    return dict(fields)


def cut_fields(cut: dict[str, Any]) -> dict[str, Any]:
    """A line of Lhotse's, a cut with one supervision, as a line of ours.

    The utterance is what the supervision covers of the cut. Raises `ValueError` where it is more than a piece of
    one file.
    """
    try:
        recording, supervisions = cut["recording"], cut["supervisions"]
        if len(supervisions) != 1:
            raise ValueError(f"the cut has {len(supervisions)} supervisions, not one; import it first")
        said = supervisions[0]
        source, *others = recording["sources"]
        if others or source["type"] != "file" or recording.get("transforms"):
            raise ValueError("the cut's recording is not one plain file; import it first")
        start, end = max(0.0, said["start"]), min(cut["duration"], said["start"] + said["duration"])
        fields = {
            "audio": source["source"],
            **{key: said[key] for key in ("text", "speaker", "language") if said.get(key) is not None},
            **{key: said["custom"][key] for key in ("split", "text_by") if key in (said.get("custom") or {})},
        }
        if cut["start"] + start > ROUNDED or recording["duration"] - (end - start) > ROUNDED:
            fields |= {"offset": cut["start"] + start, "duration": end - start}
        if len(source["channels"]) > 1:
            fields["channel"] = cut["channel"]
    except (KeyError, TypeError, IndexError) as problem:
        raise ValueError(f"not a cut as Lhotse writes it ({problem!r})") from problem
    return fields


def _duration(audio: Path) -> float:
    """Seconds, from the file's header."""
    if not audio.is_file():
        raise ValueError(f"no audio file {audio}")
    try:
        info = soundfile.info(str(audio))
    except soundfile.SoundFileError as problem:
        raise ValueError(f"{audio} is not audio that can be read ({problem})") from problem
    return float(info.frames / info.samplerate)
