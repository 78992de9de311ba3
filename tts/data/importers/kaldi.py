"""Kaldi's data folder: ``wav.scp``, and where they are there ``text``, ``utt2spk``, ``utt2lang``, ``segments``.

Commands in ``wav.scp`` are not run: of one that only unpacks a file (``flac -c -d -s FILE |``) the file is taken,
others are refused.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

from tts.data.importers.entry import Entry, Format, Problem, Source, each_line

UNPACKERS = ("flac", "cat", "sph2pipe")


def _find(path: Path) -> Path | None:
    folder = path.parent if path.name == "wav.scp" else path
    return folder if (folder / "wav.scp").is_file() else None


def _read(source: Source) -> Iterator[Entry | Problem]:
    folder = source.path
    tables: dict[str, dict[str, str]] = {"text": {}, "utt2spk": {}, "utt2lang": {}}
    lines: dict[str, str] = {}  # where each text stands
    for name, table in tables.items():
        if (folder / name).is_file():

            def put(line: str, where: str, name: str = name, table: dict[str, str] = table) -> None:
                key, table[key] = _pair(line)
                if name == "text":
                    lines[key] = where

            yield from each_line(folder / name, put)

    recordings: dict[str, Path] = {}
    cut = (folder / "segments").is_file()

    def recording(line: str, where: str) -> Entry | None:
        key, value = _pair(line)
        if not cut:
            lines.pop(key, None)
        recordings[key] = _file(value, folder, source.audio)
        return None if cut else _entry(key, where, recordings[key], tables)

    def segment(line: str, where: str) -> Entry:
        lines.pop(line.split()[0], None)
        return _segment(line, where, recordings, tables)

    yield from each_line(folder / "wav.scp", recording)
    if cut:
        yield from each_line(folder / "segments", segment)
    for key, where in lines.items():
        yield Problem(where, f"utterance {key!r} is in no line of {'segments' if cut else 'wav.scp'}")


def _pair(line: str) -> tuple[str, str]:
    key, *value = line.strip().split(maxsplit=1)
    return key, value[0] if value else ""


def _entry(key: str, where: str, audio: Path, tables: dict[str, dict[str, str]]) -> Entry:
    text = tables["text"].get(key) or None
    return Entry(where, audio, text, tables["utt2spk"].get(key), tables["utt2lang"].get(key))


def _segment(line: str, where: str, recordings: dict[str, Path], tables: dict[str, dict[str, str]]) -> Entry:
    fields = line.split()
    if len(fields) not in (4, 5):
        raise ValueError(f"{len(fields)} fields, not id, recording, start, end")
    key, recording = fields[:2]
    if recording not in recordings:
        raise ValueError(f"recording {recording!r} is not in wav.scp, or cannot be used")
    try:
        start, end = float(fields[2]), float(fields[3])
    except ValueError:
        raise ValueError(f"start and end are not numbers but {fields[2]!r} and {fields[3]!r}") from None
    whole = _entry(key, where, recordings[recording], tables)
    duration = None if end == -1 else end - start  # -1: to the end of the recording
    channel = int(fields[4]) if len(fields) == 5 and fields[4].isdigit() else None
    return Entry(
        where, whole.audio, whole.text, whole.speaker, whole.language, None, start, duration, channel
    )


def _file(value: str, folder: Path, extra: Path | None) -> Path:
    """The file that an entry of ``wav.scp`` names. Raises `ValueError` where it is no plain file."""
    if value.endswith("|"):
        command, *words = shlex.split(value[:-1])
        files = [Path(word) for word in words if not word.startswith("-") and _on_disk(word, folder, extra)]
        if Path(command).name not in UNPACKERS or len(files) != 1 or "|" in words:
            raise ValueError(f"{value!r} is a command, and commands are not run; write its result to a file")
        value = str(files[0])
    path = _on_disk(value, folder, extra)
    if path is None:
        raise ValueError(f"no recording {value!r}; paths are tried from the working folder and from {folder}")
    return path


def _on_disk(name: str, folder: Path, extra: Path | None) -> Path | None:
    """Kaldi's paths are relative to where its recipe is run, which may be here or above the data folder."""
    bases = [*([extra] if extra else []), Path.cwd(), folder, *folder.resolve().parents]
    return next((base / name for base in bases if (base / name).is_file()), None)


FORMAT = Format("kaldi", "wav.scp, text, utt2spk, segments", _find, _read)
