"""The two grids everything lives on. No rate or size is typed anywhere else."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from codec.errors import SpecError


@dataclass(frozen=True)
class FrameSpec:
    """What one frame is. The defaults are those of ``charactr/vocos-mel-24khz``.

    Attributes:
        kind: name of the features, "mel" or "encodec".
        sample_rate: of the waveform, Hz.
        hop: samples from one frame to the next.
        dim: numbers per frame.
        floor: the value of every number of a frame of digital silence, used for padding.
    """

    kind: str = "mel"
    sample_rate: int = 24_000
    hop: int = 256
    dim: int = 100
    floor: float = math.log(1e-7)

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop


@dataclass(frozen=True)
class TokenSpec:
    """What one semantic token is.

    Attributes:
        frames: the frames that the tokenizer reads and the acoustic decoder writes.
        frames_per_token: frames covered by one token.
        codes: number of different tokens.
    """

    frames: FrameSpec = field(default_factory=FrameSpec)
    frames_per_token: int = 4
    codes: int = 625

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.frames.rate / self.frames_per_token

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TokenSpec":
        return cls(**{**fields, "frames": FrameSpec(**fields["frames"])})


def require_same(a: FrameSpec | TokenSpec, b: FrameSpec | TokenSpec, *, a_name: str, b_name: str) -> None:
    """Raise `SpecError` naming both specs where two models that meet do not share one grid."""
    if a != b:
        raise SpecError(f"{a_name} and {b_name} do not fit together: {a_name} has {a}, {b_name} has {b}")
