"""A folder of recordings, with or without a text beside each: ``a.wav`` and ``a.txt`` (or ``.lab``).

The speaker is the first folder below the one named, unless it is called ``wavs``, ``train`` or the like.
"""

from collections.abc import Iterator
from pathlib import Path

from tts.data.importers.entry import (
    AUDIO_ENDINGS,
    AUDIO_FOLDERS,
    UNREADABLE_ENDINGS,
    Entry,
    Format,
    Problem,
    Source,
    read_bytes,
    split_of,
)

TEXT_ENDINGS = (".txt", ".lab", ".normalized.txt")
NO_SPEAKER = (*AUDIO_FOLDERS, "recordings", "data", "speech", "flac", "mp3", "raw")


def _find(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in AUDIO_ENDINGS else None
    return path if any(one.suffix.lower() in AUDIO_ENDINGS for one in path.rglob("*")) else None


def _read(source: Source) -> Iterator[Entry | Problem]:
    root = source.path if source.path.is_dir() else source.path.parent
    files = sorted(root.rglob("*")) if source.path.is_dir() else [source.path]
    for path in files:
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)
        if hidden or not path.is_file():
            continue
        if path.suffix.lower() in UNREADABLE_ENDINGS:
            yield Problem(
                str(path), f"{path.suffix} cannot be read; convert it: ffmpeg -i {path.name} {path.stem}.flac"
            )
        elif path.suffix.lower() in AUDIO_ENDINGS:
            yield _entry(path, root)


def _entry(path: Path, root: Path) -> Entry | Problem:
    folders = path.relative_to(root).parts[:-1]
    speaker = next((one for one in folders if one.lower() not in NO_SPEAKER and not split_of(one)), None)
    split = next((split for one in folders if (split := split_of(one))), None)
    text = None
    for ending in TEXT_ENDINGS:
        if (file := path.with_name(path.stem + ending)).is_file():
            try:
                text = " ".join(read_bytes(file).decode("utf-8-sig").split())
            except UnicodeDecodeError as problem:
                return Problem(str(file), f"not UTF-8 at byte {problem.start}; save it as UTF-8")
            break
    return Entry(str(path), path, text or None, speaker, split=split)


FORMAT = Format("folder", "recordings, with or without .txt or .lab beside them", _find, _read)
