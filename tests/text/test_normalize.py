"""Written -> spoken, sentence by sentence."""

import random
import unicodedata

import pytest

from tts.text.normalize import normalize

ENGLISH = {
    # numbers
    "I have 3 apples and 21 pears.": "I have three apples and twenty one pears.",
    "He came 1st, she came 22nd.": "He came first, she came twenty second.",
    "Pi is about 3.14159.": "Pi is about three point one four one five nine.",
    "It was 1999; by 2024 it was over.": "It was nineteen ninety nine; by twenty twenty four it was over.",
    "The 1980s were loud, the '90s louder.": "The nineteen eighties were loud, the nineties louder.",
    "Only 1/2 cup and 2 1/2 eggs.": "Only one half cup and two and a half eggs.",
    "It is ½ full and 2¾ empty.": "It is one half full and two and three quarters empty.",
    "Pages 10-20 and 1914–1918.": "Pages ten to twenty and nineteen fourteen to nineteen eighteen.",
    "Between 9-11 of us won 3-2.": "Between nine and eleven of us won three to two.",
    "Flight BA2490": "Flight BA two thousand four hundred ninety",
    "A 20-year-old on the 2nd-floor.": "A twenty-year-old on the second floor.",
    "12345678901234567890": "one two three four five six seven eight nine zero "
    "one two three four five six seven eight nine zero",
    "Zero: 0, 007.": "Zero: zero, zero zero seven.",
    "Version 2.0.1 is out.": "Version two point zero point one is out.",
    "٣ cats": "three cats",
    # dates and times
    "He was born on March 3, 1985 in Ohio.": "He was born on march third, nineteen eighty five in Ohio.",
    "The date is 2023-11-05.": "The date is november fifth twenty twenty three.",
    "Due 12/25/2020.": "Due december twenty fifth twenty twenty.",
    "On Jan. 5th, Fri. at 9.": "On january fifth, Friday at nine.",
    "At 3:45 pm, not 10:00 a.m.": "At three forty five p-m, not ten a-m.",
    "Wake me at 07:05.": "Wake me at seven o five.",
    "From 9 to 11am.": "From nine to eleven a-m.",
    # money, percentages
    "It costs $5.99, not $1,000,000.": "It costs five dollars ninety nine cents, not one million dollars.",
    "£2.50, €100 and 5 €": "two pounds fifty pence, one hundred euros and five euros",
    "Up 20% to $3.5 billion": "Up twenty percent to three point five billion dollars",
    "It fell to ~$2tn, or $250k.": "It fell to about two trillion dollars, "
    "or two hundred fifty thousand dollars.",
    "I owe you 50¢ and 1¢.": "I owe you fifty cents and one cent.",
    "$10-20 per hour": "ten dollars to twenty dollars per hour",
    "5 USD": "five dollars",
    # units
    "It is -5.5°C or 22 °F.": "It is minus five point five degrees Celsius or twenty two degrees Fahrenheit.",
    "5 km in 20 min.": "five kilometers in twenty minutes.",
    "1 km, 6 ft 2 in tall": "one kilometer, six feet two inches tall",
    "100 mg/day at 60 km/h": "one hundred milligrams per day at sixty kilometers per hour",
    "8 GB RAM, 3.2 GHz CPU.": "eight gigabytes RAM, three point two gigahertz CPU.",
    "20 m² and 3 kWh": "twenty square meters and three kilowatt hours",
    "He is 5'10\".": "He is five foot ten.",
    "5x5, 60 mph": "five by five, sixty miles per hour",
    # abbreviations
    "Dr. Smith met Mr. Jones, e.g. at St. Mary's St.": "Doctor Smith met Mister Jones, "
    "for example at Saint Mary's Street.",
    "Use tools, i.e. hammers, nails, etc.": "Use tools, that is hammers, nails, et cetera.",
    "Prof. Lee vs. Gen. Grant, Jr.": "Professor Lee versus General Grant, Junior.",
    "See No. 5, p. 6 and pp. 7-9.": "See number five, page six and pages seven to nine.",
    "No. I won't.": "No. I won't.",
    "The U.S. won. J.K. Rowling has a Ph.D.": "The U-S won. J-K Rowling has a P-H-D.",
    "George W. Bush and J. R. R. Tolkien": "George W Bush and J-R-R Tolkien",
    "AT&T and R&D": "A-T and T and R and D",
    # Roman numerals
    "Henry VIII and Louis XIV fought World War II.": "Henry the eighth and Louis the fourteenth "
    "fought World War two.",
    "Chapter IV of Part I": "Chapter four of Part one",
    "Queen Elizabeth II's reign": "Queen Elizabeth the second's reign",
    "Am I in part I liked?": "Am I in part I liked?",
    "Malcolm X and vitamin C": "Malcolm X and vitamin C",
    # phone numbers, addresses
    "Call 555-123-4567 or (212) 555-0199.": "Call five five five, one two three, four five six seven "
    "or two one two, five five five, zero one nine nine.",
    "Call +1 800 555 0100.": "Call plus one, eight zero zero, five five five, zero one zero zero.",
    "Visit https://www.example.com/about today.": "Visit w-w-w dot example dot com slash about today.",
    "Mail john.doe42@example.org.": "Mail john dot doe four two at example dot org.",
    "Go to example.com. Now.": "Go to example dot com. Now.",
    # symbols
    "Salt & pepper @ home + 2 = 3.": "Salt and pepper at home plus two equals three.",
    "x² ≤ 10^6": "x squared at most ten to the power of six",
    "6 ÷ 2 × 3": "six divided by two times three",
    "#1 hit, #best": "number one hit, hashtag best",
    "C++, C# and/or *bold* <b>text</b>": "C plus plus, C sharp and or bold text",
    "On 9/11 and 24/7": "On nine eleven and twenty four seven",
    # form
    "Wait... what?! “Yes,” he said -- 1 time.": "Wait… what?! “Yes,” he said — one time.",
    "😀 Smile™ 👍🏽 •": "Smile",
    "  a \n b\t c ": "a b c",
    "It's rock 'n' roll, 'twas John's.": "It's rock 'n' roll, 'twas John's.",
}


@pytest.mark.parametrize("written", ENGLISH)
def test_english(written: str) -> None:
    assert normalize(written) == ENGLISH[written]


def test_what_is_spoken_already_stays() -> None:
    spoken = [text for text in ENGLISH.values() if "-" not in text and "…" not in text]
    assert [normalize(text) for text in spoken] == spoken


def test_english_never_keeps_a_digit() -> None:
    rng = random.Random(0)
    alphabet = "0123456789 .,:/-$%°'ab²½٣①km"
    for _ in range(20):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 14)))
        spoken = normalize(text)
        assert not [char for char in spoken if unicodedata.category(char)[0] == "N"], (text, spoken)


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("de", "Um 14:30 Uhr, d.h. bald – 😀 für $5.", "Um 14 30 Uhr, d h bald — für 5 $."),
        ("fr-fr", "Il a 21 ans et 12,50 €.", "Il a 21 ans et 12,50 €."),
        ("ja", "21個買った。", "21個買った。"),
        ("fa", "می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_other_languages_keep_what_espeak_reads(language: str, written: str, spoken: str) -> None:
    assert normalize(written, language) == spoken
