"""What stands before the application: the API key, and a bound on what is read."""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse

from codec.errors import UserError
from tts.serve.schema import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

KEYED = ("/v1/", "/metrics")  # the page and its health need none


def answer(error: ApiError) -> JSONResponse:
    """An error as it is sent."""
    return JSONResponse(error.body.model_dump(), error.status_code, headers=error.headers)


class Guard:
    """Lets requests through that have the key, and no more of their bodies than `limit` bytes.

    Plain ASGI: what wraps the request in a stream of its own would not tell when a client goes away.

    Args:
        app: what it guards.
        key: that `/v1` and `/metrics` ask for; None asks for none.
        limit: bytes of a body.
    """

    def __init__(self, app: App, *, key: str | None, limit: int) -> None:
        self.app, self.limit = app, limit
        self.wanted = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self.wanted is not None and scope["path"].startswith(KEYED):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self.wanted):
                error = ApiError(
                    401, "no or wrong API key: send 'Authorization: Bearer KEY'", code="invalid_api_key"
                )
                await answer(error)(scope, receive, send)
                return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limit:
            await answer(self._too_large())(scope, receive, send)
            return
        left, started = self.limit, False

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:  # a body without a length, or longer than it says
                raise self._too_large()
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, bounded, watched)
        except ApiError as error:
            if started:
                raise
            await answer(error)(scope, receive, send)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request is larger than {self.limit} bytes", code="too_large")


def read_key(path: Path) -> str:
    """The API key that a file holds.

    Raises:
        UserError: it holds none, or more than one line.
    """
    key = path.read_text(encoding="utf-8").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(f"{path}: holds no key; write one line of letters and digits into it")
    return key
