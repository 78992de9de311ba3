"""A user's own pronunciations."""

from pathlib import Path

import pytest

from tts.text import Frontend, Lexicon, TextError


def lexicon(tmp_path: Path, text: str) -> Lexicon:
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    return Lexicon.load(path)


def test_words_are_said_as_the_lexicon_has_them(tmp_path: Path) -> None:
    words = lexicon(
        tmp_path,
        "﻿# my words\n\nnguyen\tˈwɪn\nSQL\t/ˈsiːkwəl/\nNew York\tˈjɔːk\r\nC++\tsiːˈplʌs\nit\tˈɪtː\n",
    )
    assert words.words == {
        "nguyen": "ˈwɪn",
        "SQL": "ˈsiːkwəl",
        "New York": "ˈjɔːk",
        "C++": "siːˈplʌs",
        "it": "ˈɪtː",
    }
    (one,) = Frontend(lexicon=words)("Nguyen's SQL, not sqls, in New  York: C++ has it, NGUYEN, not its Cs.")
    assert one.phonemes == (
        "wˈɪnz sˈiːkwəl, nˌɑːt ˌɛskjˌuːˌɛlˈɛs, ɪn jˈɔːk: siːplˈʌs hɐz ˈɪtː, wˈɪn, nˌɑːt ɪts sˌiːˈɛs."
    )
    assert [word.text for word in one.words][:3] == ["Nguyen's", "SQL,", "not"]
    assert "New York:" in [word.text for word in one.words]


def test_markup_goes_before_the_lexicon(tmp_path: Path) -> None:
    words = lexicon(tmp_path, "gif\tˈdʒɪf\n")
    (one,) = Frontend(lexicon=words)("<phoneme ph='ˈɡɪf'>GIF</phoneme> or GIF")
    assert one.phonemes == "ɡˈɪf ɔːɹ dʒˈɪf"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tˈeɪ\nb ˈbiː\n", r"words.txt line 2: 'b ˈbiː' is not of the form word<TAB>IPA"),
        ("a\t\n", "words.txt line 1"),
        ("\tˈeɪ\n", "words.txt line 1"),
        ("a\tˈeɪ\na\tˈaː\n", "words.txt line 2: 'a' is in it twice"),
    ],
)
def test_broken_lexicons(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        lexicon(tmp_path, text)


def test_a_lexicon_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="no such lexicon"):
        Lexicon.load(tmp_path / "gone.txt")
    (tmp_path / "latin.txt").write_bytes("schön\tx".encode("latin-1"))
    with pytest.raises(TextError, match="not a text file in UTF-8"):
        Lexicon.load(tmp_path / "latin.txt")
    with pytest.raises(TextError, match="not a text file"):
        Lexicon.load(tmp_path)
    with pytest.raises(TextError, match="lexicon, 'a': '!' in the pronunciation '!' is no IPA"):
        Frontend(lexicon=Lexicon({"a": "!"}))


def test_an_empty_lexicon_changes_nothing() -> None:
    assert Frontend(lexicon=Lexicon({}))("Hello.") == Frontend()("Hello.")
