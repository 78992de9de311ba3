"""Where text is cut, and what is put together."""

import random

import pytest

from tts.text.sentences import Sentence, split_sentences


def texts(text: str, language: str = "en", **limits: int) -> list[str]:
    return [sentence.text for sentence in split_sentences(text, language, **limits)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n\n ", []),
        ("Hello world", ["Hello world"]),
        ("He came. She left.", ["He came.", "She left."]),
        (
            "Dr. Smith met Mr. Jones at 5 p.m. sharp. He left.",
            ["Dr. Smith met Mr. Jones at 5 p.m. sharp.", "He left."],
        ),
        ("The U.S. is big. It was 3.14, i.e. pi.", ["The U.S. is big.", "It was 3.14, i.e. pi."]),
        (
            "J. R. R. Tolkien wrote, e.g. The Hobbit. Yes.",
            ["J. R. R. Tolkien wrote, e.g. The Hobbit.", "Yes."],
        ),
        ('"Is that so?" she asked. "Yes!" he said.', ['"Is that so?" she asked.', '"Yes!" he said.']),
        ("Wait... what? I don't know… Maybe!", ["Wait... what?", "I don't know…", "Maybe!"]),
        ("Visit example.com. It's at foo.org/bar.", ["Visit example.com.", "It's at foo.org/bar."]),
        ("On Mon. Feb. 3 he came.", ["On Mon. Feb. 3 he came."]),
    ],
)
def test_english_sentences(text: str, sentences: list[str]) -> None:
    assert texts(text, min_chars=0) == sentences


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("cmn", "今天天气很好。我们去公园吧！你呢？", ["今天天气很好。", "我们去公园吧！", "你呢？"]),
        ("ja", "これはテストです。終わり！", ["これはテストです。", "終わり！"]),
        ("de", "Am 3. Mai kam er z.B. um 5. Er blieb.", ["Am 3. Mai kam er z.B. um 5.", "Er blieb."]),
        ("hi", "नमस्ते। आप कैसे हैं?", ["नमस्ते।", "आप कैसे हैं?"]),
        ("ar", "مرحبا. كيف حالك؟ أنا بخير.", ["مرحبا.", "كيف حالك؟", "أنا بخير."]),
    ],
)
def test_other_languages(language: str, text: str, sentences: list[str]) -> None:
    assert texts(text, language, min_chars=0) == sentences


def test_short_sentences_are_spoken_with_their_neighbours() -> None:
    assert texts("Yes. No. I have thought about it for a long time. Good.") == [
        "Yes. No. I have thought about it for a long time. Good."
    ]
    assert texts("你呢？好。今天天气很好，我们去公园吧！", "cmn") == [
        "你呢？好。今天天气很好，我们去公园吧！"
    ]
    assert texts("Yes.\n\nNo.") == ["Yes.", "No."]


def test_long_sentences_are_cut_at_the_best_mark() -> None:
    clause = "it was the season of light, it was the spring of hope"
    assert texts(f"{clause}; {clause}; {clause}; {clause}.", max_chars=120) == [
        f"{clause}; {clause};",
        f"{clause}; {clause}.",
    ]
    assert texts("alpha beta, gamma delta", max_chars=15, min_chars=0) == ["alpha beta,", "gamma delta"]
    assert texts("alpha beta gamma", max_chars=12, min_chars=0) == ["alpha beta", "gamma"]
    assert texts("It cost 1,234,567 in all", max_chars=20, min_chars=0) == ["It cost", "1,234,567 in all"]
    assert texts("x" * 50, max_chars=20) == ["x" * 12, "x" * 13, "x" * 12, "x" * 13]


def test_paragraphs() -> None:
    assert split_sentences(
        "A title\nThis is the first one. This is the second.\n\nAnother paragraph is here."
    ) == [
        Sentence("A title", True),
        Sentence("This is the first one. This is the second.", True),
        Sentence("Another paragraph is here.", True),
    ]
    wrapped = "It was a dark and stormy night and the rain fell in torrents,\nexcept at\nintervals."
    assert split_sentences(wrapped) == [Sentence(" ".join(wrapped.split()), True)]
    first, second = split_sentences("One sentence of good length. Another sentence of good length.")
    assert (first.ends_paragraph, second.ends_paragraph) == (False, True)


def test_nothing_is_lost_and_nothing_too_long() -> None:
    rng = random.Random(0)
    parts = [
        "word",
        "Mr.",
        "end.",
        "well,",
        "however;",
        "—",
        "…",
        "你好。",
        '"Yes!"',
        "\n",
        "\n\n",
        "(so)",
        "x" * 70,
    ]
    for _ in range(200):
        text = " ".join(rng.choice(parts) for _ in range(rng.randrange(60)))
        sentences = split_sentences(text, max_chars=100)
        assert "".join("".join(s.text.split()) for s in sentences) == "".join(text.split())
        assert all(0 < len(sentence.text) <= 100 for sentence in sentences)
