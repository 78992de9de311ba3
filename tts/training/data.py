"""Prepared cuts -> batches, for all stages, with Lhotse's dynamic bucketing.

How a run resumes to the batches it would have seen: the order of an epoch's batches is a function of (seed,
epoch), and each cut's random choices of (seed, epoch, cut id). So the place in the data is two numbers, the
epoch and how many of its batches were trained on. They are counted where a batch enters a training step, not
where the sampler hands it out, because workers and Lightning's own look-ahead draw batches before their turn.
And they are not Lightning's epoch and batch index: those move on before or after a checkpoint is written,
depending on whether it is written after a batch, after validation or at the end of an epoch.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from tts.data.datasets import SpeechDataset
from tts.data.prepare import cuts_path, read_cuts


@dataclass
class Place:
    """How far the training has come: the epoch (of the data), and its batches that were trained on."""

    epoch: int = 0
    batches: int = 0

    def next_epoch(self) -> None:
        self.epoch, self.batches = self.epoch + 1, 0


class SpeechData(LightningDataModule):
    """Training and validation batches out of prepared folders.

    With several devices the trainer needs ``use_distributed_sampler: false``: the sampler here knows of them.

    Args:
        cuts: folder with ``cuts_train.jsonl.gz`` and, to validate, ``cuts_dev.jsonl.gz``; or several, joined.
        dataset: the stage's dataset class, with all its settings but the cuts.
        max_duration: seconds of audio in a batch, counting padding; None for no limit.
        max_cuts: utterances in a batch; None for no limit. One of the two limits is needed.
        num_buckets: groups of cuts of like duration; a batch is drawn within one.
        num_workers: processes that make batches; 0 makes them between the steps.
        prefetch: batches that each worker makes in advance.
        pin_memory: for a GPU: copy while it computes.
        seed: of the order of batches.
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
        self.place = Place()

    @cached_property
    def train_dataset(self) -> SpeechDataset:
        return self.dataset(self._read("train"))

    @cached_property
    def dev_dataset(self) -> SpeechDataset:
        return self.dataset(self._read("dev"))

    def train_dataloader(self) -> DataLoader[Any]:
        sampler = ContinuingSampler(self._sampler(self.train_dataset, shuffle=True), self.place)
        return self._loader(self.train_dataset, sampler)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Always the same batches; none where the folders hold no dev cuts."""
        if not self.dev_dataset.cuts:
            return []
        return self._loader(self.dev_dataset, self._sampler(self.dev_dataset, shuffle=False))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the batches that are trained on."""
        if self.trainer is not None and self.trainer.training:
            self.place.batches += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.place)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.place.epoch, self.place.batches = state_dict["epoch"], state_dict["batches"]

    def _read(self, split: str) -> CutSet:
        """The split's cuts of all folders that have it; every folder must have "train"."""
        paths = [cuts_path(folder, split) for folder in self.folders]
        cuts: list[Cut] = []
        for path in paths:
            if split == "train" or path.is_file():
                cuts.extend(read_cuts(path))
        return CutSet.from_cuts(cuts)

    def _sampler(self, dataset: SpeechDataset, *, shuffle: bool) -> DynamicBucketingSampler:
        trainer = self.trainer
        world_size, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        cuts = dataset.cuts
        # Lhotse estimates bins only for two cuts and more.
        bins = [2 * cuts[0].duration] if len(cuts) == 1 else None
        return DynamicBucketingSampler(
            cuts,
            max_duration=self.max_duration,
            max_cuts=self.max_cuts,
            num_buckets=max(2, min(self.num_buckets, len(cuts))),
            duration_bins=bins,
            shuffle=shuffle,
            drop_last=False,
            seed=self.seed,
            sync_buckets=True,  # without it Lhotse 1.33 may pick an empty bucket and end the epoch early
            world_size=world_size,
            rank=rank,
        )

    def _loader(self, dataset: SpeechDataset, sampler: Sampler[CutSet]) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            prefetch_factor=self.prefetch if self.num_workers else None,
            pin_memory=self.pin_memory,
        )


class ContinuingSampler(Sampler[CutSet]):
    """Batches of an endless row of epochs; every iteration goes on from ``place`` to the end of its epoch.

    Args:
        sampler: its order depends on its seed and epoch alone.
        place: moved by whoever trains on the batches. Here it only goes to the next epoch, when one is done.

    It has no ``set_epoch``, so Lightning leaves its epoch alone.
    """

    def __init__(self, sampler: DynamicBucketingSampler, place: Place) -> None:
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
