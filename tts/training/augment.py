"""Augmentation on frames: other vocal tracts, rooms and microphones, and gaps. For log-mel frames."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MelAugment(nn.Module):
    """Random changes to log-mel frames that leave what is said as it is.

    Args:
        warp: largest relative stretch of the frequency axis (vocal-tract-length perturbation, Jaitly & Hinton 2013).
        tilt: standard deviation of a smooth random filter over frequency, natural-log units (microphone, room).
        noise: chance of adding a steady noise floor of random height to an utterance.
        low_pass: chance of cutting everything above a random channel in the upper third, as 16 kHz recordings do.
        time_masks, time_width: gaps per utterance and the longest, frames (SpecAugment, Park et al. 2019).
        freq_masks, freq_width: the same over mel channels.
    """

    def __init__(
        self,
        *,
        warp: float = 0.12,
        tilt: float = 0.3,
        noise: float = 0.15,
        low_pass: float = 0.1,
        time_masks: int = 2,
        time_width: int = 12,
        freq_masks: int = 1,
        freq_width: int = 12,
    ) -> None:
        super().__init__()
        self.warp, self.tilt, self.noise, self.low_pass = warp, tilt, noise, low_pass
        self.time_masks, self.time_width = time_masks, time_width
        self.freq_masks, self.freq_width = freq_masks, freq_width

    def forward(self, frames: Tensor, floor: float) -> Tensor:
        """(B, T, D) frames -> changed copy; `floor` is the value of silence."""
        b, t, d = frames.shape
        device = frames.device
        uniform = lambda *shape: torch.rand(*shape, device=device)  # noqa: E731
        channel = torch.arange(d, device=device)
        if self.warp:
            stretch = 1 + self.warp * (2 * uniform(b, 1) - 1)
            source = (channel * stretch).clamp(max=d - 1)
            low = source.floor().long()
            share = (source - low)[:, None]
            low_bd, high_bd = (i[:, None].expand(b, t, d) for i in (low, (low + 1).clamp(max=d - 1)))
            frames = frames.gather(2, low_bd) * (1 - share) + frames.gather(2, high_bd) * share
        if self.tilt:
            points = self.tilt * torch.randn(b, 1, 6, device=device)
            frames = frames + F.interpolate(points, d, mode="linear", align_corners=True)
        if self.noise:
            level = torch.where(
                uniform(b) < self.noise, -8 + 5 * uniform(b), torch.full((b,), floor, device=device)
            )
            frames = torch.logaddexp(frames, level[:, None, None] + 0.5 * torch.randn_like(frames))
        if self.low_pass:
            cut = torch.where(
                uniform(b) < self.low_pass,
                d * (0.67 + 0.3 * uniform(b)),
                torch.full((b,), float(d), device=device),
            )
            frames = frames.masked_fill((channel >= cut[:, None])[:, None, :], floor)
        fill = frames.mean((1, 2), keepdim=True)
        for _ in range(self.time_masks):
            frames = torch.where(self._span(b, t, self.time_width, device)[:, :, None], fill, frames)
        for _ in range(self.freq_masks):
            frames = torch.where(self._span(b, d, self.freq_width, device)[:, None, :], fill, frames)
        return frames.clamp(min=floor)

    @staticmethod
    def _span(rows: int, size: int, width: int, device: torch.device) -> Tensor:
        """(rows, size) bool with one random span of at most `width` in each row."""
        length = torch.rand(rows, 1, device=device) * width
        start = torch.rand(rows, 1, device=device) * (size - length).clamp(min=0)
        at = torch.arange(size, device=device)
        return (at >= start) & (at < start + length)


def smeared(
    frames: Tensor, share: float, *, time: float = 1.0, bands: float = 1.5, noise: float = 0.15
) -> Tensor:
    """A share of the rows of (B, T, D) frames blurred and noisy, as those of a decoder are beside a recording's.

    Args:
        frames: log-mels.
        share: of the rows, the others stay as they are.
        time, bands: largest standard deviation of the Gaussian blur, frames and mel channels.
        noise: largest standard deviation of what is added, natural-log units.
    """
    b, t, d = frames.shape
    on = (torch.rand(b, 1, 1, device=frames.device) < share).float()
    over_time, over_bands, level = (
        largest * on * torch.rand(b, 1, 1, device=frames.device) for largest in (time, bands, noise)
    )
    blurred = _gaussians(t, over_time) @ frames @ _gaussians(d, over_bands).transpose(1, 2)
    return blurred + level * torch.randn_like(frames)


def _gaussians(size: int, deviation: Tensor) -> Tensor:
    """(B, 1, 1) -> (B, size, size), rows that sum to 1: the identity where the deviation is 0."""
    at = torch.arange(size, device=deviation.device)
    distance = (at - at[:, None]) / deviation.clamp(min=0.05)
    return (-0.5 * distance.square()).softmax(-1)


def at_tempo(frames: Tensor, lens: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Respace (B, T, D) frames in time, of which (B,) are valid: `factor` 1.1 is 10 % faster, at the same pitch."""
    count = max(1, round(frames.shape[1] / factor))
    spaced = F.interpolate(frames.transpose(1, 2), count, mode="linear", align_corners=False)
    return spaced.transpose(1, 2).contiguous(), (lens / factor).round().long().clamp(1, count)
