import json
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch import Tensor

from codec.errors import UserError
from codec.features.mel import LogMel
from tts.data.datasets import SpeechDataset, VocoderDataset
from tts.data.prepare import prepare
from tts.data.shar import write_shar
from tts.training.data import ContinuingSampler, Place, SpeechData

SAMPLES = 2_000


def spell(texts: list[str], language: str) -> list[str]:
    return [text.lower() for text in texts]


def crops(cuts: CutSet) -> SpeechDataset:
    """The dataset with the most chance in it: one random crop of every cut."""
    return VocoderDataset(cuts, samples=SAMPLES)


def write_corpus(folder: Path, count: int, dev: int = 0) -> Path:
    """Noise of 0.5 to 0.7 s."""
    folder.mkdir()
    random = np.random.default_rng(count)
    lines = []
    for k in range(count):
        soundfile.write(folder / f"{k}.wav", 0.1 * random.standard_normal(12_000 + 300 * k), 24_000)
        row = {"audio": f"{k}.wav", "text": "a", "speaker": "ann", "language": "en-us"}
        lines.append(json.dumps({**row, "split": "dev" if k < dev else "train"}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 cuts to train on, 2 for validation."""
    root = tmp_path_factory.mktemp("data")
    manifest = write_corpus(root / "corpus", 16, dev=2)
    prepare(manifest, root / "prepared", LogMel(), phonemize=spell, progress=False)
    return root / "prepared"


def speech_data(
    folder: Path, *, workers: int = 0, dataset: Callable[[CutSet], SpeechDataset] = crops
) -> SpeechData:
    return SpeechData(str(folder), dataset, max_duration=None, max_cuts=3, num_buckets=3, num_workers=workers)


class Recorder(LightningModule):
    """Remembers the batches it is trained on and validated with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []
        self.checked: list[list[Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch.wav.clone())
        return self.weight.sum()

    def on_validation_epoch_start(self) -> None:
        self.checked.append([])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.checked[-1].append(batch.wav.clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(
    data: SpeechData, steps: int, *, ckpt: Path | None = None, callbacks: Any = (), **settings: Any
) -> Recorder:
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **settings,
    )
    trainer.fit(model, data, ckpt_path=ckpt)
    return model


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


STEPS_AN_EPOCH = 6  # 14 cuts, at most three in a batch, in three buckets
MOMENTS = {
    "after every batch": {"every_n_train_steps": 1},
    "after validation": {},
    "at the end of an epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(
    folder: Path, tmp_path: Path, moment: str, workers: int
) -> None:
    keep = ModelCheckpoint(tmp_path / "ckpt", filename="{step}", save_top_k=-1, **MOMENTS[moment])  # type: ignore[arg-type]
    full = train(speech_data(folder, workers=workers), 15, callbacks=[keep]).seen
    assert len(full) == 15
    saved = sorted((tmp_path / "ckpt").glob("*.ckpt"))
    after = sorted(int(path.stem.removeprefix("step=")) for path in saved)
    assert {6, 12} <= set(after)
    # the middle of an epoch, its last batch, the first of the next
    for done in {4, 6, 7, 12} & set(after) if workers == 0 else {6}:
        resumed = train(
            speech_data(folder, workers=workers), 15, ckpt=tmp_path / "ckpt" / f"step={done}.ckpt"
        )
        assert same(resumed.seen, full[done:]), done


@pytest.mark.filterwarnings("ignore")
def test_epochs_differ_in_order_and_crops_and_validation_never_does(folder: Path) -> None:
    data = speech_data(folder)
    run = train(data, 3 * STEPS_AN_EPOCH)
    epochs = [run.seen[n : n + STEPS_AN_EPOCH] for n in range(0, len(run.seen), STEPS_AN_EPOCH)]
    assert [sum(map(len, epoch)) for epoch in epochs] == [14, 14, 14]
    rows = [{tuple(row.tolist()) for batch in epoch for row in batch} for epoch in epochs]
    assert not rows[0] & rows[1] and not rows[1] & rows[2]
    assert len(run.checked) == 3
    assert sum(map(len, run.checked[0])) == 2
    assert same(run.checked[0], run.checked[1]) and same(run.checked[1], run.checked[2])


def drawn(data: SpeechData, epoch: int = 0) -> list[list[str]]:
    data.place = Place(epoch)
    return [[cut.id for cut in cuts] for cuts in data.train_dataloader().sampler]


def test_an_epoch_has_every_cut_once(folder: Path) -> None:
    data = speech_data(folder)
    everything = Counter(cut.id for cut in data.train_dataset.cuts)
    assert len(everything) == 14
    for epoch in range(5):
        batches = drawn(data, epoch)
        assert Counter(chain(*batches)) == everything
        assert len(batches) == STEPS_AN_EPOCH
        assert all(len(batch) <= 3 for batch in batches)
    assert drawn(data, 0) != drawn(data, 1)
    assert drawn(data, 1) == drawn(speech_data(folder), 1)


def test_batches_keep_to_their_seconds(folder: Path) -> None:
    data = SpeechData(str(folder), crops, max_duration=1.5, num_workers=0)
    cuts = {cut.id: cut for cut in data.train_dataset.cuts}
    batches = drawn(data)
    assert {len(batch) for batch in batches} <= {1, 2, 3}
    # a batch is full when one more cut as long as its longest would not fit
    for batch in batches:
        longest = max((cuts[i].duration for i in batch[:-1]), default=0)
        assert len(batch) * longest <= 1.5


class Device:
    """What of a trainer the sampler asks for."""

    def __init__(self, rank: int) -> None:
        self.global_rank, self.world_size, self.training = rank, 2, True


@pytest.mark.parametrize("epoch", range(3))
def test_devices_together_have_the_batches_of_one_with_larger_ones(folder: Path, epoch: int) -> None:
    shares = []
    for rank in range(2):
        data = speech_data(folder)
        data.trainer = Device(rank)  # type: ignore[assignment]
        shares.append(drawn(data, epoch))
    doubled = SpeechData(str(folder), crops, max_duration=None, max_cuts=6, num_buckets=3, num_workers=0)
    whole = drawn(doubled, epoch)
    assert len(shares[0]) == len(shares[1]) == len(whole)
    for first, second, batch in zip(*shares, whole, strict=True):
        assert first == batch[::2]
        assert second == (batch[1::2] or batch)  # nobody is left without a batch
    assert Counter(chain(*whole)) == Counter(cut.id for cut in data.train_dataset.cuts)


def test_no_device_gets_more_than_its_seconds(folder: Path) -> None:
    for rank in range(2):
        data = SpeechData(str(folder), crops, max_duration=1.5, num_buckets=2, num_workers=0)
        data.trainer = Device(rank)  # type: ignore[assignment]
        cuts = {cut.id: cut for cut in data.train_dataset.cuts}
        batches = drawn(data)
        assert max(map(len, batches)) == 2
        for batch in batches:
            assert len(batch) * max((cuts[i].duration for i in batch[:-1]), default=0) <= 1.5


def test_a_run_goes_on_with_other_devices_as_far_into_its_epoch(folder: Path) -> None:
    data, more = speech_data(folder), speech_data(folder)
    data.place = Place(2, 5)
    more.trainer = Device(0)  # type: ignore[assignment]
    more.load_state_dict(data.state_dict())
    assert more.place == Place(2, 2)
    data.load_state_dict(more.state_dict())
    assert data.place == Place(2, 4)


def test_the_sampler_goes_on_from_its_place(folder: Path) -> None:
    data = speech_data(folder)
    order = [drawn(data, epoch) for epoch in range(3)]
    place = Place(1, 2)
    sampler = ContinuingSampler(data._sampler(data.train_dataset, shuffle=True), place)

    def ids() -> list[list[str]]:
        return [[cut.id for cut in cuts] for cuts in sampler]

    assert ids() == order[1][2:]
    assert place == Place(1, 2)  # drawing moves nothing
    assert ids() == order[1][2:]
    place.batches = STEPS_AN_EPOCH
    assert ids() == order[2]
    assert place == Place(2, 0)
    assert {cut.epoch for cuts in sampler for cut in cuts} == {2}
    # at the end of an epoch that another process drew
    place = Place(0, STEPS_AN_EPOCH)
    sampler = ContinuingSampler(data._sampler(data.train_dataset, shuffle=True), place)
    assert ids() == order[1]
    assert place == Place(1, 0)


@pytest.fixture(scope="module")
def shar(folder: Path) -> Path:
    """The same 14 cuts in four shards."""
    write_shar(folder, folder.with_name("shar"), shard_size=4, progress=False)
    return folder.with_name("shar")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_shar_goes_on_to_the_batches_of_an_uninterrupted_one(
    shar: Path, tmp_path: Path, workers: int
) -> None:
    def data() -> SpeechData:
        one = speech_data(shar, workers=workers)
        one.pool = 4
        return one

    keep = ModelCheckpoint(tmp_path / "ckpt", filename="{step}", save_top_k=-1, every_n_train_steps=1)
    run = train(data(), 12, callbacks=[keep])
    full = run.seen
    assert len(full) == 12
    assert len(run.checked) == 2 and sum(map(len, run.checked[0])) == 2  # 14 cuts are five batches of three
    assert not any(same([one], [other]) for one in full[:5] for other in full[5:10])
    for done in (3, 5, 7) if workers == 0 else (3,):
        resumed = train(data(), 12, ckpt=tmp_path / "ckpt" / f"step={done}.ckpt")
        assert same(resumed.seen, full[done:]), done


def test_of_shar_a_sample_shows_what_the_data_is(shar: Path, folder: Path) -> None:
    data = SpeechData(str(shar), crops, pool=5)
    some = data.train_dataset.cuts
    assert len(some) == 8  # two shards
    there = {cut.id for cut in speech_data(folder).train_dataset.cuts}
    assert {cut.id for cut in some} < there
    assert len(data.dev_dataset.cuts) == 2
    assert data.missing() is None and SpeechData([str(shar), "gone"], crops).missing() == "gone"
    with pytest.raises(UserError, match="cannot be joined; write both as Shar"):
        SpeechData([str(shar), str(folder)], crops).train_dataloader()
    both = SpeechData([str(shar), str(shar)], crops, pool=100)
    assert len(both.train_dataset.cuts) == 28


def test_several_folders_are_joined(folder: Path, tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "more", 2, dev=1)
    prepare(manifest, tmp_path / "train_only", LogMel(), phonemize=spell, splits=("train",), progress=False)
    data = SpeechData([str(folder), str(tmp_path / "train_only")], crops)
    assert len(data.train_dataset.cuts) == 15
    assert len(data.dev_dataset.cuts) == 2
    alone = SpeechData(str(tmp_path / "train_only"), crops, num_workers=0)
    assert len(alone.train_dataset.cuts) == 1
    assert [batch.wav.shape for batch in alone.train_dataloader()] == [(1, SAMPLES)]
    assert alone.val_dataloader() == []


def test_a_folder_that_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no prepared cuts .*cuts_train"):
        SpeechData(str(tmp_path), crops).train_dataloader()
    with pytest.raises(ValueError, match="max_duration or max_cuts"):
        SpeechData(str(tmp_path), crops, max_duration=None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "settings", "found"),
    [("AcousticDataset", {"p_cross": 0.25, "max_prompt": 2.0}, (0.25, 47)), ("TokenizerDataset", {}, None)],
)
def test_a_config_names_the_dataset_and_its_settings(
    folder: Path, name: str, settings: Any, found: Any
) -> None:
    dataset = {"class_path": f"tts.data.datasets.{name}", "init_args": settings}
    cli = LightningCLI(
        Recorder,
        LightningDataModule,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        trainer_defaults={"accelerator": "cpu", "logger": False},
        args={
            "data": {
                "class_path": "tts.training.data.SpeechData",
                "init_args": {"cuts": str(folder), "dataset": dataset, "max_duration": 7.0},
            }
        },
    )
    made = cli.datamodule.train_dataset
    assert type(made).__name__ == name
    assert len(made.cuts) == 14
    assert cli.datamodule.max_duration == 7.0
    if found:
        assert (made.p_cross, made.max_prompt) == found
