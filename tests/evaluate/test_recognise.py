"""Word and character errors, and who hears them."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codec.errors import UserError
from tests.evaluate.conftest import Parrot, lower, made
from tts.evaluate import sample as sample_module
from tts.evaluate.cases import Case
from tts.evaluate.recognise import Intelligibility, Whisper, errors, recogniser, whisper_code
from tts.evaluate.sample import Sample

WAV = np.zeros(16_000, np.float32)


def sample(text: str, language: str = "en-us") -> Sample:
    case = Case("a", text, Path("p.wav"), language=language)
    return Sample(case, "text", made(), WAV)


def test_errors_are_counted() -> None:
    assert errors("the cat sat on the green mat", "the cat sit on green mat now") == {
        "words": 7,
        "word_errors": 3,
        "substituted": 1,
        "deleted": 1,
        "inserted": 1,
        "chars": 28,
        "char_errors": 9,
        "right": 0,
    }
    assert errors("a b", "a b")["right"] == 1
    assert errors("a b", "")["word_errors"] == errors("a b", "")["deleted"] == 2
    assert errors("", "a b") == {}


def test_both_sides_are_normalised_and_rates_are_over_all_words() -> None:
    metric = Intelligibility(Parrot("SOME rain, fell!"), lower)
    cases = [metric.measure(sample("Some rain fell.")), metric.measure(sample("It rained - a lot - today."))]
    assert cases[0]["heard"] == "SOME rain, fell!" and cases[0]["word_errors"] == 0
    wer, cer, right = metric.figures({})
    errors_, share = wer.estimate(cases), right.estimate(cases)
    assert errors_ is not None and errors_.value == 5 / 8
    assert share is not None and share.value == 0.5
    assert cer.of(cases[0]) == 0


def test_languages_as_whisper_calls_them() -> None:
    codes = {
        code: whisper_code(Case("a", "", Path(), language=code)) for code in ("en-us", "cmn", "pt-br", "nb")
    }
    assert codes == {"en-us": "en", "cmn": "zh", "pt-br": "pt", "nb": "no"}


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sample_module, "find_spec", lambda name: None if name == "faster_whisper" else object()
    )
    with pytest.raises(UserError) as caught:
        Intelligibility(Whisper()).require()
    assert str(caught.value) == (
        "intelligibility needs faster-whisper, not installed here; "
        'run pip install ".[evaluate]", or leave it out with --metrics'
    )
    Intelligibility(Parrot()).require()  # which needs none of it


def test_whisper_is_asked_for_the_language_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Model:
        supported_languages = ("en", "zh")

        def __init__(self, *args: Any, **settings: Any) -> None:
            asked.append((args, settings))
            if args[0] == "nowhere":
                raise ValueError("Invalid model size\n'nowhere'")

        def transcribe(self, wav: Any, *, language: str | None, **settings: Any) -> Any:
            asked.append(language)
            return [SimpleNamespace(text=" Good "), SimpleNamespace(text=" morning.")], None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Model))
    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace(set_random_seed=asked.append))
    whisper = Whisper("tiny", threads=2)
    assert whisper.name == "faster-whisper tiny, int8"
    assert whisper(WAV, "en") == "Good morning."
    whisper(WAV, "qya")
    settings = {"device": "cpu", "compute_type": "int8", "cpu_threads": 2}
    assert asked == [0, (("tiny",), settings), "en", 0, None]
    with pytest.raises(
        UserError, match=r"recogniser 'nowhere' cannot be loaded \(Invalid model size 'nowhere'\); give"
    ):
        Whisper("nowhere", device="cuda:0")(WAV, "en")
    assert asked[-1][1]["device"] == "cuda" and asked[-1][1]["compute_type"] == "float16"


def test_recognisers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = recogniser("large-v3", threads=3)
    assert isinstance(large, Whisper) and large.model == "large-v3" and large.threads == 3
    (tmp_path / "my_ears.py").write_text("class Ears:\n    name = 'mine'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert recogniser("my_ears:Ears").name == "mine"
    with pytest.raises(UserError, match="recogniser 'my_ears:Nose' cannot be had"):
        recogniser("my_ears:Nose")
