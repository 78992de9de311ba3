"""The LM behind an OpenAI-style completion server, such as vLLM's.

A completion ends where we have to tell which phoneme comes, so every step is a completion of one id, of which only the
log probabilities are looked at: of the whole vocabulary, since a sum over all phonemes decides whether one is over.
The server keeps what it has read of a prompt, so a step costs it one id, and us one round trip. All rows of a batch are
one request.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import urllib3
from torch import Tensor

from codec.errors import UserError
from tts.checkpoint import Model
from tts.engines.engine import Ids
from tts.export.vocabulary import vocabulary

TOLD = 0.999  # probability that the answer must account for
SECONDS = 60.0  # that an answer may take


class ServerEngine:
    """A server that has been given the folder of ``python -m tts.export --to transformers``.

    Args:
        url: of its API, ``http://host:8000/v1``.
        model: whose LM it serves.
        name: of the served model; the only or first one by default.

    Raises:
        UserError: there is no such server.
    """

    def __init__(self, url: str, model: Model, name: str = "") -> None:
        self.url = url.rstrip("/")
        self.pool = urllib3.PoolManager(timeout=SECONDS, retries=False)
        self.name = name or self._models()[0]
        strings = vocabulary(model.symbols, model.lm.layout)
        self.size = len(strings)
        self.ids = {text: i for i, text in enumerate(strings)}

    def start(self, rows: int, positions: int) -> "_Session":
        """See `Engine`."""
        return _Session(self, rows)

    def _models(self) -> list[str]:
        try:
            return [str(one["id"]) for one in self._ask("GET", "models")["data"]] or [""]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self.url} is no OpenAI-style server: it lists no models; give http://HOST:PORT/v1"
            ) from error

    def _ask(self, method: str, path: str, question: Any = None) -> Any:
        try:
            answer = self.pool.request(method, f"{self.url}/{path}", json=question)
        except urllib3.exceptions.HTTPError as error:
            reason = str(error).splitlines()[0][:120]
            raise UserError(f"{self.url} cannot be reached ({reason}); is the server running?") from error
        if answer.status != 200:
            told = " ".join(answer.data.decode(errors="replace").split())[:200]
            raise UserError(f"{self.url}/{path} answered {answer.status}: {told}; {self._advice()}")
        try:
            return json.loads(answer.data)
        except ValueError as error:
            raise UserError(f"{self.url}/{path} answered no JSON; give http://HOST:PORT/v1") from error

    def _advice(self) -> str:
        size = getattr(self, "size", "N")
        return f"vLLM tells all that is needed with --max-logprobs {size}"

    def logits(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Log probabilities (B, V) of what follows each prompt."""
        question = {
            "model": self.name,
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": self.size,
            "return_tokens_as_token_ids": True,  # vLLM: keys that are ids
            "add_special_tokens": False,
        }
        choices = sorted(
            self._ask("POST", "completions", question).get("choices", ()), key=lambda one: one["index"]
        )
        if len(choices) != len(prompts):
            raise UserError(
                f"{self.url} answered {len(choices)} of {len(prompts)} prompts; it cannot be used"
            )
        return torch.stack([self._row(choice) for choice in choices])

    def _row(self, choice: Mapping[str, Any]) -> Tensor:
        """The log probabilities (V,) of one answer; what it does not tell is impossible."""
        row = torch.full((self.size,), -torch.inf)
        try:
            told = choice["logprobs"]["top_logprobs"][0]
            for key, value in told.items():
                row[int(key.removeprefix("token_id:")) if key.startswith("token_id:") else self.ids[key]] = (
                    value
                )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{self.url} tells no log probabilities of our ids; serve a folder of python -m tts.export "
                f"--to transformers ({type(error).__name__}: {str(error)[:60]})"
            ) from error
        if (share := float(row.exp().sum())) < TOLD:
            raise UserError(
                f"{self.url} tells {len(told)} log probabilities of {self.size}, {share:.1%} of what may follow, and "
                f"that is too little to go by; {self._advice()}"
            )
        return row


class _Session:
    def __init__(self, engine: ServerEngine, rows: int) -> None:
        self.engine, self.rows = engine, [list[int]() for _ in range(rows)]

    def step(self, ids: Ids) -> Tensor:
        """See `Session`."""
        going = [n for n, new in enumerate(ids) if new]
        for n in going:
            self.rows[n] += ids[n]
        logits = torch.zeros(len(ids), self.engine.size)
        logits[going] = self.engine.logits([self.rows[n] for n in going])
        return logits
