"""What the four stages train on. B batch, T frames, D numbers a frame, L labels, N positions or tokens."""

from typing import NamedTuple

from torch import Tensor

IGNORE = -100  # label of a position without loss, as torch's cross entropy has it


class VocoderBatch(NamedTuple):
    """Attributes:
    wav: crops, (B, samples) float32, full scale at 1.0.
    pitch: (B, T) float32, Hz of every frame, 0 where there is no voice; None where it is not asked for.
    """

    wav: Tensor
    pitch: Tensor | None = None


class TokenizerBatch(NamedTuple):
    """Attributes:
    frames: (B, T, D) float32, padded with the frames' floor.
    frame_lens: (B,) int64.
    labels: (B, L) int64, ids of segments, padded with 0.
    label_lens: (B,) int64.
    speakers: (B,) int64, numbers of the speakers in the dataset.
    """

    frames: Tensor
    frame_lens: Tensor
    labels: Tensor
    label_lens: Tensor
    speakers: Tensor


class LMBatch(NamedTuple):
    """Attributes:
    ids: (B, N) int64, padded with 0.
    labels: (B, N) int64, ``labels[:, i]`` is to be predicted at position i; `IGNORE` where there is no loss.
    """

    ids: Tensor
    labels: Tensor


class AcousticBatch(NamedTuple):
    """Prompt, target and padding, one after another in time.

    Attributes:
        frames: (B, frames_per_token * N, D) float32, padded with the frames' floor.
        tokens: (B, N, 4) int64, each with its phonemes, see `tts.text.triphones.told`; padded with 0.
        prompt_lens: (B,) int64, tokens of the prompt at the head.
        lens: (B,) int64, tokens of prompt and target together.
        speakers: (B,) int64, numbers of the speakers in the dataset.
        labels: (B, L) int64, ids of the target's segments, padded with 0.
        label_lens: (B,) int64.
    """

    frames: Tensor
    tokens: Tensor
    prompt_lens: Tensor
    lens: Tensor
    speakers: Tensor
    labels: Tensor
    label_lens: Tensor
