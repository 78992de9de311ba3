"""Vocos: log-mel frames -> waveform through one inverse STFT (Siuzdak 2023, arXiv 2306.00814).

Backbone and head are the ``vocos`` package's, so the state dict has the names and shapes of the released
``charactr/vocos-mel-24khz`` when built with its sizes (dim 512, intermediate 1536, 8 layers).
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

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

    @property
    def kind(self) -> Hashable:
        """Streams of one kind can be one batch."""
        return tuple(_kind(getattr(self, one.name)) for one in fields(self))

    @staticmethod
    def joined(states: Sequence["VocosState"]) -> "VocosState":
        """One batch of streams of one kind, in their order."""
        names = [one.name for one in fields(states[0])]
        return replace(states[0], **{name: _joined([getattr(one, name) for one in states]) for name in names})

    def part(self, states: Sequence["VocosState"]) -> None:
        """Write back to streams of one row each what has become of them since they were `joined`."""
        for number, state in enumerate(states):
            for one in fields(state):
                setattr(state, one.name, _row(getattr(self, one.name), number))


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

    @torch.inference_mode()
    def decode_chunks(
        self, states: Sequence[VocosState], frames: Sequence[Tensor], last: Sequence[bool]
    ) -> list[Tensor]:
        """What `decode_chunk` gives for each of several streams of one row; those that are alike are one batch.

        Args:
            states: of the streams; changed in place.
            frames: (T, dim) of each.
            last: of each.

        Returns:
            (samples,) of each.
        """
        alike: dict[Hashable, list[int]] = defaultdict(list)
        for number, (state, own, ends) in enumerate(zip(states, frames, last, strict=True)):
            alike[state.kind, own.shape, ends].append(number)
        out: dict[int, Tensor] = {}
        for numbers in alike.values():
            several = [states[number] for number in numbers]
            state = several[0] if len(several) == 1 else VocosState.joined(several)
            rows = torch.stack([frames[number] for number in numbers])
            out |= zip(numbers, self.decode_chunk(state, rows, last=last[numbers[0]]), strict=True)
            if len(several) > 1:
                state.part(several)
        return [out[number] for number in range(len(states))]

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
            # (B, T, size): here, other than in the package's inverse STFT, a frame's numbers lie side by side
            pieces = torch.fft.irfft(self._spectra(state, hidden), size) * window
            squares = window.square().expand_as(pieces)
            sound, weight = _overlapped(sound, pieces, hop), _overlapped(weight, squares, hop)
        done = frames * hop
        state.sound, state.weight = sound[:, done:], weight[:, done:]
        if last:
            done = sound.shape[1] - size // 2  # the other half of the last window is beyond the last sample
        out = sound[:, :done] / weight[:, :done].clamp(min=1e-11)
        skipped = min(state.skip, out.shape[1])
        state.skip -= skipped
        return out[:, skipped:]

    def _spectra(self, state: VocosState, hidden: Tensor) -> Tensor:
        """Hidden (B, T, dim) -> (B, T, frequencies) complex, as the package's head has it."""
        magnitude, phase = self.head.out(hidden).chunk(2, dim=-1)
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


def _overlapped(before: Tensor, pieces: Tensor, hop: int) -> Tensor:
    """Add pieces (B, T, size), each ``hop`` behind the last, to what is left of those before, (B, size - hop)."""
    rows, count, size = pieces.shape
    out = F.pad(before, (0, count * hop)).view(rows, -1, hop)
    for part, piece in enumerate(pieces.view(rows, count, size // hop, hop).unbind(2)):
        out[:, part : part + count] += piece
    return out.view(rows, -1)


def _kind(value: Any) -> Hashable:
    """What two values must have in common to be joined."""
    if isinstance(value, Tensor):
        return value.shape[1:]
    return tuple(map(_kind, value)) if isinstance(value, list) else value


def _joined(values: Sequence[Any]) -> Any:
    """Values of one kind as one: tensors row upon row."""
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    return [_joined(some) for some in zip(*values, strict=True)] if isinstance(values[0], list) else values[0]


def _row(value: Any, number: int) -> Any:
    """One stream's share of what was joined."""
    if isinstance(value, Tensor):
        return value[number : number + 1]
    return [_row(one, number) for one in value] if isinstance(value, list) else value
