"""Corpora as people have them, made in the test, and what an import makes of them."""

import gzip
import hashlib
import json
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from torch import Tensor

from codec.errors import UserError
from codec.features.mel import LogMel
from tests.conftest import speak
from tts.data.importers.run import Imported, Options, find_format, import_corpus
from tts.data.manifest import read_manifest
from tts.data.prepare import prepare, read_cuts

RATE = 16_000


def record(path: Path, text: str = "some rain", *, speaker: int = 0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speak(text, speaker=speaker, sample_rate=rate).numpy(), rate)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "Corpus-1.0"
    folder.mkdir()
    return folder


def run(source: Path, *, recogniser: Any = None, **options: Any) -> Imported:
    out = source.parent / "out.jsonl" if source.is_dir() else source.parent.parent / "out.jsonl"
    return import_corpus(source, out, Options(**options), recogniser=recogniser, progress=False)


def told(done: Imported, root: Path) -> list[tuple[Any, ...]]:
    """(recording, text, speaker, language) of each entry."""
    return [(str(e.audio.relative_to(root)), e.text, e.speaker, e.language) for e in done.entries]


# ---------------------------------------------------------------------------------------------------- formats


def ljspeech(root: Path) -> list[tuple[Any, ...]]:
    for name in ("LJ-1", "LJ-2"):
        record(root / "wavs" / f"{name}.wav")
    write(root / "metadata.csv", 'LJ-1|He said "no in 1776|He said "no in seventeen\nLJ-2|Only once|\n')
    return [
        ("wavs/LJ-1.wav", 'He said "no in seventeen', "Corpus-1.0", "en-us"),
        ("wavs/LJ-2.wav", "Only once", "Corpus-1.0", "en-us"),
    ]


def coqui(root: Path) -> list[tuple[Any, ...]]:
    record(root / "wavs/a.wav"), record(root / "wavs/b.flac")
    write(
        root / "metadata.csv",
        "audio_file|text|speaker_name\nwavs/a.wav|Hello, you|ann\nwavs/b.flac|Bye|bob\n",
    )
    return [("wavs/a.wav", "Hello, you", "ann", "en-us"), ("wavs/b.flac", "Bye", "bob", "en-us")]


def f5(root: Path) -> list[tuple[Any, ...]]:
    audio = record(root / "elsewhere/a.wav")
    write(root / "metadata.csv", f"\ufeffaudio_file|text\n{audio}|Hello\n")
    return [("elsewhere/a.wav", "Hello", "Corpus-1.0", "en-us")]


def common_table(root: Path) -> list[tuple[Any, ...]]:
    record(root / "clips/a.mp3", rate=24_000)
    write(root / "train.tsv", 'client_id\tpath\tsentence\tlocale\nx1\ta.mp3\t"Ja, ""bitte"""\tde\n')
    return [("clips/a.mp3", 'Ja, "bitte"', "x1", "de")]


def quoted_table(root: Path) -> list[tuple[Any, ...]]:
    record(root / "a.wav"), record(root / "b.wav")
    write(root / "list.csv", 'file_name,transcription,speaker_id\na.wav,"One,\ntwo",7\nb.wav,Three,8\n')
    return [("a.wav", "One, two", "7", "en-us"), ("b.wav", "Three", "8", "en-us")]


def gpt_sovits(root: Path) -> list[tuple[Any, ...]]:
    record(root / "a.wav"), record(root / "wavs/b.wav")
    write(root / "slicer.list", "D:\\old\\a.wav|ann|EN|Yes|no\nwavs/b.wav|bob|ZH|你好\n")
    return [("a.wav", "Yes|no", "ann", "en-us"), ("wavs/b.wav", "你好", "bob", "cmn")]


def nemo(root: Path) -> list[tuple[Any, ...]]:
    record(root / "long.wav", "some rain fell all day")
    lines = [
        {"audio_filepath": "long.wav", "offset": 0.2, "duration": 0.5, "text": "some", "speaker": 3},
        {"audio_filepath": "long.wav", "offset": 0.8, "duration": 0.4, "text": "rain", "lang": "en-gb"},
    ]
    write(root / "manifest.json", "".join(json.dumps(line) + "\n" for line in lines))
    return [("long.wav", "some", "3", "en-us"), ("long.wav", "rain", "Corpus-1.0", "en-gb")]


def libritts(root: Path) -> list[tuple[Any, ...]]:
    for chapter, name in (("84/121123", "84_121123_000007_000001"), ("174/50561", "174_50561_000000_000000")):
        folder = root / "dev-clean" / chapter
        record(folder / f"{name}.wav", rate=24_000)
        speaker, book = chapter.split("/")
        write(folder / f"{speaker}_{book}.trans.tsv", f"{name}\tMr. One.\tMister One.\n")
    return [
        ("dev-clean/174/50561/174_50561_000000_000000.wav", "Mister One.", "174", "en-us"),
        ("dev-clean/84/121123/84_121123_000007_000001.wav", "Mister One.", "84", "en-us"),
    ]


def libritts_texts(root: Path) -> list[tuple[Any, ...]]:
    record(root / "84/1/84_1_0_0.wav")
    write(root / "84/1/84_1_0_0.normalized.txt", "Mister One.\n")
    write(root / "84/1/84_1_0_0.original.txt", "Mr. One.\n")
    return [("84/1/84_1_0_0.wav", "Mister One.", "84", "en-us")]


def librispeech(root: Path) -> list[tuple[Any, ...]]:
    folder = root / "train-clean-100/121/121726"
    record(folder / "121-121726-0000.flac"), record(folder / "121-121726-0001.flac")
    write(folder / "121-121726.trans.txt", "121-121726-0000 IT TOLD US\n121-121726-0001 NO MORE\n")
    return [
        ("train-clean-100/121/121726/121-121726-0000.flac", "it told us", "121", "en-us"),
        ("train-clean-100/121/121726/121-121726-0001.flac", "no more", "121", "en-us"),
    ]


def vctk(root: Path) -> list[tuple[Any, ...]]:
    for name in ("p225/p225_001_mic1", "p225/p225_001_mic2", "p280/p280_001_mic1"):
        record(root / "wav48_silence_trimmed" / f"{name}.flac", rate=48_000)
    write(root / "txt/p225/p225_001.txt", "Please call Stella.\n")
    write(root / "txt/p280/p280_001.txt", "Ask her.")
    return [
        ("wav48_silence_trimmed/p225/p225_001_mic2.flac", "Please call Stella.", "p225", "en-gb"),
        ("wav48_silence_trimmed/p280/p280_001_mic1.flac", "Ask her.", "p280", "en-gb"),
    ]


def kaldi(root: Path) -> list[tuple[Any, ...]]:
    record(root / "wav/a.wav"), record(root / "wav/b.flac")
    write(root / "wav.scp", f"u1 {root}/wav/a.wav\nu2 flac -c -d -s {root}/wav/b.flac |\n")
    write(root / "text", "u1 first\nu2 second one\n")
    write(root / "utt2spk", "u1 ann\nu2\tbob\n")
    write(root / "utt2lang", "u2 english\n")
    return [("wav/a.wav", "first", "ann", "en-us"), ("wav/b.flac", "second one", "bob", "en-us")]


def plain(root: Path) -> list[tuple[Any, ...]]:
    record(root / "ann/train/a.ogg", rate=24_000), record(root / "wavs/b.aiff"), record(root / ".hidden.wav")
    write(root / "ann/train/a.txt", "First\nline.\n")
    write(root / "wavs/b.lab", "Second.")
    write(root / "readme.md", "what this is")
    return [
        ("ann/train/a.ogg", "First line.", "ann", "en-us"),
        ("wavs/b.aiff", "Second.", "Corpus-1.0", "en-us"),
    ]


CORPORA: dict[str, tuple[str, Callable[[Path], list[tuple[Any, ...]]]]] = {
    "ljspeech": ("ljspeech", ljspeech),
    "coqui": ("table", coqui),
    "f5": ("table", f5),
    "tsv": ("table", common_table),
    "quoted": ("table", quoted_table),
    "gpt-sovits": ("gpt-sovits", gpt_sovits),
    "nemo": ("jsonl", nemo),
    "libritts": ("libritts", libritts),
    "libritts-texts": ("libritts", libritts_texts),
    "librispeech": ("librispeech", librispeech),
    "vctk": ("vctk", vctk),
    "kaldi": ("kaldi", kaldi),
    "folder": ("folder", plain),
}


def fingerprints(root: Path) -> dict[Path, tuple[str, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path: (hashlib.sha1(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_is_recognised_read_and_left_as_it_is(root: Path, name: str) -> None:
    kind, make = CORPORA[name]
    expected = make(root)
    before = fingerprints(root)
    done = run(root)
    assert (done.format, done.problems) == (kind, [])
    assert told(done, root) == expected
    assert fingerprints(root) == before
    # what is written is what training takes, and says the same
    rows, bad = read_manifest(root.parent / "out.jsonl")
    assert bad == []
    assert [(row.text, row.speaker, row.language) for row in rows] == [one[1:] for one in expected]
    assert [row.audio for row in rows] == [(root / one[0]).resolve() for one in expected]
    assert run(root, format=kind, jobs=1).entries == done.entries  # named, it is the same


def test_splits_come_from_the_corpus(root: Path) -> None:
    libritts(root)
    assert {entry.split for entry in run(root).entries} == {"dev"}
    # but not from folders above it
    other = root.parent / "test" / "Corpus"
    plain(other), libritts_texts(other / "x")
    assert [entry.split for entry in run(other / "x").entries] == [None]
    assert sorted(str(entry.split) for entry in run(other, format="folder").entries) == [
        "None",
        "None",
        "train",
    ]


def test_segments_of_kaldi(root: Path) -> None:
    audio = record(root / "a.wav", "some rain fell all day")
    write(root / "wav.scp", f"rec {audio}\n")
    write(root / "segments", "u1 rec 0.0 0.7\nu2 rec 0.8 -1\nu3 rec 0.9 99\nu4 gone 0 1\n")
    write(root / "text", "u1 some rain\nu2 fell all day\nu3 x\nu4 y\nu5 z\n")
    done = run(root)
    assert [(e.text, e.offset, e.duration) for e in done.entries] == [
        ("some rain", 0.0, 0.7),
        ("fell all day", 0.8, None),
    ]
    total = 22 * 0.08
    assert done.seconds == pytest.approx([0.7, total - 0.8], abs=1e-3)
    messages = {str(problem).removeprefix(f"{root}/") for problem in done.problems}
    assert messages == {
        f"segments:3: {audio} lasts 1.76 s, there is nothing from 0.90 to 99.00 s",
        "segments:4: recording 'gone' is not in wav.scp, or cannot be used",
        "text:5: utterance 'u5' is in no line of segments",
    }


def test_commands_in_wav_scp_are_not_run(root: Path) -> None:
    record(root / "a.wav")
    write(
        root / "wav.scp", f"ok {root}/a.wav\nu touch {root}/made |\nv sox {root}/a.wav -t wav - speed 2 |\n"
    )
    write(root / "text", "ok yes\nu no\nv no\n")
    done = run(root)
    assert [entry.text for entry in done.entries] == ["yes"]
    assert [problem.where for problem in done.problems] == [f"{root}/wav.scp:2", f"{root}/wav.scp:3"]
    assert all("commands are not run" in problem.message for problem in done.problems)
    assert not (root / "made").exists()


# ----------------------------------------------------------------------------------------------- broken things


def test_broken_entries_cost_a_line_each_and_no_crash(root: Path) -> None:
    for name in ("a", "b", "short"):
        record(root / "wavs" / f"{name}.wav", "some rain" if name != "short" else "so")
    write(root / "wavs/text.wav", "no audio")
    path = root / "metadata.csv"
    path.write_bytes(
        b"a|Fine.|Fine.\nnowhere|Gone.|Gone.\nonly\nb|one|two|three\nb|caf\xe9|caf\xe9\ntext|No|No\n"
        b"short|Oh|Oh\nb||\na|Again|Again\n"
    )
    done = run(root)
    assert [(entry.where, entry.text) for entry in done.entries] == [(f"{path}:1", "Fine.")]
    problems = {problem.where: problem.message for problem in done.problems}
    assert set(problems) == {f"{path}:{line}" for line in range(2, 10)}
    for line, words in {
        2: "no recording 'nowhere' (looked in",
        3: "1 fields parted by |",
        4: "4 fields parted by |",
        5: "not UTF-8 at byte 5",
        6: "cannot be read as audio",
        7: "lasts 0.16 s, less than 0.3 s",
        8: "no text; --transcribe MODEL",
        9: f"is listed in {path}:1 already",
    }.items():
        assert words in problems[f"{path}:{line}"]
    assert "\n" not in "".join(problems.values())


def test_broken_lines_of_other_formats(root: Path) -> None:
    record(root / "a.wav")
    write(root / "m.jsonl", '{"audio": "a.wav", "text": "x"}\n{oops\n[]\n{"audio": 3}\n{"text": "y"}\n')
    done = run(root / "m.jsonl")
    assert len(done.entries) == 1
    assert [str(p).partition("m.jsonl:")[2].partition(" ")[0] for p in done.problems] == [
        "2:",
        "3:",
        "4:",
        "5:",
    ]
    write(root / "t.list", "a.wav|ann|en|x\na.wav|ann\na.wav|ann|xx|x\n")
    done = run(root / "t.list")
    assert [p.message.split(":")[0] for p in done.problems] == [
        "2 fields parted by |, not recording|speaker|language|text",
        "language 'xx' is unknown",
    ]
    write(root / "t.csv", "path,text\na.wav,x\na.wav\n")
    assert run(root / "t.csv").problems[0].message == "1 fields, the header names 2: path, text"
    write(root / "q.csv", 'path,text\na.wav,x\na.wav,"' + 70_000 * "y\n")  # a quote that nothing closes
    (problem,) = run(root / "q.csv").problems
    assert problem.where.endswith("q.csv:3") and "from here on no table" in problem.message
    write(root / "vctk/txt/p1/p1_001.txt", "no recording")
    record(root / "vctk/wav48/p2/p2_001.wav")
    write(root / "vctk/txt/p2/p2_001.txt", "fine")
    assert [p.where for p in run(root / "vctk").problems] == [str(root / "vctk/txt/p1/p1_001.txt")]


def test_files_that_soundfile_does_not_read_are_named(root: Path) -> None:
    record(root / "a.wav")
    write(root / "a.txt", "x")
    (root / "b.m4a").write_bytes(b"x")
    (problem,) = run(root).problems
    assert str(problem).endswith("b.m4a: .m4a cannot be read; convert it: ffmpeg -i b.m4a b.flac")


def test_what_cannot_be_imported_at_all(root: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        run(root / "nowhere")
    with pytest.raises(UserError, match=r"of no known format \(shar, lhotse, kaldi"):
        run(root)
    with pytest.raises(UserError, match="format 'vits' is unknown; one of shar"):
        run(root, format="vits")
    with pytest.raises(UserError, match=r"not of the format kaldi \(wav.scp"):
        run(root, format="kaldi")
    record(root / "a.wav")
    with pytest.raises(
        UserError, match=r"nothing in it can be used, read as folder; the first of 1 problems: .*no text"
    ):
        run(root)
    assert not (root.parent / "out.jsonl").exists()
    with pytest.raises(UserError, match="language 'xx' is unknown"):
        run(root, language="xx")


def test_recordings_are_found_in_another_folder(root: Path) -> None:
    record(root / "far/away/x.flac")
    write(root / "list/metadata.csv", "x|hello\n")
    with pytest.raises(UserError, match="name its folder with --audio"):
        run(root / "list")
    done = run(root / "list", audio=root / "far/away")
    assert [entry.audio for entry in done.entries] == [root / "far/away/x.flac"]


def test_capitals_are_lowered_only_where_nearly_all_is_in_capitals(root: Path) -> None:
    record(root / "a.wav"), record(root / "b.wav")
    write(root / "a.txt", "NASA SAID SO"), write(root / "b.txt", "It told us.")
    assert [entry.text for entry in run(root).entries] == ["NASA SAID SO", "It told us."]
    write(root / "b.txt", "IT TOLD US.")
    done = run(root)
    assert [entry.text for entry in done.entries] == ["nasa said so", "it told us."]
    assert "2 texts were all in capitals and are now in small letters" in done.notes


# ----------------------------------------------------------------------------------------------------- Lhotse


def lhotse_corpus(root: Path) -> tuple[RecordingSet, SupervisionSet]:
    audio = record(root / "a.wav", "some rain fell all day")
    stereo = torch.stack([speak("some rain", sample_rate=RATE), speak("no no no ", sample_rate=RATE)], 1)
    soundfile.write(root / "b.wav", stereo.numpy(), RATE)
    recordings = [Recording.from_file(audio), Recording.from_file(root / "b.wav")]
    said = [
        SupervisionSegment("a1", "a", 0.0, 0.7, text="some rain", speaker="ann", language="English"),
        SupervisionSegment("a2", "a", 0.8, 0.9, text="fell all day", speaker="ann", custom={"split": "dev"}),
        SupervisionSegment("b1", "b", 0.0, 0.72, channel=1, text="no no no", speaker="bob"),
    ]
    return RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(said)


EXPECTED = [
    ("a.wav", "some rain", "ann", 0.0, 0.7, None, None),
    ("a.wav", "fell all day", "ann", 0.8, 0.9, None, "dev"),
    ("b.wav", "no no no", "bob", None, None, 1, None),
]


def pieces(done: Imported) -> list[tuple[Any, ...]]:
    return [(e.audio.name, e.text, e.speaker, e.offset, e.duration, e.channel, e.split) for e in done.entries]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_recordings_and_supervisions_of_lhotse(root: Path, ending: str) -> None:
    recordings, said = lhotse_corpus(root)
    recordings.to_file(root / f"x_recordings_all.{ending}")
    said.to_file(root / f"x_supervisions_all.{ending}")
    for path in (root, root / f"x_supervisions_all.{ending}", root / f"x_recordings_all.{ending}"):
        done = run(path)
        assert (done.format, done.problems) == ("lhotse", [])
        assert pieces(done) == [pytest.approx(one) for one in EXPECTED]


def test_cuts_of_lhotse_and_what_is_no_cut(root: Path) -> None:
    recordings, said = lhotse_corpus(root)
    cuts = CutSet.from_manifests(recordings, said)  # two supervisions in the first
    cuts.to_file(root / "cuts.jsonl")
    with open(root / "cuts.jsonl", "a", encoding="utf-8") as file:
        file.write('{oops\n{"id": "x", "type": "MonoCut"}\n')
        changed = cuts[0].perturb_speed(1.1).to_dict()
        file.write(json.dumps(changed) + "\n")
    done = run(root / "cuts.jsonl")
    assert sorted(map(str, pieces(done))) == sorted(map(str, EXPECTED))
    assert [problem.where[-2:] for problem in done.problems] == [":3", ":4", ":5"]
    assert "to be changed on the fly" in done.problems[2].message


def test_shar_archives_are_unpacked_beside_the_manifest(root: Path) -> None:
    recordings, said = lhotse_corpus(root)
    cuts = CutSet.from_manifests(recordings, said).trim_to_supervisions(keep_overlapping=False)
    (root / "shar").mkdir()
    mono = CutSet.from_cuts(cut for cut in cuts if cut.recording_id == "a").to_eager()
    mono.to_shar(root / "shar", fields={"recording": "flac"}, shard_size=1)
    done = run(root / "shar")
    assert (done.format, done.problems) == ("shar", [])
    assert [(e.text, e.speaker, e.split) for e in done.entries] == [
        ("some rain", "ann", None),
        ("fell all day", "ann", "dev"),
    ]
    original = soundfile.read(root / "a.wav", dtype="float32")[0]
    for entry, (start, end) in zip(done.entries, ((0.0, 0.7), (0.8, 1.7)), strict=True):
        assert entry.audio.parent == root / "out.jsonl_audio"
        wav, rate = soundfile.read(entry.audio, dtype="float32")
        first = round((entry.offset or 0.0) * rate)
        wav = wav[first : first + round((end - start) * rate)]
        np.testing.assert_allclose(wav, original[round(start * RATE) : round(end * RATE)], atol=2**-15)
    assert run(root / "shar").entries == done.entries  # once more over what is there


def test_a_manifest_of_cuts_is_written_that_lhotse_and_training_read(root: Path, tmp_path: Path) -> None:
    nemo(root)
    done = import_corpus(root, tmp_path / "out.jsonl.gz", progress=False)
    cuts = CutSet.from_file(tmp_path / "out.jsonl.gz")
    wav = soundfile.read(root / "long.wav", dtype="float32")[0]
    for cut, entry in zip(cuts, done.entries, strict=True):
        start = round((entry.offset or 0) * RATE)
        np.testing.assert_array_equal(cut.load_audio()[0], wav[start : start + cut.num_samples])
    rows, _ = read_manifest(tmp_path / "out.jsonl.gz")
    assert [(row.text, row.offset, row.duration) for row in rows] == [("some", 0.2, 0.5), ("rain", 0.8, 0.4)]


# ---------------------------------------------------------------------------------- long ones, and without text


class Fake:
    """Hears how long it is and what language it is told."""

    name = "fake 1"

    def __init__(self) -> None:
        self.heard: list[tuple[float, str]] = []

    def __call__(self, wav: Tensor, language: str) -> str:
        self.heard.append((len(wav) / RATE, language))
        return f" number {len(self.heard)} " if float(wav.abs().max()) > 0.01 else " ..."


def test_missing_texts_are_written_by_the_recogniser_and_marked(root: Path) -> None:
    record(root / "a.wav", rate=44_100), record(root / "b.flac")
    write(root / "a.txt", "Given.")
    soundfile.write(root / "c.wav", np.zeros(RATE), RATE)
    fake = Fake()
    done = run(root, recogniser=fake, language="de")
    assert [(e.audio.name, e.text, e.text_by) for e in done.entries] == [
        ("a.wav", "Given.", None),
        ("b.flac", "number 1", "fake 1"),
    ]
    assert [str(p).rpartition(": ")[2] for p in done.problems] == ["fake 1 hears nothing said"]
    assert fake.heard == [(pytest.approx(0.72), "de"), (1.0, "de")]
    assert "1 texts are by fake 1, and marked so (text_by)" in done.notes
    line = json.loads((root.parent / "out.jsonl").read_text().splitlines()[1])
    assert line["text_by"] == "fake 1"
    # all of them anew
    done = run(root, recogniser=Fake(), ignore_text=True)
    assert [e.text_by for e in done.entries] == ["fake 1", "fake 1"]


def long_recording(path: Path, phrases: int = 12, rate: int = 24_000) -> list[tuple[float, float]]:
    """Phrases with pauses of 0.25 to 0.6 s between; where each is, seconds."""
    rng = np.random.default_rng(0)
    wavs, spans, at = [np.zeros(round(0.3 * rate), np.float32)], [], 0.3
    for n in range(phrases):
        wav = speak("somefogfelldaily" if n % 2 else "theysaidhewasaway", seed=n, sample_rate=rate).numpy()
        pause = np.zeros(round(rng.uniform(0.25, 0.6) * rate), np.float32)
        spans.append((at, at + len(wav) / rate))
        at += (len(wav) + len(pause)) / rate
        wavs += [wav, pause]
    whole = np.concatenate(wavs)
    soundfile.write(path, whole + 1e-4 * rng.standard_normal(len(whole)), rate)
    return spans


def test_long_recordings_are_cut_at_pauses_and_named_by_time(root: Path, tmp_path: Path) -> None:
    spans = long_recording(root / "chapter.flac")
    fake = Fake()
    done = run(root, recogniser=fake, vad="energy", longest=6.0)
    assert done.problems == []
    assert len(done.entries) > 2
    cut = [(e.offset or 0.0, (e.offset or 0.0) + (e.duration or 0.0)) for e in done.entries]
    assert all(1.0 <= end - start <= 6.0 for start, end in cut)
    assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(cut))
    for start, end in spans:  # every phrase is in one piece, whole
        assert sum(a <= start and end <= b for a, b in cut) == 1
    assert [seconds for seconds, _ in fake.heard] == pytest.approx([b - a for a, b in cut], abs=1e-3)
    assert any("cut by level alone" in note for note in done.notes)
    assert {path.name for path in root.iterdir()} == {"chapter.flac"}

    # and from there to data to train from
    out = tmp_path / "prepared"
    prepared = prepare(
        tmp_path / "out.jsonl", out, LogMel(), phonemize=lambda texts, _: list(texts), progress=False
    )
    assert sum(prepared.cuts.values()) == len(done.entries)
    wav = soundfile.read(root / "chapter.flac", dtype="float32")[0]
    for split, count in prepared.cuts.items():
        for prepared_cut in read_cuts(out / f"cuts_{split}.jsonl.gz") if count else ():
            start, end = next(c for c in cut if prepared_cut.id.endswith(f"#{c[0]:.3f}+{c[1] - c[0]:.3f}"))
            audio = prepared_cut.load_audio()[0]
            np.testing.assert_allclose(audio, wav[round(start * 24_000) :][: len(audio)], atol=2**-15)
            assert len(audio) == round((end - start) * 24_000)
            assert prepared_cut.supervisions[0].custom["text_by"] == "fake 1"


def test_a_long_recording_with_one_text_is_not_guessed_at(root: Path) -> None:
    record(root / "ok.wav"), write(root / "ok.txt", "Fine.")
    soundfile.write(root / "book.wav", 0.1 * np.sin(np.arange(41 * 8000) / 9), 8000)
    write(root / "book.txt", "A whole chapter.")
    (problem,) = run(root).problems
    assert "lasts 41.00 s, more than 40 s, and has one text" in problem.message
    assert "--ignore-text --transcribe MODEL" in problem.message


def test_speech_without_a_pause_is_left_out_and_said(root: Path) -> None:
    record(root / "ok.wav"), write(root / "ok.txt", "Fine.")
    soundfile.write(root / "hum.wav", 0.1 * np.sin(np.arange(20 * 8000) / 9), 8000)
    (problem,) = run(root, recogniser=Fake(), vad="energy").problems
    assert str(problem).endswith("from 0.00 to 20.00 s left out: no pause in 20.0 s")


def test_the_work_can_be_sent_to_other_processes(root: Path) -> None:
    plain(root)
    expected = run(root)
    with pytest.MonkeyPatch.context() as patch:

        def sent(call: Any, things: Any, jobs: int) -> list[Any]:
            assert jobs == 2
            return [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(call))(one))) for one in things]

        patch.setattr("tts.data.importers.run.ordered_map", sent)
        assert run(root, jobs=2) == expected


def test_a_gzipped_manifest_of_ones_own(root: Path) -> None:
    record(root / "a.wav")
    line = json.dumps({"audio": "a.wav", "text": "x", "speaker": "s", "language": "en-us"})
    (root / "m.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    assert read_manifest(root / "m.jsonl.gz")[0][0].text == "x"
    (root / "broken.jsonl.gz").write_bytes(gzip.compress(line.encode())[:20])
    with pytest.raises(UserError, match="is no whole gzip file"):
        read_manifest(root / "broken.jsonl.gz")


def test_the_first_format_that_fits_is_taken(root: Path) -> None:
    ljspeech(root)
    assert find_format(root, None)[0].name == "ljspeech"
    assert find_format(root / "metadata.csv", None) == (
        find_format(root, "ljspeech")[0],
        root / "metadata.csv",
    )
    assert find_format(root, "folder")[0].name == "folder"


def test_a_cut_with_more_than_one_supervision_is_for_import_not_for_training(root: Path) -> None:
    recordings, said = lhotse_corpus(root)
    whole = MonoCut("c", 0.0, 1.76, 0, recording=recordings["a"], supervisions=list(said.find("a")))
    CutSet.from_cuts([whole]).to_file(root / "cuts.jsonl")
    with pytest.raises(UserError, match="the cut has 2 supervisions, not one; import it first"):
        read_manifest(root / "cuts.jsonl")
