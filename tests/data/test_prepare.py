import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from codec.audio import read_audio
from codec.errors import UserError
from codec.features.mel import LogMel
from codec.spec import FrameSpec
from tts.data.datasets import frames_of, phonemes_of, speaker_of
from tts.data.manifest import ManifestError, Row
from tts.data.prepare import assign_splits, prepare, read_cuts, read_spec


class Counting(LogMel):
    """Counts the utterances it is used on."""

    calls = 0

    def forward(self, wav: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(wav)


def spell(texts: Sequence[str], language: str) -> list[str]:
    """Letters for phonemes, so that these tests need no espeak."""
    if language != "en-us":
        raise UserError(f"language {language!r} is unknown")
    return [text.lower() for text in texts]


def run(manifest: Path, out: Path, extractor: nn.Module | None = None, **settings: object) -> dict[str, int]:
    return prepare(manifest, out, extractor or LogMel(), phonemize=spell, progress=False, **settings).cuts  # type: ignore[arg-type]


def lines_of(manifest: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def rewrite(manifest: Path, lines: list[dict[str, str]]) -> None:
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_cuts_hold_what_the_manifest_and_the_recordings_say(make_corpus: Any, tmp_path: Path) -> None:
    manifest = make_corpus(speakers=2, utterances=2, seconds=1.5)
    out = tmp_path / "out"
    assert run(manifest, out) == {"train": 2, "dev": 2, "test": 0}
    assert not (out / "cuts_test.jsonl.gz").exists()
    assert read_spec(out) == FrameSpec()
    cuts = [*read_cuts(out / "cuts_train.jsonl.gz"), *read_cuts(out / "cuts_dev.jsonl.gz")]
    by_audio = {line["audio"]: line for line in lines_of(manifest)}
    assert {cut.id for cut in cuts} == set(by_audio)
    for cut in cuts:
        line = by_audio[cut.id]
        wav = read_audio(manifest.parent / cut.id)
        assert phonemes_of(cut) == line["text"].lower()
        assert (speaker_of(cut), cut.supervisions[0].text) == (line["speaker"], line["text"])
        assert cut.num_samples == len(wav)
        np.testing.assert_allclose(cut.load_audio()[0], wav, atol=2**-15)
        np.testing.assert_array_equal(frames_of(cut), LogMel()(wav[None])[0].half().float())


def test_other_rates_become_the_rate_of_the_frames(make_speech: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", make_speech(1.0, sample_rate=16_000), 16_000)
    rewrite(tmp_path / "m.jsonl", [{"audio": "a.flac", "text": "a", "speaker": "s", "language": "en-us"}])
    run(tmp_path / "m.jsonl", tmp_path / "out")
    (cut,) = read_cuts(tmp_path / "out/cuts_train.jsonl.gz")
    assert (cut.sampling_rate, cut.num_samples, frames_of(cut).shape) == (24_000, 24_000, (94, 100))


def test_what_is_done_is_not_done_again(make_corpus: Any, tmp_path: Path) -> None:
    manifest, out = make_corpus(speakers=2, utterances=2, seconds=1.0), tmp_path / "out"
    extractor = Counting()
    counts = run(manifest, out, extractor)
    assert extractor.calls == 4
    assert run(manifest, out, extractor) == counts
    assert extractor.calls == 4

    # cut off: one utterance and the note at the end are missing
    (out / "prepared.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.glob("frames/*/*.npy")}
    lost = sorted(before)[0]
    lost.unlink()
    assert run(manifest, out, extractor) == counts
    assert extractor.calls == 5
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != lost)
    assert not list(out.rglob(".part*"))

    # another manifest: only what is new
    rewrite(manifest, lines_of(manifest)[1:])
    assert sum(run(manifest, out, extractor).values()) == 3
    assert extractor.calls == 5

    # other frames: everything
    other = Counting(FrameSpec(dim=80))
    run(manifest, out, other)
    assert other.calls == 3
    assert read_spec(out).dim == 80


def test_a_prepared_folder_can_be_moved(make_corpus: Any, tmp_path: Path) -> None:
    manifest = make_corpus(speakers=1, utterances=2, seconds=1.0)
    run(manifest, tmp_path / "out")
    before = frames_of(read_cuts(tmp_path / "out/cuts_train.jsonl.gz")[0])
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    shutil.rmtree(manifest.parent)
    cut = read_cuts(tmp_path / "elsewhere/cuts_train.jsonl.gz")[0]
    np.testing.assert_array_equal(frames_of(cut), before)
    assert cut.load_audio().shape == (1, cut.num_samples)


def test_only_the_splits_asked_for(make_corpus: Any, tmp_path: Path) -> None:
    manifest, out = make_corpus(speakers=2, utterances=2, seconds=1.0), tmp_path / "out"
    extractor = Counting()
    assert run(manifest, out, extractor, splits=("train",)) == {"train": 2, "dev": 0, "test": 0}
    assert extractor.calls == 2
    assert not (out / "cuts_dev.jsonl.gz").exists()
    assert run(manifest, out, splits=("dev",)) == {"train": 0, "dev": 2, "test": 0}
    assert not (out / "cuts_train.jsonl.gz").exists()
    with pytest.raises(ManifestError, match="no usable line of split test"):
        run(manifest, tmp_path / "none", splits=("test",))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"audio": "silent.wav"}, "silent"),
        ({"language": "xx"}, "language 'xx' is unknown"),
        ({"text": "?!"}, "nothing in text '?!' can be spoken"),
        ({"speaker": ""}, "speaker is empty"),
    ],
)
def test_a_line_that_turns_out_bad(
    make_corpus: Any, tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    manifest = make_corpus(speakers=1, utterances=3, seconds=1.0)
    soundfile.write(manifest.parent / "silent.wav", np.zeros(24_000), 24_000)
    lines = lines_of(manifest)
    lines[1] |= change
    rewrite(manifest, lines)
    with pytest.raises(ManifestError, match=r"metadata\.jsonl:2: .*--skip-bad") as caught:
        run(manifest, tmp_path / "out")
    assert reason in str(caught.value)
    assert not (tmp_path / "out" / "prepared.json").exists()

    for _ in range(2):  # the second time from the note of the first
        result = prepare(manifest, tmp_path / "out", LogMel(), skip_bad=True, phonemize=spell, progress=False)
        assert result.cuts == {"train": 1, "dev": 1, "test": 0}
        assert [one.line for one in result.bad] == [2]
        assert reason in str(result.bad[0].error)
    # having once gone on without it does not make the line good
    with pytest.raises(ManifestError, match=r"metadata\.jsonl:2: "):
        run(manifest, tmp_path / "out")


def test_frames_that_are_not_finite_are_refused(make_corpus: Any, tmp_path: Path) -> None:
    class Broken(LogMel):
        def forward(self, wav: Tensor) -> Tensor:
            return super().forward(wav) * torch.inf

    with pytest.raises(ManifestError, match="frames that are not finite"):
        run(make_corpus(speakers=1, utterances=1, seconds=1.0), tmp_path / "out", Broken())


def rows(count: int, split: str | None = None) -> list[Row]:
    return [Row(f"{i}.wav", Path(f"{i}.wav"), "a", "s", "en-us", 1.0, split, i + 1) for i in range(count)]


def test_the_dev_share_is_small_fixed_and_never_of_given_splits() -> None:
    assigned = assign_splits(rows(1000))
    dev = {row.id for row in assigned if row.split == "dev"}
    assert len(dev) == 20
    assert {row.split for row in assigned} == {"train", "dev"}
    assert [row.id for row in assigned] == [row.id for row in rows(1000)]
    # the same whatever the order, and nearly the same for a corpus that grew
    assert {row.id for row in assign_splits(rows(1000)[::-1]) if row.split == "dev"} == dev
    grown = {row.id for row in assign_splits(rows(1050)) if row.split == "dev"}
    assert len(grown & dev) >= 17
    for split in ("train", "dev", "test"):
        assert assign_splits(rows(100, split)) == rows(100, split)


@pytest.mark.parametrize(("count", "dev"), [(1, 0), (4, 0), (5, 1), (12, 2), (20, 4), (100, 4), (300, 6)])
def test_a_small_corpus_keeps_most_of_its_rows(count: int, dev: int) -> None:
    assert sum(row.split == "dev" for row in assign_splits(rows(count))) == dev


def test_several_processes_give_the_same(make_corpus: Any, tmp_path: Path) -> None:
    manifest = make_corpus(speakers=1, utterances=3, seconds=1.0)
    run(manifest, tmp_path / "one")
    run(manifest, tmp_path / "two", jobs=2)
    for split in ("train", "dev"):
        pairs = zip(
            *(read_cuts(tmp_path / name / f"cuts_{split}.jsonl.gz") for name in ("one", "two")), strict=True
        )
        for one, two in pairs:
            assert one.id == two.id
            np.testing.assert_array_equal(frames_of(one), frames_of(two))


def test_an_unprepared_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no prepared cuts"):
        read_cuts(tmp_path / "cuts_train.jsonl.gz")
    with pytest.raises(UserError, match="not a prepared corpus"):
        read_spec(tmp_path)
