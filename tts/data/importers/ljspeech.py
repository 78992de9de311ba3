"""LJSpeech: ``metadata.csv`` with ``id|text|text with numbers spelt out``, no header; recordings in ``wavs/``."""

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
    table_columns,
)


def _find(path: Path) -> Path | None:
    file = only_file(path, "*.csv", ("metadata.csv",)) or only_file(path, "*.txt", ("metadata.txt",))
    if file is None:
        return None
    line = first_line(file)
    return file if line.count("|") in (1, 2) and table_columns(line) is None else None


def _read(source: Source) -> Iterator[Entry | Problem]:
    def parse(line: str, where: str) -> Entry:
        name, *texts = line.split("|")  # not the csv module: LJSpeech has quotes that nothing closes
        if len(texts) not in (1, 2):
            raise ValueError(f"{len(texts) + 1} fields parted by |, not id|text or id|text|normalised text")
        text = next((one.strip() for one in reversed(texts) if one.strip()), None)
        return Entry(where, find_audio(name, source.path.parent, source.audio), text)

    return each_line(source.path, parse)


FORMAT = Format("ljspeech", "metadata.csv: id|text|normalised text, no header; wavs/", _find, _read)
