"""Pieces of recordings: named in a manifest, decoded, prepared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codec.audio import read_audio
from codec.errors import AudioError
from codec.features.mel import LogMel
from tts.data.manifest import ManifestError, Row, read_manifest
from tts.data.prepare import prepare, read_cuts
from tts.data.segment import decode, read_row

LINE: dict[str, object] = {"audio": "a.wav", "text": "Hello.", "speaker": "ann", "language": "en-us"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.wav: two channels of noise, 2 s at 16 kHz."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((32_000, 2))
    soundfile.write(tmp_path / "a.wav", noise, 16_000)
    return tmp_path


def write(folder: Path, *fields: dict[str, object]) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps({**LINE, **one}) + "\n" for one in fields))
    return path


def test_lines_can_name_pieces_and_channels(folder: Path) -> None:
    rows, _ = read_manifest(
        write(
            folder,
            {"offset": 0.5, "duration": 0.75},
            {"offset": 1.25},
            {"channel": 1, "text_by": "a recogniser"},
            {"offset": 0.5, "duration": 0.75, "channel": 0},
            {"offset": 1.0, "duration": 1.03},  # 30 ms more than there is: somebody rounded
            {"duration": 99.0},
        )
    )
    assert [(row.offset, row.duration, row.channel) for row in rows] == [
        (0.5, 0.75, None),
        (1.25, 0.75, None),
        (None, 2.0, 1),
        (0.5, 0.75, 0),
        (1.0, 1.0, None),
        (None, 2.0, None),
    ]
    assert [row.id for row in rows] == [
        "a.wav#0.500+0.750",
        "a.wav#1.250+0.750",
        "a.wav#channel1",
        "a.wav#0.500+0.750#channel0",
        "a.wav#1.000+1.000",
        "a.wav",
    ]
    assert [row.text_by for row in rows] == [None, None, "a recogniser", None, None, None]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"offset": 0.5, "duration": 1.6}, "lasts 2.00 s, there is nothing from 0.5 s to 2.1 s"),
        ({"offset": 2.5}, "lasts 2.00 s, there is nothing from 2.5 s"),
        ({"offset": -1, "duration": 1}, "there is nothing from -1 s to 0 s"),
        ({"offset": "0.5"}, "offset is not a number but '0.5'"),
        ({"offset": 0, "duration": None}, "duration is not a number but None"),
        ({"offset": 0.5, "duration": 0.1}, "lasts 0.10 s, not 0.3 to 40 s"),
        ({"channel": 2}, "has 2 channels, and none with the number 2"),
        ({"channel": True}, "none with the number True"),
        ({"text_by": 3}, "text_by is not a string but 3"),
    ],
)
def test_pieces_that_are_not_there(folder: Path, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.jsonl:1: ") as caught:
        read_manifest(write(folder, fields))
    assert reason in str(caught.value)


def test_the_same_piece_twice_is_refused(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"audio 'a.wav#0.500\+0.750' is in line 1 already"):
        read_manifest(write(folder, *2 * [{"offset": 0.5, "duration": 0.75}]))


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_a_piece_is_what_the_whole_holds_there(tmp_path: Path, make_speech: Any, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, make_speech(6.0).numpy(), 24_000)
    whole, rate = soundfile.read(path, dtype="float32")
    wav, found = decode(path, 2.5, 1.25)
    assert (rate, found, wav.shape) == (24_000, 24_000, (30_000,))
    np.testing.assert_allclose(wav, whole[60_000:90_000], atol=1e-4)
    np.testing.assert_allclose(decode(path, 5.0)[0], whole[120_000:], atol=1e-4)


def test_channels_apart_and_together(folder: Path) -> None:
    both = soundfile.read(folder / "a.wav", dtype="float32")[0]
    np.testing.assert_array_equal(decode(folder / "a.wav", channel=1)[0], both[:, 1])
    np.testing.assert_allclose(decode(folder / "a.wav")[0], both.mean(1), atol=1e-7)
    row = read_manifest(write(folder, {"channel": 0}))[0][0]
    np.testing.assert_array_equal(read_row(row, 16_000), both[:, 0])
    whole = read_manifest(write(folder, {}))[0][0]
    torch.testing.assert_close(read_row(whole, 24_000), read_audio(folder / "a.wav", 24_000))


def test_what_cannot_be_decoded(folder: Path) -> None:
    (folder / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match="cannot be read as audio"):
        decode(folder / "text.wav")
    with pytest.raises(AudioError, match=r"holds nothing from 3\.00 s on"):
        decode(folder / "a.wav", 3.0)
    with pytest.raises(AudioError, match="not one with the number 2"):
        decode(folder / "a.wav", channel=2)
    soundfile.write(folder / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        decode(folder / "nan.wav")
    soundfile.write(folder / "zero.wav", np.zeros(32_000), 16_000)
    row = Row("z", folder / "zero.wav", "a", "s", "en-us", 1.0, None, 1, offset=0.5)
    with pytest.raises(AudioError, match="z is silent"):
        read_row(row, 16_000)


def test_pieces_of_one_recording_are_prepared_apart(tmp_path: Path, make_speech: Any) -> None:
    soundfile.write(tmp_path / "a.wav", make_speech(4.0), 24_000, subtype="PCM_16")
    whole = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    manifest = write(
        tmp_path, {"offset": 0.5, "duration": 1.0}, {"offset": 2.0, "duration": 1.5, "text_by": "x"}
    )
    prepare(manifest, tmp_path / "out", LogMel(), phonemize=lambda texts, _: list(texts), progress=False)
    first, second = read_cuts(tmp_path / "out/cuts_train.jsonl.gz")
    np.testing.assert_array_equal(first.load_audio()[0], whole[12_000:36_000])
    np.testing.assert_array_equal(second.load_audio()[0], whole[48_000:84_000])
    assert "text_by" not in first.supervisions[0].custom
    assert second.supervisions[0].custom["text_by"] == "x"
