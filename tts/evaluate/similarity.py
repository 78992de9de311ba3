"""Speaker similarity: cosine of the sound's voice to the prompt's, and where that lies between the levels of the data.

The levels are the mean cosine of two recordings (prompts, references) of one speaker, and of two speakers. Speakers
are told apart by the cases' ``speaker``; cases without one, or with a recording in common, are taken to be of as many
speakers as there are prompts.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from codec.audio import read_audio
from codec.errors import UserError
from tts.evaluate.cases import Case
from tts.evaluate.figures import DRAWS, Estimate, Figure, Floats, Values, interval
from tts.evaluate.sample import RATE, Metric, Sample, Wav, from_python, require_packages

ENCODER = "resemblyzer"
MAX_SECONDS = 60.0  # of a recording
SHORTEST = 0.4  # seconds of speech that an encoder needs
NONE = 0.0
"""The similarity of silence to anybody."""


class SpeakerEncoder(Protocol):
    """Tells voices apart.

    Attributes:
        name: for people, and to tell its results from another's.

    One may have ``packages``, too: the modules it needs, with their names on the package index.
    """

    name: str

    def __call__(self, wav: Wav) -> npt.NDArray[np.float32]:
        """A vector (D,) of the voice in (samples,) at `RATE`, not silent; its length does not matter."""


class Resemblyzer:
    """Of the package that brings its weights (Wan et al. 2018, arXiv 1710.10467); silences cut as it does."""

    name = "Resemblyzer"
    packages: Mapping[str, str] = {
        "resemblyzer": "Resemblyzer",
        "webrtcvad": "webrtcvad",
        "librosa": "librosa",
    }

    @cached_property
    def _encoder(self) -> Any:
        from resemblyzer import VoiceEncoder

        return VoiceEncoder("cpu", verbose=False)

    def __call__(self, wav: Wav) -> npt.NDArray[np.float32]:
        from resemblyzer import preprocess_wav

        voiced = preprocess_wav(wav)
        enough = len(voiced) >= SHORTEST * RATE
        vector: npt.NDArray[np.float32] = self._encoder.embed_utterance(voiced if enough else wav)
        return vector


class XVector:
    """A transformers model for speaker verification, such as microsoft/wavlm-base-plus-sv.

    Args:
        model: a repository of the hub, or a folder.
        device: where to run it.
    """

    packages: Mapping[str, str] = {"transformers": "transformers"}

    def __init__(self, model: str, *, device: str = "cpu") -> None:
        self.model, self.device, self.name = model, device, model

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

        try:
            features: Any = AutoFeatureExtractor.from_pretrained(self.model)
            network: Any = AutoModelForAudioXVector.from_pretrained(self.model)
        except (OSError, ValueError) as error:
            raise UserError(_not_loaded(self.model, error)) from error
        return features, network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, wav: Wav) -> npt.NDArray[np.float32]:
        features, network = self._parts
        inputs = features(wav, sampling_rate=RATE, return_tensors="pt").to(self.device)
        vector: npt.NDArray[np.float32] = network(**inputs).embeddings[0].float().cpu().numpy()
        return vector


class Ecapa:
    """A speechbrain model for speaker verification, such as speechbrain/spkrec-ecapa-voxceleb.

    Args:
        model: a repository of the hub, or a folder.
        device: where to run it.
    """

    packages: Mapping[str, str] = {"speechbrain": "speechbrain"}

    def __init__(self, model: str, *, device: str = "cpu") -> None:
        self.model, self.device, self.name = model, device, model

    @cached_property
    def _classifier(self) -> Any:
        from speechbrain.inference.speaker import EncoderClassifier

        try:
            return EncoderClassifier.from_hparams(self.model, run_opts={"device": self.device})
        except Exception as error:  # of the hub, of the YAML in it
            raise UserError(_not_loaded(self.model, error)) from error

    @torch.inference_mode()
    def __call__(self, wav: Wav) -> npt.NDArray[np.float32]:
        vectors = self._classifier.encode_batch(torch.from_numpy(wav)[None].to(self.device))
        vector: npt.NDArray[np.float32] = vectors[0, 0].float().cpu().numpy()
        return vector


def _not_loaded(model: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"speaker encoder {model!r} cannot be loaded ({reason}); give a name that the hub knows, or a folder"
    )


def encoder(name: str, *, device: str = "cpu") -> SpeakerEncoder:
    """By name: ``resemblyzer``; ``module:callable`` of the user's own; a speechbrain or a transformers model."""
    if name.lower() == ENCODER:
        return Resemblyzer()
    if ":" in name:
        made: SpeakerEncoder = from_python(name, "speaker encoder")
        return made
    if name.startswith("speechbrain/") or (Path(name) / "hyperparams.yaml").is_file():
        return Ecapa(name, device=device)
    return XVector(name, device=device)


class Similarity(Metric):
    """Cosine to the prompt, and how far that is on the way from the different-speaker to the same-speaker level.

    Args:
        encoder: who tells voices apart.
        progress: show a bar while the recordings of the list are read.
    """

    name = "similarity"

    def __init__(self, encoder: SpeakerEncoder, *, progress: bool = False) -> None:
        self.encoder, self.by, self.progress = encoder, encoder.name, progress
        self._of_file = lru_cache(maxsize=None)(self._embed_file)

    def require(self) -> None:
        require_packages(self.name, getattr(self.encoder, "packages", {}))

    def context(self, cases: Sequence[Case]) -> dict[str, Any]:
        """The levels: ``{"same": estimate, "different": estimate}`` as far as the data has such pairs."""
        groups = speakers(cases)
        vectors, labels = [], []
        for path, label in tqdm(groups.items(), "voices", unit="file", disable=not self.progress):
            vector = self._of_file(path)
            if vector is not None:
                vectors.append(vector)
                labels.append(label)
        made = levels(np.stack(vectors), labels) if vectors else {}
        return {kind: vars(one) for kind, one in made.items()}

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        plain = Figure("similarity", "similarity to the prompt", "similarity", digits=3, better="high")
        if not {"same", "different"} <= set(context):
            return (plain,)
        zero, one = context["different"]["value"], context["same"]["value"]
        if one <= zero:
            return (plain,)
        way = Figure(
            "way", "way from different to same speaker", "similarity", None, "%", 0, "high", zero, one
        )
        return (plain, way)

    def measure(self, sample: Sample) -> Values:
        prompt, own = self._of_file(sample.case.prompt), self._embed(sample.wav)
        if prompt is None or own is None:
            return {"similarity": NONE}
        return {"similarity": round(float(own @ prompt), 5)}

    def _embed_file(self, path: Path) -> Floats | None:
        return self._embed(read_audio(path, RATE, max_seconds=MAX_SECONDS).numpy())

    def _embed(self, wav: Wav) -> Floats | None:
        """A unit vector (D,); None of silence, or of less than `SHORTEST`."""
        if len(wav) < SHORTEST * RATE or not wav.any():
            return None
        vector = np.asarray(self.encoder(wav), np.float64)
        length = float(np.linalg.norm(vector))
        return vector / length if length > 0 else None


def speakers(cases: Sequence[Case]) -> dict[Path, int]:
    """The speaker of every recording: a number for those that share a case or a ``speaker``, however indirectly."""
    parent: dict[Path | str, Path | str] = {}

    def root(node: Path | str) -> Path | str:
        parent.setdefault(node, node)
        while parent[node] != node:
            node = parent[node]
        return node

    for case in cases:
        for other in (case.reference, case.speaker):
            if other is not None:
                parent[root(other)] = root(case.prompt)
        root(case.prompt)
    numbers: dict[Path | str, int] = {}
    recordings = [node for node in parent if isinstance(node, Path)]
    return {path: numbers.setdefault(root(path), len(numbers)) for path in recordings}


def levels(vectors: Floats, labels: Sequence[int]) -> dict[str, Estimate]:
    """Mean cosine of pairs of one speaker (``same``) and of two (``different``), where there are such pairs.

    The interval is of a bootstrap over recordings, not over pairs: pairs that share a recording move together.

    Args:
        vectors: (n, D) of length 1.
        labels: (n,) speakers.
    """
    cosines, names = vectors @ vectors.T, np.asarray(labels)
    same = names[:, None] == names[None]
    apart = ~np.eye(len(names), dtype=bool)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS).astype(np.float64)
    made = {}
    for kind, mask in (("same", same & apart), ("different", ~same)):
        pairs = mask.astype(np.float64)
        if not pairs.any():
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = ((weights @ (pairs * cosines)) * weights).sum(1) / ((weights @ pairs) * weights).sum(1)
        low, high = interval(drawn)
        made[kind] = Estimate(float((pairs * cosines).sum() / pairs.sum()), low, high, int(pairs.sum()) // 2)
    return made
