"""The voices of a server: those that come with its model, and those that were uploaded.

An upload is decoded in bounds, in a thread of its own, from a file whose name is ours; its voice gets an id of ours,
too. What the client calls it is only shown.
"""

import logging
import secrets
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from codec.errors import UserError
from tts.pipeline import TTS
from tts.serve.schema import ApiError, VoiceInfo
from tts.voice import PROMPT_SECONDS, Voice

log = logging.getLogger(__name__)

PHONEMES = 4_000  # of a saved voice: eight seconds hold 200


@dataclass(frozen=True)
class Known:
    """A voice and what is told of it."""

    voice: Voice
    info: VoiceInfo


class Voices:
    """A store of voices; several threads may use it.

    Args:
        tts: the model that they are for.
        folder: where uploaded voices are kept; None forgets them when the server ends.
        most: uploaded voices there may be.

    Raises:
        UserError: a voice in the folder is of another model, or broken.
    """

    def __init__(self, tts: TTS, folder: Path | None = None, *, most: int = 100) -> None:
        self.tts, self.folder, self.most = tts, folder, most
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        for name, path in tts.model.voices().items():
            self._load(name, path, uploaded=False)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("voice_*.safetensors")):
                self._load(path.stem, path, uploaded=True)

    def _load(self, name: str, path: Path, *, uploaded: bool) -> None:
        voice = Voice.load(path)
        voice.require(self.tts.model, str(path))
        label = voice.origin.partition("\n")[0] if uploaded else name
        self._known[name] = Known(voice, _info(name, label or name, voice, path.stat().st_mtime, uploaded))

    def all(self) -> list[VoiceInfo]:
        """Those that ship, then those that were uploaded, as they came."""
        with self._lock:
            return [known.info for known in self._known.values()]

    def get(self, name: str) -> Known:
        """A voice by its id.

        Raises:
            ApiError: there is none.
        """
        with self._lock:
            if (known := self._known.get(name)) is not None:
                return known
        names = ", ".join(one.id for one in self.all() if one.kind == "model") or "none"
        raise ApiError(
            404,
            f"no voice {name[:64]!r}; the model's are: {names}; upload one to /v1/audio/voices",
            param="voice",
            code="voice_not_found",
        )

    def add(self, data: bytes, label: str) -> VoiceInfo:
        """Make a voice of an upload: a recording, or a file of `Voice.save`.

        Raises:
            ApiError: it is neither, cannot be used, or there are too many.
        """
        self._require_place()
        voice = self._decoded(data)
        voice = replace(voice, origin=f"{label}\n{voice.origin}".strip())
        name = f"voice_{secrets.token_hex(8)}"
        info = _info(name, label, voice, time.time(), uploaded=True)
        with self._lock:
            self._require_place()
            if self.folder is not None:
                voice.save(self.folder / f"{name}.safetensors")
            self._known[name] = Known(voice, info)
        return info

    def _require_place(self) -> None:
        uploaded = sum(known.info.kind == "uploaded" for known in list(self._known.values()))
        if uploaded >= self.most:
            raise ApiError(
                409, f"there are {self.most} uploaded voices already: delete one", code="too_many_voices"
            )

    def remove(self, name: str) -> None:
        """Forget an uploaded voice.

        Raises:
            ApiError: there is none, or it is the model's.
        """
        if self.get(name).info.kind == "model":
            raise ApiError(403, f"voice {name!r} comes with the model and stays", param="voice")
        with self._lock:
            if self._known.pop(name, None) is not None and self.folder is not None:
                (self.folder / f"{name}.safetensors").unlink(missing_ok=True)

    def saved(self, name: str) -> bytes:
        """A voice as a file that can be uploaded again, or given to `infer.py`."""
        known = self.get(name)
        with tempfile.TemporaryDirectory(prefix="tts-voice-") as folder:
            path = Path(folder) / "voice.safetensors"
            known.voice.save(path)
            return path.read_bytes()

    def _decoded(self, data: bytes) -> Voice:
        with tempfile.TemporaryDirectory(prefix="tts-upload-") as folder:
            saved = data[8:9] == b"{"  # eight bytes of length, then JSON
            path = Path(folder) / ("upload.safetensors" if saved else "upload")
            path.write_bytes(data)
            try:
                if not saved:
                    return Voice.from_audio(path, model=self.tts.model)
                voice = Voice.load(path)
                _require_sane(voice)
                voice.require(self.tts.model, "the upload")
                return voice
            except UserError as error:
                message = str(error).replace(repr(str(path)), "the upload").replace(str(path), "the upload")
                raise ApiError(400, message, param="audio_sample", code="invalid_audio") from error
            except Exception as error:  # what libraries say to files that were made to break them
                log.warning("an upload could not be decoded: %s", error)
                raise ApiError(
                    400,
                    "the upload cannot be used: give a recording (wav, flac, ogg, mp3) or a saved voice",
                    param="audio_sample",
                    code="invalid_audio",
                ) from error


def _require_sane(voice: Voice) -> None:
    """Raise where a saved voice is none that this program wrote: its numbers go into the models."""
    whole = all(type(n) is int and n >= 0 for n in voice.durations)
    short = voice.seconds <= PROMPT_SECONDS + 1 and len(voice.phonemes) <= PHONEMES
    if not (whole and short and voice.durations and float(voice.frames.abs().max()) < 100):
        raise UserError("the upload is not a saved voice of this program: its numbers are out of range")


def _info(name: str, label: str, voice: Voice, created: float, uploaded: bool) -> VoiceInfo:
    return VoiceInfo(
        id=name,
        name=label,
        created_at=int(created),
        kind="uploaded" if uploaded else "model",
        seconds=round(voice.seconds, 2),
        phonemes=voice.phonemes,
    )
