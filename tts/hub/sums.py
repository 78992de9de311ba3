"""Checksums of a model folder, as ``sha256sum --check`` reads them."""

import hashlib
import re
from pathlib import Path

from codec.audio import write_whole
from codec.errors import UserError

FILE = "SHA256SUMS"
_CHUNK = 2**20
READ = (".safetensors", ".json")
"""Endings of what a model is loaded from: such a file that has no checksum is not trusted."""


def write_sums(folder: Path) -> str:
    """Write the checksums of all files of a folder; returns what tells this content from any other."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)
    lines = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    text = "".join(lines).encode()
    write_whole(folder / FILE, text)
    return hashlib.sha256(text).hexdigest()[:40]


def verify(folder: Path, name: str) -> None:
    """Raise if a folder is not what its checksums say.

    Args:
        folder: with its checksums.
        name: of the model, for the message.

    Raises:
        UserError: no checksums, or a file is missing, changed, or not among them.
    """
    sums = folder / FILE
    if not sums.is_file():
        raise UserError(
            f"{name} has no {FILE}: it was not put there with python -m tts.hub push; ask its owner to"
        )
    wanted: dict[str, str] = {}
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        found = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if found is None or ".." in Path(found[2]).parts or Path(found[2]).is_absolute():
            raise UserError(f"{name}: its {FILE} is broken, at {line[:80]!r}; ask its owner to push it again")
        wanted[found[2]] = found[1]
    for file, digest in wanted.items():
        if not (folder / file).is_file():
            raise UserError(f"{name}: {file} is missing in {folder}; remove that folder and pull it again")
        if _digest(folder / file) != digest:
            raise UserError(
                f"{name}: {file} in {folder} is not what was pushed; remove that folder and pull it again"
            )
    for path in sorted(folder.rglob("*")):
        if path.suffix in READ and path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            raise UserError(
                f"{name}: {path.relative_to(folder)} in {folder} has no checksum; it was added, remove it"
            )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
