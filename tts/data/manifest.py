"""The manifest a corpus comes with: JSON lines, one utterance a line.

    {"audio": "a/0001.flac", "text": "Good morning.", "speaker": "anna", "language": "en-us"}

``audio`` is absolute or relative to the manifest. ``duration`` (seconds) and ``split`` ("train", "dev",
"test") are optional, other keys are ignored.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from codec.errors import UserError

SPLITS = ("train", "dev", "test")
REQUIRED = ("audio", "text", "speaker", "language")


class ManifestError(UserError):
    """A line of a manifest, or the whole of it, cannot be used."""


@dataclass(frozen=True)
class Row:
    """One usable line.

    Attributes:
        id: unique in its manifest: the audio path as the manifest gives it.
        audio: absolute path.
        duration: seconds, from the audio file itself.
        split: None where the manifest does not say.
        line: line number in the manifest, from 1.
    """

    id: str
    audio: Path
    text: str
    speaker: str
    language: str
    duration: float
    split: str | None
    line: int


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
        path: JSON lines, UTF-8.
        skip_bad: leave broken lines out and list them, where otherwise the first one raises.
        min_seconds, max_seconds: shorter and longer recordings are refused.

    Raises:
        ManifestError: at the first broken line, unless ``skip_bad``; if no line is left; if there is no file.
    """
    path = Path(path)
    rows: list[Row] = []
    bad: list[Bad] = []
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            row = _row(line, number, path.parent, min_seconds, max_seconds)
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ManifestError(f"{path}: not UTF-8 at byte {problem.start}; save it as UTF-8") from problem
    # Only newlines end a line of JSON lines: str.splitlines would also cut at U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _row(line: str, number: int, folder: Path, min_seconds: float, max_seconds: float) -> Row:
    """Check one line. Raises `ValueError` with what is wrong and the value."""
    fields = _fields(line)
    split = fields.get("split")
    if split is not None and split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    audio = (folder / fields["audio"]).resolve()
    duration = _duration(audio)
    if not min_seconds <= duration <= max_seconds:
        raise ValueError(f"{audio} lasts {duration:.2f} s, not {min_seconds:g} to {max_seconds:g} s")
    return Row(
        id=fields["audio"],
        audio=audio,
        text=fields["text"].strip(),
        speaker=fields["speaker"].strip(),
        language=fields["language"].strip(),
        duration=duration,
        split=split,
        line=number,
    )


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as problem:
        raise ValueError(f"not JSON ({problem.msg} at column {problem.colno})") from problem
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object but {type(fields).__name__}")
    for key in REQUIRED:
        if key not in fields:
            raise ValueError(f"key {key!r} is missing")
        if not isinstance(fields[key], str):
            raise ValueError(f"{key} is not a string but {fields[key]!r}")
        if not fields[key].strip():
            raise ValueError(f"{key} is empty")
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
