"""A vocoder that is told where the pulses of the voice are: Vocos as the filters of a source.

Vocos draws the phase of every frame, but nothing in a frame tells it: a steady vowel looks the same in each, while its
phase goes on by as much as its pitch says. Adversaries teach it to make something up, in a million steps. Here the
phase is computed instead, from a pitch that a small network reads in the same frames:

    frames ─┬► pitch ─► pulses ─┐ STFT
            │           noise ──┤
            └► backbone ────────┴► a filter for each, per bin ─► sum ─► inverse STFT

After the harmonic-plus-noise vocoders of Wang et al. 2019 (arXiv 1904.12088), Liu et al. 2020 (Neural Homomorphic
Vocoder) and Li et al. 2023 (HiFTNet, arXiv 2309.09493), with no adversary needed: what is left to learn are envelopes.

Shapes: B batch, T frames, D numbers of a frame, F frequencies of the STFT, S samples.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.spec import FrameSpec
from codec.vocoders.vocos import VocosState, VocosVocoder

LOWEST, HIGHEST = 50.0, 600.0  # Hz, of a speaking voice
BINS = 160  # 27 cents apart
NEAR = 4  # bins on each side of the likeliest that its pitch is averaged over
BLOCK, PARTS = 16, 8  # after so many frames, the phase is a multiple of this part of a cycle
LOUDEST = math.log(1e2)  # of a filter's magnitudes, as Vocos limits its own
NOISE = 1 << 17  # samples after which the noise begins anew: 5 s at 24 kHz


class Pitch(nn.Module):
    """How high the voice is in every frame, as one choice among pitches in equal steps (CREPE, Kim et al. 2018).

    Args:
        dim: numbers of a frame.
        channels: of the hidden layers.
        layers, kernel: convolutions, and how many frames each looks at.
    """

    def __init__(self, dim: int, *, channels: int = 128, layers: int = 3, kernel: int = 5) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(channels if n else dim, channels, kernel, padding=kernel // 2) for n in range(layers)
        )
        self.out = nn.Linear(channels, BINS)
        self.register_buffer(
            "pitches", torch.linspace(math.log(LOWEST), math.log(HIGHEST), BINS), persistent=False
        )
        self.pitches: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D) -> (B, T) Hz. Where there is no voice it is some pitch, too."""
        return self.read(self.logits(frames))

    def logits(self, frames: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, BINS)."""
        x = frames.transpose(1, 2)
        for conv in self.convs:
            x = conv(x).relu()
        logits: Tensor = self.out(x.transpose(1, 2))
        return logits

    def layers(self) -> list[nn.Conv1d]:
        """The convolutions, each followed by a ReLU."""
        return [conv for conv in self.convs if isinstance(conv, nn.Conv1d)]

    def read(self, logits: Tensor) -> Tensor:
        """(B, T, BINS) -> (B, T) Hz: the mean, of the logarithm, of the likeliest pitches around the likeliest one."""
        around = torch.arange(-NEAR, NEAR + 1, device=logits.device)
        near = (logits.argmax(-1, keepdim=True) + around).clamp(0, BINS - 1)
        return (logits.gather(-1, near).softmax(-1) * self.pitches[near]).sum(-1).exp()

    def loss(self, frames: Tensor, pitch: Tensor) -> Tensor:
        """Cross entropy to (B, T) Hz, smeared over neighbouring choices; frames where it is 0 do not count."""
        voiced = pitch > 0
        logits = self.logits(frames)[voiced].float()
        wanted = pitch[voiced].clamp(LOWEST, HIGHEST).log()
        steps = (self.pitches - wanted[:, None]) / (self.pitches[1] - self.pitches[0])
        target = (-0.5 * steps.square()).softmax(-1)
        # the sum over nothing is 0, and has a gradient
        return F.cross_entropy(logits, target, reduction="sum") / max(1, len(wanted))


def anchored(pitch: Tensor, hop: int, sample_rate: int) -> Tensor:
    """(B, T) Hz -> (B, T) float64, changed so little that each `BLOCK` goes through whole parts of a cycle.

    By 6 cents at most at 100 Hz. Else the rounding errors of every frame would add up in the phase, and a stream would
    not have the samples of the whole. A last block that is not whole is thought to go on as it ends.
    """
    frames = pitch.shape[1]
    advance = torch.cat([pitch, pitch[:, -1:].expand(-1, BLOCK - 1)], 1).double() * (hop / sample_rate)
    done, first = torch.cumsum(advance, dim=1), torch.arange(0, frames, BLOCK, device=pitch.device)
    cycles = done[:, first + BLOCK - 1] - (done - advance)[:, first]
    change = (cycles * PARTS).round() / PARTS / cycles
    return pitch * change[:, torch.arange(frames, device=pitch.device) // BLOCK]


def pulses(pitch: Tensor, phase: Tensor, hop: int, sample_rate: int) -> tuple[Tensor, Tensor]:
    """The sum of all harmonics below half the sample rate, with a power of 1.

    Args:
        pitch: (B, T) Hz, float64; each holds for ``hop`` samples.
        phase: (B,) float64, cycles that the fundamental has gone through before the first sample.

    Returns:
        (B, T * hop) samples, and the phase behind the last of them.
    """
    # in float64: the harmonics have many times the phase and, in the sum, a small divisor
    held = pitch.repeat_interleave(hop, dim=1)
    cycles = torch.cumsum(held / sample_rate, dim=1) + phase[:, None]
    count = torch.floor(0.48 * sample_rate / held)
    half = math.pi * (cycles - cycles.floor())
    low = half.sin()
    on_pulse = low.abs() < 1e-6
    # of N cosines: (sin((2N + 1) x / 2) / sin(x / 2) - 1) / 2, which is N where x is 0
    quotient = ((2 * count + 1) * half).sin() / torch.where(on_pulse, torch.ones_like(low), low)
    total = torch.where(on_pulse, count, (quotient - 1) / 2)
    return (total * (2 / count).sqrt()).float(), cycles[:, -1] - cycles[:, -1].floor()


@dataclass
class HarmonicState(VocosState):
    """What a stream of chunks needs of the past, beside what `VocosState` has.

    Attributes:
        hidden: (B, T, dim) of frames whose windows are not whole yet.
        pitch: (B, T) Hz of frames whose block is not whole yet.
        samples: (B, 2, S) of pulses and of noise that windows still look at.
        phase: of the pulses, see `pulses`.
        noise: (B,) number of the next sample of noise.
    """

    hidden: Tensor | None = None
    pitch: Tensor | None = None
    samples: Tensor | None = None
    phase: Tensor | None = None
    noise: Tensor | None = None


class HarmonicVocos(VocosVocoder):
    """Frames (B, T, D) -> waveform (B, (T - 1) * hop), whole or chunk by chunk.

    Args:
        floor: smaller numbers in a frame are raised to it, None for none. What is cut off above 8 kHz would else be
            further from silence than silence is from speech, and each layer norms over all bands.
        Others: as `VocosVocoder` has them.
    """

    def __init__(
        self,
        *,
        dim: int = 512,
        intermediate_dim: int = 1536,
        num_layers: int = 8,
        floor: float | None = None,
        spec: FrameSpec | None = None,
    ) -> None:
        super().__init__(dim=dim, intermediate_dim=intermediate_dim, num_layers=num_layers, spec=spec)
        self.floor = -math.inf if floor is None else floor
        self.pitch = Pitch(self.spec.dim)
        frequencies = self.head.istft.n_fft // 2 + 1
        self.head.out = nn.Linear(dim, 3 * frequencies)
        with torch.no_grad():  # no delay to begin with
            self.head.out.weight[frequencies : 2 * frequencies].zero_()
            self.head.out.bias[frequencies : 2 * frequencies].zero_()
        generator = torch.Generator("cpu").manual_seed(0)
        self.register_buffer("noise", torch.randn(NOISE, generator=generator, device="cpu"), persistent=False)
        self.noise: Tensor

    def forward(self, frames: Tensor, pitch: Tensor | None = None) -> Tensor:
        """
        Args:
            frames: (B, T, D).
            pitch: (B, T) Hz, where it is known better than from the frames.
        """
        frames = self.audible(frames)
        with torch.autocast(frames.device.type, enabled=False), torch.no_grad():
            state = self.start()
            self._excite(state, self.pitch(frames.float()) if pitch is None else pitch, last=True)
        hidden = self.backbone(frames.transpose(1, 2))
        wav: Tensor = self.head.istft(self._spectra(state, hidden.float()).transpose(1, 2))
        return wav

    def audible(self, frames: Tensor) -> Tensor:
        """Frames as the vocoder sees them, nothing in them below its floor."""
        return frames.clamp(min=self.floor)

    @property
    def delay(self) -> int:
        """Frames by which a stream's waveform is behind its frames, at most: it may wait for a block of pitch."""
        reading = sum(conv.kernel_size[0] // 2 for conv in self.pitch.layers())
        return max(super().delay, reading + BLOCK - 1 + 4)  # two frames for half a window, once each way

    def start(self) -> HarmonicState:
        """The state before the first chunk."""
        state = super().start()
        return HarmonicState(state.inputs + [None] * len(self.pitch.convs), state.skip)

    @torch.inference_mode()
    def decode_chunk(self, state: VocosState, frames: Tensor, *, last: bool = False) -> Tensor:
        assert isinstance(state, HarmonicState)
        frames = self.audible(frames)
        x = frames.transpose(1, 2)
        for i, conv in enumerate(self.pitch.layers(), len(self._convs())):
            x = self._look(state, i, conv, x, last)[0].relu()
        self._excite(state, self.pitch.read(self.pitch.out(x.transpose(1, 2))), last=last)
        return super().decode_chunk(state, frames, last=last)

    def _overlap(self, state: VocosState, hidden: Tensor, last: bool) -> Tensor:
        assert isinstance(state, HarmonicState) and state.samples is not None
        if state.hidden is not None:
            hidden = torch.cat([state.hidden, hidden], 1)
        istft = self.head.istft
        ready = max(0, (state.samples.shape[-1] - istft.n_fft) // istft.hop_length + 1)
        state.hidden = hidden[:, ready:]
        return super()._overlap(state, hidden[:, :ready], last)

    def _excite(self, state: HarmonicState, pitch: Tensor, *, last: bool) -> None:
        """Put pulses and noise of (B, T) Hz behind what there is. A frame is the middle of its ``hop`` samples."""
        hop, rate = self.spec.hop, self.spec.sample_rate
        if state.pitch is not None:
            pitch = torch.cat([state.pitch, pitch], 1)
        whole = pitch.shape[1] if last else pitch.shape[1] // BLOCK * BLOCK
        state.pitch = pitch[:, whole:]
        edge = pitch.new_zeros(len(pitch), 2, (self.head.istft.n_fft - hop) // 2)
        parts = [edge if state.samples is None else state.samples]
        if whole:
            phase = pitch.new_zeros(len(pitch), dtype=torch.float64) if state.phase is None else state.phase
            voice, state.phase = pulses(anchored(pitch[:, :whole], hop, rate), phase, hop, rate)
            parts.append(torch.stack([voice, self._noise(state, voice)], 1))
        state.samples = torch.cat([*parts, edge] if last else parts, -1)

    def _noise(self, state: HarmonicState, like: Tensor) -> Tensor:
        """The next samples of noise: always the same ones, so that the same frames give the same waveform.

        While it trains they are others each time, lest the filters learn that one noise by heart.
        """
        if self.training:
            return torch.randn_like(like)
        start = like.new_zeros(len(like), dtype=torch.int64) if state.noise is None else state.noise
        at = (start[:, None] + torch.arange(like.shape[1], device=like.device)) % NOISE
        state.noise = start + like.shape[1]
        return self.noise[at]

    def _spectra(self, state: VocosState, hidden: Tensor) -> Tensor:
        """Hidden (B, T, dim) and the next T windows of pulses and noise -> (B, T, F) complex."""
        assert isinstance(state, HarmonicState) and state.samples is not None
        istft, frames = self.head.istft, hidden.shape[1]
        size, hop, window = istft.n_fft, istft.hop_length, istft.window
        windows = state.samples.unfold(-1, size, hop)[:, :, :frames] * (window / window.norm())
        state.samples = state.samples[..., frames * hop :]
        voice, noise = torch.fft.rfft(windows).unbind(1)
        voiced, delay, unvoiced = self.head.out(hidden).chunk(3, dim=-1)
        voiced, unvoiced = voiced.clip(max=LOUDEST).exp(), unvoiced.clip(max=LOUDEST).exp()
        spectra: Tensor = torch.polar(voiced, delay) * voice + unvoiced * noise
        return spectra
