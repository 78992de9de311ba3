"""Naturalness: what models that were trained on people's opinions say of the sound, 1 (bad) to 5 (excellent)."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from codec.errors import UserError
from tts.evaluate.figures import Figure, Values
from tts.evaluate.sample import RATE, Metric, Sample, Wav, from_python, require_packages

WORST = 1.0
"""What silence gets: no judge knows what to do with it."""


class Judge(Protocol):
    """Gives opinion scores.

    Attributes:
        name: for people, and to tell its results from another's.
        scores: their keys, and what people call them.

    One may have ``packages``, too: the modules it needs, with their names on the package index.
    """

    name: str
    scores: Mapping[str, str]

    def __call__(self, wav: Wav) -> Mapping[str, float]:
        """The scores of (samples,) at `RATE`, not silent."""


class DNSMOS:
    """Of speechmos; overall, speech, background, and P.808 (Reddy et al. 2022, arXiv 2110.01763).

    Args:
        threads: on the CPU; 0 for onnxruntime's own choice.
    """

    name = "DNSMOS"
    scores: Mapping[str, str] = {
        "dnsmos_ovrl": "DNSMOS overall",
        "dnsmos_sig": "DNSMOS speech",
        "dnsmos_bak": "DNSMOS background",
        "dnsmos_p808": "DNSMOS P.808",
    }
    packages: Mapping[str, str] = {
        "speechmos": "speechmos",
        "librosa": "librosa",
        "onnxruntime": "onnxruntime",
        "requests": "requests",
    }

    def __init__(self, *, threads: int = 0) -> None:
        self.threads = threads

    @cached_property
    def _model(self) -> Any:
        from onnxruntime import InferenceSession, SessionOptions
        from speechmos import dnsmos

        folder = Path(dnsmos.__file__).parent / "dnsmos_models"
        files = [str(folder / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")]
        model = dnsmos.DNSMOS(*files)
        if self.threads:
            options = SessionOptions()
            options.intra_op_num_threads = self.threads
            model.onnx_sess, model.p808_onnx_sess = (InferenceSession(file, options) for file in files)
        return model

    def __call__(self, wav: Wav) -> Mapping[str, float]:
        got = self._model(np.clip(wav, -1, 1), RATE, False)
        return {key: float(got[f"{key.removeprefix('dnsmos_')}_mos"]) for key in self.scores}


class DistillMOS:
    """The distillmos package (Stahl & Gamper 2025, arXiv 2502.05356)."""

    name = "DistillMOS"
    scores: Mapping[str, str] = {"distillmos": "DistillMOS"}
    packages: Mapping[str, str] = {"distillmos": "distillmos"}

    @cached_property
    def _model(self) -> Any:
        from distillmos import ConvTransformerSQAModel

        with redirect_stdout(StringIO()):  # it tells where its weights are
            return ConvTransformerSQAModel().eval()

    @torch.inference_mode()
    def __call__(self, wav: Wav) -> Mapping[str, float]:
        return {"distillmos": float(self._model(torch.from_numpy(wav)[None]))}


class UTMOS:
    """UTMOS22 strong (Saeki et al. 2022, arXiv 2204.02152), as torch.hub has it: loaded over the network once."""

    name = "UTMOS22 strong"
    scores: Mapping[str, str] = {"utmos": "UTMOS"}
    packages: Mapping[str, str] = {}
    repository = "tarepan/SpeechMOS:v1.2.0"

    @cached_property
    def _model(self) -> Any:
        try:
            return torch.hub.load(self.repository, "utmos22_strong", trust_repo=True).eval()
        except Exception as error:  # of the network, of the hub
            raise UserError(
                f"utmos cannot be loaded from {self.repository} ({str(error)[:200]}); choose another with --naturalness"
            ) from error

    @torch.inference_mode()
    def __call__(self, wav: Wav) -> Mapping[str, float]:
        return {"utmos": float(self._model(torch.from_numpy(wav)[None], RATE))}


JUDGES = ("dnsmos", "distillmos", "utmos")


class Naturalness(Metric):
    """The mean of each score of a judge."""

    name = "naturalness"

    def __init__(self, judge: Judge) -> None:
        self.judge, self.by = judge, judge.name

    def require(self) -> None:
        require_packages(self.name, getattr(self.judge, "packages", {}))

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        return [Figure(key, label, key, better="high") for key, label in self.judge.scores.items()]

    def measure(self, sample: Sample) -> Values:
        if not sample.wav.any():
            return dict.fromkeys(self.judge.scores, WORST)
        return {key: round(score, 4) for key, score in self.judge(sample.wav).items()}


def judge(name: str, *, threads: int = 0) -> Judge:
    """By name: one of `JUDGES`, or ``module:callable`` of the user's own.

    Raises:
        UserError: none of them.
    """
    if ":" in name:
        made: Judge = from_python(name, "judge of naturalness")
        return made
    if name == "dnsmos":
        return DNSMOS(threads=threads)
    if name == "distillmos":
        return DistillMOS()
    if name == "utmos":
        return UTMOS()
    raise UserError(
        f"no judge of naturalness named {name!r}; give one of {', '.join(JUDGES)}, or MODULE:CALLABLE"
    )
