"""Vocos: log-mel frames -> waveform through one inverse STFT (Siuzdak 2023, arXiv 2306.00814).

Backbone and head are the ``vocos`` package's, so the state dict has the names and shapes of the released
``charactr/vocos-mel-24khz`` when built with its sizes (dim 512, intermediate 1536, 8 layers).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone

from codec.errors import UserError
from codec.spec import FrameSpec


@dataclass
class VocosState:
    """What a stream of chunks needs of the past; nothing of it is computed twice.

    Attributes:
        inputs: of each convolution, its last inputs (B, channels, n): those that later outputs still look at.
        skip: samples still to leave out: the first window is centred on the first sample, half of it lies before.
        sound, weight: (B, n) overlap of the inverse STFT, the sum of what was added so far and of the squared windows.
        ended: whether the last chunk was given.
    """

    inputs: list[Tensor | None]
    skip: int
    sound: Tensor | None = None
    weight: Tensor | None = None
    ended: bool = False


class VocosVocoder(nn.Module):
    """Frames (B, T, dim) -> waveform (B, (T - 1) * hop), whole or chunk by chunk."""

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

    @property
    def delay(self) -> int:
        """Frames by which a stream's waveform is behind its frames: all that the layers look ahead."""
        return (
            sum(conv.kernel_size[0] // 2 for conv in self._convs()) + 2
        )  # and half a window of the inverse STFT

    def _convs(self) -> list[nn.Conv1d]:
        return [self.backbone.embed, *(block.dwconv for block in self.backbone.convnext)]

    def start(self) -> VocosState:
        """The state before the first chunk."""
        return VocosState([None] * len(self._convs()), self.head.istft.n_fft // 2)

    @torch.inference_mode()
    def decode_chunk(self, state: VocosState, frames: Tensor, *, last: bool = False) -> Tensor:
        """What can be told of the waveform so far: the next (B, samples), `delay` frames behind.

        The chunks' waveforms, joined, are those of one pass over all frames.

        Args:
            state: from `start`; changed in place.
            frames: (B, T, dim), the next ones.
            last: no more will come; the rest of the waveform is given out.
        """
        assert not state.ended, "the stream has ended"
        state.ended = last
        backbone = self.backbone
        x, _ = self._look(state, 0, backbone.embed, frames.transpose(1, 2), last)
        x = backbone.norm(x.transpose(1, 2)).transpose(1, 2)
        for i, block in enumerate(backbone.convnext, 1):
            y, x = self._look(state, i, block.dwconv, x, last)
            y = block.pwconv2(block.act(block.pwconv1(block.norm(y.transpose(1, 2)))))
            x = x + (y if block.gamma is None else block.gamma * y).transpose(1, 2)
        hidden = backbone.final_layer_norm(x.transpose(1, 2))
        return self._overlap(state, hidden.float(), last)

    @staticmethod
    def _look(
        state: VocosState, number: int, conv: nn.Conv1d, x: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """A convolution's next outputs, and its inputs at the same frames."""
        side = conv.kernel_size[0] // 2
        before = state.inputs[number]
        if before is None:
            before = x.new_zeros(x.shape[0], x.shape[1], side)
        x = torch.cat([before, F.pad(x, (0, side)) if last else x], dim=-1)
        count = max(0, x.shape[-1] - 2 * side)
        state.inputs[number] = x[..., count:]
        if not count:
            return x.new_zeros(x.shape[0], conv.out_channels, 0), x[..., :0]
        out = F.conv1d(x, conv.weight, conv.bias, groups=conv.groups)
        return out, x[..., side : side + count]

    def _overlap(self, state: VocosState, hidden: Tensor, last: bool) -> Tensor:
        """The head: spectra of hidden (B, T, dim), added up where they overlap."""
        istft, hop = self.head.istft, self.head.istft.hop_length
        size, window = istft.n_fft, istft.window
        sound, weight = state.sound, state.weight
        if sound is None or weight is None:
            sound, weight = (hidden.new_zeros(len(hidden), size - hop) for _ in range(2))
        frames = hidden.shape[1]
        if frames:
            spectra = self._spectra(state, hidden)
            pieces = torch.fft.irfft(spectra, size, dim=1) * window[:, None]
            squares = window.square()[:, None].expand(len(hidden), size, frames)
            total = (frames - 1) * hop + size
            sound, weight = (
                F.pad(old, (0, total - (size - hop)))
                + F.fold(new, (1, total), (1, size), stride=(1, hop))[:, 0, 0]
                for old, new in ((sound, pieces), (weight, squares))
            )
        done = frames * hop
        state.sound, state.weight = sound[:, done:], weight[:, done:]
        if last:
            done = sound.shape[1] - size // 2  # the other half of the last window is beyond the last sample
        out = sound[:, :done] / weight[:, :done].clamp(min=1e-11)
        skipped = min(state.skip, out.shape[1])
        state.skip -= skipped
        return out[:, skipped:]

    def _spectra(self, state: VocosState, hidden: Tensor) -> Tensor:
        """Hidden (B, T, dim) -> (B, frequencies, T) complex, as the package's head has it."""
        magnitude, phase = self.head.out(hidden).transpose(1, 2).chunk(2, dim=1)
        return torch.polar(magnitude.exp().clip(max=1e2), phase)

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
