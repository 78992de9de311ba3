"""Log-mel frames, as Vocos computes them (Siuzdak 2023, arXiv 2306.00814)."""

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from codec.spec import FrameSpec


class LogMel(nn.Module):
    """Natural log of the mel magnitude spectrogram, floored at 1e-7.

    Equal to ``vocos.feature_extractors.MelSpectrogramFeatures(padding="center")``: window and FFT of 1024
    samples, HTK mel scale, magnitudes (not power).
    """

    def __init__(self, spec: FrameSpec | None = None, *, n_fft: int = 1024) -> None:
        super().__init__()
        self.spec = spec or FrameSpec()
        self.mel = MelSpectrogram(
            self.spec.sample_rate, n_fft=n_fft, hop_length=self.spec.hop, n_mels=self.spec.dim, power=1
        )

    def forward(self, wav: Tensor) -> Tensor:
        """(B, samples) in [-1, 1] -> (B, samples // hop + 1, dim). Needs more than ``n_fft / 2`` samples."""
        with torch.autocast(wav.device.type, enabled=False):
            mel: Tensor = self.mel(wav.float())
        return mel.clamp(min=1e-7).log().transpose(1, 2)
