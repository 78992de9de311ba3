"""LibriTTS and LibriSpeech: ``<part>/<speaker>/<chapter>/``, a list of texts in every chapter.

Parts named ``train-...``, ``dev-...`` and ``test-...`` become the splits of those names.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tts.data.importers.entry import Entry, Format, Problem, Source, each_line, read_bytes, split_of


def _with(*patterns: str) -> Callable[[Path], Path | None]:
    """Finds folders that hold such a file at whatever depth."""

    def find(path: Path) -> Path | None:
        if not path.is_dir():
            return None
        return path if any(next(path.rglob(one), None) is not None for one in patterns) else None

    return find


def _lists(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if not path.name.startswith("."))


def _read_libritts(source: Source) -> Iterator[Entry | Problem]:
    chapters = _lists(source.path, "*.trans.tsv")
    for chapter in chapters:

        def parse(line: str, where: str, chapter: Path = chapter) -> Entry:
            name, *texts = line.split("\t")
            if len(texts) != 2:
                raise ValueError(f"{len(texts) + 1} fields parted by tabs, not id, text, normalised text")
            return _utterance(source, chapter.parent / f"{name}.wav", texts[1] or texts[0], where)

        yield from each_line(chapter, parse)
    listed = {chapter.parent for chapter in chapters}
    for path in _lists(source.path, "*.normalized.txt"):  # copies without the chapters' lists
        if path.parent not in listed:
            name = path.name.removesuffix(".normalized.txt")
            try:
                text = read_bytes(path).decode("utf-8")
                yield _utterance(source, path.parent / f"{name}.wav", text, str(path))
            except ValueError as problem:
                yield Problem(str(path), str(problem))


def _read_librispeech(source: Source) -> Iterator[Entry | Problem]:
    for chapter in _lists(source.path, "*.trans.txt"):

        def parse(line: str, where: str, chapter: Path = chapter) -> Entry:
            name, _, text = line.strip().partition(" ")
            return _utterance(source, chapter.parent / f"{name}.flac", text, where)

        yield from each_line(chapter, parse)


def _utterance(source: Source, audio: Path, text: str, where: str) -> Entry:
    """An utterance, its speaker by its name: ``84_121123_000007_000001`` and ``84-121123-0000`` are of speaker 84."""
    if not audio.is_file():
        raise ValueError(f"no recording {audio}")
    root = source.path.resolve()
    parts = reversed((root.name, *audio.resolve().relative_to(root).parts[:-1]))
    split = next((split for part in parts if (split := split_of(part))), None)
    return Entry(where, audio, text.strip() or None, re.split("[-_]", audio.stem)[0], "en-us", split)


LIBRITTS = Format(
    "libritts",
    "*.trans.tsv or *.normalized.txt in every chapter",
    _with("*.trans.tsv", "*.normalized.txt"),
    _read_libritts,
)
LIBRISPEECH = Format("librispeech", "*.trans.txt in every chapter", _with("*.trans.txt"), _read_librispeech)
