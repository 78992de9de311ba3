"""The folder of one evaluation, so that it can be cut off and go on, and never mixes what does not belong together.

<out>/made_with.json   the model's fingerprint and all settings that the sounds depend on
<out>/audio/<row>/     the sounds
<out>/journal.jsonl    one line for everything finished
<out>/cases.jsonl, results.json, index.html   the results
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codec.audio import write_whole
from codec.errors import UserError

MADE_WITH, JOURNAL, AUDIO = "made_with.json", "journal.jsonl", "audio"
CASES, RESULTS, PAGE = "cases.jsonl", "results.json", "index.html"
OURS = (JOURNAL, CASES, RESULTS, PAGE, AUDIO, MADE_WITH)

Conditions = Mapping[str, Any]


class Folder:
    """An evaluation's folder, new or going on.

    Args:
        path: where; its parent must exist.
        conditions: what the sounds are made with; JSON.
        force: start anew where there is one already.

    Raises:
        UserError: there is something else in the folder, or an evaluation made with something else.
    """

    def __init__(self, path: Path, conditions: Conditions, *, force: bool = False) -> None:
        self.path = path
        check_folder(path, conditions, force=force)
        if force:
            for name in OURS:
                remove(path / name)
        path.mkdir(exist_ok=True)
        if not (path / MADE_WITH).exists():
            write_json(path / MADE_WITH, conditions)
        self.journal = Journal(path / JOURNAL)

    def audio(self, row: str, stem: str) -> Path:
        """Where a sound is."""
        return self.path / AUDIO / row / f"{stem}.wav"


def check_folder(path: Path, conditions: Conditions, *, force: bool = False) -> None:
    """Raise now what making a `Folder` would raise."""
    if not path.parent.is_dir():
        raise UserError(f"no such folder to write into: {path.parent}; make it, or correct --out")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; name a folder")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / MADE_WITH).is_file():
        raise UserError(f"{path} holds something else than an evaluation; choose another --out")
    if force:
        return
    before = json.loads((path / MADE_WITH).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(conditions))
    # where the model lies does not matter: its fingerprint tells whether it is the same
    differ = [key for key in {**before, **now} if key != "model" and before.get(key) != now.get(key)]
    if differ:
        told = ", ".join(f"{key} {before.get(key)!r} there and {now.get(key)!r} now" for key in differ)
        raise UserError(
            f"{path} was made with something else: {told}; choose another --out, or start anew with --force"
        )


def remove(path: Path) -> None:
    """A file or a folder, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Journal:
    """What is finished: values by key, one JSON line each, on the disk as soon as it is put.

    Args:
        path: the file; a last line that was cut off is dropped.

    Raises:
        UserError: another line is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[tuple[str, ...], Any] = {}
        if path.is_file():
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                write_whole(path, whole)
            for number, line in enumerate(whole.decode(errors="replace").split("\n")[:-1], start=1):
                self._read(number, line)

    def _read(self, number: int, line: str) -> None:
        try:
            entry = json.loads(line)
            self._values[tuple(entry["key"])] = entry["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path}:{number} is broken; start the evaluation anew with --force"
            ) from error

    def get(self, *key: str) -> Any:
        """The value last put there; None where there is none."""
        return self._values.get(key)

    def put(self, value: Any, *key: str) -> None:
        """Keep a JSON value."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n")
        self._values[key] = value


def write_json(path: Path, value: Any) -> None:
    """JSON for people, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_json_lines(path: Path, rows: Sequence[Any]) -> None:
    """One JSON line a row, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
