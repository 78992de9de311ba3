"""Prepared cuts -> batches, for all stages, with Lhotse's dynamic bucketing.

How a run resumes to the batches it would have seen: the order of an epoch's batches is a function of (seed,
epoch), and each cut's random choices of (seed, epoch, cut id). So the place in the data is two numbers, the
epoch and how many of its batches were trained on. They are counted where a batch enters a training step, not
where the sampler hands it out, because workers and Lightning's own look-ahead draw batches before their turn.
And they are not Lightning's epoch and batch index: those move on before or after a checkpoint is written,
depending on whether it is written after a batch, after validation or at the end of an epoch.

Several processes train on what one process with so many times the batch would: the sampler of each draws the same
batches for all of them, and takes its share of the rows. What does not fit in memory or on a disk is read from
Shar archives (`tts.data.shar`).
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.base import TimeConstraint
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from codec.errors import UserError
from tts.data.datasets import SpeechDataset
from tts.data.prepare import cuts_path, read_cuts
from tts.data.shar import Limits, Shard, SharStream, is_shar, read_index, read_shards

log = logging.getLogger(__name__)


@dataclass
class Place:
    """How far the training has come: the epoch (of the data), and its batches that were trained on."""

    epoch: int = 0
    batches: int = 0

    def next_epoch(self) -> None:
        self.epoch, self.batches = self.epoch + 1, 0


class SpeechData(LightningDataModule):
    """Training and validation batches out of prepared folders, or out of Shar archives.

    With several devices the trainer needs ``use_distributed_sampler: false``: the sampler here knows of them.

    Args:
        cuts: folder with ``cuts_train.jsonl.gz`` and, to validate, ``cuts_dev.jsonl.gz``; or several, joined. Or
            one or several folders or URLs of Shar.
        dataset: the stage's dataset class, with all its settings but the cuts.
        max_duration: seconds of audio in a batch of each device, counting padding; None for no limit.
        max_cuts: utterances in a batch of each device; None for no limit. One of the two limits is needed.
        num_buckets: groups of cuts of like duration; a batch is drawn within one. Not for Shar.
        num_workers: processes that make batches; 0 makes them between the steps.
        prefetch: batches that each worker makes in advance.
        pin_memory: for a GPU: copy while it computes.
        seed: of the order of batches.
        pool: of Shar alone: cuts that each worker reads, to draw batches and prompts from.
    """

    def __init__(
        self,
        cuts: str | list[str],
        dataset: Callable[[CutSet], SpeechDataset],
        max_duration: float | None = 60.0,
        max_cuts: int | None = None,
        num_buckets: int = 10,
        num_workers: int = 1,
        prefetch: int = 4,
        pin_memory: bool = False,
        seed: int = 0,
        pool: int = 1000,
    ) -> None:
        super().__init__()
        if max_duration is None and max_cuts is None:
            raise ValueError("max_duration or max_cuts must be given")
        self.folders = [cuts] if isinstance(cuts, str) else list(cuts)
        self.dataset = dataset
        self.max_duration = max_duration
        self.max_cuts = max_cuts
        self.num_buckets = num_buckets
        self.num_workers = num_workers
        self.prefetch = prefetch
        self.pin_memory = pin_memory
        self.seed = seed
        self.pool = pool
        self.place = Place()
        self._epoch_ends: int | None = None  # after so many batches, of which only Shar knows beforehand

    def missing(self) -> str | None:
        """The first folder that holds nothing to train on; None where all do."""
        for folder in self.folders:
            if not is_shar(folder) and not cuts_path(folder, "train").is_file():
                return folder
        return None

    @property
    def streamed(self) -> bool:
        """Whether it is read from Shar.

        Raises:
            UserError: some is and some is not.
        """
        kinds = {is_shar(folder) for folder in self.folders}
        if len(kinds) > 1:
            raise UserError(
                f"{', '.join(self.folders)}: prepared folders and Shar cannot be joined; write both as Shar"
            )
        return kinds == {True}

    @cached_property
    def train_dataset(self) -> SpeechDataset:
        """All that is trained on; of Shar, the first shards."""
        if not self.streamed:
            return self.dataset(self._read("train"))
        some: list[Shard] = []
        for shard in self._shards["train"]:
            if sum(one.cuts for one in some) < self.pool:
                some.append(shard)
        return self._in_memory(some)

    @cached_property
    def dev_dataset(self) -> SpeechDataset:
        if not self.streamed:
            return self.dataset(self._read("dev"))
        return self._in_memory(self._shards["dev"])

    def train_dataloader(self) -> DataLoader[Any]:
        if not self.streamed:
            sampler = ContinuingSampler(self._sampler(self.train_dataset, shuffle=True), self.place)
            return self._loader(self.train_dataset, sampler)
        rank, ranks = self._ranks()
        stream = SharStream(
            self._shards["train"],
            self.dataset,
            self.place,
            Limits(self.max_duration, self.max_cuts),
            pool=self.pool,
            rank=rank,
            ranks=ranks,
            workers=self.num_workers,
            seed=self.seed,
        )
        self._epoch_ends = stream.batches
        return self._loader(stream, None)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Always the same batches; none where the folders hold no dev cuts."""
        if not self.dev_dataset.cuts:
            return []
        return self._loader(self.dev_dataset, self._sampler(self.dev_dataset, shuffle=False))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the batches that are trained on."""
        if self.trainer is not None and self.trainer.training:
            self.place.batches += 1
            if self.place.batches == self._epoch_ends:
                self.place.next_epoch()
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.place.epoch, "batches": self.place.batches, "ranks": self._ranks()[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a run was; with another number of devices, as far into the epoch as that was."""
        then, now = state_dict.get("ranks", 1), self._ranks()[1]
        self.place.epoch, self.place.batches = state_dict["epoch"], state_dict["batches"] * then // now
        if then != now and state_dict["batches"]:
            log.warning(
                "the run goes on with %d devices in place of %d: as far into the epoch, but in other batches",
                now,
                then,
            )

    def _ranks(self) -> tuple[int, int]:
        """The number of this process, and of all."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @cached_property
    def _shards(self) -> dict[str, list[Shard]]:
        indexes = [read_index(folder) for folder in self.folders]
        return {
            split: [shard for index in indexes for shard in index.splits.get(split, ())]
            for split in ("train", "dev")
        }

    def _in_memory(self, shards: list[Shard]) -> SpeechDataset:
        reads = self.dataset(CutSet.from_cuts([])).reads
        return self.dataset(read_shards(shards, reads) if shards else CutSet.from_cuts([]))

    def _read(self, split: str) -> CutSet:
        """The split's cuts of all folders that have it; every folder must have "train"."""
        paths = [cuts_path(folder, split) for folder in self.folders]
        cuts: list[Cut] = []
        for path in paths:
            if split == "train" or path.is_file():
                cuts.extend(read_cuts(path))
        return CutSet.from_cuts(cuts)

    def _sampler(self, dataset: SpeechDataset, *, shuffle: bool) -> "SharedSampler":
        rank, ranks = self._ranks()
        cuts = dataset.cuts
        # Lhotse estimates bins only for two cuts and more.
        bins = [2 * cuts[0].duration] if len(cuts) == 1 else None
        sampler = DynamicBucketingSampler(
            cuts,
            constraint=SharedLimits(self.max_duration, self.max_cuts, ranks=ranks),
            num_buckets=max(2, min(self.num_buckets, len(cuts))),
            duration_bins=bins,
            shuffle=shuffle,
            drop_last=False,
            seed=self.seed,
            sync_buckets=True,  # without it Lhotse 1.33 may pick an empty bucket and end the epoch early
            world_size=1,
            rank=0,
        )
        return SharedSampler(sampler, rank, ranks)

    def _loader(self, dataset: Any, sampler: Sampler[CutSet] | None) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            # those of a stream are told where to begin when they start
            persistent_workers=self.num_workers > 0 and sampler is not None,
            prefetch_factor=self.prefetch if self.num_workers else None,
            pin_memory=self.pin_memory,
        )


@dataclass
class SharedLimits(TimeConstraint):
    """Lhotse's limits for a batch that some devices share evenly: none of them gets more than one may."""

    ranks: int = 1

    def __init__(self, max_duration: float | None, max_cuts: int | None, *, ranks: int) -> None:
        super().__init__(max_duration=max_duration, max_cuts=max_cuts)
        self.ranks = ranks

    def exceeded(self) -> bool:
        return self._over(self.num_cuts)

    def close_to_exceeding(self) -> bool:
        return self._over(self.num_cuts + 1)

    def _over(self, number: int) -> bool:
        rows = math.ceil(number / self.ranks)
        too_many = self.max_cuts is not None and rows > self.max_cuts
        return too_many or (self.max_duration is not None and rows * self.longest_seen > self.max_duration)


class SharedSampler(Sampler[CutSet]):
    """This process's rows of the batches for all: every so-manieth.

    A batch of fewer cuts than processes, as the last of a bucket may be, is filled up with its own cuts: each
    process must have a batch at every step.
    """

    def __init__(self, sampler: DynamicBucketingSampler, rank: int, ranks: int) -> None:
        self.sampler, self.rank, self.ranks = sampler, rank, ranks

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[CutSet]:
        for batch in self.sampler:
            rows = list(batch)
            filled = [rows[k % len(rows)] for k in range(max(len(rows), self.ranks))]
            yield CutSet.from_cuts(filled[self.rank :: self.ranks])


class ContinuingSampler(Sampler[CutSet]):
    """Batches of an endless row of epochs; every iteration goes on from ``place`` to the end of its epoch.

    Args:
        sampler: its order depends on its seed and epoch alone.
        place: moved by whoever trains on the batches. Here it only goes to the next epoch, when one is done.

    It has no ``set_epoch``, so Lightning leaves its epoch alone.
    """

    def __init__(self, sampler: SharedSampler, place: Place) -> None:
        self.sampler = sampler
        self.place = place
        self._end: Place | None = None  # the place at the end of the epoch drawn last

    def __iter__(self) -> Iterator[CutSet]:
        if self.place == self._end:
            self.place.next_epoch()
        batches = self._rest()
        first = next(batches, None)
        if first is None and self.place.batches:  # a checkpoint of the end of an epoch
            self.place.next_epoch()
            batches = self._rest()
            first = next(batches, None)
        if first is not None:
            yield first
            yield from batches

    def _rest(self) -> Iterator[CutSet]:
        """What is left of the epoch at ``place``."""
        epoch, count = self.place.epoch, self.place.batches
        self.sampler.set_epoch(epoch)
        for batch in islice(iter(self.sampler), count, None):
            count += 1
            yield with_epoch(batch, epoch)
        self._end = Place(epoch, count)


def with_epoch(cuts: CutSet, epoch: int) -> CutSet:
    """Copies of the cuts that say which epoch they are drawn in (see `tts.data.datasets`)."""
    return CutSet.from_cuts(cut.with_custom("epoch", epoch) for cut in cuts)
