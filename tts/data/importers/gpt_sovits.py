"""GPT-SoVITS: a ``.list`` with ``recording|speaker|language|text``."""

from collections.abc import Iterator
from pathlib import Path

from tts.data.importers.entry import (
    Entry,
    Format,
    Problem,
    Source,
    each_line,
    find_audio,
    first_line,
    only_file,
)


def _find(path: Path) -> Path | None:
    file = only_file(path, "*.list") or only_file(path, "*.txt")
    return file if file is not None and first_line(file).count("|") >= 3 else None


def _read(source: Source) -> Iterator[Entry | Problem]:
    def parse(line: str, where: str) -> Entry:
        fields = line.split("|", 3)
        if len(fields) != 4:
            raise ValueError(f"{len(fields)} fields parted by |, not recording|speaker|language|text")
        name, speaker, language, text = (field.strip() for field in fields)
        audio = find_audio(name, source.path.parent, source.audio)
        return Entry(where, audio, text or None, speaker or None, language or None)

    return each_line(source.path, parse)


FORMAT = Format("gpt-sovits", ".list: recording|speaker|language|text", _find, _read)
