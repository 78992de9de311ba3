"""Tables with a header: Coqui's ``audio_file|text|speaker_name``, F5's ``audio_file|text``, any CSV or TSV.

The columns may be called by any of the names in `entry.KEYS`, in any order; parted by ``|``, a tab, a comma or a
semicolon.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from codec.errors import UserError
from tts.data.importers.entry import (
    KEYS,
    Entry,
    Format,
    Problem,
    Source,
    entry_of,
    first_line,
    only_file,
    read_bytes,
    table_columns,
)


def _find(path: Path) -> Path | None:
    for ending in ("csv", "tsv", "txt"):
        file = only_file(path, f"*.{ending}", (f"metadata.{ending}",))
        if file is not None and table_columns(first_line(file)) is not None:
            return file
    return None


def _read(source: Source) -> Iterator[Entry | Problem]:
    path = source.path
    columns = table_columns(first_line(path))
    if columns is None:
        raise UserError(
            f"{path}: no table with a header: its first line must name the columns, among them the recording "
            f"({', '.join(KEYS['audio'][:3])} ...) and the text ({', '.join(KEYS['text'][3:6])} ...)"
        )
    delimiter, names = columns
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise UserError(f"{path}: not UTF-8 at byte {problem.start}; save it as UTF-8") from problem
    quoted: Literal[0, 3] = (
        csv.QUOTE_MINIMAL if delimiter != "|" else csv.QUOTE_NONE
    )  # who parts by | quotes nothing
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoted)
    next(rows)
    while True:
        where = f"{path}:{rows.line_num + 1}"
        try:
            cells = next(rows)
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise ValueError(f"{len(cells)} fields, the header names {len(names)}: {', '.join(names)}")
            yield entry_of(dict(zip(names, cells, strict=True)), where, path.parent, source.audio)
        except StopIteration:
            return
        except csv.Error as problem:  # as a quote that nothing closes
            yield Problem(where, f"from here on no table ({problem})")
            return
        except ValueError as problem:
            yield Problem(where, str(problem))


FORMAT = Format("table", "CSV or TSV with a header (Coqui, F5): audio_file|text|speaker_name", _find, _read)
