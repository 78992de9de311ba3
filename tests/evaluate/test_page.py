"""The page: worst first, and nothing that it has to fetch."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.image import imread

from tests.evaluate.conftest import Loudness, Parrot, lower
from tts import TTS, Settings
from tts.evaluate import Results, evaluate
from tts.evaluate.cases import Case
from tts.evaluate.cost import Cost
from tts.evaluate.page import LIMITS, marked, mp3, picture, worst_first, write_page
from tts.evaluate.recognise import Intelligibility
from tts.evaluate.report import report, table
from tts.evaluate.robustness import Robustness
from tts.evaluate.similarity import Similarity

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page: its tags, what they refer to, its words; fails where tags are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data + "\n"

    def all(self, tag: str, key: str) -> list[str]:
        return [str(attrs[key]) for name, attrs in self.tags if name == tag and key in attrs]


@pytest.fixture(scope="module")
def results(tts: TTS, case_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    from tts.evaluate import read_cases

    cases = read_cases(case_list)
    cases.append(Case("<b>&", "Tags <i> & “quotes”, no?", cases[0].prompt))
    return evaluate(
        cases,
        tmp_path_factory.mktemp("page") / "out",
        tts,
        Settings(steps=1, guidance=0.0, retries=0),
        metrics=[
            Intelligibility(Parrot("some <i>rain</i> fell"), lower),
            Similarity(Loudness()),
            Robustness(),
            Cost(),
        ],
        players=2,
    )


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return (results.folder / "index.html").read_text(encoding="utf-8")


def test_it_fetches_nothing(html: str, results: Results) -> None:
    page = Page(html)
    assert "http" not in html and "@import" not in html and "url(" not in html
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    sources = page.all("audio", "src") + page.all("img", "src")
    assert all(re.match(r"data:(audio/mpeg|image/webp);base64,", source) for source in sources)
    assert page.all("script", "src") == []
    # the worst two in the page, the others beside it
    links = page.all("a", "href")
    assert links[:2] == ["#case-0", "#case-1"]
    assert all((results.folder / link).is_file() for link in links[2:]) and len(links) == 4
    assert {"case-0", "case-1"} == set(page.all("article", "id"))


def test_it_tells_everything(html: str, results: Results) -> None:
    words = Page(html).words
    for figure in results.figures:
        assert figure.label in words
    for row in results.rows:
        assert row in words
    assert "Tags <i> & “quotes”, no?" in words and "<b>&" in words
    assert "<i>" not in html.split("</style>")[1]
    wer = results.rows["text"]["wer"]
    assert wer is not None and f"{100 * wer.value:.1f} %" in words
    assert "parrot" in words and "similarity of the list's own recordings: " in words


def test_sounds_and_pictures_are_those_of_the_case(html: str, results: Results) -> None:
    page = Page(html)
    worst = worst_first(results)[:2]
    sounds = page.all("audio", "src")
    assert len(sounds) == sum(1 + len(group) for group in worst)  # with each prompt
    made = soundfile.read(results.folder / worst[0][0]["audio"])[0]
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[1].partition(",")[2])))
    assert rate == 24_000 and abs(len(decoded) - len(made)) < 3000
    energy = [np.sqrt(np.mean(np.square(wav))) for wav in (made, decoded)]
    assert energy[1] == pytest.approx(energy[0], rel=0.15)
    image = base64.b64decode(page.all("img", "src")[1].partition(",")[2])
    assert imread(io.BytesIO(image), format="webp").shape[:2] == (100, len(made) // 256 + 1)


def test_worst_first(results: Results) -> None:
    def sound(name: str, wrong: int, similarity: float) -> dict[str, Any]:
        return {"id": name, "row": "text", "word_errors": wrong, "words": 4, "similarity": similarity}

    cases = [sound("a", 0, 0.9), sound("b", 3, 0.8), sound("c", 0, 0.2), sound("d", 3, 0.1)]
    cases.append({"id": "d", "row": "recording", "word_errors": 0, "words": 4})
    order = [group[0]["id"] for group in worst_first(replace(results, cases=cases))]
    assert order == ["d", "b", "c", "a"]
    assert [len(group) for group in worst_first(replace(results, cases=cases))] == [2, 1, 1, 1]


def test_a_prompt_that_has_gone(results: Results, tmp_path: Path) -> None:
    group = worst_first(results)[0]
    cases = [{**sound, "prompt": str(tmp_path / "gone.wav")} for sound in group]
    path = results.folder / "other.html"
    write_page(path, replace(results, cases=cases), players=1)
    page = Page(path.read_text())
    assert "no such audio file" in page.words and len(page.all("audio", "src")) == len(group)


def test_marks() -> None:
    assert marked("Some rain fell.", "some rain, fell") == "some rain, fell"
    assert (
        marked("Some rain fell.", "some <snow> fell down")
        == "some <mark>&lt;snow&gt;</mark> fell <mark>down</mark>"
    )
    assert marked("Some rain fell.", "some fell") == "some <mark>·</mark> fell"
    assert marked("abc", "abd", letters=True) == "ab<mark>d</mark>"


def test_a_picture_has_low_frequencies_below() -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 300 * torch.arange(24_000) / 24_000)
    image = imread(io.BytesIO(picture(tone)), format="webp").astype(float)
    brightness = image[..., :3].sum(-1).mean(1)  # of each channel, top to bottom
    assert 75 < int(brightness.argmax()) < 98
    assert LIMITS[0] < LIMITS[1]


def test_an_mp3_is_small_and_sounds() -> None:
    wav = 0.3 * torch.sin(torch.arange(48_000) / 20)
    data = mp3(wav, 24_000)
    assert len(data) < 20_000
    decoded, _ = soundfile.read(io.BytesIO(data))
    assert np.abs(decoded[5000:40_000]).max() == pytest.approx(0.3, abs=0.03)


def test_the_table_has_a_line_a_figure_and_a_column_a_row(results: Results) -> None:
    lines = table(results).splitlines()
    assert len(lines) == 1 + len(results.figures)
    assert lines[0].split("  ")[-1].strip() == "recording, 2 cases"
    assert len({len(line) for line in lines}) == 1
    line = next(line for line in lines if line.startswith("word error rate"))
    cells = [results.figures[0].show_estimate(results.rows[row]["wer"]) for row in results.rows]
    assert line.split(None, 3)[3].split("  ") == cells or all(cell in line for cell in cells)
    printed = report(results, ["naturalness"])
    assert "left out: naturalness" in printed and "seed 0" in printed and "MiB in main memory" in printed
    assert "different speakers: " in printed
