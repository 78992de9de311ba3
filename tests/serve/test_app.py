"""The server as its clients know it: OpenAI's own, many at once, those who go away, and those who mean it ill."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch

from tests.serve.conftest import Running, decoded
from tts.serve.app import Options

openai = pytest.importorskip("openai", reason="the server is tested with OpenAI's client")

TEXT = "A lone seal sang all night. Nine men ran a mile!"


@pytest.fixture
def client(server: Running) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def heard(data: bytes) -> torch.Tensor:
    """Raw samples as numbers."""
    return torch.frombuffer(bytearray(data), dtype=torch.int16).float() / 32767


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": "Some rain fell.", "voice": "ann", "response_format": "pcm", **changes}


def close_to(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert len(got) == len(wanted)
    torch.testing.assert_close(got, wanted, atol=5e-4, rtol=1e-3)


# ----------------------------------------------------------------------------------------------- OpenAI's client


def test_openais_client_hears_what_the_model_says(client: Any, server: Running) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="tiny", voice="ann", input=TEXT, response_format="pcm", speed=1.2
    ) as answer:
        pieces = list(answer.iter_bytes())
    assert len(pieces) > 1
    close_to(heard(b"".join(pieces)), server.alone(TEXT, "ann", speed=1.2))


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "opus"])
def test_every_format_can_be_decoded(kind: str, client: Any, server: Running) -> None:
    answer = client.audio.speech.create(
        model="tiny", voice={"id": "bob"}, input="Some rain fell.", response_format=kind
    )
    alone, got = server.alone("Some rain fell.", "bob"), decoded(answer.content)
    assert abs(len(got) - len(alone)) < 3000
    if kind in ("wav", "flac"):
        close_to(got, alone)


def test_models_and_voices_as_openais_client_has_them(
    client: Any, server: Running, make_speech: Any, tmp_path: Any
) -> None:
    import soundfile

    assert [one.id for one in client.models.list()] == ["tiny"]
    path = tmp_path / "me.wav"
    soundfile.write(path, make_speech(2.5, speaker=4).numpy(), 24_000)
    voice = client.audio.voices.create(
        audio_sample=path.open("rb"), consent="I am the speaker", name="../Me\n"
    )
    assert voice.id.startswith("voice_") and voice.name == "../Me" and voice.object == "audio.voice"
    known = httpx.get(f"{server.url}/v1/audio/voices").json()["data"]
    assert [one["id"] for one in known] == ["ann", "bob", voice.id]

    # a saved voice can be uploaded again, and speaks the same
    saved = httpx.get(f"{server.url}/v1/audio/voices/{voice.id}").content
    again = client.audio.voices.create(audio_sample=("x", saved), consent="yes", name="again")
    made = [
        httpx.post(f"{server.url}/v1/audio/speech", json=body(voice=one), timeout=60).content
        for one in (voice.id, again.id)
    ]
    close_to(heard(made[0]), heard(made[1]))
    for one in (voice, again):
        assert client.audio.voices.delete(one.id).deleted
    with pytest.raises(openai.NotFoundError, match="no voice"):
        client.audio.speech.create(model="tiny", voice=voice.id, input="Hello.")


def test_events_tell_the_words_the_mel_and_what_was_read(server: Running) -> None:
    request = body(input=TEXT, stream_format="sse", include=["words", "mel", "reading"])
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=request, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert kinds[-1] == "speech.audio.done" and events[-1]["usage"]["output_tokens"] > 0
    sound = b"".join(base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta")
    close_to(heard(sound), server.alone(TEXT, "ann"))
    words = [word for e in events if e["type"] == "speech.words.delta" for word in e["words"]]
    assert [one["word"] for one in words] == TEXT.split()
    seconds = len(sound) / 2 / 24_000
    assert all(0 <= one["start"] <= one["end"] <= seconds + 0.1 for one in words)
    mel = [e for e in events if e["type"] == "speech.mel.delta"]
    columns = sum(len(base64.b64decode(e["frames"])) / e["bands"] for e in mel)
    assert columns * 256 / 24_000 == pytest.approx(seconds, abs=0.3)
    assert events[-1]["usage"]["output_tokens"] == columns / 4
    done = [e for e in events if e["type"] == "speech.sentence.done"]
    assert " ".join(e["text"] for e in done) == TEXT
    assert all(isinstance(e["read"], str) and e["problems"] == [] for e in done)


# ------------------------------------------------------------------------------------------------- many at once


def test_with_many_at_once_nothing_is_lost_or_mixed_up(server: Running) -> None:
    texts = [f"Seal {n} sang." for n in range(10)]

    def ask(n: int) -> httpx.Response:
        request = body(input=texts[n], voice=("ann", "bob")[n % 2], seed=n)
        return httpx.post(f"{server.url}/v1/audio/speech", json=request, timeout=120)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(ask, range(10)))
    done = [n for n in range(10) if answers[n].status_code == 200]
    refused = [one for one in answers if one.status_code == 429]
    assert len(done) + len(refused) == 10 and len(done) >= 6  # three places and a queue of three
    assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
    for n in done:
        close_to(heard(answers[n].content), server.alone(texts[n], ("ann", "bob")[n % 2], seed=n))
    assert server.idle()


def test_who_goes_away_frees_the_place_at_once(server: Running) -> None:
    def ask() -> None:
        request = body(input=TEXT * 8)
        with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=request, timeout=60) as answer:
            next(answer.iter_raw())
            assert server.engine.active >= 1

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = server.engine.counts.seconds
    assert server.idle(5)
    assert server.engine.counts.seconds - before < 5  # of a minute or two
    counted = httpx.get(f"{server.url}/metrics").text
    assert 'tts_requests_total{outcome="cancelled"}' in counted


# ----------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"input": ""}, 400, "input"),
        ({"input": "..."}, 400, "input"),
        ({"input": "a" * 501}, 400, "input"),
        ({"input": "[pause 9999999s] Hello."}, 400, "input"),
        ({"input": "[pause 60s] Hello. " * 3}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"language": "xx-nowhere"}, 400, "input"),
        ({"model": "tts-1"}, 404, "model"),
        ({"voice": "../../etc/passwd"}, 404, "voice"),
        ({"voice": {"id": "nobody"}}, 404, "voice"),
        ({"response_format": "aac"}, 400, "response_format"),
        ({"speed": 9}, 400, "speed"),
        ({"speed": "NaN"}, 400, "speed"),
        ({"seed": -1}, 400, "seed"),
        ({"instructions": "whisper"}, 400, "instructions"),
        ({"include": ["words"]}, 400, "include"),
    ],
)
def test_what_cannot_be_spoken_is_said_so(
    changes: dict[str, Any], status: int, param: str, server: Running
) -> None:
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body(**changes), timeout=60)
    error = answer.json()["error"]
    assert answer.status_code == status and error["message"]
    assert error["param"] is not None and error["param"].startswith(param)
    assert error["type"] == "invalid_request_error"


def test_bodies_are_bounded_with_and_without_a_length(serve: Callable[..., Any]) -> None:
    with serve(Options(model="tiny", max_upload=50_000)) as server:
        url = f"{server.url}/v1/audio/voices"
        form = {"consent": "yes"}
        for size, status in ((60_000, 413), (200_000, 413), (100, 400)):
            files = {"audio_sample": ("a.wav", b"x" * size)}
            assert httpx.post(url, files=files, data=form).status_code == status

        pieces = (b"x" * 10_000 for _ in range(30))  # sent without a length
        answer = httpx.post(f"{server.url}/v1/audio/speech", content=pieces)
        assert answer.status_code == 413
        assert httpx.post(url, files={"audio_sample": ("a.wav", b"x")}).status_code == 400  # no consent


def test_a_key_is_asked_for(serve: Callable[..., Any]) -> None:
    with serve(Options(model="tiny", api_key="secret")) as server:
        assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
        assert httpx.get(f"{server.url}/").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer sécret".encode()}):
            answer = httpx.get(f"{server.url}/v1/models", headers=headers)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret")
        assert [one.id for one in client.models.list()] == ["tiny"]


def test_a_request_may_take_only_so_long(serve: Callable[..., Any]) -> None:
    with serve(Options(model="tiny", timeout=0.001)) as server:
        answer = httpx.post(f"{server.url}/v1/audio/speech", json=body(), timeout=60)
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "timeout"
        assert server.idle(5)
