"""JSON lines: this project's own manifest, NeMo's, the ``metadata.jsonl`` of a folder of recordings, and the like.

The keys may be called by any of the names in `entry.KEYS`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tts.data.importers.entry import (
    KEYS,
    Entry,
    Format,
    Problem,
    Source,
    each_line,
    entry_of,
    first_line,
    only_file,
)

NAMES = ("metadata.jsonl", "manifest.jsonl", "manifest.json")


def _find(path: Path) -> Path | None:
    file = only_file(path, "*.jsonl", NAMES) or only_file(path, "*.json") or only_file(path, "*.ndjson")
    if file is None:
        return None
    try:
        keys = {key.lower() for key in json.loads(first_line(file))}
    except (json.JSONDecodeError, AttributeError, TypeError):
        return None
    return file if keys.intersection(KEYS["audio"]) else None


def _read(source: Source) -> Iterator[Entry | Problem]:
    def parse(line: str, where: str) -> Entry:
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as problem:
            raise ValueError(f"not JSON ({problem.msg} at column {problem.colno})") from problem
        if not isinstance(fields, dict):
            raise ValueError(f"not a JSON object but {type(fields).__name__}")
        return entry_of(fields, where, source.path.parent, source.audio)

    return each_line(source.path, parse)


FORMAT = Format("jsonl", "JSON lines: audio or audio_filepath, text, speaker, ...", _find, _read)
