"""What is asked and answered, as OpenAI has it; what is more than that is said to be."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from tts.pipeline import SEEDS, SPEEDS
from tts.serve.audio import Format

Extra = Literal["words", "mel", "reading"]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


class VoiceName(BaseModel):
    """A voice by its id."""

    model_config = ConfigDict(extra="forbid")
    id: Line


class SpeechRequest(BaseModel):
    """Body of `POST /v1/audio/speech`. What OpenAI's does not have: language, seed, temperature, include."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    input: Annotated[str, StringConstraints(min_length=1)] = Field(description="the text")
    voice: Line | VoiceName
    response_format: Format = "mp3"
    speed: float = Field(1.0, ge=SPEEDS[0], le=SPEEDS[1])
    stream_format: Literal["audio", "sse"] = "audio"
    language: Line = Field("en-us", description="of the text, a code of espeak's")
    seed: int = Field(0, ge=0, lt=SEEDS, description="same seed, same sound")
    temperature: float = Field(0.6, ge=0, le=2)
    include: list[Extra] = Field(
        default_factory=list,
        max_length=3,
        description="with stream_format sse, further events: times of words, mel frames, what the tokenizer reads",
    )

    @property
    def voice_id(self) -> str:
        """Of either form."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


class VoiceInfo(BaseModel):
    """A voice. `kind` tells those of the model from those that were uploaded, which can be deleted."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    type: Literal["audio_sample"] = "audio_sample"
    name: str
    created_at: int
    kind: Literal["model", "uploaded"]
    seconds: float
    phonemes: str


class VoiceList(BaseModel):
    object: Literal["list"] = "list"
    data: list[VoiceInfo]


class VoiceDeleted(BaseModel):
    id: str
    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    deleted: bool = True


class ModelInfo(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tts"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelInfo]


class Health(BaseModel):
    status: Literal["ok", "failed"]
    model: str
    active: int
    waiting: int


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Every error's body, as OpenAI has it."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An answer that says what is wrong with the request. FastAPI lets its kind pass from wherever it is raised."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            status, "invalid_request_error" if status < 500 else "server_error"
        )
        self.body = ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI description: the errors that an endpoint can answer."""
    return {status: {"model": ErrorBody} for status in statuses}
