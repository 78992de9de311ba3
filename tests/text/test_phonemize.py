"""espeak's IPA through our cleaning: known strings, and what must not slip through."""

import subprocess
import sys

import pytest

from tts.text.errors import TextError
from tts.text.phonemize import languages, phonemize, resolve_language


@pytest.mark.parametrize(
    ("text", "ipa"),
    [
        ("Hello, world!", "həlˈoʊ, wˈɜːld!"),
        (
            "The quick brown fox jumps over the lazy dog.",
            "ðə kwˈɪk bɹˈaʊn fˈɑːks dʒˈʌmps ˌoʊvɚ ðə lˈeɪzi dˈɑːɡ.",
        ),
        ("“Don’t go,” she said—quietly…", "“dˈoʊnt ɡˈoʊ,” ʃiː sˈɛd—kwˈaɪətli…"),
        ('He said: "I\'ll go" (maybe).', 'hiː sˈɛd: "aɪl ɡˈoʊ" (mˈeɪbiː).'),
        ("a line\nbreak", "ɐ lˈaɪn bɹˈeɪk"),
        ("", ""),
        ("...", "..."),
    ],
)
def test_english(text: str, ipa: str) -> None:
    assert phonemize([text]) == [ipa]


@pytest.mark.parametrize(
    ("language", "text", "ipa"),
    [
        ("de", "Schöne Grüße, Jürgen!", "ʃˈøːnə ɡɾˈyːsə, jˈʏɾɡən!"),
        ("fr", "Bonjour, j'aime le football.", "bɔ̃ʒˈuʁ, ʒˈɛm lə fˈʊtbɔːl."),
        ("es", "¿Qué hora es?", "¿kˈe ˈoɾa ˈes?"),
        ("zh", "你好吗？", "ni2χˈɑu2 mˈɑ1？"),
        ("cmn", "知道", "tʂɨ5tˈɑu1"),
        ("vi", "sắc", "sˈa3c"),
    ],
)
def test_other_languages(language: str, text: str, ipa: str) -> None:
    assert phonemize([text], language) == [ipa]


def test_a_batch_is_its_texts_one_by_one() -> None:
    texts = ["One, two.", "", "Three!", "One, two.", "No. 4.5 — five"]
    assert phonemize(texts) == [phonemize([text])[0] for text in texts]
    assert phonemize([]) == []


def test_characters_that_a_c_string_cannot_hold() -> None:
    assert phonemize(["go\x00 \ud800home\x07"]) == phonemize(["go home"])


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("en", "en-us"),
        ("EN_US", "en-us"),
        ("en-gb", "en-gb"),
        ("de-AT", "de"),
        ("pt-PT", "pt"),
        ("zh-CN", "cmn"),
        ("zh", "cmn"),
        ("fr", "fr-fr"),
        ("no", "nb"),
        ("german", "de"),
        (" Italian ", "it"),
        ("pt-BR", "pt-br"),
    ],
)
def test_names_of_languages(given: str, code: str) -> None:
    assert resolve_language(given) == code


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("ger", "did you mean 'de' (German)"),
        ("Frenc", "'fr-fr' (French (France))"),
        ("xx", "give a code such as"),
        ("", "give a code such as"),
        ("kl", "give a code such as"),
    ],
)
def test_an_unknown_language_names_what_is_near(given: str, hint: str) -> None:
    with pytest.raises(TextError) as error:
        phonemize(["x"], given)
    message = str(error.value)
    assert message.startswith(f"language {given!r} is unknown: ")
    assert hint in message
    assert "\n" not in message


def test_languages_that_espeak_cannot_speak_are_not_offered() -> None:
    known = languages()
    assert {"en-us", "en-gb", "de", "fr-fr", "cmn", "hi", "nb", "hyw"} <= known
    assert len(known) > 120
    assert not known & {"kl", "fo", "kaa", "xex"}


def test_nothing_starts_at_import() -> None:
    code = (
        "import sys, tts.text; print([m for m in ('phonemizer', 'num2words', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
