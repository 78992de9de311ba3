"""What to evaluate on: a list of cases, as JSON lines or as Seed-TTS-eval's ``meta.lst``.

    {"text": "Good morning.", "prompt": "anna/1.wav", "prompt_text": "...", "reference": "anna/2.wav", "id": "a-2"}
    name|what the prompt says|anna/1.wav|Good morning.|anna/2.wav

Paths are absolute or relative to the list. Of the JSON keys only ``text`` and ``prompt`` are needed; ``language`` and
``speaker`` are read, too, and others ignored. The fifth field of ``meta.lst`` may be missing.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from codec.errors import UserError
from tts.text import DEFAULT_LANGUAGE, resolve_language

KEYS = ("id", "text", "prompt", "prompt_text", "reference", "speaker", "language")
META = "name|prompt text|prompt wav|text[|reference wav]"


@dataclass(frozen=True)
class Case:
    """One sentence to be said in one voice.

    Attributes:
        id: unique in its list.
        text: what to say.
        prompt: recording of the voice.
        prompt_text: what the prompt says, where it is known; the tokenizer reads it otherwise.
        reference: recording of the same speaker saying the text, for the oracles.
        speaker: who speaks in prompt and reference.
        language: of the texts.
    """

    id: str
    text: str
    prompt: Path
    prompt_text: str | None = None
    reference: Path | None = None
    speaker: str | None = None
    language: str = DEFAULT_LANGUAGE

    @cached_property
    def stem(self) -> str:
        """The id as a file name, different for different ids."""
        name = re.sub(r"[^\w.-]+", "_", self.id)[:80]
        return name if name == self.id else f"{name}-{_digest(self.id.encode())[:8]}"

    def digest(self, *, reference: bool) -> str:
        """What a result of this case depends on: its texts and recordings, and the reference where it is used."""
        files = [self.prompt, *([self.reference] if reference and self.reference else [])]
        parts = [self.text, self.prompt_text, self.language, *(_file_digest(path) for path in files)]
        return _digest(json.dumps(parts).encode())[:16]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_digest(path: Path) -> str:
    return _digest(path.read_bytes())


def read_cases(path: str | Path, *, limit: int | None = None, language: str = DEFAULT_LANGUAGE) -> list[Case]:
    """Read and check a list; recordings are looked for, not opened.

    Args:
        path: the list, UTF-8; JSON lines where its first line starts with ``{``, else ``meta.lst``.
        limit: only the first so many cases.
        language: of cases that name none.

    Raises:
        UserError: no such list, the first broken line, a recording that does not exist, the same id twice, no case,
            or an unknown language.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise UserError(f"limit {limit} is out of range; give a whole number from 1")
    lines = [(n, line) for n, line in enumerate(_text(path).split("\n"), start=1) if line.strip()]
    read = _from_json if lines and lines[0][1].lstrip().startswith("{") else _from_meta
    cases: dict[str, Case] = {}
    for number, line in lines[:limit]:
        try:
            case = read(line, number, path.parent, language)
            if case.id in cases:
                raise UserError(f"the id {case.id!r} is there already; give each case its own")
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from error
        cases[case.id] = case
    if not cases:
        raise UserError(f"{path}: no case in it; give one a line, as JSON or as {META}")
    return list(cases.values())


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the list ({error.strerror}); check the path") from error


def _from_json(line: str, number: int, folder: Path, language: str) -> Case:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON ({error.msg} at column {error.colno}); mend the line") from error
    if not isinstance(fields, dict):
        raise UserError(f"not a JSON object but {line.strip()[:40]!r}; mend the line")
    known = {key: fields[key] for key in KEYS if fields.get(key) is not None}
    for key, value in known.items():
        if not isinstance(value, str):
            raise UserError(f"{key} is {value!r}; give a string")
    return _case(known, f"{number:04d}", folder, language)


def _from_meta(line: str, number: int, folder: Path, language: str) -> Case:
    fields = line.strip("\r").split("|")
    if len(fields) not in (4, 5):
        raise UserError(f"{len(fields)} fields, not {META}; mend the line")
    keys = ("id", "prompt_text", "prompt", "text", "reference")
    return _case(dict(zip(keys, fields, strict=False)), f"{number:04d}", folder, language)


def _case(fields: dict[str, str], default_id: str, folder: Path, language: str) -> Case:
    given = {key: value.strip() for key, value in fields.items() if value.strip()}
    for key in ("text", "prompt"):
        if key not in given:
            raise UserError(f"it has no {key}; give one")
    language = given.get("language", language)
    resolve_language(language)
    return Case(
        id=given.get("id", default_id),
        text=given["text"],
        prompt=_recording(folder / given["prompt"]),
        prompt_text=given.get("prompt_text"),
        reference=_recording(folder / given["reference"]) if "reference" in given else None,
        speaker=given.get("speaker"),
        language=language,
    )


def _recording(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"no such recording: {path}; paths are relative to the list")
    return path.resolve()
