"""A server that answers as vLLM's completions do, with our own Llama inside."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tts.checkpoint import Model
from tts.export.vocabulary import vocabulary


class Server:
    """What it was asked, and how it is to answer.

    Attributes:
        most: log probabilities that it tells at most, as ``--max-logprobs``.
        refuse: whether asking for more is an error, as in vLLM; else it tells fewer.
        keys: "ids" or "text".
    """

    def __init__(self, model: Model) -> None:
        self.model, self.most, self.refuse, self.keys, self.url = model, 10**6, True, "ids", ""
        self.questions: list[dict[str, Any]] = []

    def answer(self, question: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if question["logprobs"] > self.most and self.refuse:
            return 400, {"error": {"message": f"logprobs is greater than max allowed: {self.most}"}}
        self.questions.append(question)
        strings = vocabulary(self.model.symbols, self.model.lm.layout)
        choices = []
        for n, prompt in enumerate(question["prompt"]):
            with torch.no_grad():
                told = self.model.lm(torch.tensor([prompt]))[0, -1].log_softmax(-1)
            values, ids = told.topk(min(question["logprobs"], self.most))
            keys = [f"token_id:{i}" if self.keys == "ids" else strings[i] for i in ids.tolist()]
            top = dict(zip(keys, values.tolist(), strict=True))
            choices.append({"index": n, "text": keys[0], "logprobs": {"top_logprobs": [top]}})
        return 200, {"choices": choices[::-1]}  # in whatever order


@pytest.fixture
def server(tiny_model: Path) -> Iterator[Server]:
    known = Server(Model.load(tiny_model))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(200, {"data": [{"id": "tiny"}]} if self.path == "/v1/models" else {"nothing": 0})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send(*known.answer(json.loads(body)))

        def send(self, status: int, document: dict[str, Any]) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        known.url = f"http://127.0.0.1:{running.server_port}/v1"
        yield known
        running.shutdown()
