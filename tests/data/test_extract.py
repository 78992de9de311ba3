import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec.errors import UserError
from tts.data.datasets import frames_of
from tts.data.extract import add_tokens, per_group
from tts.data.prepare import read_cuts
from tts.text.symbols import DEFAULT_SYMBOLS as TABLE

# groups of "hˈeː, jˈuː!": h | ˈeː, | j | ˈuː!
SPOKEN = [("ann", "hˈeː, jˈuː!", 12), ("bob", "a", 5), ("ann", "ˈanna", 9)]


class Encoder:
    """Gives every segment one token and the rest to the first; tokens are the frames' first numbers."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.labels: list[str] = []

    def __call__(self, frames: list[Any], segments: list[list[int]]) -> list[Any]:
        self.batches.append([len(one) for one in frames])
        self.labels += [TABLE.decode(one) for one in segments]
        answers = []
        for array, labels in zip(frames, segments, strict=True):
            tokens = array[::4, 0].astype(int)
            durations = [1] * len(labels)
            durations[0] += len(tokens) - len(labels)
            answers.append((tokens, durations) if durations[0] > 0 else None)
        return answers


def test_durations_of_segments_are_summed_to_groups() -> None:
    ids = TABLE.encode("hˈeː, jˈuː!")
    #                            h  e  ː  j  u  ː
    assert per_group(TABLE, ids, [2, 3, 4, 0, 1, 5]) == [2, 7, 0, 6]
    assert per_group(TABLE, TABLE.encode("“ˈa”"), [4]) == [4]
    assert per_group(TABLE, TABLE.encode("..."), []) is None
    assert per_group(TABLE, [], []) is None
    with pytest.raises(ValueError, match="2 durations for 1 segments"):
        per_group(TABLE, TABLE.encode("a"), [1, 1])


def test_tokens_and_durations_are_written_in_order(make_cuts: Any, tmp_path: Path) -> None:
    cuts = make_cuts(*SPOKEN)
    encoder = Encoder()
    out = tmp_path / "tokens" / "cuts_train.jsonl.gz"
    assert add_tokens(cuts, encoder, out, progress=False) == []
    assert encoder.batches == [[48, 36, 20]]  # longest first
    assert encoder.labels == ["heːjuː", "anna", "a"]
    written = read_cuts(out)
    assert [cut.id for cut in written] == ["c0", "c1", "c2"]
    assert [cut.tokens for cut in written] == [
        [k * 1000 + n for n in range(s[2])] for k, s in enumerate(SPOKEN)
    ]
    assert [cut.durations for cut in written] == [[7, 2, 1, 2], [5], [6, 1, 1, 1]]
    np.testing.assert_array_equal(frames_of(written[2]), frames_of(cuts[2]))


def test_frames_are_found_after_the_folders_moved_together(make_cuts: Any, tmp_path: Path) -> None:
    cuts = make_cuts(*SPOKEN)
    before = frames_of(cuts[0])
    (tmp_path / "run").mkdir()
    add_tokens(cuts, Encoder(), tmp_path / "run" / "cuts_train.jsonl.gz", progress=False)
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(
        frames_of(read_cuts(tmp_path.with_name("copy") / "run" / "cuts_train.jsonl.gz")[0]), before
    )


def test_batches_keep_to_their_seconds(make_cuts: Any, tmp_path: Path) -> None:
    cuts = make_cuts(*(("ann", "a", n) for n in (4, 24, 12, 11, 2)))
    encoder = Encoder()
    second = 24_000 / 256  # frames
    add_tokens(cuts, encoder, tmp_path / "t" / "c.jsonl.gz", batch_seconds=100 / second, progress=False)
    assert encoder.batches == [[96], [48, 44], [16, 8]]


def test_what_cannot_be_aligned_is_left_out_and_counted(
    make_cuts: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cuts = make_cuts(("ann", "a", 5), ("ann", "banana", 6), ("bob", "a", 3))
    cuts[1].supervisions[0].custom["phonemes"] = "banana" * 2
    with caplog.at_level(logging.WARNING):
        assert add_tokens(cuts, Encoder(), tmp_path / "t" / "c.jsonl.gz", progress=False) == ["c1"]
    assert "1 of 3 utterances cannot be aligned" in caplog.text
    assert [cut.id for cut in read_cuts(tmp_path / "t" / "c.jsonl.gz")] == ["c0", "c2"]


def test_nothing_aligned_is_an_error_and_writes_nothing(make_cuts: Any, tmp_path: Path) -> None:
    cuts = make_cuts(("ann", "a", 5))
    with pytest.raises(UserError, match="none of 1 utterances can be aligned"):
        add_tokens(cuts, lambda frames, labels: [None], tmp_path / "t" / "c.jsonl.gz", progress=False)
    assert not (tmp_path / "t").exists()


def test_an_encoder_whose_durations_do_not_add_up_is_found_out(make_cuts: Any, tmp_path: Path) -> None:
    cuts = make_cuts(("ann", "a", 5))
    with pytest.raises(ValueError, match="durations of c0 sum to 4, not to its 5 tokens"):
        add_tokens(cuts, lambda frames, labels: [([1] * 5, [4])], tmp_path / "c.jsonl.gz", progress=False)
