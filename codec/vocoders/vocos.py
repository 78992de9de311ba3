"""Vocos: log-mel frames -> waveform through one inverse STFT (Siuzdak 2023, arXiv 2306.00814).

Backbone and head are the ``vocos`` package's, so the state dict has the names and shapes of the released
``charactr/vocos-mel-24khz`` when built with its sizes (dim 512, intermediate 1536, 8 layers).
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone

from codec.errors import UserError
from codec.spec import FrameSpec


class VocosVocoder(nn.Module):
    """Frames (B, T, dim) -> waveform (B, (T - 1) * hop)."""

    def __init__(
        self,
        *,
        dim: int = 512,
        intermediate_dim: int = 1536,
        num_layers: int = 8,
        spec: FrameSpec | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec or FrameSpec()
        self.backbone = VocosBackbone(self.spec.dim, dim, intermediate_dim, num_layers)
        self.head = ISTFTHead(dim, n_fft=4 * self.spec.hop, hop_length=self.spec.hop, padding="center")

    def forward(self, frames: Tensor) -> Tensor:
        hidden = self.backbone(frames.transpose(1, 2))
        # exp, cos and the inverse FFT lose audible precision in bf16
        wav: Tensor = self.head(hidden.float())
        return wav

    def load_released(self, path: str | Path) -> None:
        """Take weights in the layout of ``charactr/vocos-mel-24khz`` from a safetensors file.

        Raises:
            UserError: the file does not hold this vocoder's tensors.
        """
        state = {k: v for k, v in load_file(path).items() if not k.startswith("feature_extractor.")}
        mine = self.state_dict()
        wrong = sorted(
            k
            for k in mine.keys() | state.keys()
            if k not in state or k not in mine or mine[k].shape != state[k].shape
        )
        if wrong:
            raise UserError(
                f"{path}: not the weights of this Vocos, first difference at {wrong[0]!r}; check dim and layers"
            )
        self.load_state_dict(state)
