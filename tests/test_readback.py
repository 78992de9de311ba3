"""Reading tokens back: planted faults are found, a tokenizer's own misreadings are not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codec.errors import UserError
from codec.spec import TokenSpec
from codec.tokenizer.model import Tokenizer
from tts.checkpoint import Model
from tts.readback import Calibration, Quality, Reader, stretches
from tts.text import DEFAULT_SYMBOLS, Frontend

TEXT = "The quick brown fox jumps over the lazy dog, and nobody knows what it was that it wanted there."
(SAID,) = Frontend()(TEXT)
WANTED = DEFAULT_SYMBOLS.segments(SAID.ids)
S = len(DEFAULT_SYMBOLS)


class FakeTokenizer(nn.Module):
    """Reads token k as segment k, at the second of its two positions; token 0 says nothing."""

    reads_per_token = 2
    spec = TokenSpec()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls: list[list[int]] = []

    def token_log_probs(self, tokens: Tensor, lens: Tensor) -> Tensor:
        self.calls.append(lens.tolist())
        logits = torch.zeros(len(tokens), 2 * tokens.shape[1], S)
        logits[:, ::2, 0] = 20.0
        logits[:, 1::2].scatter_(2, tokens[..., None], 20.0)
        return logits.log_softmax(-1)

    starts = Tokenizer.starts


@pytest.fixture
def reader() -> Reader:
    return Reader(FakeTokenizer(), DEFAULT_SYMBOLS, Calibration())


def judge(reader: Reader, read: list[int], **given: Any) -> Quality:
    return reader.judge(SAID.ids, read, words=SAID.words, **given)


# ---------------------------------------------------------------------------------------------------- judging


def test_what_is_read_as_wanted_is_well(reader: Reader) -> None:
    assert judge(reader, WANTED) == Quality(error=0.0, coverage=1.0, problems=())
    assert judge(reader, WANTED).ok


def test_misreadings_here_and_there_are_the_tokenizers_own(reader: Reader) -> None:
    rng = random.Random(0)
    for _ in range(50):
        read = list(WANTED)
        for n in sorted(rng.sample(range(0, len(read), 5), len(read) // 7), reverse=True):
            read[n : n + 1] = rng.choice([[], [41], [read[n], 41]])
        quality = judge(reader, read)
        assert quality.ok, quality
        assert 0.05 < quality.error < 0.2 and quality.coverage > 0.8


FAULTS = {
    "skip": (lambda w: w[:20] + w[28:], "8 phonemes missing at 'jumps over the'", -8),
    "no beginning": (lambda w: w[7:], "7 phonemes missing at 'The quick brown'", -7),
    "no end": (lambda w: w[:-3], "3 phonemes missing at 'there.'", -3),
    "repeat": (lambda w: w[:28] + w[20:], "8 phonemes too many at", 8),
    "goes on": (lambda w: [*w, *w[:9]], "9 phonemes too many at", 9),
    "babble": (lambda w: w[:20] + [41] * 12 + w[32:], "12 wrong phonemes in a row at 'jumps … lazy'", 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_and_named(reader: Reader, fault: str) -> None:
    change, problem, surplus = FAULTS[fault]
    read = change(list(WANTED))
    quality = judge(reader, read)
    assert len(quality.problems) == 1 and quality.problems[0].startswith(problem), quality
    assert not quality.ok
    assert len(read) - len(WANTED) == surplus
    missing = max(0, -surplus) if fault != "babble" else 12
    assert quality.coverage == pytest.approx(1 - missing / len(WANTED))
    assert quality.error == pytest.approx((abs(surplus) or 12) / len(WANTED))


@pytest.mark.parametrize("length", [4, 6, 10, 16])
def test_faults_among_misreadings_are_found(reader: Reader, length: int) -> None:
    rng = random.Random(length)
    found = 0
    for _ in range(40):
        at = rng.randrange(4, len(WANTED) - length - 4)
        read = list(WANTED[:at] + WANTED[at + length :])
        for n in rng.sample(range(len(read)), len(read) // 8):
            read[n] = 41
        found += not judge(reader, read).ok
    assert found >= (39 if length > 4 else 30)


def test_too_many_errors_in_all(reader: Reader) -> None:
    read = list(WANTED)
    read[::4] = [41] * len(read[::4])  # never two in a row, but a quarter of all
    assert judge(reader, read).ok
    strict = Reader(reader.tokenizer, DEFAULT_SYMBOLS, Calibration(error=0.05))
    assert judge(strict, read).problems == ("too many wrong phonemes",)


def test_short_texts_may_have_an_error_or_two(reader: Reader) -> None:
    (yes,) = Frontend()("Yes.")
    wanted = DEFAULT_SYMBOLS.segments(yes.ids)
    assert len(wanted) == 3
    assert reader.judge(yes.ids, [wanted[0], 41, wanted[2]]).ok
    assert reader.judge(yes.ids, []).problems == ("3 phonemes missing",)


def test_most_errors_is_the_mean_and_some_deviations() -> None:
    assert Calibration(error=0.1, spread=3.0).most_errors(100) == pytest.approx(10 + 3 * 3)


def test_stuck_phonemes_are_a_problem(reader: Reader) -> None:
    assert judge(reader, WANTED, stuck=1).ok  # a pause that no comma tells of
    assert judge(reader, WANTED, stuck=2).problems == ("2 phonemes without an end",)
    assert judge(reader, WANTED, stuck=1, endless=True).problems == (
        "1 phoneme without an end, the last among them",
    )
    lenient = Reader(reader.tokenizer, DEFAULT_SYMBOLS, Calibration(stuck=3))
    assert judge(lenient, WANTED, stuck=2).ok and judge(lenient, WANTED, stuck=1, endless=True).ok


def test_stretches_bridge_one_right_segment() -> None:
    assert [tuple(one) for one in stretches([1, 2, 3, 4, 5, 6], [9, 2, 9, 4, 5, 6])] == [((0, 3), (0, 3), 2)]
    assert [tuple(one) for one in stretches([1, 2, 3, 4, 5], [9, 2, 3, 9, 5])] == [
        ((0, 1), (0, 1), 1),
        ((3, 4), (3, 4), 1),
    ]
    (skip,) = stretches([1, 2, 3, 4, 5, 6], [1, 2, 6])
    assert skip.missing == 3 and skip.wanted == (2, 5)
    (extra,) = stretches([1, 2, 3], [1, 2, 1, 2, 3])
    assert extra.missing == -2
    assert list(stretches([1, 2], [1, 2])) == []


# ---------------------------------------------------------------------------------------------------- reading


def test_rows_are_read_in_one_batch_each_as_alone(reader: Reader) -> None:
    rows = [[5, 0, 5, 5, 7], [], [9]]
    readings = reader.read(rows)
    # equal neighbours need a blank between them; the first positions are blank here, so they always have one
    assert [one.segments for one in readings] == [
        DEFAULT_SYMBOLS.segments([5, 5, 5, 7]),
        [],
        DEFAULT_SYMBOLS.segments([9]),
    ]
    assert [len(one.log_probs) for one in readings] == [10, 0, 2]
    assert reader.tokenizer.calls == [[5, 1]]
    assert [one.segments for one in reader.read([[]])] == [[]]


def test_a_real_tokenizer_reads_a_batch_as_its_rows(tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    reader = Reader(model.tokenizer, model.symbols, Calibration())
    rows = [torch.randint(625, (n,)).tolist() for n in (40, 7, 23)]
    for row, one in zip(rows, reader.read(rows), strict=True):
        ids = model.tokenizer.read(torch.tensor([row]))[0]
        assert one.segments == model.symbols.segments(ids)
        torch.testing.assert_close(
            one.log_probs, model.tokenizer.token_log_probs(torch.tensor([row]))[0], rtol=1e-4, atol=1e-4
        )


# --------------------------------------------------------------------------------------------------- aligning


def test_starts_are_where_the_phonemes_are_read_less_the_lag(reader: Reader) -> None:
    groups = DEFAULT_SYMBOLS.groups(SAID.ids)
    segments = [DEFAULT_SYMBOLS.segments(group) for group in groups]
    row: list[int] = []
    expected = []
    for n, group in enumerate(segments):
        row += [0] * (n % 3)
        expected.append((len(row) + 0.5) / TokenSpec().rate - 0.03)
        row += group
    starts = reader.starts(reader.read([row])[0].log_probs, groups)
    assert starts == pytest.approx([max(0.0, one) for one in expected])


def test_too_few_tokens_cannot_be_aligned(reader: Reader) -> None:
    groups = DEFAULT_SYMBOLS.groups(SAID.ids)
    assert reader.starts(reader.read([[5, 6, 7]])[0].log_probs, groups) is None
    assert reader.starts(reader.read([[]])[0].log_probs, groups) is None


# ------------------------------------------------------------------------------------------------ calibration


def test_a_model_folder_may_say_how_its_tokenizer_reads(tmp_path: Path) -> None:
    assert Calibration.of(tmp_path) == Calibration()
    (tmp_path / "reading.json").write_text(json.dumps({"error": 0.08, "lag": 0.01, "by": "somebody"}))
    assert Calibration.of(tmp_path) == Calibration(error=0.08, lag=0.01)
    for broken in ("{", "[]", '{"error": "much"}', "3"):
        (tmp_path / "reading.json").write_text(broken)
        with pytest.raises(UserError, match=r"reading\.json: not a calibration of this program"):
            Calibration.of(tmp_path)
