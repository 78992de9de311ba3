"""The page in a real browser: type, upload, speak, download, with the mouse left alone. Skipped where there is none."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from tests.serve.conftest import Running
from tts import Voice

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

FLAGS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
TEXT = "A lone seal sang all night. Nine men ran a mile!"


@pytest.fixture(params=["desktop", "phone"])
def page(request: pytest.FixtureRequest, server: Running) -> Iterator[Any]:
    size = {"width": 1100, "height": 900} if request.param == "desktop" else {"width": 390, "height": 800}
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport=size)
        errors: list[str] = []
        outside: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda one: outside.append(one.url) if "127.0.0.1" not in one.url else None)
        tab.goto(server.url)
        yield tab
        assert errors == []
        assert [url for url in outside if not url.startswith(("blob:", "data:"))] == []
        browser.close()


def test_type_upload_play_download(page: Any, server: Running, speech_file: Path, tmp_path: Path) -> None:
    page.wait_for_selector("#voice option >> nth=1", state="attached")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    # a voice, which is not taken without consent
    assert page.is_disabled("#choose")
    page.focus("#consent")
    page.keyboard.press("Space")
    page.fill("#name", "Someone")
    page.set_input_files("#file", speech_file)
    page.wait_for_selector("#kept li", state="attached", timeout=60_000)
    # and is chosen at once
    page.wait_for_selector("#voice option:checked:has-text('Someone')", state="attached")

    # its speech, with the keyboard alone
    page.fill("#text", TEXT)
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#words .now", timeout=60_000)  # words light up
    page.wait_for_selector("#downloads", state="visible", timeout=60_000)
    assert page.inner_text("#words").split() == TEXT.split()
    assert TEXT.split()[-1] in page.inner_text("#reading li:last-child")
    colours = "c => new Set(c.getContext('2d').getImageData(0, 0, 100, 100).data).size"
    assert page.eval_on_selector("#mel canvas", colours) > 20  # a picture

    # what was made, as files
    voice = page.eval_on_selector("#voice", "select => select.value")
    alone = server.alone(TEXT, _saved(server, voice, tmp_path))
    with page.expect_download() as download:
        page.click("#wav")
    data = Path(download.value.path()).read_bytes()
    assert soundfile.info(io.BytesIO(data)).frames == len(alone)
    with page.expect_download() as download:
        page.click("#srt")
    subtitles = Path(download.value.path()).read_text()
    assert subtitles.startswith("1\n00:00:0") and "sang all night." in subtitles
    page.screenshot(path=tmp_path / "page.png", full_page=True)

    # it goes when it is told to
    page.click("#kept button:has-text('Delete')")
    page.wait_for_selector("#kept li", state="detached")


def _saved(server: Running, voice: str, folder: Path) -> Voice:
    """An uploaded voice, as a file that the test reads."""
    path = folder / "voice.safetensors"
    path.write_bytes(httpx.get(f"{server.url}/v1/audio/voices/{voice}").content)
    return Voice.load(path)
