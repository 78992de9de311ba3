"""A manifest becomes a folder to train from: checked, phonemised, frames computed once.

    <out>/cuts_<split>.jsonl.gz   Lhotse cuts; phonemes in ``supervision.custom["phonemes"]``
    <out>/frames/                 one half-precision array a cut: ``cut.load_frames()``
    <out>/audio/                  one mono 16-bit FLAC a cut at the frames' sample rate: ``cut.load_audio()``
    <out>/prepared.json           written last: what the folder was made from

Paths inside the cuts are relative, so a folder can be moved; `read_cuts` makes them absolute.

Why one FLAC a cut: cropping a second out of it takes 0.6 ms, against 6.6 ms out of Ogg Opus, which must
decode from afar, and against resampling for every crop where the corpus has another rate.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import soundfile
import torch
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.array import Array
from torch import nn
from tqdm import tqdm

from codec.errors import UserError
from codec.spec import FrameSpec
from tts.data.manifest import SPLITS, Bad, ManifestError, Row, line_error, read_bytes, read_manifest
from tts.data.parallel import ordered_map
from tts.data.segment import read_row
from tts.text.frontend import Frontend
from tts.text.symbols import DEFAULT_SYMBOLS

FORMAT = 1  # of the folder; part of its fingerprint
DEV_SHARE = 0.02
DEV_LEAST = 4
PHONEMIZE_BATCH = 256


class Prepared(NamedTuple):
    """Cuts per split, and the lines of the manifest that were left out."""

    cuts: dict[str, int]
    bad: list[Bad]


@dataclass(frozen=True)
class Stored:
    """The files of one utterance, relative to the folder."""

    frames: str
    shape: list[int]
    audio: str
    samples: int


def prepare(
    manifest: str | Path,
    out: str | Path,
    extractor: nn.Module,
    *,
    splits: Sequence[str] = SPLITS,
    skip_bad: bool = False,
    jobs: int = 1,
    phonemize: Callable[[list[str], str], list[str]] | None = None,
    progress: bool = True,
) -> Prepared:
    """Prepare a corpus.

    A folder that was finished from the same manifest is left as it is; one that was cut off is completed.

    Args:
        extractor: waveforms (B, samples) -> frames (B, T, dim); its ``spec`` is a `FrameSpec`.
        splits: rows of other splits are left out. Rows without a split go to "train", a fixed share of them
            (2 %, at least four where there are enough) to "dev".
        skip_bad: go on without the lines that cannot be used; they are listed in the result.
        jobs: processes that decode audio and compute frames.
        phonemize: (texts as written, language) -> phoneme strings; `read_texts` if not given.

    Raises:
        ManifestError: for the first line that cannot be used, unless ``skip_bad``.
    """
    manifest, out = Path(manifest), Path(out)
    spec = _spec(extractor)
    fingerprint = _fingerprint(manifest, spec, splits)
    finished = _finished(out, fingerprint)
    if finished and (skip_bad or not finished.bad):
        return finished

    rows, bad = read_manifest(manifest, skip_bad=skip_bad)
    rows = [row for row in assign_splits(rows) if row.split in splits]
    out.mkdir(parents=True, exist_ok=True)
    phonemes, unspeakable = _phonemes(manifest, rows, phonemize or read_texts, skip_bad, progress)
    rows = [row for row in rows if row.id in phonemes]
    stored, unreadable = _store_all(manifest, rows, out, extractor, skip_bad, jobs, progress)
    rows = [row for row in rows if row.id in stored]
    bad = sorted([*bad, *unspeakable, *unreadable], key=lambda one: one.line)
    if not rows:
        raise ManifestError(f"{manifest}: no usable line of split {', '.join(splits)}; check the manifest")

    (out / "prepared.json").unlink(missing_ok=True)  # cut off from here on, the folder must not look finished
    counts = {}
    for split in SPLITS:
        cuts = [_cut(row, phonemes[row.id], stored[row.id], spec) for row in rows if row.split == split]
        counts[split] = len(cuts)
        if cuts:
            write_cuts(cuts, cuts_path(out, split))
        else:
            cuts_path(out, split).unlink(missing_ok=True)
    listed = [[one.line, str(one.error)] for one in bad]
    note = {"fingerprint": fingerprint, "cuts": counts, "spec": asdict(spec), "bad": listed}
    _write_atomically(out / "prepared.json", lambda part: part.write_text(json.dumps(note, indent=1)))
    return Prepared(counts, bad)


def cuts_path(folder: str | Path, split: str) -> Path:
    return Path(folder) / f"cuts_{split}.jsonl.gz"


def write_cuts(cuts: Iterable[MonoCut], path: Path) -> None:
    """Write cuts, whole or not at all."""
    _write_atomically(path, lambda part: CutSet.from_cuts(cuts).to_file(part))


def read_cuts(path: str | Path) -> CutSet:
    """All cuts of one file, in memory, with the paths of frames and audio made absolute.

    Raises:
        UserError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no prepared cuts {path}; prepare the corpus first, or check the path")
    return CutSet.from_cuts(_located(cut, path.parent) for cut in CutSet.from_jsonl_lazy(path))


def relative_cuts(cuts: Iterable[MonoCut], folder: Path) -> Iterator[MonoCut]:
    """Make paths relative to ``folder``, to write cuts of `read_cuts` there."""
    folder = folder.resolve()
    for cut in cuts:
        yield _with_paths(cut, lambda path: os.path.relpath(path, folder))


def read_spec(folder: str | Path) -> FrameSpec:
    """The frames that a prepared folder holds."""
    path = Path(folder) / "prepared.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a prepared corpus (no prepared.json in it); prepare it first")
    return FrameSpec(**json.loads(path.read_text())["spec"])


def assign_splits(rows: Sequence[Row]) -> list[Row]:
    """Give every row without a split one: the lowest hashes of their ids go to "dev", the rest to "train".

    The share is taken by hash so that a corpus that grows keeps its split, but for a few.
    """
    open_rows = sorted((row for row in rows if row.split is None), key=lambda row: _hash(row.id))
    count = max(round(DEV_SHARE * len(open_rows)), min(DEV_LEAST, len(open_rows) // 5))
    dev = {row.id for row in open_rows[:count]}
    return [row if row.split else replace(row, split="dev" if row.id in dev else "train") for row in rows]


def read_texts(texts: Sequence[str], language: str) -> list[str]:
    """Phonemes of transcripts, numbers and abbreviations spoken out, by `tts.text`.

    Raises:
        TextError: the language is unknown.
    """
    return [utterance.phonemes for utterance in Frontend(language=language).whole(texts)]


def _phonemes(
    manifest: Path,
    rows: Sequence[Row],
    phonemize: Callable[[list[str], str], list[str]],
    skip_bad: bool,
    progress: bool,
) -> tuple[dict[str, str], list[Bad]]:
    """Phoneme strings by row id, language by language in batches."""
    by_language: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_language[row.language].append(row)
    result: dict[str, str] = {}
    bad: list[Bad] = []
    with tqdm(total=len(rows), desc="phonemes", unit="utt", disable=not progress) as bar:
        for language, group in by_language.items():
            for start in range(0, len(group), PHONEMIZE_BATCH):
                batch = group[start : start + PHONEMIZE_BATCH]
                for row, answer in zip(batch, _phonemize_each(batch, language, phonemize), strict=True):
                    if isinstance(answer, str) and _can_be_heard(answer):
                        result[row.id] = answer
                        continue
                    nothing = f"nothing in text {row.text!r} can be spoken"
                    problem = nothing if isinstance(answer, str) else answer
                    bad.append(Bad(row.line, line_error(manifest, row.line, problem)))
                    if not skip_bad:
                        raise bad[0].error
                bar.update(len(batch))
    return result, bad


def _can_be_heard(phonemes: str) -> bool:
    return any(map(DEFAULT_SYMBOLS.is_base, DEFAULT_SYMBOLS.encode(phonemes)))


def _phonemize_each(
    batch: Sequence[Row], language: str, phonemize: Callable[[list[str], str], list[str]]
) -> Iterator[str | UserError]:
    """Phonemise a batch; if it fails as a whole, each alone, to know which line did it."""
    try:
        yield from phonemize([row.text for row in batch], language)
        return
    except UserError as problem:
        if len(batch) == 1:
            yield problem
            return
    for row in batch:
        yield from _phonemize_each([row], language, phonemize)


def _store_all(
    manifest: Path,
    rows: Sequence[Row],
    out: Path,
    extractor: nn.Module,
    skip_bad: bool,
    jobs: int,
    progress: bool,
) -> tuple[dict[str, Stored], list[Bad]]:
    """Frames and audio of all rows; what is on disk already is kept."""
    store = partial(_try_store, out=out, extractor=extractor)
    result: dict[str, Stored] = {}
    bad: list[Bad] = []
    with tqdm(total=len(rows), desc="frames", unit="utt", disable=not progress) as bar:
        for row, answer in zip(rows, ordered_map(store, rows, jobs), strict=True):
            bar.update()
            if isinstance(answer, Stored):
                result[row.id] = answer
                continue
            bad.append(Bad(row.line, line_error(manifest, row.line, answer)))
            if not skip_bad:
                raise bad[0].error
    return result, bad


def _try_store(row: Row, *, out: Path, extractor: nn.Module) -> Stored | UserError:
    try:
        return _store(row, out, extractor)
    except UserError as problem:
        return problem


@torch.inference_mode()
def _store(row: Row, out: Path, extractor: nn.Module) -> Stored:
    """Compute and write one utterance, unless its files are there.

    The files' names hash the audio's path, size and time, the piece of it, and the spec: a file that exists is
    the right one.
    """
    spec = _spec(extractor)
    stat = row.audio.stat()
    piece = () if row.offset is None and row.channel is None else (row.offset, row.duration, row.channel)
    key = _hash(str(row.audio), stat.st_size, stat.st_mtime_ns, asdict(spec), FORMAT, *piece)[:20]
    frames, audio = f"frames/{key[:2]}/{key}.npy", f"audio/{key[:2]}/{key}.flac"
    if (out / frames).is_file() and (out / audio).is_file():
        shape = np.load(out / frames, mmap_mode="r").shape
        return Stored(frames, list(shape), audio, soundfile.info(str(out / audio)).frames)

    wav = read_row(row, spec.sample_rate)
    array = extractor(wav[None].to(_device(extractor)))[0].cpu().half().numpy()
    if not np.isfinite(array).all():
        raise UserError(f"{row.id} gives frames that are not finite")
    for name in (frames, audio):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(
        out / audio,
        lambda part: soundfile.write(part, wav.numpy(), spec.sample_rate, subtype="PCM_16", format="FLAC"),
    )
    _write_atomically(out / frames, lambda part: np.save(part, array))
    return Stored(frames, list(array.shape), audio, len(wav))


def _cut(row: Row, phonemes: str, stored: Stored, spec: FrameSpec) -> MonoCut:
    duration = stored.samples / spec.sample_rate
    recording = Recording(
        id=row.id,
        sources=[AudioSource(type="file", channels=[0], source=stored.audio)],
        sampling_rate=spec.sample_rate,
        num_samples=stored.samples,
        duration=duration,
    )
    supervision = SupervisionSegment(
        id=row.id,
        recording_id=row.id,
        start=0.0,
        duration=duration,
        text=row.text,
        language=row.language,
        speaker=row.speaker,
        custom={"phonemes": phonemes, **({} if row.text_by is None else {"text_by": row.text_by})},
    )
    folder, name = os.path.split(stored.frames)
    frames = Array("numpy_files", storage_path=folder, storage_key=name, shape=stored.shape)
    return MonoCut(
        id=row.id,
        start=0.0,
        duration=duration,
        channel=0,
        recording=recording,
        supervisions=[supervision],
        custom={"frames": frames},
    )


def _located(cut: MonoCut, folder: Path) -> MonoCut:
    folder = folder.resolve()
    return _with_paths(cut, lambda path: str(folder / path))


def _with_paths(cut: MonoCut, change: Callable[[str], str]) -> MonoCut:
    source = replace(cut.recording.sources[0], source=change(cut.recording.sources[0].source))
    frames: Array = cut.custom["frames"]
    return replace(
        cut,
        recording=replace(cut.recording, sources=[source]),
        custom={**cut.custom, "frames": replace(frames, storage_path=change(frames.storage_path))},
    )


def _fingerprint(manifest: Path, spec: FrameSpec, splits: Sequence[str]) -> str:
    content = hashlib.sha256(read_bytes(manifest)).hexdigest()
    return _hash(str(manifest.resolve()), content, asdict(spec), sorted(splits), FORMAT)


def _finished(out: Path, fingerprint: str) -> Prepared | None:
    path = out / "prepared.json"
    if not path.is_file():
        return None
    note = json.loads(path.read_text())
    counts: dict[str, int] = note["cuts"]
    if note["fingerprint"] != fingerprint:
        return None
    if not all(cuts_path(out, split).is_file() for split, count in counts.items() if count):
        return None
    return Prepared(counts, [Bad(line, ManifestError(error)) for line, error in note["bad"]])


def _spec(extractor: nn.Module) -> FrameSpec:
    return cast(FrameSpec, extractor.spec)  # a module's attributes are tensors or modules to the type checker


def _device(module: nn.Module) -> torch.device:
    for tensor in chain(module.parameters(), module.buffers()):
        return tensor.device
    return torch.device("cpu")


def _hash(*parts: Any) -> str:
    return hashlib.sha1(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then put it in place: no half-written file is ever found."""
    part = path.with_name(f".part{os.getpid()}.{path.name}")  # keeps the ending, which says what to write
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
