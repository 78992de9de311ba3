"""Markup that is meant, text that only looks like it, and markup that is broken."""

import re

import pytest

from tts.text import DEFAULT_SYMBOLS, Frontend, TextError, Utterance, split_sentences
from tts.text.markup import Given, Pause, Plain, Spelled, read_markup
from tts.text.pronounce import StandIns

COMMON = [
    "and/or, either/or, w/o, 24/7 or 9/11",
    "On 3/4/2024 or 12/25/2020.",
    "See https://example.com/a/b/ and /usr/local/bin/ or //server/share/.",
    "He said [sic] that [the man] ran [pause for applause] and [paused].",
    "If a < b and c > d, or a<b, then 3 < 4.",
    "Some <b>bold</b> and <i>slanted</i> text, an <email@example.org>.",
    "1/2 of / and / or /r/ and /s/.",
    "a/b/c/d",
    "I <3 you",
    "[pause",
    "<break the rules",
]


@pytest.mark.parametrize("text", COMMON)
def test_what_people_write_is_text(text: str) -> None:
    assert read_markup(text) == [Plain(text)]


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("[pause 0.5s]", Pause(0.5)),
        ("[pause 500ms]", Pause(0.5)),
        ("[pause 2 seconds]", Pause(2.0)),
        ("[pause .25 sec]", Pause(0.25)),
        ("[pause]", Pause(0.5)),
        ('<break time="500ms"/>', Pause(0.5)),
        ("<break time='1.5s' />", Pause(1.5)),
        ('<break time="0s"></break>', Pause(0.0)),
        ('<break strength="strong"/>', Pause(1.0)),
        ('<break strength="none" time="250ms"/>', Pause(0.25)),
        ("<break/>", Pause(0.5)),
        ('<phoneme alphabet="ipa" ph="təˈmɑːtoʊ">tomato</phoneme>', Given("tomato", "təˈmɑːtoʊ")),
        ("<phoneme ph='t&#x259;'>New\n York</phoneme >", Given("New York", "tə")),
        ("/təˈmɑːtoʊ/", Given("/təˈmɑːtoʊ/", "təˈmɑːtoʊ")),
        ('<say-as interpret-as="characters">R&amp;D 2</say-as>', Spelled("R&D 2")),
        ('<say-as interpret-as="spell-out">NASA</say-as>', Spelled("NASA")),
    ],
)
def test_markup(text: str, piece: object) -> None:
    assert read_markup(text) == [piece]
    assert read_markup(f"before {text} after") == [Plain("before "), piece, Plain(" after")]


def test_two_pronunciations_beside_each_other() -> None:
    assert read_markup("/ˈwɪn/ /ˈwɪn/,(/aɪˈæm/).") == [
        Given("/ˈwɪn/", "ˈwɪn"),
        Plain(" "),
        Given("/ˈwɪn/", "ˈwɪn"),
        Plain(",("),
        Given("/aɪˈæm/", "aɪˈæm"),
        Plain(")."),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pause 0.5]", "[pause 0.5] does not say how long in s or ms: write [pause 0.5s]"),
        ("[pause 5 minutes]", "does not say how long in s or ms"),
        ("[pause -1s]", "does not say how long in s or ms"),
        ("[pause 3600s]", "[pause 3600s] is longer than 60 s: write a shorter pause"),
        (
            '<break time="soon"/>',
            '<break time="soon"/> does not say how long in s or ms: write <break time="500ms"/>',
        ),
        ("<break time=500ms/>", "cannot be read at 'time=500ms'"),
        ('<break strength="huge"/>', "has no strength of SSML's (none, x-weak"),
        ('<phoneme ph="a">b', '<phoneme ph="a"> is not closed: put </phoneme> behind'),
        ('<phoneme ph="a"/>', "is not closed"),
        ("b</phoneme>", "</phoneme> closes nothing: put <phoneme ...> before it"),
        (
            "<phoneme>tomato</phoneme>",
            '<phoneme> does not say how: write <phoneme ph="təˈmɑːtoʊ">tomato</phoneme>',
        ),
        ('<phoneme alphabet="x-sampa" ph="t@">t</phoneme>', "in the alphabet 'x-sampa': only ipa is known"),
        ('<phoneme ph="a"></phoneme>', "must hold words and no other tags, not ''"),
        ('<phoneme ph="a">b <b>c</b></phoneme>', "must hold words and no other tags"),
        ("<say-as>NASA</say-as>", "<say-as> asks for None: only characters and spell-out are known"),
        ('<say-as interpret-as="date">3/4</say-as>', "asks for 'date'"),
        ('<say-as interpret-as="characters">...</say-as>', "holds nothing that can be spelled: '...'"),
    ],
)
def test_broken_markup_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(TextError) as error:
        read_markup(f"Well, {text}")
    assert message in str(error.value) and "\n" not in str(error.value)


# -------------------------------------------------------------------------------------------- in the front end


def read(text: str, language: str = "en-us") -> list[Utterance]:
    return Frontend(language=language)(text)


@pytest.mark.parametrize("text", COMMON[:-2])
def test_what_people_write_is_read_as_without_markup(text: str) -> None:
    frontend = Frontend()
    assert frontend(text) == frontend._read(split_sentences(text, "en-us"))


def test_pauses_part_sentences() -> None:
    first, second, third = read("Hello [pause 0.3s] there. [pause 1s] [pause 1s]\n\nGood night")
    assert [one.phonemes for one in (first, second, third)] == ["həlˈoʊ,", "ðˈɛɹ.", "ɡˈʊd nˈaɪt"]
    assert [one.pause for one in (first, second, third)] == [0.3, 2.0, None]
    assert DEFAULT_SYMBOLS.decode(first.ids) == first.phonemes
    assert [one.lead for one in (first, second, third)] == [0.0, 0.0, 0.0]
    assert third.ends_paragraph and not second.ends_paragraph


def test_pauses_at_the_ends() -> None:
    (only,) = read("[pause 1s] ... [pause 1s] Hello. <break time='250ms'/>")
    assert (only.text, only.lead, only.pause) == ("Hello.", 2.0, 0.25)
    with pytest.raises(TextError, match="can be spoken"):
        read("[pause 1s]")


def test_given_pronunciations() -> None:
    (one,) = read('The <phoneme ph="əˈpɪt">pit</phoneme> is the /ˈpʌt/; say <phoneme ph="ˈri">X</phoneme>.')
    # stress before the vowel, as the models learnt it; the article is as before a vowel or a consonant
    assert one.phonemes == "ðɪ əpˈɪt ɪz ðə pˈʌt; sˈeɪ ɹˈi."
    assert one.text == one.spoken == "The pit is the /ˈpʌt/; say X."
    assert [word.text for word in one.words] == ["The", "pit", "is", "the", "/ˈpʌt/;", "say", "X."]


def test_stand_ins_that_are_not_found_again_part_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Well, <phoneme ph='ˈpʌt'>pit</phoneme> and /ˈwɪn/, and that."
    (one,) = read(text)
    monkeypatch.setattr(StandIns, "_read_as", re.compile("never"))
    (apart,) = read(text)
    assert one.phonemes == apart.phonemes == "wˈɛl, pˈʌt ænd wˈɪn, ænd ðˈæt."
    assert one.words == apart.words and one.spoken == apart.spoken == "Well, pit and /ˈwɪn/, and that."


def test_the_ending_after_a_given_word_is_as_it_would_be() -> None:
    (one,) = read(
        "<phoneme ph='ˈwɪn'>Nguyen</phoneme>'s, <phoneme ph='ʃmɪt'>Schmidt</phoneme>'s"
        " and <phoneme ph='ɹɒs'>Ross</phoneme>'s."
    )
    assert one.phonemes == "wˈɪnz, ʃmɪts ænd ɹɒsᵻz."
    assert [word.text for word in one.words] == ["Nguyen's,", "Schmidt's", "and", "Ross's."]


def test_spelling() -> None:
    (one,) = read(
        '<say-as interpret-as="characters">NASA 2</say-as> and <say-as interpret-as="spell-out">a&amp;b</say-as>.'
    )
    assert one.phonemes == "ˈɛnˈeɪˈɛsˈeɪtˈuː ænd ˈeɪændbˈiː."
    assert [word.text for word in one.words] == ["NASA 2", "and", "a&b."]
    (german,) = read('Die <say-as interpret-as="characters">AB2</say-as>.', "de")
    assert german.phonemes == "diː ˈɑːbˈeːtsvˈaɪ."


@pytest.mark.parametrize("language", ["cmn", "ja", "ru", "hi", "fr-fr", "ar"])
def test_given_pronunciations_in_other_scripts(language: str) -> None:
    around = {"cmn": "我是{}你好。", "ja": "これは{}です。", "ru": "Это {}, да.", "hi": "यह {} है।"}
    around |= {"fr-fr": "C'est {} ici.", "ar": "هذا {} جيد."}
    (one,) = read(around[language].format("<phoneme ph='tesˈuto'>X</phoneme>"), language)
    assert "tesˈuto" in one.phonemes and "X" in one.text
    assert [word.text.strip(",") for word in one.words].count("X") == 1


def test_stand_ins_that_are_in_the_text_already() -> None:
    (one,) = read("A zuvovib and /ˈpʌt/ zuvovit.")
    assert one.text == "A zuvovib and /ˈpʌt/ zuvovit." and one.phonemes.count("pˈʌt") == 1


def test_pronunciations_that_are_none() -> None:
    for ph, message in (
        ("q4!", "'!' in the pronunciation 'q4!' is no IPA"),
        ("ˈ", "there is no sound in"),
        ("世", "no IPA"),
    ):
        with pytest.raises(TextError, match=message):
            read(f"<phoneme ph='{ph}'>x</phoneme>")


def test_transcripts_hold_no_markup() -> None:
    (one,) = Frontend().whole(["[pause 1s] Well."])
    assert one.text == "[pause 1s] Well." and one.pause is None
