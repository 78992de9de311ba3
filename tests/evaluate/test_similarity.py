"""Whose voice it is, and the levels that the data sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codec.errors import UserError
from tests.evaluate.conftest import Loudness, made
from tts.evaluate import sample as sample_module
from tts.evaluate.cases import Case
from tts.evaluate.sample import Sample, Wav
from tts.evaluate.similarity import Ecapa, Resemblyzer, Similarity, XVector, encoder, levels, speakers

P, Q, R, S = (Path(name) for name in "pqrs")
HALF = 0.5**0.5


def unit(*degrees: float) -> Any:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_levels_are_means_over_pairs() -> None:
    found = levels(unit(0, 60, 90, 180), [0, 0, 1, 1])
    assert found["same"].value == pytest.approx((0.5 + 0.0) / 2)
    # 0-90, 0-180, 60-90, 60-180
    assert found["different"].value == pytest.approx((0 - 1 + np.sqrt(0.75) - 0.5) / 4)
    assert (found["same"].cases, found["different"].cases) == (2, 4)
    assert found["same"].low == pytest.approx(0.0) and found["same"].high == pytest.approx(0.5)
    assert found["different"].low <= found["different"].value <= found["different"].high


def test_levels_that_the_data_does_not_have() -> None:
    assert set(levels(unit(0, 60), [0, 1])) == {"different"}
    assert set(levels(unit(0, 60), [0, 0])) == {"same"}
    assert levels(unit(0), [0]) == {}


def test_the_interval_is_of_recordings() -> None:
    # many recordings of two speakers around two directions: the level is known, the interval holds it and is narrow
    rng = np.random.default_rng(0)
    degrees = np.concatenate([rng.normal(0, 20, 60), rng.normal(90, 20, 60)])
    found = levels(unit(*degrees), [0] * 60 + [1] * 60)
    expected = np.exp(-(np.radians(20) ** 2))  # of the cosine of a difference of two normal angles
    assert found["same"].low < expected < found["same"].high
    assert found["different"].low < 0 < found["different"].high
    assert found["same"].high - found["same"].low < 0.12


def test_speakers_are_told_apart_by_name_or_by_case() -> None:
    cases = [
        Case("1", "", P, reference=Q, speaker="ann"),
        Case("2", "", R, speaker="ann"),
        Case("3", "", S),
        Case("4", "", S, reference=Path("t")),
    ]
    found = speakers(cases)
    assert found[P] == found[Q] == found[R]
    assert found[S] == found[Path("t")] != found[P]
    assert len(speakers([Case("1", "", P), Case("2", "", Q)])) == 2


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    paths = []
    for n, level in enumerate((0.5, 0.1, 0.6, 0.2)):
        paths.append(tmp_path / f"{n}.wav")
        wav = level * np.sin(np.arange(16_000) / 9)
        soundfile.write(paths[-1], wav, 16_000)
    return paths


def tone(level: float, seconds: float = 1.0) -> Wav:
    return (level * np.sin(np.arange(round(16_000 * seconds)) / 9)).astype(np.float32)


def sample(case: Case, wav: Wav) -> Sample:
    return Sample(case, "text", made(), wav)


def test_similarity_to_the_prompt_and_how_far_up_it_is(recordings: list[Path]) -> None:
    loud, quiet, loud_too, quiet_too = recordings
    cases = [
        Case("a", "", loud, reference=loud_too, speaker="x"),
        Case("b", "", quiet, reference=quiet_too, speaker="y"),
    ]
    metric = Similarity(Loudness())
    context = metric.context(cases)
    assert context["same"]["value"] == pytest.approx(1.0)
    assert context["different"]["value"] == pytest.approx(HALF)
    values = [metric.measure(sample(cases[0], tone(0.9))), metric.measure(sample(cases[1], tone(0.9)))]
    assert [value["similarity"] for value in values] == pytest.approx([1.0, HALF], abs=1e-5)
    plain, way = metric.figures(context)
    mean, up = plain.estimate(values), way.estimate(values)
    assert mean is not None and mean.value == pytest.approx((1 + HALF) / 2, abs=1e-5)
    assert up is not None and up.value == pytest.approx(0.5, abs=1e-4)
    assert [figure.key for figure in metric.figures({})] == ["similarity"]


def test_silence_is_like_nobody(recordings: list[Path]) -> None:
    metric, case = Similarity(Loudness()), Case("a", "", recordings[0])
    assert metric.measure(sample(case, np.zeros(16_000, np.float32))) == {"similarity": 0.0}
    assert metric.measure(sample(case, tone(0.5, 0.3))) == {"similarity": 0.0}


def test_encoders_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(encoder("Resemblyzer"), Resemblyzer)
    assert isinstance(encoder("speechbrain/spkrec-ecapa-voxceleb"), Ecapa)
    (tmp_path / "hyperparams.yaml").touch()
    assert isinstance(encoder(str(tmp_path)), Ecapa)
    wavlm = encoder("microsoft/wavlm-base-plus-sv")
    assert isinstance(wavlm, XVector) and wavlm.name == "microsoft/wavlm-base-plus-sv"
    assert encoder("tests.evaluate.conftest:Loudness").name == "loudness"
    monkeypatch.setattr(sample_module, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="similarity needs Resemblyzer, webrtcvad, librosa, not installed here"
    ):
        Similarity(encoder("resemblyzer")).require()
    with pytest.raises(UserError, match="similarity needs speechbrain, not"):
        Similarity(encoder("speechbrain/x")).require()


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
def test_a_model_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(5, 64),
        conv_kernel=(10, 64),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(8, 8),
        tdnn_kernel=(3, 1),
        tdnn_dilation=(1, 1),
        xvector_output_dim=6,
    )
    network = transformers.WavLMForXVector(config).eval()
    network.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(
        tmp_path
    )
    wav = tone(0.3)
    with torch.inference_mode():
        scaled = torch.from_numpy((wav - wav.mean()) / np.sqrt(wav.var() + 1e-7))
        expected = network(scaled[None]).embeddings[0].numpy()
    assert XVector(str(tmp_path))(wav) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(
        UserError, match=r"speaker encoder '.*none' cannot be loaded .*; give a name that the hub"
    ):
        XVector(str(tmp_path / "none"))(wav)
