"""Which phonemes say which written word, also where the words do not match one to one."""

import pytest

from tts.text import DEFAULT_SYMBOLS, Frontend
from tts.text.words import owners, split_words


def said_by_word(text: str, language: str = "en-us") -> list[tuple[str, str]]:
    """The words of a text with the phonemes that say them."""
    found = []
    for utterance in Frontend(language=language)(text):
        groups = DEFAULT_SYMBOLS.groups(utterance.ids)
        assert [word.first for word in utterance.words] == [0, *(word.last for word in utterance.words[:-1])]
        assert utterance.words[-1].last == len(groups)
        for word in utterance.words:
            ids = [i for group in groups[word.first : word.last] for i in group]
            found.append((word.text, DEFAULT_SYMBOLS.decode(DEFAULT_SYMBOLS.sounds(ids))))
    return found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world!", [("Hello,", "həlˈoʊ"), ("world!", "wˈɜːld")]),
        # one written word, many spoken ones
        (
            "He paid $3.50 each.",
            [("He", "hiː"), ("paid", "pˈeɪd"), ("$3.50", "θɹˈiːdˈɑːlɚzfˈɪftisˈɛnts"), ("each.", "ˈiːtʃ")],
        ),
        (
            "On March 3, 1985 it fell.",
            [
                ("On", "ˌɔn"),
                ("March", "mˈɑːɹtʃ"),
                ("3,", "θˈɜːd"),
                ("1985", "nˈaɪntiːnˈeɪɾifˈaɪv"),
                ("it", "ɪt"),
                ("fell.", "fˈɛl"),
            ],
        ),
        # espeak joins two words
        (
            "Go at once to one of the 3.",
            [
                ("Go", "ɡˌoʊ"),
                ("at", "ɐt"),
                ("once", "wˈʌns"),
                ("to", "tə"),
                ("one", "wˈʌn"),
                ("of", "ʌv"),
                ("the", "ðə"),
                ("3.", "θɹˈiː"),
            ],
        ),
        # what has no sound is no word
        ("Stop — 😀 now.", [("Stop", "stˈɑːp"), ("now.", "nˈaʊ")]),
        ("(Dr. Who)", [("(Dr.", "dˈɑːktɚ"), ("Who)", "hˈuː")]),
    ],
)
def test_english(text: str, words: list[tuple[str, str]]) -> None:
    assert said_by_word(text) == words


def test_german_keeps_digits_for_espeak() -> None:
    assert said_by_word("Um 14:30 Uhr für $5.", "de") == [
        ("Um", "ʊm"),
        ("14:30", "fˈɪɾtseːndɾˈaɪsɪç"),
        ("Uhr", "ˈuːɾ"),
        ("für", "fyːɾ"),
        ("$5.", "fˈʏnfdɔlˈɑː"),
    ]


def test_chinese_characters_are_words() -> None:
    assert said_by_word("你好吗？我有21个。", "cmn") == [
        ("你", "ni2"),
        ("好", "χˈɑu2"),
        ("吗？", "mˈɑ1"),
        ("我", "wˈo2"),
        ("有", "jˈiou2"),
        ("21", "ˌər5ʂɨ3jˈi5"),
        ("个。", "kˈo1"),
    ]


def test_signs_that_are_named_are_words() -> None:
    assert said_by_word("+", "de") == [("+", "plˈʊs")]


def test_words_of_a_text() -> None:
    assert split_words(" It's $3.50 — “so”. ") == ["It's", "$3.50", "—", "“so”."]
    assert split_words("我有 iPhone。好！") == ["我", "有", "iPhone。", "好！"]
    assert split_words("한국어 문장") == ["한국어", "문장"]  # Korean has spaces
    assert split_words("") == []


def test_owners_of_letters() -> None:
    assert owners(["one", "two"], "onetwo") == [0, 0, 0, 1, 1, 1]
    assert owners(["one", "two"], "onxtwwo") == [0, 0, 0, 1, 1, 1, 1]
    assert owners(["one", "", "two"], "one--two") == [0, 0, 0, 0, 0, 2, 2, 2]
    assert owners(["one", "two"], "two") == [1, 1, 1]
    assert owners(["one"], "") == []
