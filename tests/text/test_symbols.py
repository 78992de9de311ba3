"""The symbol table: values by hand, and properties over random strings."""

import logging
import random

import pytest

from tts.text.phonemize import phonemize
from tts.text.symbols import BLANK, DEFAULT_SYMBOLS, Kind, SymbolTable, kind_of

TABLE = DEFAULT_SYMBOLS


def groups_of(ipa: str) -> list[str]:
    return [TABLE.decode(group) for group in TABLE.groups(TABLE.encode(ipa))]


def test_blank_is_first_and_symbols_are_unique() -> None:
    assert TABLE.symbols[0] == BLANK
    assert len(TABLE) == len(set(TABLE.symbols)) == 192
    assert TABLE.kind(0) is Kind.BLANK


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("t", Kind.BASE),
        ("ɚ", Kind.BASE),
        ("ǃ", Kind.BASE),
        ("ʔ", Kind.BASE),
        ("ː", Kind.MODIFIER),
        ("\u0303", Kind.MODIFIER),
        ("ʰ", Kind.MODIFIER),
        ("5", Kind.MODIFIER),
        ("˥", Kind.MODIFIER),
        ("ˈ", Kind.STRESS),
        ("ˌ", Kind.STRESS),
        (",", Kind.PUNCTUATION),
        ("—", Kind.PUNCTUATION),
    ],
)
def test_kinds(symbol: str, kind: Kind) -> None:
    assert kind_of(symbol) is kind
    assert TABLE.kind(TABLE.encode(symbol)[0]) is kind


def test_encode_leaves_out_spaces_and_decode_inverts_it() -> None:
    ids = TABLE.encode("həlˈoʊ, wˈɜːld!")
    assert TABLE.decode(ids) == "həlˈoʊ,wˈɜːld!"
    assert TABLE.decode([0, *ids, 0]) == "həlˈoʊ,wˈɜːld!"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ã", "a\u0303"),
        ("ç", "ç"),
        ("c\u0327", "ç"),
        ("g", "ɡ"),
        ("ʧʦ", "tʃts"),
        ("你", ""),
        ("“a”", '"a"'),
        ("a。b、c？", "a.b,c?"),
        ("[a]", "(a)"),
        ("a-b_c", "abc"),
        ("ä", "a\u0308"),
        ("", ""),
    ],
)
def test_other_ways_to_write_a_symbol(written: str, read: str) -> None:
    assert TABLE.decode(TABLE.encode(written)) == read


def test_an_unknown_character_is_dropped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert TABLE.decode(TABLE.encode("a♞b♞c")) == "abc"
        TABLE.encode("♞")
    assert [record.getMessage() for record in caplog.records] == [
        "no symbol for '♞' (U+265E BLACK CHESS KNIGHT): left out"
    ]


def test_segments_are_what_can_be_heard() -> None:
    ids = TABLE.encode("hˈaː, tʰˌã!")
    assert TABLE.decode(TABLE.segments(ids)) == "haːtʰa\u0303"
    assert TABLE.segments([0, 0]) == []


@pytest.mark.parametrize(
    ("ipa", "groups"),
    [
        ("həlˈoʊ, wˈɜːld!", ["h", "ə", "l", "ˈo", "ʊ,", "w", "ˈɜː", "l", "d!"]),
        ('"t͡sˈã (ɡ', ['"t͡', "s", "ˈa\u0303(", "ɡ"]),
        ("ˈˌa", ["ˈˌa"]),
        ("aˈ", ["aˈ"]),
        ("abˈ.", ["a", "bˈ."]),
        ("a.ˈb", ["a.", "ˈb"]),
        ("ʰˈta", ["ʰˈt", "a"]),
        ("...", ["..."]),
        ("ˈ", ["ˈ"]),
        ("", []),
    ],
)
def test_groups(ipa: str, groups: list[str]) -> None:
    assert groups_of(ipa) == groups


def test_groups_join_to_the_ids_and_hold_one_base_each() -> None:
    rng = random.Random(0)
    for _ in range(500):
        ids = [rng.randrange(len(TABLE)) for _ in range(rng.randrange(12))]
        groups = TABLE.groups(ids)
        assert [i for group in groups for i in group] == ids
        bases = [sum(map(TABLE.is_base, group)) for group in groups]
        assert bases == [1] * len(groups) or (len(groups) == 1 and bases == [0])


def test_extended_keeps_ids_and_lists_come_back() -> None:
    more = TABLE.extended(["ꟻ", "a", "ă"])
    assert more.symbols[: len(TABLE)] == TABLE.symbols
    assert more.symbols[len(TABLE) :] == ("ꟻ", "ă")
    assert more.encode("ă") == [len(TABLE) + 1]
    assert SymbolTable.from_list(more.to_list()) == more


@pytest.mark.parametrize("symbols", [[], ["a", BLANK], [BLANK, "a", "a"], [BLANK, "ab"], [BLANK, " "]])
def test_a_bad_table_is_refused(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="symbols"):
        SymbolTable.from_list(symbols)


NATIVE = {
    "ar": "مرحبا بالعالم",
    "cmn": "今天天气很好，我们去吃饭吧。",
    "cs": "Příliš žluťoučký kůň.",
    "da": "Rødgrød med fløde.",
    "eu": "Euskara oso hizkuntza zaharra da, eta ez dakit atsoa.",
    "ga": "Dia duit ar maidin.",
    "hi": "नमस्ते, आप कैसे हैं?",
    "hu": "Jó napot kívánok!",
    "is": "Góðan daginn, hvernig hefur þú það?",
    "ka": "გამარჯობა მსოფლიო",
    "ky": "Салам дүйнө, кандайсың?",
    "om": "Akkam jirta? Nagaa qabda.",
    "ta": "வணக்கம் உலகம்",
    "tn": "Dumela, o tsogile jang?",
    "vi": "Xin chào thế giới, hỏi ngã nặng sắc huyền.",
    "yue": "你好嗎，我五點食飯。",
}


@pytest.mark.parametrize("language", NATIVE)
def test_espeak_writes_nothing_that_the_table_lacks(language: str, caplog: pytest.LogCaptureFixture) -> None:
    (ipa,) = phonemize([NATIVE[language]], language)
    with caplog.at_level(logging.WARNING):
        ids = TABLE.encode(ipa)
    assert not caplog.records
    assert len(TABLE.segments(ids)) > 8
