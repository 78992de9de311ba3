"""EnCodec's decoder as a vocoder: EnCodec frames -> waveform (Défossez et al. 2022, arXiv 2210.13438)."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.features.encodec import ENCODEC, encodec_model, without_weight_norm


class EncodecVocoder(nn.Module):
    """Frames (B, T, dim) -> waveform (B, T * hop), which is `hop - 1` samples longer than was encoded at most.

    Args:
        weights: file of EnCodec's weights, see `codec.features.encodec.encodec_model`.
    """

    def __init__(self, *, weights: str | Path | None = None) -> None:
        super().__init__()
        self.spec = ENCODEC
        self.decoder = without_weight_norm(encodec_model(weights).decoder)
        for part in list(self.decoder.modules()):
            if isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
                weight_norm(part)  # torch's new one, which can be copied

    def forward(self, frames: Tensor) -> Tensor:
        # 8 bits of mantissa are not enough for samples
        with torch.autocast(frames.device.type, enabled=False):
            wav: Tensor = self.decoder(frames.float().transpose(1, 2))
        return wav[:, 0]
