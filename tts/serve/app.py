"""The application: OpenAI's speech endpoint over an `Engine`, and the page.

Nothing here computes on the event loop: texts are read in one thread, uploads in another, sound is made by the engine
and encoded in threads.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from torch import Tensor

from codec.errors import UserError
from tts.pipeline import TTS, Settings
from tts.serve.audio import MEDIA, Encoder
from tts.serve.engine import BusyError, Engine, Event, Job, Sound
from tts.serve.guard import Guard, answer
from tts.serve.metrics import Metrics
from tts.serve.schema import (
    ApiError,
    Health,
    ModelInfo,
    ModelList,
    SpeechRequest,
    VoiceDeleted,
    VoiceInfo,
    VoiceList,
    errors,
)
from tts.serve.voices import Voices
from tts.streaming import Said
from tts.text.frontend import Frontend, Utterance
from tts.voice import Voice

PAGE = Path(__file__).parent / "page"
POLICY = "default-src 'self'; media-src blob:; img-src data:; frame-ancestors 'none'"
SILENCE = 120.0  # seconds that a text may ask for: a few letters make a minute
UPLOADS = 8  # that may wait to be decoded


@dataclass(frozen=True)
class Options:
    """Limits and names of a server.

    Attributes:
        model: its id.
        api_key: that requests must have; None asks for none.
        max_chars: of a text.
        max_upload: bytes of a recording.
        timeout: seconds that a request may take, its wait in the queue included.
        voices: folder that keeps uploaded voices.
    """

    model: str = "embedded"
    api_key: str | None = None
    max_chars: int = 4096
    max_upload: int = 20 * 2**20
    timeout: float = 300.0
    voices: Path | None = None


def create_app(engine: Engine, options: Options = Options(), voices: Voices | None = None) -> FastAPI:
    """The application. It starts the engine when it starts, and closes it when it ends.

    Args:
        engine: what makes the speech.
        options: limits and names.
        voices: the store of voices; None makes one for this server alone.

    Raises:
        UserError: a kept voice does not fit the model.
    """
    server = Server(engine, options, voices)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.close)
        server.close()

    app = FastAPI(
        title="tts",
        description="Zero-shot text-to-speech, as OpenAI's clients ask for it.",
        lifespan=lifespan,
    )
    app.add_middleware(Guard, key=options.api_key, limit=options.max_upload + 2**16)
    _handle_errors(app)
    _add_speech(app, server)
    _add_voices(app, server)
    _add_rest(app, server)
    return app


class Server:
    """What the endpoints share."""

    def __init__(self, engine: Engine, options: Options, voices: Voices | None = None) -> None:
        self.engine, self.options = engine, options
        self.voices = voices or Voices(engine.tts, options.voices)
        self.metrics = Metrics(engine)
        self.uploads = 0
        # espeak has one state for all threads; and an upload takes a core for a while, not all of them
        self.text = ThreadPoolExecutor(1, thread_name_prefix="tts-text")
        self.decoding = ThreadPoolExecutor(1, thread_name_prefix="tts-upload")

    def close(self) -> None:
        """End the threads."""
        self.text.shutdown(wait=False, cancel_futures=True)
        self.decoding.shutdown(wait=False, cancel_futures=True)


# ------------------------------------------------------------------------------------------------------- speech


class Listening:
    """One request on its way to its client.

    Args:
        server: what the endpoints share.
        request: the client's, to know when it goes away.
    """

    def __init__(self, server: Server, request: Request) -> None:
        self.server, self.started = server, time.monotonic()
        self.outcome = "cancelled"  # until something else is known: a cancelled task learns nothing more
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._client = asyncio.ensure_future(_gone(request))
        self._job: Job | None = None

    async def read(self, body: SpeechRequest) -> list[Utterance]:
        """The sentences of the text.

        Raises:
            ApiError: it is too long, or cannot be spoken.
        """
        server, most = self.server, self.server.options.max_chars
        self.outcome = "invalid"
        if len(body.input) > most:
            raise ApiError(
                400,
                f"the text has {len(body.input)} characters; {most} are the most at once",
                param="input",
                code="text_too_long",
            )
        symbols = server.engine.tts.model.symbols
        try:
            utterances = await self._loop.run_in_executor(
                server.text, lambda: Frontend(symbols, body.language)(body.input)
            )
        except UserError as error:
            raise ApiError(400, str(error), param="input", code="invalid_text") from error
        if (silence := sum(one.lead + (one.pause or 0.0) for one in utterances)) > SILENCE:
            message = f"the text asks for {silence:g} s of silence; {SILENCE:g} s are the most"
            raise ApiError(400, message, param="input", code="invalid_text")
        self.outcome = "cancelled"
        return utterances

    def submit(self, utterances: list[Utterance], voice: Voice, settings: Settings, *, read: bool) -> None:
        """Ask the engine; arguments as those of its `Job`.

        Raises:
            ApiError: there is no place.
        """

        def tell(event: Event) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._job = Job(utterances, voice, settings, tell, read)
        try:
            self.server.engine.submit(self._job)
        except BusyError as busy:
            self.outcome = "refused"
            raise ApiError(
                429, str(busy), code="busy", headers={"Retry-After": str(busy.retry_after)}
            ) from busy

    async def next(self) -> Sound | None:
        """What was made next, None at the end.

        Raises:
            ApiError: it failed, or took too long; or there is nobody left to hear it.
        """
        event = asyncio.ensure_future(self._events.get())
        left = self.started + self.server.options.timeout - time.monotonic()
        await asyncio.wait({event, self._client}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not event.done():
            event.cancel()
            if self._client.done():
                raise ApiError(499, "the client went away")
            self.outcome = "timeout"
            raise ApiError(503, f"not done within {self.server.options.timeout:g} s", code="timeout")
        made = event.result()
        if isinstance(made, Sound):
            return made
        if made.error is not None:
            self.outcome = "failed"
            raise ApiError(500, "the speech could not be made", code="failed") from made.error
        self.outcome = "done"
        return None

    def close(self) -> None:
        """Free the request's place; its end is counted."""
        self._client.cancel()
        if self._job is not None:
            self.server.engine.cancel(self._job)
        self.server.metrics.requests.labels(self.outcome).inc()
        if self.outcome == "done":
            self.server.metrics.whole.observe(time.monotonic() - self.started)


class Streamed(StreamingResponse):
    """A response that closes its request however it ends, even where its client went before it began."""

    def __init__(self, content: AsyncIterator[bytes], listening: Listening, media_type: str) -> None:
        super().__init__(content, media_type=media_type, headers={"X-Accel-Buffering": "no"})
        self.listening = listening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except (
            ApiError
        ) as error:  # the answer has begun: all that can be done is not to end it as if it were whole
            if error.status_code != 499:
                raise
        finally:
            self.listening.close()


async def _gone(request: Request) -> None:
    """Until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_speech(app: FastAPI, server: Server) -> None:
    options, engine = server.options, server.engine
    content = {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA.values()}
    content["text/event-stream"] = {"schema": {"type": "string"}}

    @app.post(
        "/v1/audio/speech",
        response_class=Response,
        responses={200: {"content": content}, **errors(400, 401, 404, 413, 429, 500, 503)},
    )
    async def speech(body: SpeechRequest, request: Request) -> Response:
        """Speak a text; the answer is sent as it is made."""
        _require_model(body.model, options)
        if body.include and body.stream_format != "sse":
            raise ApiError(400, "include needs stream_format 'sse'", param="include")
        voice = server.voices.get(body.voice_id).voice
        listening = Listening(server, request)
        try:
            utterances = await listening.read(body)
            settings = Settings(
                language=body.language, speed=body.speed, seed=body.seed, temperature=body.temperature
            )
            listening.submit(utterances, voice, settings, read="reading" in body.include)
            first = await listening.next()
        except BaseException:
            listening.close()
            raise
        server.metrics.first.observe(time.monotonic() - listening.started)
        encoder = Encoder(body.response_format, engine.tts.model.spec.frames.sample_rate)
        if body.stream_format == "sse":
            events = _events(first, listening, encoder, body, engine.tts)
            return Streamed(events, listening, "text/event-stream")
        return Streamed(_sound(first, listening, encoder), listening, MEDIA[body.response_format])


def _require_model(name: str, options: Options) -> None:
    if name != options.model:
        raise ApiError(
            404,
            f"no model {name[:64]!r}; this server has {options.model!r}",
            param="model",
            code="model_not_found",
        )


async def _sound(first: Sound | None, listening: Listening, encoder: Encoder) -> AsyncIterator[bytes]:
    """The encoded sound as it is made."""
    made = first
    try:
        while made is not None:
            if data := await asyncio.to_thread(encoder, made.chunk.wav):
                yield data
            made = await listening.next()
        if data := await asyncio.to_thread(lambda: encoder(torch.zeros(0), last=True)):
            yield data
    finally:
        encoder.close()


async def _events(
    first: Sound | None, listening: Listening, encoder: Encoder, body: SpeechRequest, tts: TTS
) -> AsyncIterator[bytes]:
    """Server-sent events: the encoded sound, what else was asked for, and what was used."""
    made, frames = first, 0
    shades = Shades(tts)
    try:
        while made is not None:
            chunk, done = made.chunk, made.chunk.done
            frames += len(made.frames) if made.frames is not None else 0
            if chunk.words and "words" in body.include:
                words = [{"word": w.text, "start": w.start, "end": w.end} for w in chunk.words]
                yield _event("speech.words.delta", words=words)
            if made.frames is not None and "mel" in body.include:
                yield _event("speech.mel.delta", **await asyncio.to_thread(shades, made.frames))
            if data := await asyncio.to_thread(encoder, chunk.wav):
                yield _event("speech.audio.delta", audio=_base64(data))
            if done is not None:
                yield _event("speech.sentence.done", **_reading(done))
            made = await listening.next()
        if data := await asyncio.to_thread(lambda: encoder(torch.zeros(0), last=True)):
            yield _event("speech.audio.delta", audio=_base64(data))
        tokens = frames // tts.model.acoustic.spec.frames_per_token
        usage = {"input_tokens": len(body.input), "output_tokens": tokens}
        yield _event("speech.audio.done", usage={**usage, "total_tokens": sum(usage.values())})
    except ApiError as error:
        if error.status_code == 499:
            raise
        yield _event("error", **error.body.model_dump())
    finally:
        encoder.close()


class Shades:
    """Frames as a picture: one byte a number, from the quietest to the loudest that the model knows."""

    def __init__(self, tts: TTS) -> None:
        acoustic = tts.model.acoustic
        self.low = float((acoustic.mean - 3 * acoustic.std).min())
        self.high = float((acoustic.mean + 3 * acoustic.std).max())

    def __call__(self, frames: Tensor) -> dict[str, Any]:
        """(T, D) -> columns of D bytes, in base64."""
        share = ((frames.float() - self.low) / (self.high - self.low)).clamp(0, 1)
        data = (255 * share).to(torch.uint8).cpu().numpy().tobytes()
        return {"frames": _base64(data), "bands": frames.shape[1]}


def _reading(done: Said) -> dict[str, Any]:
    """What was to be said, what the tokenizer reads, and the words' times, now exactly."""
    return {
        "text": done.utterance.text,
        "start": done.start,
        "end": done.start + done.seconds,
        "phonemes": done.utterance.phonemes,
        "read": done.read,
        "error": round(done.quality.error, 4),
        "problems": list(done.quality.problems),
        "words": [{"word": w.text, "start": round(w.start, 3), "end": round(w.end, 3)} for w in done.words],
    }


def _event(kind: str, **data: Any) -> bytes:
    return f"data: {json.dumps({'type': kind, **data}, ensure_ascii=False)}\n\n".encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ------------------------------------------------------------------------------------------- voices and the rest


def _add_voices(app: FastAPI, server: Server) -> None:
    @app.get("/v1/audio/voices", responses=errors(401))
    async def voices() -> VoiceList:
        """The voices there are."""
        return VoiceList(data=server.voices.all())

    @app.post("/v1/audio/voices", responses=errors(400, 401, 409, 413, 429))
    async def upload(
        audio_sample: Annotated[UploadFile, File(description="a recording, or a saved voice")],
        consent: Annotated[
            str, Form(min_length=1, max_length=256, description="how its owner agreed; kept in no file")
        ],
        name: Annotated[str, Form(min_length=1, max_length=64)] = "uploaded",
    ) -> VoiceInfo:
        """Make a voice; its id is in the answer."""
        label = " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "uploaded"
        data = await audio_sample.read(server.options.max_upload + 1)
        if len(data) > server.options.max_upload:
            raise ApiError(
                413, f"the upload has more than {server.options.max_upload} bytes", code="too_large"
            )
        if server.uploads >= UPLOADS:
            raise ApiError(429, "too many uploads at once", code="busy", headers={"Retry-After": "2"})
        server.uploads += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(server.decoding, server.voices.add, data, label)
        finally:
            server.uploads -= 1

    @app.get(
        "/v1/audio/voices/{voice_id}",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}, **errors(401, 404)},
    )
    async def saved(voice_id: str) -> Response:
        """A voice as a file, to be uploaded again."""
        data = await asyncio.to_thread(server.voices.saved, voice_id)
        return Response(data, media_type="application/octet-stream")

    @app.delete("/v1/audio/voices/{voice_id}", responses=errors(401, 403, 404))
    async def delete(voice_id: str) -> VoiceDeleted:
        """Forget an uploaded voice."""
        await asyncio.to_thread(server.voices.remove, voice_id)
        return VoiceDeleted(id=voice_id)


def _add_rest(app: FastAPI, server: Server) -> None:
    created = int(time.time())

    @app.get("/v1/models", responses=errors(401))
    async def models() -> ModelList:
        """The model there is."""
        return ModelList(data=[ModelInfo(id=server.options.model, created=created)])

    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Whether it works."""
        engine = server.engine
        response.status_code = 200 if engine.alive else 503
        status: Literal["ok", "failed"] = "ok" if engine.alive else "failed"
        return Health(status=status, model=server.options.model, active=engine.active, waiting=engine.waiting)

    @app.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **errors(401)}
    )
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY})

    app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _handle_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def known(_: Request, error: ApiError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "path", "query"))
        message = f"{place or 'the request'}: {first['msg']}"
        return answer(ApiError(400, message, param=place or None, code="invalid_value"))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return answer(ApiError(error.status_code, str(error.detail), headers=headers))
