"""Fixtures for all tests: speech-like audio made on the spot, the same on every run.

Nothing here reads a file outside the test's own folder, or the network.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from torch import Tensor

from tts.text.symbols import DEFAULT_SYMBOLS

torch.set_num_threads(1)  # the tests' tensors are small: more threads would wait for each other

Array = npt.NDArray[np.float64]

# First three formants of each vowel in Hz, of a man (Peterson and Barney 1952).
_VOWELS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
# Voiced consonants: low first formant, quieter. Any other letter is noise around a frequency of its own.
_VOICED = {"m": (250, 1100, 2200), "n": (250, 1700, 2600), "l": (360, 1300, 2700), "r": (420, 1250, 1600)}
_NOISES = {letter: 1500 + 370 * n for n, letter in enumerate("tkpcdbgvwjzxqfhys")}  # Hz
_LETTER = 0.08  # seconds a letter
_SENTENCES = ("some rain fell all day", "a lone seal sang", "nine men ran a mile", "our aim is low")


def speak(text: str, *, speaker: int = 0, seed: int = 0, sample_rate: int = 24_000) -> Tensor:
    """Speech-like audio in which every letter has a sound of its own, so that a model can learn to read it.

    Vowels, and m n l r, are harmonics of a moving pitch under moving formants; other letters are shaped
    noise; everything else is a pause. 80 ms a letter, peak 0.5.

    Args:
        text: letters a to z and anything.
        speaker: sets pitch and the length of the vocal tract.
        seed: sets the melody and the noise.
        sample_rate: Hz.

    Returns:
        (samples,) float32, ``round(0.08 * sample_rate)`` samples a character.
    """
    rng = np.random.default_rng([speaker, seed])
    per_letter = round(_LETTER * sample_rate)
    text = text.lower()
    samples = per_letter * len(text)
    time = np.arange(samples) / sample_rate
    voice = np.random.default_rng(speaker)
    pitch = voice.uniform(90, 220) * 2 ** (
        0.15 * np.sin(2 * math.pi * (rng.uniform(0.3, 0.8) * time + rng.random()))
    )
    tract = voice.uniform(0.9, 1.2)  # formants of this speaker, relative to the table

    formants = np.array([_VOWELS.get(c) or _VOICED.get(c) or (500, 1500, 2500) for c in text], float) * tract
    voiced = np.array([1.0 if c in _VOWELS else 0.4 if c in _VOICED else 0.0 for c in text])
    noisy = np.array([0.15 if c in _NOISES else 0.0 for c in text])
    wav = _harmonics(pitch, _glide(formants, per_letter), sample_rate) * _glide(voiced, per_letter)
    hiss = rng.standard_normal(samples) * np.cos(
        2 * math.pi * np.repeat([_NOISES.get(c, 0) * tract for c in text], per_letter) * time
    )
    wav = wav / max(float(np.abs(wav).max()), 1e-9) + hiss * _glide(noisy, per_letter)
    return torch.from_numpy(0.5 * wav / max(float(np.abs(wav).max()), 1e-9)).float()


def _glide(values: Array, per_letter: int) -> Array:
    """Values per letter (L, ...) -> per sample (L * per_letter, ...), moving to the next in 20 ms or so."""
    steps = np.repeat(values, per_letter, axis=0)
    width = per_letter // 4
    ramp = np.hanning(width + 2)[1:-1]
    ramp /= ramp.sum()
    flat = steps.reshape(len(steps), -1)
    smooth = np.stack([np.convolve(column, ramp, mode="same") for column in flat.T], axis=1)
    return smooth.reshape(steps.shape)


def _harmonics(pitch: Array, formants: Array, sample_rate: int) -> Array:
    """A sum of the pitch's harmonics (samples,), each as loud as the formants (samples, 3) make it there."""
    phase = 2 * math.pi * np.cumsum(pitch) / sample_rate
    width = np.array([90.0, 120.0, 170.0])  # Hz, half bandwidths
    total = np.zeros_like(pitch)
    for harmonic in range(1, int(min(4000, 0.45 * sample_rate) / pitch.min()) + 1):
        frequency = harmonic * pitch
        gain = (1 / (1 + ((frequency[:, None] - formants) / width) ** 2)).sum(axis=1) / harmonic**0.5
        gain[frequency > 0.45 * sample_rate] = 0  # no aliases
        total += gain * np.sin(harmonic * phase)
    return total


class MakeSpeech(Protocol):
    def __call__(
        self, seconds: float = 2.0, *, speaker: int = 0, seed: int = 0, sample_rate: int = 24_000
    ) -> Tensor: ...


class MakeCorpus(Protocol):
    def __call__(
        self, *, speakers: int = 2, utterances: int = 2, seconds: float = 2.0, folder: str = "corpus"
    ) -> Path: ...


@pytest.fixture(autouse=True)
def _same_numbers_every_run() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def make_speech() -> MakeSpeech:
    """``make_speech(seconds, speaker=, seed=, sample_rate=)`` -> speech-like (samples,), exactly so long."""

    def make(seconds: float = 2.0, *, speaker: int = 0, seed: int = 0, sample_rate: int = 24_000) -> Tensor:
        rng = np.random.default_rng([7, speaker, seed])
        text = ""
        while len(text) * _LETTER < seconds:
            text += rng.choice(_SENTENCES) + ".. "
        return speak(text, speaker=speaker, seed=seed, sample_rate=sample_rate)[
            : round(seconds * sample_rate)
        ]

    return make


@pytest.fixture
def speech_file(tmp_path: Path, make_speech: MakeSpeech) -> Path:
    """A recording of 3 s, 24 kHz wav."""
    path = tmp_path / "speech.wav"
    soundfile.write(path, make_speech(3.0).numpy(), 24_000)
    return path


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    """``make_corpus(speakers=, utterances=)`` -> manifest of a corpus made in this test's folder.

    JSON lines with audio (relative), text, speaker, language, duration, split; the last utterance of every
    speaker is ``dev`` where there is more than one. The audio says the text, letter by letter (``speak``).
    """

    def make(*, speakers: int = 2, utterances: int = 2, seconds: float = 2.0, folder: str = "corpus") -> Path:
        root = tmp_path / folder
        root.mkdir()
        rows = []
        for speaker in range(speakers):
            for n in range(utterances):
                words = " ".join(_SENTENCES[(speaker + n + k) % len(_SENTENCES)] for k in range(4)).split()
                text = words[0]
                for word in words[1:]:
                    if (len(text) + 1 + len(word)) * _LETTER > seconds:
                        break
                    text += " " + word
                wav = speak(text, speaker=speaker, seed=n)
                name = f"speaker{speaker}_{n}.wav"
                soundfile.write(root / name, wav.numpy(), 24_000)
                rows.append(
                    {
                        "audio": name,
                        "text": text.capitalize() + ".",
                        "speaker": f"speaker{speaker}",
                        "language": "en-us",
                        "duration": round(len(wav) / 24_000, 3),
                        "split": "dev" if 0 < n == utterances - 1 else "train",
                    }
                )
        manifest = root / "metadata.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return manifest

    return make


TINY: dict[str, dict[str, Any]] = {
    "features": {"class_path": "codec.features.mel.LogMel"},
    "tokenizer": {
        "class_path": "codec.tokenizer.model.Tokenizer",
        "init_args": {
            "quantizer": {
                "class_path": "codec.tokenizer.fsq.FSQ",
                "init_args": {"dim": 32, "levels": [5, 5, 5, 5]},
            },
            "symbols": len(DEFAULT_SYMBOLS),
            "dim": 32,
            "heads": 2,
            "layers": 1,
            "reader_layers": 1,
        },
    },
    "lm": {
        "class_path": "tts.lm.model.SpeechLM",
        "init_args": {
            "symbols": len(DEFAULT_SYMBOLS),
            "codes": 625,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
    },
    "acoustic": {
        "class_path": "tts.acoustic.decoder.FlowDecoder",
        "init_args": {
            "dit": {
                "class_path": "tts.acoustic.dit.DiT",
                "init_args": {
                    "dim": 32,
                    "layers": 1,
                    "heads": 2,
                    "hidden": 64,
                    "symbols": len(DEFAULT_SYMBOLS),
                },
            }
        },
    },
    "vocoder": {
        "class_path": "codec.vocoders.vocos.VocosVocoder",
        "init_args": {"dim": 32, "intermediate_dim": 64, "num_layers": 1},
    },
}
"""Configs of the smallest model that goes through the whole chain."""


UNCHECKED = ("skip", "extra", "garbled", "end", "stuck")


@pytest.fixture(scope="session")
def tiny_configs() -> dict[str, dict[str, Any]]:
    """The configs of ``tiny_model``'s parts, by name; a test that changes them copies them first."""
    return TINY


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder of random weights, stored as a shipped one is; copy it before changing it.

    What it says is noise, but every part of what is put in (text, voice, seed) changes what comes out.
    """
    from tts.acoustic.decoder import FlowDecoder
    from tts.checkpoint import build, write_part

    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    for part, config in TINY.items():
        module = build(config)
        for parameter in module.parameters():
            if not parameter.any():  # the DiT's last layers start at 0: it would put out the noise it gets
                torch.nn.init.normal_(parameter, std=0.3)
        if isinstance(module, FlowDecoder):
            module.mean.fill_(-6.0)
            module.std.fill_(2.0)
        storage = "float32" if part == "features" else "int8"
        write_part(folder / f"{part}.safetensors", module, config, DEFAULT_SYMBOLS, storage=storage)
    # random weights read nothing: without this every sentence would be made again, and warned of
    (folder / "reading.json").write_text(json.dumps({"spread": 1e9, **dict.fromkeys(UNCHECKED, 1e9)}))
    return folder
