"""What is measured, and what measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from codec.audio import resample
from codec.errors import UserError
from tts.evaluate.cases import Case
from tts.evaluate.figures import Figure, Values

RATE = 16_000
"""Hz of all that is measured: what recognisers, speaker encoders and judges of quality take."""

Wav = npt.NDArray[np.float32]
"""(samples,), one channel, full scale at 1."""


@dataclass(frozen=True)
class Made:
    """What is known of a sound since it was made.

    Attributes:
        seconds: of sound.
        sentences: in the text.
        phonemes: in the text.
        wanted: segments of the text, without stress and punctuation.
        read: segments that the tokenizer reads in the tokens; None where there are none.
        held: phonemes that lasted as long as one may, so that the LM was made to go on; None without LM.
        endless: sentences whose last phoneme did, so that the LM was made to end; None without LM.
        attempts: how often the sentences were written, together; None without LM.
        prompt_phonemes: in the part of the prompt that is used.
        prompt_seconds: of speech in that part, pauses left out.
        seed: of the draws.
        times: seconds that each part of the chain took.
    """

    seconds: float
    sentences: int
    phonemes: int
    wanted: str
    read: str | None
    held: int | None
    endless: int | None
    attempts: int | None
    prompt_phonemes: int
    prompt_seconds: float
    seed: int
    times: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Sample(NamedTuple):
    """One sound of one case.

    Attributes:
        case: what was to be said.
        row: which row of the table it belongs to.
        made: what is known of it.
        wav: (samples,) at `RATE`.
    """

    case: Case
    row: str
    made: Made
    wav: Wav


class Metric:
    """Something to measure on every sound.

    Attributes:
        name: of ``--metrics``.
        by: what measures it; a result by something else is not taken for it.
    """

    name: str
    by: str

    def require(self) -> None:
        """Raise `UserError` now where what it needs is not installed."""

    def context(self, cases: Sequence[Case]) -> dict[str, Any]:
        """What the data itself gives to compare with, JSON."""
        return {}

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        """What to make of the values, given what `context` gave."""
        raise NotImplementedError

    def measure(self, sample: Sample) -> Values:
        """The values of one sound, JSON."""
        raise NotImplementedError


def load_wav(path: str | Path) -> Wav:
    """A sound that was made, (samples,) at `RATE`; silence is one, too."""
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    resampled: Wav = resample(torch.from_numpy(wav.mean(1)), rate, RATE).numpy()
    return resampled


def require_packages(metric: str, packages: Mapping[str, str]) -> None:
    """Raise `UserError` where packages are missing.

    Args:
        metric: who needs them.
        packages: the name on the package index of each module.
    """
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise UserError(
            f"{metric} needs {', '.join(missing)}, not installed here; "
            'run pip install ".[evaluate]", or leave it out with --metrics'
        )


def from_python(path: str, kind: str) -> Any:
    """What a user's ``module:name`` gives when it is called.

    Raises:
        UserError: there is no such module, or nothing of that name in it.
    """
    from importlib import import_module

    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{kind} {path!r} cannot be had ({error}); give MODULE:CALLABLE that Python finds"
        ) from error
