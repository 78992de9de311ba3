"""Intelligibility: word and character errors of what a recogniser hears."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Protocol

from codec.errors import UserError
from tts.evaluate.cases import Case
from tts.evaluate.figures import Figure, Values
from tts.evaluate.sample import RATE, Metric, Sample, Wav, from_python, require_packages

WHISPER = "base"
UNSPACED = ("zh", "yue", "ja", "th", "lo", "my", "km")
"""Languages without spaces between words: every letter counts as a word."""

Normalise = Callable[[str, str], str]

_CODES = {"cmn": "zh", "nb": "no", "fil": "tl", "jv": "jw"}  # espeak's and Whisper's names where they differ


class Recogniser(Protocol):
    """Hears what is said.

    Attributes:
        name: for people, and to tell its results from another's.
    """

    name: str

    def __call__(self, wav: Wav, language: str) -> str:
        """What is said in (samples,) at `RATE`; `language` is a code of Whisper's."""


class Whisper:
    """faster-whisper: beam of 5, each recording by itself, a fixed seed where it has to sample.

    Args:
        model: a name it knows (``base``, ``large-v3``), a repository of the hub, or a folder.
        device: "cpu" or "cuda".
        threads: on the CPU; 0 for its own choice.
    """

    def __init__(self, model: str = WHISPER, *, device: str = "cpu", threads: int = 0) -> None:
        self.model, self.threads = model, threads
        self.device, self.compute = ("cuda", "float16") if device.startswith("cuda") else ("cpu", "int8")
        self.name = f"faster-whisper {model}, {self.compute}"

    @cached_property
    def _whisper(self) -> Any:
        from faster_whisper import WhisperModel

        try:
            return WhisperModel(
                self.model, device=self.device, compute_type=self.compute, cpu_threads=self.threads
            )
        except Exception as error:  # of the hub, of CTranslate2, of a broken folder
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"recogniser {self.model!r} cannot be loaded ({reason}); "
                "give a name that faster-whisper knows, or a folder"
            ) from error

    def __call__(self, wav: Wav, language: str) -> str:
        import ctranslate2

        ctranslate2.set_random_seed(0)
        known = language in self._whisper.supported_languages
        segments, _ = self._whisper.transcribe(
            wav,
            language=language if known else None,
            beam_size=5,
            condition_on_previous_text=False,
            without_timestamps=len(wav) < 30 * RATE,  # longer ones are cut at the timestamps
        )
        return " ".join(segment.text.strip() for segment in segments)


class Intelligibility(Metric):
    """Word and character error rate, over all words; both texts normalised as Whisper's paper does.

    Args:
        recogniser: who hears.
        normalise: makes a text of a language (a code of Whisper's) comparable.
    """

    name = "intelligibility"

    def __init__(self, recogniser: Recogniser, normalise: Normalise | None = None) -> None:
        self.recogniser, self.by = recogniser, recogniser.name
        self.normalise = normalise or normalised

    def require(self) -> None:
        packages = {"jiwer": "jiwer"}
        if self.normalise is normalised:
            packages["whisper_normalizer"] = "whisper-normalizer"
        if isinstance(self.recogniser, Whisper):
            packages["faster_whisper"] = "faster-whisper"
        require_packages(self.name, packages)

    def figures(self, context: Mapping[str, Any]) -> Sequence[Figure]:
        return (
            Figure("wer", "word error rate", "word_errors", "words", "%", 1, "low"),
            Figure("cer", "character error rate", "char_errors", "chars", "%", 1, "low"),
            Figure("right", "cases without a word error", "right", None, "%", 0, "high", single=False),
        )

    def measure(self, sample: Sample) -> Values:
        language = whisper_code(sample.case)
        heard = self.recogniser(sample.wav, language)
        wanted, got = (self.normalise(text, language) for text in (sample.case.text, heard))
        return {"heard": heard, **errors(wanted, got)}


def errors(wanted: str, heard: str) -> Values:
    """Errors and lengths in words and characters; nothing where no word is wanted."""
    import jiwer

    if not wanted:
        return {}
    words, chars = jiwer.process_words(wanted, heard), jiwer.process_characters(wanted, heard)
    wrong = words.substitutions + words.deletions + words.insertions
    return {
        "words": len(wanted.split()),
        "word_errors": wrong,
        "substituted": words.substitutions,
        "deleted": words.deletions,
        "inserted": words.insertions,
        "chars": len(wanted),
        "char_errors": chars.substitutions + chars.deletions + chars.insertions,
        "right": int(wrong == 0),
    }


def whisper_code(case: Case) -> str:
    """The case's language as Whisper calls it."""
    code = case.language.partition("-")[0].lower()
    return _CODES.get(code, code)


def normalised(text: str, language: str) -> str:
    """By Whisper's normaliser of the language: the English one (numbers, contractions, spelling), or the basic one."""
    return " ".join(_normaliser(language)(text).split())


@cache
def _normaliser(language: str) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    normaliser: Callable[[str], str] = (
        EnglishTextNormalizer()
        if language == "en"
        else BasicTextNormalizer(split_letters=language in UNSPACED)
    )
    return normaliser


def recogniser(name: str, *, device: str = "cpu", threads: int = 0) -> Recogniser:
    """By name: ``module:callable`` of the user's own, or what faster-whisper takes."""
    if ":" in name:
        made: Recogniser = from_python(name, "recogniser")
        return made
    return Whisper(name, device=device, threads=threads)
