"""A server on random weights, as it runs for people: uvicorn on a port of its own, in a thread."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

pytest.importorskip("fastapi", reason="the server needs the extra `serve`")
pytest.importorskip("prometheus_client")
uvicorn = pytest.importorskip("uvicorn")

from tts import TTS, Voice  # noqa: E402
from tts.pipeline import Settings  # noqa: E402
from tts.serve.app import Options, create_app  # noqa: E402
from tts.serve.engine import Engine  # noqa: E402


@dataclass
class Running:
    """A server that runs."""

    url: str
    engine: Engine
    tts: TTS

    def alone(self, text: str, voice: str | Voice, **settings: Any) -> Tensor:
        """What a request must give, whoever else there is."""
        who = self.tts.voice(voice) if isinstance(voice, str) else voice
        return torch.cat([chunk.wav for chunk in self.tts.stream(text, who, Settings(**settings))])

    def idle(self, seconds: float = 20.0) -> bool:
        """Whether all places get free."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.engine.active and not self.engine.waiting:
                return True
            time.sleep(0.01)
        return False


@contextmanager
def serving(folder: Path, options: Options, **sizes: int) -> Iterator[Running]:
    """Serve a model folder."""
    tts = TTS.load(folder)
    engine = Engine(tts, **sizes)
    config = uvicorn.Config(create_app(engine, options), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        # the test computes beside the server, so it has a model of its own
        yield Running(f"http://127.0.0.1:{port}", engine, TTS.load(folder))
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def spoken_model(tiny_model: Path, make_speech: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with two voices: ann and bob."""
    folder = tmp_path_factory.mktemp("spoken") / "tiny"
    folder.mkdir()
    for part in tiny_model.iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "voices").mkdir()
    model = TTS.load(tiny_model).model
    for n, name in enumerate(("ann", "bob")):
        Voice.from_audio(make_speech(2.0 + n, speaker=n), model=model).save(
            folder / "voices" / f"{name}.safetensors"
        )
    return folder


@pytest.fixture(scope="session")
def server(spoken_model: Path) -> Iterator[Running]:
    with serving(spoken_model, Options(model="tiny", max_chars=500), slots=3, queue=3) as running:
        yield running


@pytest.fixture
def serve(spoken_model: Path) -> Callable[..., Any]:
    """``with serve(Options(...), slots=...) as running``: a server of one's own."""
    return lambda options, **sizes: serving(spoken_model, options, **sizes)


def decoded(data: bytes) -> Tensor:
    """Samples of a file that was streamed: its length may not stand in it."""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        file.seekable = lambda: False  # it would look for the end that is not told
        blocks = []
        while len(block := file.read(4096, dtype="float32")):
            blocks.append(torch.from_numpy(block))
    return torch.cat(blocks)
