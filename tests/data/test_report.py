"""The data report: faults planted in made speech are found, each by its own name, and clean speech has none."""

import base64
import functools
import hashlib
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from rich.console import Console
from torch import Tensor

from codec.errors import UserError
from tests import conftest
from tts.data.manifest import ManifestError, read_manifest
from tts.data.report.checks import Group
from tts.data.report.coverage import coverage
from tts.data.report.examine import Report, examine
from tts.data.report.fix import fix
from tts.data.report.measure import flat_peaks, snr, spectrogram, top_frequency
from tts.data.report.page import page
from tts.data.report.terminal import show
from tts.data.segment import decode
from tts.text.symbols import DEFAULT_SYMBOLS as TABLE

RATE = 24_000
speak = functools.cache(conftest.speak)  # nobody changes the waves in place
TEXTS = (
    "the fish had six fins",
    "soft fog covers the hills",
    "she has a quick brown fox",
    "thick ice cracks at dusk",
    "we took the last bus back",
    "his fifth coat is just fine",
    "cheap tea spoils the taste",
    "a jazz cat speaks of soup",
    "push the heavy desk to us",
    "few ships visit this bay",
    "take the second path west",
    "zebras sip water at six",
)


def spell(texts: Sequence[str], language: str) -> list[str]:
    """Letters for phonemes: these tests need no espeak."""
    if language == "xx":
        raise UserError("language 'xx' is unknown")
    return [text.lower() for text in texts]


def segments(text: str) -> list[int]:
    return TABLE.segments(TABLE.encode(text.lower()))


class Corpus:
    """Recordings and their manifest, and a reader that hears what was really said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, folder / "corpus.jsonl"
        self.lines: list[str] = []
        self.truth: dict[str, list[int]] = {}

    def add(
        self,
        text: str,
        wav: Tensor | None = None,
        *,
        said: str | None = None,
        rate: int = RATE,
        ending: str = "wav",
        name: str = "",
        **fields: object,
    ) -> int:
        """Write an utterance of ``text``; the wave says ``said``. Returns its line."""
        line = len(self.lines) + 1
        wav = speak(text, speaker=line % 3, seed=line) if wav is None else wav
        path = self.folder / (name or f"{line}.{ending}")
        soundfile.write(path, wav.numpy(), rate)
        row = {"audio": path.name, "text": text, "speaker": f"s{line % 3}", "language": "en-us", **fields}
        self.lines.append(json.dumps(row))
        heard, _ = decode(path)
        self.truth[_key(heard)] = segments(said if said is not None else text)
        return line

    def add_line(self, line: str | dict[str, object]) -> int:
        self.lines.append(line if isinstance(line, str) else json.dumps(line))
        return len(self.lines)

    def read(self, wav: Tensor, sample_rate: int) -> list[int]:
        """What is said, each twentieth sound misheard."""
        ids = list(self.truth.get(_key(wav), []))
        return [ids[0] if i % 20 == 10 else one for i, one in enumerate(ids)]

    def report(self, **settings: Any) -> Report:
        self.manifest.write_text("".join(line + "\n" for line in self.lines), encoding="utf-8")
        settings = {"reader": self.read, "phonemize": spell, "progress": False, **settings}
        return examine(self.manifest, **settings)


def _key(wav: Tensor) -> str:
    return hashlib.sha1((wav * 32_767).round().short().numpy().tobytes()).hexdigest()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Twelve clean utterances, lines 1 to 12."""
    made = Corpus(tmp_path)
    for text in TEXTS:
        made.add(text)
    return made


def found(report: Report) -> dict[str, list[int]]:
    """Lines of each kind of finding, the worst first."""
    return {group.kind: [one.line for one in group.findings] for group in report.groups}


def group(report: Report, kind: str) -> Group:
    return next(group for group in report.groups if group.kind == kind)


def test_clean_speech_has_no_findings(corpus: Corpus) -> None:
    report = corpus.report()
    assert found(report) == {}
    assert len(report.rows) == 12
    assert report.seconds == pytest.approx(sum(map(len, TEXTS)) * 0.08, abs=1e-3)
    assert report.seconds_by("speaker")["s1"] == pytest.approx(sum(map(len, TEXTS[::3])) * 0.08, abs=1e-3)
    assert report.corpus.expected["en-us"].error < 0.1 < 0.7 < report.corpus.expected["en-us"].chance


def hush(seconds: float) -> Tensor:
    return 1e-4 * torch.from_numpy(np.random.default_rng(0).standard_normal(round(seconds * RATE))).float()


def through(wav: Tensor, rate: int) -> Tensor:
    """Down to a rate and up again, as 16 bit."""
    return torch.from_numpy(soxr.resample(soxr.resample(wav.numpy(), RATE, rate), rate, RATE))


SAID = "the sixth chef hates fish"


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("clipped", lambda wav: (3 * wav).clamp(-0.5, 0.5), r"\d+ peaks cut off at -6\.0 dBFS"),
        (
            "narrow",
            lambda wav: through(wav, 16_000),
            r"nothing above (7\.8|8\.0) kHz, like 16 kHz material, stored at 24 kHz",
        ),
        (
            "narrow",
            lambda wav: through(wav, 8_000),
            r"nothing above 4\.0 kHz, like 8 kHz material, stored at 24 kHz",
        ),
        ("silent", lambda wav: wav * 3e-3, r"-\d\d LUFS"),
        ("silent", lambda wav: wav * 0, "digital silence"),
        ("level", lambda wav: wav * 0.1, r"-\d\d LUFS, \d\d dB quieter than the median"),
        (
            "edges",
            lambda wav: torch.cat([hush(1.5), wav, hush(2.0)]),
            r"1\.[45] s of silence before, 2\.\d s after",
        ),
        ("noisy", lambda wav: wav + 1000 * hush(len(wav) / RATE), r"SNR estimate \d+ dB"),
    ],
)
def test_a_planted_fault_is_found_and_nothing_else(
    corpus: Corpus, kind: str, change: Any, words: str
) -> None:
    line = corpus.add(SAID, change(speak(SAID, speaker=1)))
    report = corpus.report()
    assert found(report) == {kind: [line]}
    (finding,) = group(report, kind).findings
    assert re.fullmatch(rf"{words}.*", finding.what), finding.what
    assert finding.id == f"{line}.wav"


def test_a_wrong_transcript_is_found_and_shown_beside_what_is_read(corpus: Corpus) -> None:
    wrong = corpus.add("blue moons grow on rye and clover", speak(SAID + " twice"), said=SAID + " twice")
    half = corpus.add(SAID, speak(SAID + " and a half"), said=SAID + " and a half")
    report = corpus.report()
    assert found(report) == {"contradicted": [wrong, half]}
    first, second = group(report, "contradicted").findings
    assert (first.expected, first.action) == ("bluemoonsɡrowonryeandclover", "drop")
    assert first.read.startswith("thesixthch")
    assert "no better than the text of another recording" in first.what
    assert second.action is None
    # without a reader it stays unknown
    assert found(corpus.report(reader=None)) == {}


def test_what_is_too_noisy_to_read_is_not_dropped_as_wrong(corpus: Corpus) -> None:
    line = corpus.add(SAID, speak(SAID) + 1000 * hush(len(SAID) * 0.08), said="who knows what was heard")
    report = corpus.report()
    assert found(report) == {"contradicted": [line], "noisy": [line]}
    (finding,) = group(report, "contradicted").findings
    assert finding.what.endswith("no better than the text of another recording, but it is noisy")
    assert finding.action is None


def test_slipped_transcripts_are_all_found(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    for n, text in enumerate(TEXTS):
        said = TEXTS[(n + 1) % 12] if n >= 8 else text
        corpus.add(text, speak(said, speaker=n % 3, seed=n) if n >= 8 else None, said=said)
    assert sorted(found(corpus.report())["contradicted"]) == [9, 10, 11, 12]


def test_a_reader_that_reads_nothing_is_not_believed(corpus: Corpus) -> None:
    report = corpus.report(reader=lambda wav, rate: segments("nonsense all the time here"))
    assert found(report) == {}
    assert report.corpus.expected["en-us"].blind
    assert "too near to check transcripts by" in page(report)


def test_too_much_and_too_little_text_for_the_time(corpus: Corpus) -> None:
    fast = corpus.add(" ".join((SAID,) * 2), speak(SAID))
    slow = corpus.add("hush", speak(SAID))
    never = corpus.add(" ".join((SAID,) * 4), speak(SAID, seed=1))
    report = corpus.report(reader=None)
    lines = found(report)
    assert lines["impossible"] == [never]
    assert sorted(lines["pace"]) == [fast, slow]
    assert "sounds a second; people say 10 to 20" in group(report, "impossible").findings[0].what


def test_copies_are_found_whatever_their_form(corpus: Corpus) -> None:
    original, _ = decode(corpus.folder / "5.wav")
    same = corpus.add(TEXTS[4], original, speaker="s2")
    other_text = corpus.add("we took the first bus home", original, said=TEXTS[4])
    packed = corpus.add(TEXTS[2], 0.5 * decode(corpus.folder / "3.wav")[0], ending="mp3", speaker="x")
    report = corpus.report(reader=None)
    findings = {one.line: one for one in group(report, "copies").findings}
    assert list(findings) == [other_text, same, packed]  # those whose texts differ are worse
    assert findings[same].what == "the same samples as line 5 (5.wav)"
    assert findings[same].action == "drop"
    assert findings[other_text].what == "the same samples as line 5 (5.wav), with another text"
    assert findings[other_text].action is None
    assert findings[packed].what == "the same recording in another form as line 3 (3.wav)"
    assert findings[packed].action is None
    assert set(found(report)) <= {"copies", "repeated"}


def test_of_copies_that_of_training_goes(corpus: Corpus) -> None:
    original, _ = decode(corpus.folder / "5.wav")
    corpus.add(TEXTS[4], original, split="test")
    assert [one.line for one in group(corpus.report(), "copies").findings] == [5]


def test_the_same_text_again_and_across_splits(corpus: Corpus) -> None:
    corpus.add(TEXTS[0] + "!", speaker="s1")
    line = corpus.add(TEXTS[7], speaker="new", split="dev")
    report = corpus.report()
    assert found(report) == {"repeated": [1], "leaks": [line]}
    assert group(report, "repeated").findings[0].what == f"'s1' says {TEXTS[0]!r} 2 times"


def test_pieces_that_overlap(corpus: Corpus) -> None:
    fields = json.loads(corpus.lines[1])
    corpus.add_line({**fields, "offset": 0.0, "duration": 1.2, "text": TEXTS[1][:15]})
    second = corpus.add_line({**fields, "offset": 0.9, "duration": 1.0, "text": TEXTS[1][11:24]})
    lines = found(corpus.report(reader=None))
    assert second in lines["overlaps"]


def test_lines_that_cannot_be_used_cost_no_crash(corpus: Corpus) -> None:
    good = json.loads(corpus.lines[0])
    (corpus.folder / "text.wav").write_text("no audio")
    soundfile.write(corpus.folder / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(corpus.folder / "blip.wav", speak("fff").numpy(), RATE)
    bad = {
        corpus.add_line("{oops"): "not JSON",
        corpus.add_line({**good, "audio": "gone.wav"}): "no audio file",
        corpus.add_line({**good, "audio": "text.wav"}): "not audio that can be read",
        corpus.add_line({**good, "audio": "nan.wav"}): "holds NaN",
        corpus.add_line(
            {**good, "audio": "blip.wav", "text": "fff"}
        ): "0.24 s long, training takes 0.3 to 40 s",
        corpus.add("?!", speak(SAID)): "nothing in text '?!' can be spoken",
        corpus.add(SAID, language="xx"): "language 'xx' is unknown",
        corpus.add_line(good): "is in line 1 already",
    }
    report = corpus.report()
    findings = {one.line: one for one in group(report, "unusable").findings}
    assert set(findings) == set(bad)
    for line, words in bad.items():
        assert words in findings[line].what
        assert "--skip-bad" not in findings[line].what
        assert findings[line].action == "drop"
    assert set(found(report)) == {"unusable"}


def test_signs_that_nobody_says(corpus: Corpus) -> None:
    line = corpus.add("[laughs] " + SAID + " <b>so", speak(SAID), said=SAID)
    report = corpus.report(reader=None)
    assert found(report)["markup"] == [line]
    assert group(report, "markup").findings[0].what.startswith("[ ] < >")


def test_dnsmos_is_asked_for_a_spread_of_utterances(corpus: Corpus) -> None:
    heard: list[int] = []

    def rate(wav: Tensor) -> tuple[float, float]:
        heard.append(len(wav))
        return (3.0, 2.0 if len(heard) == 2 else 4.0)

    report = corpus.report(rate=rate, most_rated=4)
    assert len(heard) == 4
    assert found(report) == {"noisy": [4]}
    assert group(report, "noisy").findings[0].what.startswith("DNSMOS background 2.0 of 5")
    assert report.noise.startswith("DNSMOS of 4 utterances")


def test_several_processes_give_the_same(corpus: Corpus) -> None:
    corpus.add(SAID, (3 * speak(SAID)).clamp(-0.5, 0.5))
    assert corpus.report(reader=None, jobs=2).groups == corpus.report(reader=None).groups


# ------------------------------------------------------------------------------------------------------- fix


def test_fix_writes_what_is_safe_and_leaves_the_rest(corpus: Corpus, tmp_path: Path) -> None:
    silent = corpus.add(SAID, speak(SAID) * 1e-3)
    clipped = corpus.add(SAID + " b", (3 * speak(SAID + " b")).clamp(-0.5, 0.5), mood="loud")
    edges = corpus.add(SAID + " c", torch.cat([hush(2.0), speak(SAID + " c"), hush(1.5)]), mood="calm")
    broken = corpus.add_line("{oops")
    report = corpus.report()
    assert set(found(report)) == {"silent", "clipped", "edges", "unusable"}
    before = corpus.manifest.read_bytes()
    out = tmp_path / "elsewhere" / "fixed.jsonl"
    done = fix(report, out)
    assert (done.kept, dict(done.dropped), dict(done.repaired)) == (
        14,
        {"unusable": 1, "silent": 1},
        {"edges": 1},
    )
    assert corpus.manifest.read_bytes() == before
    rows, bad = read_manifest(out)
    assert bad == []
    assert {silent, broken}.isdisjoint(range(1, 13))
    assert [row.audio.name for row in rows] == [f"{n}.wav" for n in range(1, 13)] + [
        f"{clipped}.wav",
        f"{edges}.wav",
    ]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line.get("mood") for line in lines[-2:]] == ["loud", "calm"]  # what it does not know it keeps
    length = len(SAID + " c") * 0.08
    assert rows[-1].offset == pytest.approx(2.0 - 0.3, abs=0.05)
    assert rows[-1].duration == pytest.approx(length + 0.6, abs=0.1)
    # the mended corpus has nothing left but what was kept on purpose
    assert found(examine(out, phonemize=spell, progress=False)) == {"clipped": [13]}
    done = fix(report, tmp_path / "less.jsonl", also_drop=["clipped"])
    assert done.dropped["clipped"] == 1
    assert done.kept == 13


def test_fix_never_writes_over_the_manifest_nor_an_empty_one(corpus: Corpus, tmp_path: Path) -> None:
    report = corpus.report()
    with pytest.raises(UserError, match="is the manifest itself"):
        fix(report, corpus.manifest)
    lone = Corpus(tmp_path)
    lone.add(SAID, speak(SAID) * 1e-3, name="x.wav")
    with pytest.raises(UserError, match="nothing would be left"):
        fix(lone.report(), tmp_path / "fixed.jsonl")
    assert not (tmp_path / "fixed.jsonl").exists()
    with pytest.raises(ManifestError, match="cannot read the manifest"):
        examine(tmp_path / "nowhere.jsonl")


# -------------------------------------------------------------------------------------------- page and terminal


class Outside(HTMLParser):
    """Collects what a page would fetch, and its players."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.players: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.fetched += [
            v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith(("data:", "#"))
        ]
        self.fetched += [tag] if tag in ("script", "link", "iframe") else []
        if tag == "audio":
            self.players.append(values["src"] or "")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_plays_the_worst(corpus: Corpus, tmp_path: Path) -> None:
    for n in range(3):
        corpus.add(f"{SAID} <b>{n}", (3 * speak(SAID, seed=n)).clamp(-0.5, 0.5), said=SAID)
    text = page(corpus.report(), players=2)
    parser = Outside()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert parser.fetched == []
    assert "&lt;b&gt;0" in text
    assert "<b>0" not in text
    assert len(parser.players) == 2 * 2  # clipped, and signs that nobody says
    (tmp_path / "x.mp3").write_bytes(base64.b64decode(parser.players[0].partition(",")[2]))
    wav, rate = soundfile.read(tmp_path / "x.mp3")
    assert rate == RATE
    assert abs(len(wav) / rate - len(SAID) * 0.08) < 0.1
    assert np.abs(wav).max() > 0.3


def test_the_terminal_shows_kinds_and_what_to_do(corpus: Corpus) -> None:
    line = corpus.add(SAID, speak(SAID) * 1e-3)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(corpus.report(), console)
    text = console.export_text()
    assert re.search(
        rf"1 +silent +{line}: digital silence +Record again with more gain.*\n +nearly silent +--fix drops 1",
        text,
    )
    assert "0.4 min in 13 utterances" in text
    clean = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    corpus.lines.pop()
    show(corpus.report(), clean)
    assert "Nothing was found that needs doing." in clean.export_text()


# --------------------------------------------------------------------------------------------------- measures


def test_every_peak_that_was_cut_off_counts_once() -> None:
    time = np.arange(RATE) / RATE
    wave = np.sin(2 * math.pi * 440 * time).astype(np.float32)
    assert flat_peaks(wave) == 0
    assert flat_peaks(np.clip(wave, -0.5, 0.5)) == 880
    assert flat_peaks(0.1 * np.clip(wave, -0.5, 2.0)) == 440  # made quieter afterwards, and one side only
    assert flat_peaks(np.zeros(100, np.float32)) == 0


def test_the_ratio_of_speech_to_noise() -> None:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal(4 * RATE)).float()
    loud = torch.cat([torch.ones(2 * RATE), torch.zeros(2 * RATE)])
    for gain in (10.0, 100.0):
        wav = 1e-3 * (noise + gain * loud * torch.from_numpy(rng.standard_normal(4 * RATE)).float())
        assert snr(wav, RATE) == pytest.approx(10 * math.log10(gain**2 + 1), abs=1.5)


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100, 48_000])
def test_where_the_spectrum_ends(rate: int) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * rate).astype(np.float32)
    assert top_frequency(*spectrogram(torch.from_numpy(noise), rate)) == rate / 2
    for low in (8_000, 16_000):
        if low < 0.9 * rate:
            wav = soxr.resample(soxr.resample(noise, rate, low), low, rate)
            assert top_frequency(*spectrogram(torch.from_numpy(wav), rate)) == pytest.approx(low / 2, abs=300)
    # a slope is no wall
    pink = np.fft.irfft(np.fft.rfft(noise) / (1 + np.arange(len(noise) // 2 + 1) / 500) ** 2).astype(
        np.float32
    )
    assert top_frequency(*spectrogram(torch.from_numpy(pink), rate)) == rate / 2


def test_what_texts_cover(corpus: Corpus) -> None:
    rows = corpus.report().rows
    phonemes = {row.line: row.text for row in rows}
    one = coverage(rows, phonemes, TABLE, lambda texts, language: ["abc ŋ" for _ in texts])["en-us"]
    written = "".join(TEXTS).replace(" ", "")
    assert one.characters == {char: written.count(char) for char in set(written)}
    assert one.missing_sounds == ["ŋ"]
    assert one.sounds["ɡ"] == written.count("g")
    assert set(one.rare_characters) == {char for char in set(written) if written.count(char) < 5}
    assert one.missing_characters == ["m"]


def test_sounds_that_english_needs() -> None:
    from tts.data.manifest import Row
    from tts.data.prepare import read_texts

    row = Row("a", Path("a"), "We see the sea.", "s", "en-us", 1.0, None, 1)
    one = coverage([row], {1: read_texts([row.text], "en-us")[0]}, TABLE, read_texts)["en-us"]
    assert {"ʒ", "ŋ", "ʃ", "θ", "ɔ", "ʊ", "æ", "ɹ"} <= set(one.missing_sounds)
    assert not {"s", "ð", "w"} & set(one.missing_sounds)
    assert {"a", "b", "z"} - {"a"} <= set(one.missing_characters)
