"""The parts of a model as modules of tensors alone, which is what a graph can be made of.

State that the chain passes as objects is tensors here: a graph takes the keys and values of the past and gives those of
the new positions, which its caller puts behind the others.

Shapes: B batch, T frames, D numbers of a frame, N tokens, P new positions, S positions of the past, L layers, H heads
of keys, K numbers per head, V vocabulary, M reading positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.attention import rope
from codec.tokenizer.fsq import FSQ
from codec.tokenizer.model import Tokenizer
from codec.vocoders.harmonic import LOUDEST, HarmonicVocos, anchored, pulses
from codec.vocoders.vocos import VocosVocoder
from tts.acoustic.decoder import FlowDecoder
from tts.lm.llama import Llama


class _Past:
    """A layer's keys and values of the past, in the place of a `KVCache`; it keeps the new ones.

    Args:
        past: (S, L, 2, B, H, K).
        layer: which of the layers.
    """

    def __init__(self, past: Tensor, layer: int) -> None:
        self.length = past.shape[0]
        self._past = past[:, layer]
        self.new: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, P, K) keys and values -> all of them, (B, H, S and P, K)."""
        self.new = torch.stack([k, v]).permute(3, 0, 1, 2, 4)  # (P, 2, B, H, K)
        before = self._past.permute(1, 2, 3, 0, 4)
        return torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)


def _new(caches: list[_Past]) -> Tensor:
    """What was added, (P, L, 2, B, H, K)."""
    return torch.stack([cache.new for cache in caches if cache.new is not None], 1)


class TokenizerEncoder(nn.Module):
    """Frames (B, T, D) and how many are valid (B,) -> tokens (B, N), N = ceil(T / frames per token)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, frames: Tensor, lens: Tensor) -> Tensor:
        hidden, _ = self.tokenizer.hidden(frames, lens)
        quantizer = self.tokenizer.quantizer
        if not isinstance(quantizer, FSQ):
            codes: Tensor = quantizer(hidden)[1]
            return codes
        z = quantizer.bound(hidden)
        rounded = torch.minimum(torch.maximum(z.round(), -quantizer.reach), quantizer.reach)
        return ((rounded + quantizer.reach).long() * quantizer.places).sum(-1)


class TokenizerReader(nn.Module):
    """Tokens (B, N) and how many are valid (B,) -> log probabilities of phonemes (B, M, symbols)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, tokens: Tensor, lens: Tensor) -> Tensor:
        return self.tokenizer.log_probs(self.tokenizer.quantizer.embed(tokens), lens)


class Speaker(nn.Module):
    """A prompt's frames (B, T, D), unscaled, and how many are valid (B,) -> speaker vectors (B, dim)."""

    def __init__(self, acoustic: FlowDecoder) -> None:
        super().__init__()
        self.acoustic = acoustic

    def forward(self, frames: Tensor, lens: Tensor) -> Tensor:
        vector: Tensor = self.acoustic.dit.speaker(self.acoustic.scale(frames), lens)
        return vector


class FlowStep(nn.Module):
    """The velocity at one time, and the keys and values of the new positions.

    The prompt goes through it once, clean and with `prompt` True, at every time of the solver; a chunk then once at
    every time, behind what was kept at that time.
    """

    def __init__(self, acoustic: FlowDecoder) -> None:
        super().__init__()
        self.dit = acoustic.dit

    def forward(
        self, frames: Tensor, time: Tensor, tokens: Tensor, speaker: Tensor, prompt: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scaled frames (B, T, D), times (B,), tokens (B, N, 4), speakers (B, dim), prompt (B, N) bool, past
        (S, L, 2, B, H, K) -> velocity (B, T, D), new (P, L, 2, B, H, K)."""
        caches = [_Past(past, layer) for layer in range(len(self.dit.blocks))]
        velocity = self.dit(
            frames, time, tokens, speaker, prompt=prompt, caches=caches, past=caches[0].length
        )
        return velocity, _new(caches)


class Vocoder(nn.Module):
    """Frames (B, T, D) -> waveform (B, (T - 1) * hop).

    The inverse STFT is one transposed convolution, by the windowed waves of all frequencies: graphs have no complex
    numbers.
    """

    def __init__(self, vocoder: VocosVocoder) -> None:
        super().__init__()
        istft = vocoder.head.istft
        size, window = istft.n_fft, istft.window
        self.hop, self.edge = istft.hop_length, size // 2
        self.backbone, self.out = vocoder.backbone, vocoder.head.out
        unit = torch.eye(self.edge + 1, dtype=torch.complex64, device=window.device)
        waves = torch.cat([torch.fft.irfft(unit, size, dim=1), torch.fft.irfft(1j * unit, size, dim=1)])
        self.register_buffer("waves", (waves * window)[:, None])
        self.register_buffer("squares", window.square()[None, None])
        self.waves: Tensor
        self.squares: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        parts = self.spectra(frames)
        sound = F.conv_transpose1d(parts, self.waves, stride=self.hop)
        weight = F.conv_transpose1d(torch.ones_like(parts[:, :1]), self.squares, stride=self.hop)
        return (sound / weight.clamp(min=1e-11))[:, 0, self.edge : -self.edge]

    def spectra(self, frames: Tensor) -> Tensor:
        """(B, T, D) -> real parts, then imaginary ones, (B, 2 F, T)."""
        magnitude, phase = self.out(self.backbone(frames.transpose(1, 2))).transpose(1, 2).chunk(2, dim=1)
        magnitude = magnitude.exp().clip(max=1e2)  # as the package's head has it
        return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


class HarmonicVocoder(Vocoder):
    """The same of a vocoder that filters pulses and noise; their STFT is a convolution."""

    def __init__(self, vocoder: VocosVocoder) -> None:
        super().__init__(vocoder)
        assert isinstance(vocoder, HarmonicVocos)
        istft = vocoder.head.istft
        size, window = istft.n_fft, istft.window
        self.pitch, self.rate, self.floor = vocoder.pitch, vocoder.spec.sample_rate, vocoder.floor
        turn = torch.fft.fft(torch.eye(size, dtype=torch.float64))[: self.edge + 1]
        analysis = torch.cat([turn.real, turn.imag]).to(window) * (window / window.norm())
        self.register_buffer("analysis", analysis[:, None])
        self.register_buffer("noise", vocoder.noise)
        self.analysis: Tensor
        self.noise: Tensor

    def spectra(self, frames: Tensor) -> Tensor:
        count, frames = frames.shape[1], frames.clamp(min=self.floor)
        held = anchored(self.pitch(frames), self.hop, self.rate)
        voice, _ = pulses(held, torch.zeros_like(held[:, 0]), self.hop, self.rate)
        noise = self.noise[torch.arange(count * self.hop, device=frames.device) % len(self.noise)]
        voice, noise = self._stft(voice), self._stft(noise.expand_as(voice))
        hidden = self.out(self.backbone(frames.transpose(1, 2))).transpose(1, 2)
        voiced, delay, unvoiced = hidden.chunk(3, dim=1)
        voiced, unvoiced = voiced.clip(max=LOUDEST).exp(), unvoiced.clip(max=LOUDEST).exp()
        real, imag = voiced * delay.cos(), voiced * delay.sin()
        by_real, by_imag = voice.chunk(2, dim=1)
        filtered = torch.cat([real * by_real - imag * by_imag, real * by_imag + imag * by_real], dim=1)
        spectra: Tensor = filtered + unvoiced.repeat(1, 2, 1) * noise
        return spectra

    def _stft(self, sound: Tensor) -> Tensor:
        """(B, T * hop) -> (B, 2 F, T), a window around the middle of every ``hop`` samples."""
        edge = (2 * self.edge - self.hop) // 2
        windows: Tensor = F.conv1d(F.pad(sound[:, None], (edge, edge)), self.analysis, stride=self.hop)
        return windows


class LmStep(nn.Module):
    """Ids -> logits of what follows the last one, and the keys and values of the new positions."""

    def __init__(self, llama: Llama) -> None:
        super().__init__()
        self.model, self.lm_head, self.config = llama.model, llama.lm_head, llama.config

    def forward(self, ids: Tensor, pads: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, P), padding on the left of each row (B,), past (S, L, 2, B, H, K) -> logits (B, V), new
        (P, L, 2, B, H, K)."""
        caches = [_Past(past, layer) for layer in range(self.config.num_hidden_layers)]
        before, count = past.shape[0], ids.shape[1]
        seen = torch.arange(before + count, device=ids.device)
        at = seen[before:]
        # a padding position sees itself, so that its softmax has something to sum
        mask = (seen <= at[:, None]) & ((seen >= pads[:, None, None, None]) | (seen == at[:, None]))
        positions = (at - pads[:, None, None]).clamp(min=0)
        cos, sin = rope(
            positions, self.config.hidden_size // self.config.num_attention_heads, self.config.rope_theta
        )
        x = self.model.embed_tokens(ids)
        for layer, cache in zip(self.model.layers, caches, strict=True):
            x = layer(x, cos, sin, mask, cache)
        return self.lm_head(self.model.norm(x[:, -1])), _new(caches)
