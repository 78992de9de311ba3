"""Voices that several servers have together, in one folder: what is uploaded to one of them, all know."""

import logging
import re

from codec.errors import UserError
from tts.serve.schema import ApiError, VoiceInfo
from tts.serve.voices import Known, Voices

log = logging.getLogger(__name__)

UPLOADED = re.compile(r"voice_[0-9a-f]{16}")


class SharedVoices(Voices):
    """A store that looks into its folder whenever it is asked for an uploaded voice.

    Args:
        tts: the model that they are for.
        folder: the one that all share, on a disk that all reach. None takes no uploads: a voice that one server knows
            and the next does not is worse than none.
        most: uploaded voices there may be; a few more where several servers take one at the same moment.

    Raises:
        UserError: a voice in the folder is of another model, or broken.
    """

    def all(self) -> list[VoiceInfo]:
        self._read()
        return sorted(super().all(), key=lambda one: one.created_at if one.kind == "uploaded" else 0)

    def get(self, name: str) -> Known:
        if UPLOADED.fullmatch(name):
            self._read()
        return super().get(name)

    def add(self, data: bytes, label: str) -> VoiceInfo:
        if self.folder is None:
            raise ApiError(
                403,
                "this server keeps no voices: it was started without a folder for them",
                code="no_uploads",
            )
        self._read()
        return super().add(data, label)

    def _read(self) -> None:
        """Take in what others added, forget what they deleted."""
        if self.folder is None:
            return
        with self._lock:
            there = {path.stem: path for path in self.folder.glob("voice_*.safetensors")}
            known = {name for name, one in self._known.items() if one.info.kind == "uploaded"}
            for name in known - there.keys():
                del self._known[name]
            for name in sorted(there.keys() - known):
                try:
                    self._load(name, there[name], uploaded=True)
                except (UserError, OSError) as error:  # deleted meanwhile; or another model's
                    log.warning("a shared voice is left out: %s", error)
