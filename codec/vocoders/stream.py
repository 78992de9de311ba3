"""From frames to samples chunk by chunk: other spacing of the frames, the vocoder, and the limit at full scale.

Given everything at once with ``last=True``, each does the whole: the offline way is a stream of one chunk.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.vocoders.vocos import VocosState, VocosVocoder

KNEE = 0.9  # amplitudes below pass unchanged


class Respacing:
    """Frames as if they had been taken at another distance in time: frame i is what was at ``i * speed``.

    Args:
        speed: above 1 there are fewer frames, ``round(T / speed)`` of them, two at least.
    """

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._frames: Tensor | None = None  # those that are still looked at
        self._first = 0  # number of the first of them
        self._given = 0  # frames given out so far

    def __call__(self, frames: Tensor, *, last: bool = False) -> Tensor:
        """The next (T, D) -> those that can be told from what has come."""
        if self.speed == 1.0:
            return frames
        kept = frames if self._frames is None else torch.cat([self._frames, frames])
        total = self._first + len(kept)
        end = max(2, round(total / self.speed)) if last else int((total - 1) / self.speed)
        at = torch.arange(self._given, max(self._given, end), dtype=torch.float64) * self.speed
        low = at.floor().long().clamp(max=total - 1)
        share = (at - low).clamp(0, 1).to(frames)[:, None]
        low = (low - self._first).to(frames.device)
        high = (low + 1).clamp(max=len(kept) - 1)
        out = torch.lerp(kept[low], kept[high], share)
        self._given = max(self._given, end)
        done = min(max(0, int(self._given * self.speed) - self._first), len(kept))
        self._frames, self._first = kept[done:], self._first + done
        return out


class Vocoding:
    """A vocoder over a stream of frames. One that has no state of its own waits for the last of them.

    Args:
        vocoder: frames (1, T, D) -> waveform (1, samples).
    """

    def __init__(self, vocoder: nn.Module) -> None:
        self.vocoder = vocoder
        self._state: VocosState | None = vocoder.start() if isinstance(vocoder, VocosVocoder) else None
        self._waiting: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self, frames: Tensor, *, last: bool = False) -> Tensor:
        """The next (T, D) -> the next samples, on the CPU."""
        if self._state is not None:
            return vocoded([self], [frames], [last])[0]
        self._waiting.append(frames)
        if not last:
            return torch.zeros(0)
        wav: Tensor = self.vocoder(torch.cat(self._waiting)[None])[0].float().cpu()
        return wav


def vocoded(streams: Sequence[Vocoding], frames: Sequence[Tensor], last: Sequence[bool]) -> list[Tensor]:
    """What each of several streams of one vocoder gives for its next frames (T, D), made together where it can be."""
    vocoder, states = streams[0].vocoder, [one._state for one in streams if one._state is not None]
    if not isinstance(vocoder, VocosVocoder):
        return [one(own, last=ends) for one, own, ends in zip(streams, frames, last, strict=True)]
    return [wav.float().cpu() for wav in vocoder.decode_chunks(states, frames, last)]


def limited(wav: Tensor) -> Tensor:
    """Samples that never reach full scale: what is above the knee is bent, smoothly; the rest is as it was.

    Sample by sample, unlike a scaling by the peak, so that chunks are what the whole is.
    """
    over = (wav.abs() - KNEE).clamp(min=0)
    return torch.where(over > 0, wav.sign() * (KNEE + (0.99 - KNEE) * torch.tanh(over / (0.99 - KNEE))), wav)
