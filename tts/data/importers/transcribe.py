"""Recognisers that write the transcripts a corpus lacks."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from codec.errors import UserError
from tts.data.importers.pauses import RATE

# espeak's code -> Whisper's, where the first part of it is not the same
_WHISPER = {"cmn": "zh", "nb": "no", "hak": "zh", "fil": "tl", "jv": "jw"}


class Recogniser(Protocol):
    """Attributes:
    name: what the manifest notes as ``text_by``.
    """

    name: str

    def __call__(self, wav: Tensor, language: str) -> str:
        """What is said: (samples,) at `RATE`, espeak's code of the language -> text, "" where nothing is."""
        ...


class FasterWhisper:
    """Whisper by faster-whisper.

    Args:
        model: a name of its own ("large-v3"), or a folder with a converted model.
        device: "auto", "cpu" or "cuda".

    Raises:
        UserError: faster-whisper is not installed, or there is no such model.
    """

    def __init__(self, model: str, *, device: str = "auto") -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as problem:
            raise UserError('faster-whisper is not installed; pip install -e ".[data]"') from problem
        compute = "int8" if device == "cpu" else "default"
        try:
            self._model: Any = WhisperModel(model, device=device, compute_type=compute)
            self._known: set[str] = set(self._model.supported_languages)
        except Exception as problem:  # its own, the hub's and CTranslate2's: no common class
            reason = " ".join(str(problem).split())[:200]
            raise UserError(
                f"recogniser {model!r} cannot be loaded ({reason}); give a name such as 'large-v3', or a folder"
            ) from problem
        self.name = f"faster-whisper {Path(model).name}"

    def __call__(self, wav: Tensor, language: str) -> str:
        code = language.split("-")[0]
        code = _WHISPER.get(language, _WHISPER.get(code, code))
        samples = np.ascontiguousarray(wav.numpy(), np.float32)
        segments, _ = self._model.transcribe(
            samples,
            language=code if code in self._known else None,
            condition_on_previous_text=False,  # else one error is repeated in all that follows
            without_timestamps=len(wav) < 29 * RATE,
        )
        said = [one.text for one in segments if not _imagined(one)]
        return " ".join("".join(said).split())


def _imagined(segment: Any) -> bool:
    """Whether Whisper itself holds that nobody speaks there, or repeats itself: it writes a sentence for noise, too.

    The bounds are those of its own decoder (Radford et al. 2022, arXiv 2212.04356, 4.5).
    """
    return bool(
        (segment.no_speech_prob > 0.6 and segment.avg_logprob < -1.0) or segment.compression_ratio > 2.4
    )
