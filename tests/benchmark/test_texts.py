"""What is spoken."""

from __future__ import annotations

from tts.benchmark.texts import PASSAGE, SENTENCES, words
from tts.text.sentences import split_sentences


def test_so_many_words() -> None:
    for count in (1, 5, 10, 19, 40, 120, 121, 250):
        text = words(count)
        assert len(text.split()) == count
        assert text.endswith(".") and text[-2].isalpha()
    assert words(120) == PASSAGE
    assert words(130) == f"{PASSAGE} {words(10)}"


def test_the_usual_lengths_are_whole_sentences() -> None:
    ends = [len(sentence.text.split()) for sentence in split_sentences(PASSAGE)]
    assert ends == [10, 10, 20, 20, 20, 20, 20]
    assert len(set(SENTENCES)) == 16
    assert all(len(split_sentences(sentence)) == 1 for sentence in SENTENCES)
