"""Sound as it is made -> bytes as they are sent, in the formats of OpenAI's endpoint."""

import io
from typing import Literal

import soundfile
from torch import Tensor

from tts.streaming import pcm, wav_header

Format = Literal["mp3", "opus", "flac", "wav", "pcm"]

MEDIA: dict[Format, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_SUBTYPES: dict[Format, tuple[str, str]] = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "flac": ("FLAC", "PCM_16"),
}
MP3_LEVEL = 0.42  # of libsndfile's 0 to 1: 96 kbit/s at 24 kHz


class Encoder:
    """Samples in, bytes out. Not for several threads at once.

    What an encoder writes at its end into the beginning of a file, its length and checksum, a stream has no place
    for; the formats allow that it is missing.
    """

    def __init__(self, kind: Format, sample_rate: int) -> None:
        self._start = wav_header(sample_rate) if kind == "wav" else b""
        self._sink = io.BytesIO()
        self._sent = 0
        self._file: soundfile.SoundFile | None = None
        if kind in _SUBTYPES:
            container, subtype = _SUBTYPES[kind]
            # a variable rate needs its table at the beginning, which is known at the end only
            constant = {"bitrate_mode": "CONSTANT", "compression_level": MP3_LEVEL} if kind == "mp3" else {}
            self._file = soundfile.SoundFile(
                self._sink, "w", sample_rate, channels=1, format=container, subtype=subtype, **constant
            )

    def __call__(self, wav: Tensor, *, last: bool = False) -> bytes:
        """The next samples (samples,), full scale at 1 -> the next bytes."""
        if self._file is None:
            start, self._start = self._start, b""
            return start + pcm(wav)
        if len(wav):
            self._file.write(wav.numpy())
        if last:
            self._file.close()
        data = self._sink.getbuffer()
        new = bytes(data[self._sent :])
        data.release()
        self._sent += len(new)
        return new

    def close(self) -> None:
        """Free what an encoder holds, where its end never came."""
        if self._file is not None and not self._file.closed:
            self._file.close()
