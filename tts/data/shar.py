"""Lhotse Shar: prepared cuts in archives that are read from front to back, on a disk or in an object store.

    <folder>/shar.json                      written last: the shards of each split, and where their files are
    <folder>/<split>/cuts.000000.jsonl.gz   the cuts, with their phonemes and, where there are, tokens and durations
    <folder>/<split>/frames.000000.tar      their frames, the files of the prepared corpus as they are
    <folder>/<split>/recording.000000.tar   their audio, likewise

Any tool that reads Shar reads each split. The folder may be a URL: `lhotse.serialization.open_best` opens it, with
smart_open where that is installed.

Training on a corpus that fits on no disk, let alone in memory, cannot draw any utterance at any time. What it does:

- Each process, and each of its loading workers, has shards of its own, dealt anew in every epoch.
- It reads as many shards as make a *pool* of so many cuts. A pool is to it what the whole corpus is to a training
  on a prepared folder: its batches, and other utterances of a speaker for prompts, come out of the pool.
- So that a speaker's utterances meet in a pool, they are written in small groups, and the groups in random order:
  a shard has many speakers, and of each more than one utterance.
- An epoch is as many batches as would hold the corpus if all were full, the same number in every process. Batches
  are never quite full, so a few per cent of the cuts are not reached in an epoch; others in the next.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from lhotse import CutSet, MonoCut
from lhotse.cut import Cut
from lhotse.dataset.sampling import SimpleCutSampler
from lhotse.serialization import open_best
from lhotse.shar.utils import to_shar_placeholder
from lhotse.shar.writers.cut import JsonlShardWriter
from lhotse.shar.writers.tar import TarWriter
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from codec.errors import UserError
from codec.spec import FrameSpec
from tts.data.datasets import SpeechDataset, speaker_of
from tts.data.manifest import SPLITS
from tts.data.prepare import cuts_path, read_cuts, read_spec

FORMAT = 1
INDEX = "shar.json"
DATA = ("frames", "recording")
JITTER = 0.05  # of the durations that a pool is sorted by, so that an epoch's batches are not the last one's
LEFT_OUT = "left_out"  # custom field of a cut that is there only to keep its shard's files in step


@dataclass(frozen=True)
class Shard:
    """Some hundreds of cuts.

    Attributes:
        files: path or URL of "cuts" and of each kind of data.
        cuts, seconds: in it.
    """

    files: Mapping[str, str]
    cuts: int
    seconds: float


@dataclass(frozen=True)
class Shar:
    """What an index says.

    Attributes:
        splits: the shards of each.
        spec: the frames', where known.
    """

    splits: Mapping[str, Sequence[Shard]]
    spec: FrameSpec | None = None


# ------------------------------------------------------------------------------------------------------- writing


def write_shar(
    folder: str | Path,
    out: str | Path,
    *,
    shard_size: int = 1000,
    group: int = 8,
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[str, int]:
    """Write prepared cuts, with tokens or without, as Shar.

    Args:
        folder: of `tts.data.prepare` or `tts.data.extract`.
        out: folder or URL to write to.
        shard_size: cuts in a shard. A shard is what a worker reads at least; each needs one of its own.
        group: utterances of one speaker that are written one after another; validation data stays in order.
        seed: of the order.
        force: write over a Shar that is there.

    Returns:
        The number of cuts in each split.

    Raises:
        UserError: there are no prepared cuts, or something is in `out` already.
    """
    splits = [split for split in SPLITS if cuts_path(folder, split).is_file()]
    if not splits:
        read_cuts(cuts_path(folder, "train"))  # raises, and says what is missing
    if shard_size < 1:
        raise UserError(f"{shard_size} cuts in a shard: at least one is needed")
    _make_room(str(out), force)
    counts, index = {}, {}
    for split in splits:
        cuts = list(read_cuts(cuts_path(folder, split)))
        if split == "train":
            cuts = in_groups(cuts, group, seed)
        _make_folder(f"{out}/{split}")
        _write_shards(cuts, f"{out}/{split}", shard_size, split if progress else None)
        shards = [cuts[start : start + shard_size] for start in range(0, len(cuts), shard_size)]
        index[split] = split_index(split, [(len(s), sum(cut.duration for cut in s)) for s in shards])
        counts[split] = len(cuts)
    spec = asdict(read_spec(folder)) if (Path(folder) / "prepared.json").is_file() else None
    write_index(out, index, spec)
    return counts


def in_groups(cuts: Sequence[Cut], size: int, seed: int) -> list[Cut]:
    """The cuts in an order that is random but for this: at most `size` of a speaker stand together, and no group
    is much smaller than others of its speaker."""
    draws = random.Random(seed)
    by_speaker: dict[str, list[Cut]] = defaultdict(list)
    for cut in cuts:
        by_speaker[speaker_of(cut)].append(cut)
    groups = []
    for speaker in sorted(by_speaker):
        own = by_speaker[speaker]
        draws.shuffle(own)
        number = -(-len(own) // size)
        groups += [own[k::number] for k in range(number)]
    draws.shuffle(groups)
    return [cut for group in groups for cut in group]


def split_index(split: str, shards: Sequence[tuple[int, float]], **elsewhere: str) -> dict[str, Any]:
    """What the index says of a split.

    Args:
        shards: cuts and seconds of each.
        elsewhere: pattern of the files of a kind of data that is not in the split's folder.
    """
    files = {"cuts": f"{split}/cuts.%06d.jsonl.gz"}
    files |= {name: elsewhere.get(name, f"{split}/{name}.%06d.tar") for name in DATA}
    return {"files": files, "shards": [[number, round(seconds, 3)] for number, seconds in shards]}


def write_index(out: str | Path, splits: Mapping[str, Any], spec: Mapping[str, Any] | None) -> None:
    """Write what makes a Shar of the files in `out`."""
    index = {"format": FORMAT, "spec": spec, "splits": splits}
    with open_best(f"{out}/{INDEX}", "w") as file:
        file.write(json.dumps(index, indent=1))


def _write_shards(cuts: Sequence[MonoCut], out: str, size: int, title: str | None) -> None:
    tars = {name: TarWriter(f"{out}/{name}.%06d.tar", size) for name in DATA}
    manifest = JsonlShardWriter(f"{out}/cuts.%06d.jsonl.gz", size)
    try:
        for cut in tqdm(cuts, desc=f"shards of {title}", unit="utt", disable=title is None):
            name, frames, recording = member(cut.id), cut.custom["frames"], cut.recording
            _add(tars["frames"], name, Path(frames.storage_path, frames.storage_key), frames)
            _add(tars["recording"], name, Path(recording.sources[0].source), recording)
            there = cut.with_custom("frames", to_shar_placeholder(frames))
            there.id, there.recording = name, to_shar_placeholder(recording)
            manifest.write(there)
    finally:
        for writer in (*tars.values(), manifest):
            writer.close()


def _add(tar: TarWriter, name: str, path: Path, manifest: Any) -> None:
    """A file as it is, and what it is, as Lhotse's own writers put them into the archive."""
    tar.write(f"{name}{path.suffix}", BytesIO(path.read_bytes()))
    note = json.dumps(to_shar_placeholder(manifest).to_dict()) + "\n"
    tar.write(f"{name}.json", BytesIO(note.encode()), count=False)


def member(cut_id: str) -> str:
    """The cut's name in an archive: its id, with the parts of a path that would not come back the same changed."""
    path = PurePosixPath(cut_id)
    return cut_id if str(path) == cut_id and path.name else f"{path}~"


def _make_room(out: str, force: bool) -> None:
    if "://" in out:
        return
    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UserError(f"{out}: not empty; choose another --out, or write over it with --force")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)  # cut off from here on, it must not look finished
    for split in SPLITS:
        for old in [*folder.glob(f"{split}/*.tar"), *folder.glob(f"{split}/cuts.*.jsonl.gz")]:
            old.unlink()


def _make_folder(out: str) -> None:
    if "://" not in out:
        Path(out).mkdir(parents=True, exist_ok=True)


# ------------------------------------------------------------------------------------------------------- reading


def is_shar(folder: str | Path) -> bool:
    """Whether it is the folder of a Shar; a URL is taken for one."""
    return "://" in str(folder) or (Path(folder) / INDEX).is_file()


def read_index(folder: str | Path) -> Shar:
    """The shards of a Shar.

    Raises:
        UserError: there is none, it cannot be opened, or a later version wrote it.
    """
    where = f"{folder}/{INDEX}"
    try:
        with open_best(where, "r") as file:
            index = json.loads(file.read())
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: no Shar can be read there ({why}); `python train.py shar` writes one"
        ) from error
    if index.get("format") != FORMAT:
        raise UserError(
            f"{where}: format {index.get('format')!r}, this version reads {FORMAT}; write it anew"
        )
    splits = {}
    for split, one in index["splits"].items():
        splits[split] = [
            Shard({name: _at(str(folder), path % k) for name, path in one["files"].items()}, number, seconds)
            for k, (number, seconds) in enumerate(one["shards"])
        ]
    return Shar(splits, FrameSpec(**index["spec"]) if index["spec"] else None)


def _at(folder: str, path: str) -> str:
    # not Path: it would take one slash from a URL's two
    return path if path.startswith("/") or "://" in path else f"{folder}/{path}"


def read_shards(shards: Sequence[Shard], reads: Sequence[str] = DATA, *, whole: bool = False) -> CutSet:
    """The cuts of some shards, one after another, each with its data in memory.

    Args:
        reads: the kinds of data to read; the others' files are not opened.
        whole: also those that were left out.
    """
    fields = {name: [shard.files[name] for shard in shards] for name in ("cuts", *reads)}
    cuts = CutSet.from_shar(fields=fields).map(_plain)
    return cuts if whole else cuts.filter(_is_in)


def _plain(cut: Cut) -> Cut:
    """Without what Lhotse writes on each cut that it reads."""
    for name in ("shard_origin", "shar_epoch"):
        cut.custom.pop(name, None)
    return cut


def _is_in(cut: Cut) -> bool:
    return LEFT_OUT not in cut.custom


@dataclass(frozen=True)
class Limits:
    """Of a batch: seconds, counting padding, and cuts; None for no limit."""

    max_duration: float | None
    max_cuts: int | None

    def batches(self, shards: Sequence[Shard]) -> float:
        """How many batches all the cuts make if all are full."""
        by_cuts = sum(shard.cuts for shard in shards) / self.max_cuts if self.max_cuts else 0.0
        by_time = sum(shard.seconds for shard in shards) / self.max_duration if self.max_duration else 0.0
        return max(by_cuts, by_time)


class Place(Protocol):
    """Where in the data a training is: the epoch, and how many of its batches are done with."""

    epoch: int
    batches: int


class SharStream(IterableDataset[Any]):
    """The training batches of one process, from shards that are read in turn; see the head of this file.

    Args:
        shards: of the corpus, the same in every process.
        dataset: (cuts of a pool) -> the stage's dataset.
        place: where an iteration begins; moved by whoever trains on the batches.
        limits: of a batch.
        pool: cuts that are read before the first is drawn.
        rank, ranks: number of this process, and of all.
        workers: that will iterate; 0 and 1 are the same.
        seed: of all order.

    Raises:
        UserError: there are fewer shards than workers.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        dataset: Callable[[CutSet], SpeechDataset],
        place: Place,
        limits: Limits,
        *,
        pool: int = 1000,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 1,
        seed: int = 0,
    ) -> None:
        self.shards, self.dataset, self.place, self.limits = list(shards), dataset, place, limits
        self.pool, self.rank, self.ranks, self.workers = pool, rank, ranks, max(1, workers)
        self.seed = seed
        self.reads = dataset(CutSet.from_cuts([])).reads
        if len(self.shards) < self.ranks * self.workers:
            raise UserError(
                f"{len(self.shards)} shards cannot be shared by {self.ranks} processes with {self.workers} workers "
                "each; write smaller ones (`python train.py shar --shard-size`), or lower data.num_workers"
            )

    @property
    def batches(self) -> int:
        """In an epoch of this process, and of every other."""
        return max(1, -int(-self.limits.batches(self.shards) // self.ranks))

    def __iter__(self) -> Iterator[Any]:
        epoch, done = self.place.epoch, self.place.batches
        info = get_worker_info()
        first = info.id if info is not None else 0
        # The loader asks its workers in turn, from the first one on: in an epoch that goes on after `done` batches
        # the first one's turn is that of the worker whose batch would have been next.
        worker = (done + first) % self.workers
        mine = range(worker, self.batches, self.workers)
        skipped = len(range(worker, done, self.workers))
        stream = self.stream(epoch, worker, skipped)
        for _ in mine[skipped:]:
            yield next(stream)

    def stream(self, epoch: int, worker: int, skip: int = 0) -> Iterator[Any]:
        """A worker's batches without end, but for the first `skip`: where these make whole pools, only the pools'
        manifests are read."""
        for name, shards in self.pools(epoch, worker):
            if skip:
                number = len(self.split(read_shards(shards, ()), name))
                if number <= skip:
                    skip -= number
                    continue
            cuts = [cut.with_custom("epoch", epoch) for cut in read_shards(shards, self.reads)]
            dataset = self.dataset(CutSet.from_cuts(cuts))
            for batch in self.split(cuts, name)[skip:]:
                yield dataset[batch]
            skip = 0

    def pools(self, epoch: int, worker: int) -> Iterator[tuple[str, list[Shard]]]:
        """A worker's pools without end, each with a name of its own: all its shards once, then dealt anew."""
        for turn in count():
            order = list(self.shards)
            random.Random(f"{self.seed}/{epoch}/{turn}").shuffle(order)
            own = order[self.rank + self.ranks * worker :: self.ranks * self.workers]
            pool: list[Shard] = []
            for k, shard in enumerate(own):
                pool.append(shard)
                if sum(one.cuts for one in pool) >= self.pool or k == len(own) - 1:
                    yield f"{self.seed}/{epoch}/{turn}/{self.rank}/{worker}/{k}", pool
                    pool = []

    def split(self, cuts: Any, name: str) -> list[CutSet]:
        """A pool's batches, each of cuts of like duration, in random order."""
        draws = random.Random(name)
        by_length = sorted(cuts, key=lambda cut: cut.duration * draws.uniform(1 - JITTER, 1 + JITTER))
        sampler = SimpleCutSampler(
            CutSet.from_cuts(by_length),
            max_duration=self.limits.max_duration,
            max_cuts=self.limits.max_cuts,
            world_size=1,
            rank=0,
        )
        batches = list(sampler)
        draws.shuffle(batches)
        return batches
