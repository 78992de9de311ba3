"""Text to utterances, end to end."""

import pytest

from codec.errors import UserError
from tts.text import DEFAULT_SYMBOLS, Frontend, TextError


def test_text_becomes_utterances() -> None:
    frontend = Frontend()
    first, second = frontend("Dr. Smith paid $5 on Monday. 😀\n\nHe left at once.")
    assert first.text == "Dr. Smith paid $5 on Monday. 😀"
    assert first.spoken == "Doctor Smith paid five dollars on Monday."
    assert first.phonemes == "dˈɑːktɚ smˈɪθ pˈeɪd fˈaɪv dˈɑːlɚz ˌɔn mˈʌndeɪ."
    assert DEFAULT_SYMBOLS.decode(first.ids) == first.phonemes.replace(" ", "")
    assert first.ends_paragraph and second.ends_paragraph
    assert second.phonemes == "hiː lˈɛft ɐtwˈʌns."


def test_another_language_and_table() -> None:
    table = DEFAULT_SYMBOLS.extended(["ꟻ"])
    (utterance,) = Frontend(table, "german")("Guten Tag!")
    assert utterance.phonemes == "ɡˈuːtən tˈɑːk!"
    assert utterance.ids == tuple(table.encode("ɡˈuːtən tˈɑːk!"))


def test_what_has_no_sound_is_left_out_and_its_pause_kept() -> None:
    (utterance,) = Frontend()("This sentence can be heard.\n* * *")
    assert utterance.text == "This sentence can be heard."
    assert utterance.ends_paragraph


def test_whole_keeps_one_utterance_a_text() -> None:
    utterances = Frontend().whole(["One. Two. Three.", "...", "Four 4."])
    assert [u.spoken for u in utterances] == ["One. Two. Three.", "…", "Four four."]
    assert [len(u.ids) > 3 for u in utterances] == [True, False, True]
    assert [u.words for u in utterances] == [(), (), ()]
    with_words = Frontend().whole(["One. Two. Three."], words=True)
    assert [word.text for word in with_words[0].words] == ["One.", "Two.", "Three."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty: give at least one word"),
        (" \n ", "the text is empty: give at least one word"),
        ("😀👍", "nothing in '😀👍' can be spoken: give at least one word"),
        ("... !? —", "nothing in '... !? —' can be spoken: give at least one word"),
    ],
)
def test_nothing_to_speak(text: str, message: str) -> None:
    with pytest.raises(TextError) as error:
        Frontend()(text)
    assert str(error.value) == message
    assert isinstance(error.value, UserError)


def test_an_unknown_language_is_refused_at_once() -> None:
    with pytest.raises(TextError, match="language 'klingonese' is unknown"):
        Frontend(language="klingonese")
