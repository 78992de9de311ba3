"""Broken uploads, requests that nobody would write, and the end of a server in the middle of its work."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.serve.conftest import Running
from tests.serve.test_app import body, heard
from tts import TTS, Voice
from tts.serve.schema import ApiError
from tts.serve.voices import Voices

BROKEN = 500


@pytest.fixture(scope="module")
def samples(tiny_model: Path, make_speech: Any, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Good uploads of every kind."""
    wav = make_speech(1.2).numpy()
    kinds = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III", "AIFF": "PCM_16"}
    made = []
    for container, subtype in kinds.items():
        file = io.BytesIO()
        soundfile.write(file, wav, 24_000, format=container, subtype=subtype)
        made.append(file.getvalue())
    path = tmp_path_factory.mktemp("saved") / "voice.safetensors"
    Voice.from_audio(make_speech(2.0), model=TTS.load(tiny_model).model).save(path)
    return [*made, path.read_bytes()]


def broken(good: bytes, random: np.random.Generator) -> bytes:
    """Cut off, scrambled, with other numbers in the head, or with more behind the end."""
    data = bytearray(good)
    how = random.integers(5)
    if how == 0:
        return bytes(data[: random.integers(len(data))])
    if how == 1:
        return bytes(data) + random.bytes(1000)
    if how == 2:
        return random.bytes(int(random.integers(1, 5000)))
    places = random.integers(0, 64 if how == 3 else len(data), 8)
    for place in places:
        data[place] = random.integers(256)
    return bytes(data)


def test_broken_uploads_are_refused_and_break_nothing(spoken_model: Path, samples: list[bytes]) -> None:
    tts = TTS.load(spoken_model)
    voices, random = Voices(tts, most=BROKEN), np.random.default_rng(0)
    refused = sum(not _taken(voices, broken(samples[n % len(samples)], random)) for n in range(BROKEN))
    assert refused > BROKEN / 4


def _taken(voices: Voices, data: bytes) -> bool:
    """Whether an upload is taken; a refusal tells why in one line, a voice that is taken can speak."""
    try:
        name = voices.add(data, "broken").id
    except ApiError as error:
        told = (error.status_code, error.detail)
    else:
        voice = voices.get(name).voice
        aligned = voice.aligned(voices.tts.model.symbols)
        assert sum(aligned.durations) == len(aligned.tokens) and min(aligned.durations) >= 0
        assert voice.frames.isfinite().all()
        return True
    assert told[0] == 400 and "/tmp" not in told[1] and "\n" not in told[1]
    return False


def test_requests_made_up_from_the_description_never_break_it(server: Running) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

    api = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

    checks = [not_a_server_error, status_code_conformance, content_type_conformance]
    seen = 0
    for operation in api.get_all_operations():

        @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.ok().as_strategy())
        def run(case: Any) -> None:
            case.call_and_validate(checks=checks, timeout=60)

        run()
        seen += 1
    assert seen == 8
    assert server.engine.alive and server.idle()


def test_sigterm_ends_what_runs_and_nothing_else(spoken_model: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tts.serve",
        "--model",
        str(spoken_model),
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        request = body(input="A lone seal sang all night. Nine men ran a mile! " * 3)
        whole = httpx.post(f"{url}/v1/audio/speech", json=request, timeout=120).content
        answers: list[bytes] = []
        begun = threading.Event()

        def ask() -> None:
            with httpx.stream("POST", f"{url}/v1/audio/speech", json=request, timeout=120) as answer:
                pieces = answer.iter_raw()
                data = next(pieces)
                begun.set()
                answers.append(data + b"".join(pieces))

        thread = threading.Thread(target=ask)
        thread.start()
        assert begun.wait(60)
        process.send_signal(signal.SIGTERM)
        thread.join(120)
        assert len(heard(answers[0])) == len(heard(whole))
        assert process.wait(60) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health")
    finally:
        process.kill()
        process.communicate()
