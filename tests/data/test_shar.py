"""Shar: what is written is what is read, in an order in which speakers meet; a stream gives the batches that the
same cuts give out of a folder, deals the shards out, and goes on where it was."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from lhotse.serialization import IOBackend, get_current_io_backend, set_current_io_backend
from torch.utils.data import DataLoader

from codec.errors import UserError
from codec.features.mel import LogMel
from tts.data.datasets import (
    AcousticDataset,
    LMDataset,
    SpeechDataset,
    TokenizerDataset,
    VocoderDataset,
    frames_of,
    speaker_of,
)
from tts.data.extract import Team, add_tokens, add_tokens_to_shar
from tts.data.prepare import cuts_path, prepare, read_cuts
from tts.data.shar import Limits, SharStream, in_groups, is_shar, member, read_index, read_shards, write_shar
from tts.lm.layout import Layout
from tts.text.symbols import DEFAULT_SYMBOLS

SPEAKERS = ("ann", "bob", "cat")
TRAIN, DEV = 24, 2


def encode(frames: Sequence[Any], segments: Sequence[Sequence[int]]) -> list[Any]:
    """Tokens that say which frames they are of; what is said as "q" cannot be aligned."""
    answers: list[Any] = []
    for array, labels in zip(frames, segments, strict=True):
        count = -(-len(array) // 4)
        tokens = [int(abs(float(array[4 * n].sum()))) % 625 for n in range(count)]
        q = DEFAULT_SYMBOLS.encode("q")[0]
        answers.append(None if q in labels else (tokens, [count] + [0] * (len(labels) - 1)))
    return answers


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 cuts of three speakers to train on, 2 for validation: noise of 0.3 to 0.6 s."""
    root = tmp_path_factory.mktemp("shar")
    random, rows = np.random.default_rng(0), []
    for k in range(TRAIN + DEV):
        soundfile.write(root / f"{k}.wav", 0.1 * random.standard_normal(7_200 + 300 * k), 24_000)
        text = "aq" if k == 5 else "aea"
        row = {"audio": f"{k}.wav", "text": text, "speaker": SPEAKERS[k % 3], "language": "en-us"}
        rows.append(json.dumps(row | {"split": "train" if k < TRAIN else "dev"}) + "\n")
    (root / "manifest.jsonl").write_text("".join(rows))
    spell = lambda texts, language: [text.lower() for text in texts]  # noqa: E731
    prepare(root / "manifest.jsonl", root / "prepared", LogMel(), phonemize=spell, progress=False)
    return root / "prepared"


@pytest.fixture(scope="module")
def tokens(prepared: Path) -> Path:
    """The same with tokens; one cannot be aligned."""
    out = prepared.with_name("tokens")
    for split in ("train", "dev"):
        add_tokens(read_cuts(cuts_path(prepared, split)), encode, cuts_path(out, split), progress=False)
    return out


@pytest.fixture(scope="module")
def shar(tokens: Path) -> Path:
    """23 cuts in six shards."""
    out = tokens.with_name("shar")
    assert write_shar(tokens, out, shard_size=4, group=2, progress=False) == {"train": TRAIN - 1, "dev": DEV}
    return out


def by_id(cuts: CutSet) -> dict[str, Any]:
    return {cut.id: cut for cut in cuts}


# ------------------------------------------------------------------------------------------ writing and reading


def test_what_is_written_is_what_is_read(tokens: Path, shar: Path) -> None:
    for split, shards in read_index(shar).splits.items():
        there = by_id(read_cuts(cuts_path(tokens, split)))
        found = list(read_shards(shards))
        assert sorted(cut.id for cut in found) == sorted(there)
        assert [cut.id for cut in CutSet.from_shar(in_dir=shar / split)] == [cut.id for cut in found]
        for cut in found:
            old = there[cut.id]
            np.testing.assert_array_equal(frames_of(cut), frames_of(old))
            np.testing.assert_array_equal(cut.load_audio(), old.load_audio())
            start, count = 1000 / 24_000, 2000 / 24_000
            np.testing.assert_array_equal(
                cut.recording.load_audio(offset=start, duration=count),
                old.recording.load_audio(offset=start, duration=count),
            )
            assert (cut.tokens, cut.durations) == (old.tokens, old.durations)
            assert cut.supervisions == old.supervisions and cut.duration == old.duration
            assert set(cut.custom) == set(old.custom)


def test_the_index_counts(shar: Path) -> None:
    shards = read_index(shar).splits["train"]
    assert [shard.cuts for shard in shards] == [4, 4, 4, 4, 4, 3]
    for shard in shards:
        cuts = list(read_shards([shard], ()))
        assert len(cuts) == shard.cuts
        assert sum(cut.duration for cut in cuts) == pytest.approx(shard.seconds, abs=1e-3)


def test_only_what_is_wanted_is_opened(shar: Path) -> None:
    shards = read_index(shar).splits["train"][:1]
    assert {cut.recording.sources[0].type for cut in read_shards(shards, ("frames",))} == {"shar"}
    assert {cut.frames.storage_type for cut in read_shards(shards, ("recording",))} == {"shar"}
    assert {cut.recording.sources[0].type for cut in read_shards(shards, ("recording",))} == {"memory"}


@dataclass
class Named:
    """Of a cut its name and speaker."""

    id: str
    speaker: str

    @property
    def supervisions(self) -> list["Named"]:
        return [self]


def test_groups_hold_utterances_of_one_speaker_in_random_order() -> None:
    cuts = [
        Named(f"{speaker}{n}", speaker)
        for speaker, count in (("a", 9), ("b", 8), ("c", 1))
        for n in range(count)
    ]
    order = in_groups(cuts, 4, 0)  # type: ignore[arg-type]
    assert sorted(cut.id for cut in order) == sorted(cut.id for cut in cuts)
    runs: list[list[str]] = [[]]
    for cut in order:
        if runs[-1] and runs[-1][-1][0] != cut.id[0]:
            runs.append([])
        runs[-1].append(cut.id)
    # of nine three threes, of eight two fours, but two groups of a speaker may come to stand together
    assert {len(run) for run in runs if run[0][0] == "a"} <= {3, 6, 9}
    assert {len(run) for run in runs if run[0][0] == "b"} <= {4, 8}
    assert [cut.id for cut in in_groups(cuts, 4, 0)] == [cut.id for cut in order]  # type: ignore[arg-type]
    assert [cut.id for cut in in_groups(cuts, 4, 1)] != [cut.id for cut in order]  # type: ignore[arg-type]


def test_names_come_back_from_an_archive() -> None:
    for name in ("a/1.wav", "/abs/1.wav", "../1.wav", "1.tar.gz#2", "ä b"):
        assert member(name) == name
    for name in ("./1.wav", "a//1.wav", "a/./b", "a/"):
        changed = Path(f"{member(name)}.flac")
        assert str(changed.parent / changed.stem) == member(name) != name


def test_nothing_is_overwritten_unasked(tokens: Path, shar: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not empty; .*--force"):
        write_shar(tokens, shar, progress=False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    write_shar(tokens, tmp_path / "out", shard_size=4, force=True, progress=False)
    write_shar(tokens, tmp_path / "out", shard_size=20, force=True, progress=False)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert len(list((tmp_path / "out" / "train").glob("cuts.*"))) == 2  # none of the six is left


def test_what_is_no_shar(tmp_path: Path, shar: Path) -> None:
    assert is_shar(shar) and not is_shar(tmp_path)
    with pytest.raises(UserError, match="no Shar can be read there"):
        read_index(tmp_path)
    with pytest.raises(UserError, match="no prepared cuts"):
        write_shar(tmp_path, tmp_path / "out")
    (tmp_path / "shar.json").write_text('{"format": 2}')
    with pytest.raises(UserError, match="format 2, this version reads 1"):
        read_index(tmp_path)
    with pytest.raises(UserError, match=r"://nowhere.*: no Shar can be read there"):
        read_index("nosuchstore://nowhere/shar")


class Store(IOBackend):
    """An object store: it knows whole names, and nothing of folders."""

    folder: Path
    opened: list[str]

    def open(self, identifier: Any, mode: str) -> Any:
        name = str(identifier).removeprefix("store://bucket/")
        self.opened.append(name)
        if name.endswith(".gz"):
            import gzip

            return gzip.open(self.folder / name, mode if "b" in mode else mode + "t")
        return open(self.folder / name, mode)

    def is_applicable(self, identifier: Any) -> bool:
        return str(identifier).startswith("store://bucket/")

    def handles_special_case(self, identifier: Any) -> bool:
        return self.is_applicable(identifier)


@pytest.fixture
def store(shar: Path) -> Iterator[Store]:
    """``store://bucket/`` is the folder that holds the Shar."""
    backend, before = Store(), get_current_io_backend()
    backend.folder, backend.opened = shar.parent, []
    before.backends.insert(0, backend)
    yield backend
    before.backends.remove(backend)
    set_current_io_backend(before)


def test_an_object_store_is_read_from_front_to_back(shar: Path, store: Store) -> None:
    shards = read_index("store://bucket/shar").splits["train"]
    found, local = read_shards(shards), read_shards(read_index(shar).splits["train"])
    for cut, same in zip(found, local, strict=True):
        assert cut.id == same.id
        np.testing.assert_array_equal(frames_of(cut), frames_of(same))
    kinds = ("cuts.{:06d}.jsonl.gz", "frames.{:06d}.tar", "recording.{:06d}.tar")
    assert Counter(store.opened) == Counter(
        ["shar/shar.json", *(f"shar/train/{kind.format(k)}" for k in range(6) for kind in kinds)]
    )


# ------------------------------------------------------------------------------------------------------ streams


@dataclass
class Here:
    epoch: int = 0
    batches: int = 0


def layout() -> Layout:
    return Layout(len(DEFAULT_SYMBOLS), 625)


DATASETS: dict[str, Any] = {
    "lm": partial(LMDataset, layout=layout(), p_prompt=0.7),
    "acoustic": partial(AcousticDataset, min_prompt=0.1, max_prompt=0.2, max_target=0.3),
    "vocoder": partial(VocoderDataset, samples=2000, gain_db=6),
    "tokenizer": TokenizerDataset,
}


class Ids(SpeechDataset):
    """A batch is its cuts' names."""

    reads = ()

    def __getitem__(self, cuts: CutSet) -> list[str]:
        return [cut.id for cut in cuts]


def stream(shar: Path, dataset: Any = Ids, place: Here | None = None, **settings: Any) -> SharStream:
    limits = Limits(None, 3)
    return SharStream(
        read_index(shar).splits["train"], dataset, place or Here(), limits, **{"pool": 8, **settings}
    )


def equal(one: Any, other: Any) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("stage", DATASETS)
def test_a_pool_of_all_gives_the_batches_of_the_folder(stage: str, tokens: Path, shar: Path) -> None:
    """So it gives the losses, too: the batches are the same, bit for bit."""
    names = list(stream(shar, place=Here(epoch=2), pool=100))
    batches = list(stream(shar, DATASETS[stage], Here(epoch=2), pool=100))
    cuts = by_id(read_cuts(cuts_path(tokens, "train")))
    assert Counter(name for batch in names for name in batch) == Counter(list(cuts))
    folder = DATASETS[stage](CutSet.from_cuts(cuts.values()))
    for ids, batch in zip(names, batches, strict=True):
        assert equal(batch, folder[CutSet.from_cuts(cuts[i].with_custom("epoch", 2) for i in ids)])


def test_prompts_come_from_the_pool(shar: Path, tokens: Path) -> None:
    """Four in five cuts, and more, have another utterance of their speaker in their pool."""
    paired = total = 0
    for _, shards in islice(stream(shar).pools(0, 0), 3):
        speakers = Counter(speaker_of(cut) for cut in read_shards(shards, ()))
        paired += sum(count for count in speakers.values() if count > 1)
        total += sum(speakers.values())
    assert total == TRAIN - 1 and paired / total > 0.8


def test_batches_keep_to_their_limits_and_hold_cuts_of_like_duration(shar: Path, tokens: Path) -> None:
    durations = {cut.id: cut.duration for cut in read_cuts(cuts_path(tokens, "train"))}
    limited = SharStream(read_index(shar).splits["train"], Ids, Here(), Limits(1.5, None), pool=100)
    for batch in limited:
        assert len(batch) * max(durations[i] for i in batch[:-1] or batch) <= 1.5
    spread = [
        max(map(durations.__getitem__, batch)) - min(map(durations.__getitem__, batch))
        for batch in stream(shar, pool=100)
    ]
    assert max(spread) < 0.1 < max(durations.values()) - min(durations.values())


def test_epochs_differ(shar: Path) -> None:
    epochs = [list(stream(shar, place=Here(epoch))) for epoch in range(3)]
    assert epochs[0] == list(stream(shar, place=Here(0)))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(stream(shar, seed=1))
    for epoch in epochs:
        names = Counter(name for batch in epoch for name in batch)
        assert max(names.values()) == 1 and len(names) >= TRAIN - 6  # pools end in batches that are not full


def test_processes_and_workers_share_the_shards(shar: Path) -> None:
    seen: list[Counter[str]] = []
    for rank in range(2):
        share = stream(shar, rank=rank, ranks=2, workers=3, pool=4)
        assert share.batches == 4  # 23 cuts are eight batches of three, four for each process
        for worker in range(3):
            (_, shards), *_ = islice(share.pools(1, worker), 1)
            seen.append(Counter(cut.id for cut in read_shards(shards, ())))
    assert sum(seen, Counter()) == Counter(
        cut.id for cut in read_shards(read_index(shar).splits["train"], ())
    )
    with pytest.raises(UserError, match=r"6 shards cannot be shared by 4 processes with 2 workers"):
        stream(shar, ranks=4, workers=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_it_was(shar: Path, workers: int) -> None:
    def drawn(place: Here) -> list[list[str]]:
        own = stream(shar, place=place, workers=workers, pool=4)
        return list(DataLoader(own, batch_size=None, num_workers=workers))

    whole = drawn(Here(1))
    assert len(whole) == 8
    for done in range(9) if workers == 0 else (3,):
        assert drawn(Here(1, done)) == whole[done:]


def test_what_is_skipped_is_not_read(shar: Path, store: Store) -> None:
    shards = read_index("store://bucket/shar").splits["train"]
    whole = SharStream(shards, DATASETS["tokenizer"], Here(), Limits(None, 2), pool=4)
    first = list(whole)
    store.opened.clear()
    rest = list(SharStream(shards, DATASETS["tokenizer"], Here(batches=9), Limits(None, 2), pool=4))
    assert len(rest) == len(first) - 9 and all(equal(a, b) for a, b in zip(rest, first[9:], strict=True))
    # shards of two batches each: the first four are skipped whole
    assert sum(name.endswith(".tar") for name in store.opened) == 2
    assert not any("recording" in name for name in store.opened)


# --------------------------------------------------------------------------------------------------- extraction


def test_tokens_of_a_shar_are_those_of_the_folder(prepared: Path, tokens: Path, tmp_path: Path) -> None:
    write_shar(prepared, tmp_path / "shar", shard_size=5, progress=False)
    source = read_index(tmp_path / "shar")
    parts = []
    for rank in (1, 0):  # the first one joins what the others have left
        team = Team(rank, 2, lambda: None)
        parts.append(add_tokens_to_shar(source, encode, tmp_path / "out", team=team, progress=False))
    assert parts == [0, 1]
    made = read_index(tmp_path / "out")
    assert made.spec == source.spec
    assert not list((tmp_path / "out").rglob("*.tar")) and not list((tmp_path / "out").rglob(".*"))
    there = by_id(read_cuts(cuts_path(tokens, "train")))
    found = list(read_shards(made.splits["train"]))
    assert sorted(cut.id for cut in found) == sorted(there)
    assert sum(shard.cuts for shard in made.splits["train"]) == len(found)
    for cut in found:
        assert (cut.tokens, cut.durations) == (there[cut.id].tokens, there[cut.id].durations)
        np.testing.assert_array_equal(frames_of(cut), frames_of(there[cut.id]))
    # once more, with a tokenizer that can align all
    count = add_tokens_to_shar(
        made, lambda f, s: [([0], [1] + [0] * (len(x) - 1)) for x in s], tmp_path / "again", progress=False
    )
    assert count == 0 and len(list(read_shards(read_index(tmp_path / "again").splits["train"]))) == TRAIN
