"""Opinion scores."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codec.errors import UserError
from tests.evaluate.conftest import made
from tts.evaluate import sample as sample_module
from tts.evaluate.cases import Case
from tts.evaluate.naturalness import DNSMOS, UTMOS, DistillMOS, Naturalness, judge
from tts.evaluate.sample import Sample, Wav


class Peak:
    """A judge that likes it loud."""

    name = "peak"
    scores: Mapping[str, str] = {"peak": "peak"}

    def __call__(self, wav: Wav) -> Mapping[str, float]:
        return {"peak": 1 + 4 * float(wav.max())}


def sample(wav: Wav) -> Sample:
    case = Case("a", "Hi.", Path("p.wav"))
    return Sample(case, "text", made(), wav)


def test_the_mean_of_a_score_and_silence_has_the_worst() -> None:
    metric = Naturalness(Peak())
    metric.require()
    values = [metric.measure(sample(np.full(8, level, np.float32))) for level in (0.5, 0.75, 0.0)]
    assert values == [{"peak": 3.0}, {"peak": 4.0}, {"peak": 1.0}]
    (figure,) = metric.figures({})
    mean = figure.estimate(values)
    assert mean is not None and mean.value == pytest.approx(8 / 3) and figure.better == "high"


def test_dnsmos_takes_the_scores_of_speechmos(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    class Model:
        def __init__(self, *files: str) -> None:
            heard.append([Path(file).name for file in files])

        def __call__(self, wav: Wav, rate: int, personal: bool) -> dict[str, float]:
            heard.append((float(wav.max()), rate, personal))
            return {"ovrl_mos": 3.0, "sig_mos": 3.5, "bak_mos": 4.0, "p808_mos": 2.5}

    dnsmos = SimpleNamespace(DNSMOS=Model, __file__="/x/speechmos/dnsmos.py")
    monkeypatch.setitem(sys.modules, "speechmos", SimpleNamespace(dnsmos=dnsmos))
    monkeypatch.setitem(
        sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=None, SessionOptions=None)
    )
    scores = DNSMOS()(np.full(9, 1.5, np.float32))
    assert scores == {"dnsmos_ovrl": 3.0, "dnsmos_sig": 3.5, "dnsmos_bak": 4.0, "dnsmos_p808": 2.5}
    assert heard == [["sig_bak_ovr.onnx", "model_v8.onnx"], (1.0, 16_000, False)]


def test_judges_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    dnsmos = judge("dnsmos", threads=2)
    assert isinstance(dnsmos, DNSMOS) and dnsmos.threads == 2
    assert isinstance(judge("distillmos"), DistillMOS) and isinstance(judge("utmos"), UTMOS)
    assert judge("tests.evaluate.test_naturalness:Peak").name == "peak"
    with pytest.raises(
        UserError, match="no judge of naturalness named 'mos'; give one of dnsmos, distillmos, utmos"
    ):
        judge("mos")
    monkeypatch.setattr(sample_module, "find_spec", lambda name: None if name == "distillmos" else object())
    with pytest.raises(UserError, match="naturalness needs distillmos, not installed"):
        Naturalness(judge("distillmos")).require()
