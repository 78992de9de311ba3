"""What every format is read into, and what the readers share."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from codec.errors import UserError
from tts.data.manifest import SPLITS

AUDIO_ENDINGS = (
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".opus",
    ".oga",
    ".aiff",
    ".aif",
    ".au",
    ".caf",
    ".w64",
    ".sph",
)
UNREADABLE_ENDINGS = (".m4a", ".aac", ".wma", ".mp4", ".webm", ".mkv", ".amr")  # soundfile reads none of them
AUDIO_FOLDERS = ("wavs", "wav", "audio", "clips")  # beside a list that names its recordings without a folder

# What people call the columns of a table and the keys of a JSON object; the first that is there counts.
KEYS: dict[str, tuple[str, ...]] = {
    "audio": (
        "audio", "audio_file", "audio_filepath", "audio_path", "audio_filename", "file_name", "filename", "file",
        "file_path", "path", "wav", "wav_path", "wav_file", "wav_filename", "clip",
    ),
    "text": (
        "normalized_text", "text_normalized", "normalized_transcription", "text", "transcript", "transcription",
        "sentence", "raw_text", "text_original", "raw_transcription",
    ),
    "speaker": ("speaker", "speaker_name", "speaker_id", "spk", "spk_id", "client_id", "reader", "voice"),
    "language": ("language", "lang", "lang_id", "language_id", "locale"),
    "offset": ("offset", "start"),
    "end": ("end", "stop"),
    "duration": ("duration",),
    "channel": ("channel",),
    "split": ("split", "subset", "partition"),
    "text_by": ("text_by",),
}  # fmt: skip
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("dev", "val", "valid", "validation", "eval", "evaluation"), "dev")


@dataclass(frozen=True)
class Entry:
    """One utterance as a corpus lists it; nothing of its audio is checked yet.

    Attributes:
        where: the file and, where it has lines, the line that lists it: for messages.
        audio: the recording.
        text: None where the corpus has none.
        speaker, language: None where the corpus does not say.
        split: "train", "dev", "test" or None.
        offset, duration: seconds, a piece of the recording; None for all of it, or up to its end.
        channel: the only one to use; None for the mean of all.
        text_by: the recogniser that wrote the text.
    """

    where: str
    audio: Path
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    split: str | None = None
    offset: float | None = None
    duration: float | None = None
    channel: int | None = None
    text_by: str | None = None


@dataclass(frozen=True)
class Problem:
    """An entry that cannot be used, and why."""

    where: str
    message: str

    def __str__(self) -> str:
        return self.message if self.message.startswith(self.where) else f"{self.where}: {self.message}"


class Source(NamedTuple):
    """What a reader is given.

    Attributes:
        path: the file or folder that its `Format.find` gave.
        audio: where else to look for recordings, None where nobody said.
        scratch: folder for recordings that must be taken out of archives; made when needed.
    """

    path: Path
    audio: Path | None
    scratch: Path


class Format(NamedTuple):
    """A way to keep a corpus.

    Attributes:
        name: for ``--format``.
        what: how it is recognised, in a few words.
        find: the path that a user named -> the file or folder to read; None where it is not of this format.
        read: yields its utterances.
    """

    name: str
    what: str
    find: Callable[[Path], Path | None]
    read: Callable[[Source], Iterator[Entry | Problem]]


Parse = Callable[[str, str], Entry | None]
"""(line, where it stands) -> its entry, None where it holds none; `ValueError` where it cannot be used."""


def each_line(path: Path, parse: Parse, *, skip: int = 0) -> Iterator[Entry | Problem]:
    """The entries of a text file with one a line; a line that cannot be used becomes a problem and no crash."""
    for number, raw in enumerate(read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if number <= skip or not raw.strip():
            continue
        where = f"{path}:{number}"
        try:
            entry = parse(raw.decode("utf-8").rstrip("\r"), where)
        except UnicodeDecodeError as problem:
            yield Problem(where, f"not UTF-8 at byte {problem.start} of the line; save the file as UTF-8")
        except ValueError as problem:
            yield Problem(where, str(problem))
        else:
            if entry is not None:
                yield entry


def read_bytes(path: Path) -> bytes:
    """A file as it is. Raises `UserError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); check the path") from problem


def first_line(path: Path) -> str:
    """The first line that is not empty, "" where there is none in the first 100."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = (file.readline(1 << 16) for _ in range(100))
            return next((line.rstrip("\r\n") for line in lines if line.strip()), "")
    except OSError:
        return ""


def only_file(path: Path, pattern: str, names: Sequence[str] = ()) -> Path | None:
    """The path itself where it is a file that fits; in a folder one of the names, or the only file that fits."""
    if path.is_file():
        return path if path.match(pattern) else None
    for name in names:
        if (path / name).is_file():
            return path / name
    found = sorted(one for one in path.glob(pattern) if one.is_file() and not one.name.startswith("."))
    return found[0] if len(found) == 1 else None


def find_audio(name: str, folder: Path, extra: Path | None = None) -> Path:
    """The recording that a list names, with or without its folder and ending.

    Args:
        name: as it is written; a path from another machine is tried by its last part.
        folder: of the list.
        extra: looked through first.

    Raises:
        ValueError: it is nowhere.
    """
    name = name.strip().replace("\\", "/")
    if not name:
        raise ValueError("the name of the recording is empty")
    folders = [*([extra] if extra else []), folder, *(folder / one for one in AUDIO_FOLDERS)]
    for last in dict.fromkeys((name, name.rpartition("/")[2])):
        for one in folders:
            for ending in ("", *AUDIO_ENDINGS):
                if (path := one / (last + ending)).is_file():
                    return path
    looked = ", ".join(str(one) for one in folders if one.is_dir())
    raise ValueError(f"no recording {name!r} (looked in {looked}); name its folder with --audio")


def entry_of(fields: Mapping[str, Any], where: str, folder: Path, extra: Path | None) -> Entry:
    """The entry of a table's row or a JSON object, whatever its columns are called (`KEYS`).

    Raises:
        ValueError: it names no recording, or one that is nowhere; or a value is of the wrong kind.
    """
    known = {key.strip().lower(): value for key, value in fields.items() if isinstance(key, str)}
    found = {
        role: next((known[k] for k in names if not _empty(known.get(k))), None)
        for role, names in KEYS.items()
    }
    if found["audio"] is None:
        raise ValueError(f"no recording is named (one of {', '.join(KEYS['audio'][:5])} ...)")
    if not isinstance(found["audio"], str):
        raise ValueError(f"the recording is not a path but {found['audio']!r}")
    offset, duration = _number(found["offset"], "offset"), _number(found["duration"], "duration")
    if offset is not None and (end := _number(found["end"], "end")) is not None:
        duration = end - offset
    text = found["text"]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"the text is not a string but {text!r}")
    channel = _number(found["channel"], "channel")
    return Entry(
        where=where,
        audio=find_audio(found["audio"], folder, extra),
        text=text,
        speaker=_word(found["speaker"]),
        language=_word(found["language"]),
        split=split_of(str(found["split"])),
        offset=offset,
        duration=None if offset is None else duration,
        channel=None if channel is None else int(channel),
        text_by=_word(found["text_by"]),
    )


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _word(value: Any) -> str | None:
    return None if value is None else str(value).strip()


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a number but {value!r}") from None


def split_of(name: str) -> str | None:
    """The split that a folder or a column calls so: ``dev-clean`` is "dev"."""
    split = _SPLITS.get(re.split(r"[-_.]", name.strip().lower())[0])
    assert split is None or split in SPLITS
    return split


def table_columns(header: str) -> tuple[str, list[str]] | None:
    """The delimiter and the columns' names of a table's first line; None where it names no recording and text."""
    for delimiter in "|\t,;":
        columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
        if all(any(name in columns for name in KEYS[role]) for role in ("audio", "text")):
            return delimiter, columns
    return None
