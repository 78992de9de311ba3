"""What Lhotse writes: cuts, recordings with supervisions, Shar archives.

So every corpus that Lhotse has a recipe for comes in: ``lhotse prepare NAME FOLDER OUT``, then import OUT.
Recordings inside Shar archives are written to files, as they are; all others stay where they are.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut, MultiCut
from lhotse.serialization import deserialize_item

from codec.errors import UserError
from tts.data.importers.entry import Entry, Format, Problem, Source, read_bytes

RECORDINGS, SUPERVISIONS = "recordings", "supervisions"


def _find(path: Path) -> Path | None:
    if path.is_file():
        return path if _kind(path) is not None else None
    found = [one for one in sorted(path.glob("*.jsonl*")) if _kind(one) in ("cuts", SUPERVISIONS)]
    return path if found and not _is_shar(path) else None


def _kind(path: Path) -> str | None:
    """Which of Lhotse's manifests a file is, by its first line."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        return None
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            fields = json.loads(file.readline() or "null")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError):
        return None
    if not isinstance(fields, dict):
        return None
    if "sources" in fields:
        return RECORDINGS
    if "recording_id" in fields:
        return SUPERVISIONS
    return "cuts" if "type" in fields and "id" in fields else None


def _read(source: Source) -> Iterator[Entry | Problem]:
    """Every cut and every supervision of a file, or of all files in a folder."""
    files = [source.path] if source.path.is_file() else sorted(source.path.glob("*.jsonl*"))
    for path in files:
        kind = _kind(path)
        if kind == RECORDINGS and source.path.is_file():
            kind, path = SUPERVISIONS, _companion(path, RECORDINGS, SUPERVISIONS)
        if kind == SUPERVISIONS:
            yield from _supervisions(path, source)
        elif kind == "cuts":
            for where, item in _items(path):
                if isinstance(item, Problem):
                    yield item
                elif isinstance(item, Cut):
                    yield from _entries(item, where, path.parent, source)
                else:
                    yield Problem(where, f"not a cut but a {type(item).__name__}")


def _supervisions(path: Path, source: Source) -> Iterator[Entry | Problem]:
    recordings: dict[str, Recording] = {}
    for _, item in _items(_companion(path, SUPERVISIONS, RECORDINGS)):
        if isinstance(item, Problem):
            yield item
        elif isinstance(item, Recording):
            recordings[item.id] = item
    for where, item in _items(path):
        if isinstance(item, Problem):
            yield item
        elif not isinstance(item, SupervisionSegment) or item.recording_id not in recordings:
            yield Problem(
                where, f"recording {getattr(item, 'recording_id', None)!r} is not among the recordings"
            )
        else:
            whole = recordings[item.recording_id]
            channel = item.channel if isinstance(item.channel, int) else 0
            cut = MonoCut(item.id, 0.0, whole.duration, channel, recording=whole, supervisions=[item])
            yield from _entries(cut, where, path.parent, source)


def _companion(path: Path, kind: str, other: str) -> Path:
    """The recordings of supervisions or the other way round: Lhotse names the two files alike."""
    found = path.with_name(path.name.replace(kind, other))
    if found == path or not found.is_file():
        raise UserError(f"{path}: {kind} without their {other}; put {found.name!r} beside it")
    return found


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each line stands, and Lhotse's object of it or the problem."""
    data = read_bytes(path)
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as problem:
        raise UserError(f"{path}: no whole gzip file; pack it again") from problem
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield where, deserialize_item(json.loads(line))
            except Exception as problem:  # whatever Lhotse meets in a dictionary that is none of its own
                yield (
                    where,
                    Problem(where, f"not a manifest line of Lhotse ({type(problem).__name__}: {problem})"),
                )


def _entries(cut: Cut, where: str, folder: Path, source: Source) -> Iterator[Entry | Problem]:
    """One entry a supervision, or one without a text where the cut has none."""
    if not isinstance(cut, MonoCut | MultiCut) or cut.recording is None:
        yield Problem(
            where, f"{cut.id!r} is a {type(cut).__name__} without one recording; only plain cuts are taken"
        )
        return
    try:
        audio = _audio(cut.recording, cut.id, folder, source)
    except ValueError as problem:
        yield Problem(where, str(problem))
        return
    for said in cut.supervisions or [None]:
        start = cut.start + (0.0 if said is None else max(0.0, said.start))
        end = cut.start + (cut.duration if said is None else min(cut.duration, said.end))
        whole = cut.recording.duration - (end - start) < 0.01
        custom = {} if said is None else said.custom or {}
        yield Entry(
            where=where,
            audio=audio,
            text=None if said is None else said.text,
            speaker=None if said is None else said.speaker,
            language=None if said is None else said.language,
            split=custom.get("split"),
            offset=None if whole else round(start, 6),
            duration=None if whole else round(end - start, 6),
            channel=_channel(cut, said),
            text_by=custom.get("text_by"),
        )


def _channel(cut: MonoCut | MultiCut, said: SupervisionSegment | None) -> int | None:
    """The one channel that is meant; None where there is but one, or several together are."""
    if cut.recording.num_channels < 2:
        return None
    channels = cut.channel if isinstance(cut, MonoCut) or said is None else said.channel
    if isinstance(channels, int):
        return channels
    return int(channels[0]) if len(channels) == 1 else None


def _audio(recording: Recording, cut: str, folder: Path, source: Source) -> Path:
    """The file that holds a cut's recording. Raises `ValueError` where there is none."""
    if recording.transforms:
        raise ValueError(f"recording {recording.id!r} is to be changed on the fly; save it changed first")
    if len(recording.sources) != 1:
        raise ValueError(
            f"recording {recording.id!r} is spread over {len(recording.sources)} files; join them first"
        )
    kind, place = recording.sources[0].type, recording.sources[0].source
    if kind == "memory":
        return _unpacked(cut, place, source.scratch)
    if kind != "file":
        raise ValueError(
            f"recording {recording.id!r} is a {kind}, which is not fetched; save it to a file first"
        )
    for base in (*([source.audio] if source.audio else []), folder, Path.cwd()):
        path: Path = base / place
        if path.is_file():
            return path
    raise ValueError(f"no recording {place!r}; paths are tried from {folder} and from the working folder")


def _unpacked(name: str, data: bytes, folder: Path) -> Path:
    """Write a cut's recording out of an archive, as it is."""
    try:
        kind = soundfile.info(io.BytesIO(data)).format.lower()
    except soundfile.SoundFileError as problem:
        raise ValueError(
            f"recording {name!r} in the archive is not audio that can be read ({problem})"
        ) from problem
    stem, ending = re.sub(r"[^\w.-]+", "_", name), "mp3" if kind == "mpeg" else kind
    path = folder / f"{stem}.{ending}"
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes() != data:
        raise ValueError(f"recording {name!r}: {path} is there already, and another; empty that folder")
    path.write_bytes(data)
    return path


def _is_shar(path: Path) -> bool:
    return path.is_dir() and any(path.glob("cuts.*.jsonl*")) and any(path.glob("recording.*.tar"))


def _read_shar(source: Source) -> Iterator[Entry | Problem]:
    fields = {
        name: [str(path) for path in sorted(source.path.glob(pattern))]
        for name, pattern in (("cuts", "cuts.*.jsonl*"), ("recording", "recording.*.tar"))
    }
    try:
        for number, cut in enumerate(CutSet.from_shar(fields=fields), start=1):
            yield from _entries(cut, f"{source.path}: cut {number} ({cut.id})", source.path, source)
    except (OSError, ValueError, AssertionError, KeyError) as problem:
        yield Problem(str(source.path), f"the archive breaks off here ({type(problem).__name__}: {problem})")


LHOTSE = Format("lhotse", "cuts, or recordings and supervisions, *.jsonl.gz", _find, _read)
SHAR = Format(
    "shar", "cuts.000000.jsonl.gz, recording.000000.tar ...", lambda p: p if _is_shar(p) else None, _read_shar
)
