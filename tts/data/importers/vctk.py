"""VCTK: ``txt/<speaker>/<id>.txt`` beside ``wav48_silence_trimmed/`` (0.92, two microphones) or ``wav48/``.

Of two microphones the second is taken: the first has low-frequency noise. Two speakers have only the first.
"""

from collections.abc import Iterator
from pathlib import Path

from tts.data.importers.entry import Entry, Format, Problem, Source, read_bytes

FOLDERS = ("wav48_silence_trimmed", "wav48")
LANGUAGE = "en-gb"  # most of its speakers; say --language for others


def _find(path: Path) -> Path | None:
    return path if (path / "txt").is_dir() and any((path / name).is_dir() for name in FOLDERS) else None


def _read(source: Source) -> Iterator[Entry | Problem]:
    root = next(source.path / name for name in FOLDERS if (source.path / name).is_dir())
    recordings: dict[tuple[str, str], Path] = {}
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".flac", ".wav")):
        utterance = path.stem.removesuffix("_mic1").removesuffix("_mic2")
        recordings[path.parent.name, utterance] = path  # sorted: the second microphone comes last
    for (speaker, utterance), audio in recordings.items():
        file = source.path / "txt" / speaker / f"{utterance}.txt"
        try:
            text = read_bytes(file).decode("utf-8").strip() if file.is_file() else None
        except UnicodeDecodeError as problem:
            yield Problem(str(file), f"not UTF-8 at byte {problem.start}; save it as UTF-8")
        else:
            yield Entry(str(file if text else audio), audio, text or None, speaker, LANGUAGE)
    for file in sorted((source.path / "txt").rglob("*.txt")):
        if (file.parent.name, file.stem) not in recordings:
            yield Problem(str(file), f"a text without a recording in {root}")


FORMAT = Format("vctk", "txt/ beside wav48_silence_trimmed/ or wav48/", _find, _read)
