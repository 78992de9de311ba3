"""Written English -> spoken English.

Three layers, each on what the one before left:

1. rules of ours for what is written short: titles, units, addresses, ranges, Roman numerals, symbols;
2. NeMo's grammars, run by kitten-text-processing: numbers, ordinals, years, dates, times, money (Zhang et al.
   2021, arXiv 2104.05055). They see only the clauses that still hold a digit;
3. num2words for digits that are left, so that none ever gets out.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from decimal import Decimal

from tts.text.english_words import (
    AT_TEXT_END,
    BEFORE_NUMBER,
    CURRENCIES,
    FOR_THE_GRAMMARS,
    NUMBERED,
    PER,
    PLURALS,
    REGNAL,
    SHORT,
    SYMBOLS,
    TLD,
    UNITS,
)

Match = re.Match[str]
Rule = tuple[str, str | Callable[[Match], str]]  # pattern, what to say instead

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ADDRESS_MARKS = {
    ".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", ":": "colon", "?": "question mark",
    "=": "equals", "&": "and", "#": "hash", "%": "percent", "+": "plus", "~": "tilde",
}  # fmt: skip


def expand(text: str) -> str:
    """``text`` as an English speaker reads it aloud; without digits.

    Args:
        text: one sentence, better than many: the grammars' work grows with the length.
    """
    end = re.search(r"[.!?…][\"'”’)]*\s*$", text)
    for pattern, spoken in _rules():
        text = pattern.sub(spoken, text)
    text = "".join(char if char in FOR_THE_GRAMMARS else SYMBOLS.get(char, char) for char in text)
    text = "".join(_read_clause(clause) for clause in _clauses(text))
    text = re.sub(r"(?<=[a-z]) ([AP])M\b", lambda m: f" {m[1].lower()}-m", text)
    text = _read_leftovers("".join(SYMBOLS.get(char, char) for char in text)).rstrip()
    lost_end = end is not None and not re.search(r"[.!?…][\"'”’)]*$", text)
    return text + end[0].strip() if end and lost_end else text


# Layer 1


@functools.cache
def _rules() -> list[tuple[re.Pattern[str], str | Callable[[Match], str]]]:
    rules = (*_address_rules(), *_roman_rules(), *_word_rules(), *_number_rules(), *_unit_rules())
    return [(re.compile(pattern), spoken) for pattern, spoken in rules]


def _address_rules() -> list[Rule]:
    return [
        (r"(?<!\S)https?://\S+|(?<![\w@])www\.\S+", _address),
        (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", _address),
        (rf"(?<![\w@.])(?:[A-Za-z][\w-]*\.)+(?:{TLD})\b(?:/[\w/.%#?=&-]*)?(?!\.?\w)", _address),
        (r"</?[a-zA-Z][^<>]*>", ""),
    ]


def _roman_rules() -> list[Rule]:
    numeral = r"((?=[IVXLC]+\b)C{0,3}(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))(?![A-Z])\b(?!\.\s[A-Z])"
    not_names = r"(?!(?:The|This|That|And|But|For)\b)"
    return [
        (rf"\b({REGNAL})\s(?!I\b){numeral}", _regnal),
        (rf"\b((?:King|Queen|Pope|Emperor|Tsar)\s[A-Z]\w+)\s{numeral}", _regnal),
        (rf"\b({NUMBERED})\s(?!I\s(?!(?:of|and|is|was|to|in)\b)[a-z]){numeral}", _cardinal),
        (rf"\b({NUMBERED.lower()})\s(?=[IVXLC]{{2}}){numeral}", _cardinal),
        (rf"\b{not_names}([A-Z][a-z]{{2,}})\s(?=[IVX]{{2}}){numeral}", _cardinal),
    ]


def _word_rules() -> list[Rule]:
    initials = r"((?:[A-Z]\.\s?)+)(?=[A-Z][a-z])"
    return [
        (r"\be\.\s?g\.", "for example"),
        (r"\bi\.\s?e\.", "that is"),
        (r"\bet al\b\.?", "and others"),
        (r"\ba\.k\.a\.", "also known as"),
        (r"\bp\.a\.", "per year"),
        (r"\bw/o\b", "without"),
        (r"\bw/\s?", "with "),
        # hours: the grammars want the points, or capitals
        (r"(\d)\s?([ap])\.?m\b\.?(?=\s+[A-Z]|\s*$)", r"\1 \2m."),
        (r"(\d)\s?([ap])\.?m\b\.?", r"\1 \2m"),
        (r"(\d)\s?([AP])\.?M\b\.?", r"\1 \2M"),
        # letters with points, letters with &
        (r"\bPh\.?\s?D\b(?:\.(?!\s*$))?", "P-H-D"),
        (r"(?<!\S)\.(?=[A-Za-z])", "dot "),
        (r"\b(?:[A-Za-z]\.){2,}(?=[\s\"'”)]*$)", lambda m: _spell_letters(m[0]) + "."),
        (r"\b(?:[A-Za-z]\.){2,}", lambda m: _spell_letters(m[0])),
        (rf"(^|[A-Z][\w'-]*\s|[\"“(]){initials}", lambda m: f"{m[1]}{_spell_letters(m[2])} "),
        (rf"\b(?=[A-Z]\.\s?[A-Z]\.){initials}", lambda m: _spell_letters(m[1]) + " "),
        (r"\b([A-Z]{1,3})&([A-Z]{1,3})\b", lambda m: f"{_spell_letters(m[1])} and {_spell_letters(m[2])}"),
        # words cut short
        (r"(\d\s?)in\.(?=\s+[a-z(])", r"\1inches"),
        (r"(\d\s?)in\.(?=\s*$)", r"\1inches."),
        (r"(\d\s?(?:min|sec|hrs?|ft|lbs?|oz|yds?|mi))\.(?=\s+[a-z(])", r"\1"),
        (r"(\d\s?(?:min|sec|hrs?|ft|lbs?|oz|yds?|mi))\.(?=[\s\"'”)]*$)", r"\1 ."),
        (r"\bSt\.?(?=\s+[A-Z])", "Saint"),
        (r"\bSt\.(?=\s*$)", "Street."),
        (r"\bSt\.", "Street"),
        (rf"\b({'|'.join(AT_TEXT_END)})\.(?=[\s\"'”)]*$)", lambda m: SHORT[m[1]] + "."),
        (rf"(?<![\w'])({_any_of(SHORT)})\.(?!\w)", lambda m: SHORT[m[1]]),
        (r"\b(Dr|Mr|Mrs|Ms|Prof|vs)\b(?=\s)", lambda m: SHORT[m[1]]),
        (rf"\b({_any_of(BEFORE_NUMBER)})\.\s?(?=\d)", lambda m: BEFORE_NUMBER[m[1]] + " "),
    ]


def _number_rules() -> list[Rule]:
    money = r"([$£€]\d[\d.,]*)\s?"
    return [
        (r"\+\d{1,3}[\s.-]?(?:\(?\d{1,4}\)?[\s.-]?){2,5}\d", _phone),
        (r"(?<![\w-])(?:1-)?\(?\d{3}\)?[\s.-]\d{3}[.-]\d{4}(?![\w-])", _phone),
        (r"(?<![\w-])\d{3}-\d{4}(?![\w-])", _phone),
        (r"(?<![\w-])0\d{2,4}\s\d{3,6}(?:\s\d{3,4})?(?![\w-])", _phone),
        # money
        (r"([$£€])(\d[\d.,]*)\s?[-–]\s?(\d)", r"\1\2 to \1\3"),
        (r"\b(USD|EUR|GBP|JPY|INR)\s?(?=\d)", lambda m: CURRENCIES[m[1]]),
        (r"(\d[\d.,]*)\s?(USD|EUR|GBP|JPY|INR)\b", lambda m: CURRENCIES[m[2]] + m[1]),
        (r"(?<![\d$£€¥₹.,])(\d[\d.,]*)\s?([$€£¥₹])(?![\d])", r"\2\1"),
        (rf"{money}[kK]\b", _thousands),
        (rf"{money}(?:mn|[mM])\b", r"\1 million"),
        (rf"{money}(?:bn|[bB])\b", r"\1 billion"),
        (rf"{money}(?:tn|T)\b", r"\1 trillion"),
        (r"\b1\s?¢", "1 cent"),
        (r"(\d)\s?¢", r"\1 cents"),
        # signs
        (r"(?<![\w.,)])[-−](?=\.?\d)", "minus "),
        (r"[~≈]\s?(?=[$£€]?\d)", "about "),
        (r"(?<![\w.])\.(?=\d)", "0."),
        (r"#(?=\d)", "number "),
        (r"#(?=[A-Za-z])", "hashtag "),
        (r"\bC\+\+", "C plus plus"),
        (r"\b([CF])#", r"\1 sharp"),
        # numbers beside numbers
        (r"\b(24/7|9/11)\b", lambda m: m[1].replace("/", " ")),
        (r"(\d{4})'s\b", r"\1s"),
        (r"(\d)-to-(?=\d)", r"\1 to "),
        (r"(\d)\s[-−]\s(?=\d+\s*=)", r"\1 minus "),
        (r"(\d)\s/\s(?=\d)", r"\1 divided by "),
        (r"\b(\d+\.\d+|\d{3,})/(\d+)\b", r"\1 out of \2"),
        (r"\b(\d+(?:\.\d+)?)[eE]([+-]?\d+)\b", r"\1 times 10 to the power of \2"),
        (r"(?<=[\w)])\^(?=[\w(])", " to the power of "),
        (r"\b(\d+)(?:′|')\s?(\d+)(?:″|\"|”|'')", r"\1 foot \2"),
        (r"(\d)(?:\sx\s|[x×])(?=\d)", r"\1 by "),
        (r"(\d)\s\*\s(?=\d)", r"\1 times "),
        (r"(?<![\d:])(\d+):(\d)(?![\d:])", r"\1 to \2"),
        (r"\b([Bb]etween\s+\S*\d)[-–](?=\d)", r"\1 and "),
        (r"(?<![\w.,/-])(\d[\d.,]*)\s?[-–]\s?(\d[\d.,]*)(?![\w/-]*[-–/])", r"\1 to \2"),
        (r"(\d(?:st|nd|rd|th))-(?=[a-z])", r"\1 "),
        (r"(?<=[A-Za-z])-(?=\d)", " "),
        # too much for the grammars
        (r"\b\d+(?:\.\d+){2,}\b", _version),
        (r"\b\d{1,3}(?:,\d{3}){4,}\b", lambda m: _number(m[0])),
        (r"(?<![\w-])\d+(?:[-–]\d+){3,}", _phone),
        (r"\d{13,}", lambda m: f" {_spell_digits(m[0])} "),
    ]


def _unit_rules() -> list[Rule]:
    number = r"(?<![\w.,])\d[\d,]*(?:\.\d+)?"
    length = r"(\d\s?)(km|cm|mm|m|ft|mi|in)"
    return [
        (r"(?<=\d)k\b", " thousand"),
        (r"(?<=\d)/ea\b", " each"),
        (rf"(\d|thousand|million|billion)/({_any_of(PER)})\b\.?(?=\s)", lambda m: f"{m[1]} per {PER[m[2]]}"),
        (r"\s?°\s?C\b", " degrees Celsius"),
        (r"\s?°\s?F\b", " degrees Fahrenheit"),
        (rf"{length}(?:²|\^?2\b)", lambda m: f"{m[1]} square {_plural(UNITS.get(m[2], 'inche'))}"),
        (rf"{length}(?:³|\^?3\b)", lambda m: f"{m[1]} cubic {_plural(UNITS.get(m[2], 'inche'))}"),
        (r"(\d\s?(?:ft|foot|feet)\s\d+)\s?in\b", r"\1 inches"),
        (rf"({number})\s?({_any_of(UNITS)})(?:/({_any_of(PER)}))?(?![\w²³'])", _unit),
        (r"(?<=[A-Za-z0-9])/(?=[A-Za-z])|(?<=[A-Za-z])/(?=\d)", " "),
    ]


def _any_of(words: dict[str, str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _spell_letters(text: str) -> str:
    """Letters joined by hyphens: espeak then reads ``A`` as a letter, not as the article."""
    return "-".join(char for char in text if char.isalpha())


def _address(match: Match) -> str:
    """A web or mail address: its words and digits, and names for the marks between them."""
    bare = re.sub(r"^https?://", "", match[0])
    tail = re.search(r"[.,;:!?)'\"/]*$", bare)
    stop = tail[0] if tail else ""
    said = []
    for part in re.findall(r"[^\W\d_]+|\d|[^\w\s]|_", bare[: len(bare) - len(stop)]):
        said.append(_spell_digits(part) or _ADDRESS_MARKS.get(part, part))
    return " ".join("w-w-w" if word.lower() == "www" else word for word in said) + stop.replace("/", "")


def _unit(match: Match) -> str:
    number, short, per = match.groups()
    name = UNITS[short] if number == "1" else _plural(UNITS[short])
    return f"{number} {name} per {PER[per]}" if per else f"{number} {name}"


def _plural(name: str) -> str:
    return PLURALS.get(name, name + "s")


def _regnal(match: Match) -> str:
    from num2words import num2words

    return f"{match[1]} the {num2words(_roman(match[2]), to='ordinal')}"


def _cardinal(match: Match) -> str:
    return f"{match[1]} {_number(str(_roman(match[2])))}"


def _roman(numeral: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in numeral]
    return sum(-value if value < max(values[i:]) else value for i, value in enumerate(values))


def _phone(match: Match) -> str:
    plus = "plus " if match[0].startswith("+") else ""
    return plus + ", ".join(_spell_digits(group) for group in re.findall(r"\d+", match[0]))


def _thousands(match: Match) -> str:
    """$2.5k -> $2500: the grammars know millions after money, not thousands."""
    return match[1][0] + format((Decimal(match[1][1:].replace(",", "")) * 1000).normalize(), "f")


def _version(match: Match) -> str:
    """2.0.1 or, with four parts, an internet address: every part a number of its own."""
    parts = match[0].split(".")
    return (" dot " if len(parts) == 4 else " point ").join(_number(part) for part in parts)


# Layer 2


def _clauses(text: str) -> Iterator[str]:
    """Parts of ``text`` that the grammars can read apart, none long: their work grows faster than the length."""
    for clause in re.split(r"([;:!?()\"“”—…]+(?=\s|$)|[\"“(])", text):
        cut = r".{60,120}?[a-z](?=\s[a-z])|.{80,150}?(?=\s)|.+"  # between two words rather than in a date
        yield from re.findall(cut, clause) if len(clause) > 150 else [clause]


def _read_clause(clause: str) -> str:
    """NeMo's reading of a clause with digits or fractions; others as they are."""
    if not re.search(r"[0-9¼½¾⅐-⅞]", clause) or re.search(r"(?:[0-9]+[^\s0-9]+){5,}[0-9]", clause):
        return clause  # the second is no number that people write, and would take the grammars minutes
    start, end = len(clause) - len(clause.lstrip()), len(clause.rstrip())
    try:
        read = _grammars()(clause[start:end])
    except ValueError:  # no path through the grammars: the last layer spells the digits
        return clause
    return clause[:start] + read + clause[end:]


@functools.cache
def _grammars() -> Callable[[str], str]:
    from kitten_text_processing import normalize_text

    return functools.partial(normalize_text, locale="en-US")


# Layer 3


def _read_leftovers(text: str) -> str:
    """Numbers that nothing has read, also those of other scripts, spelled."""
    text = re.sub(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?", lambda m: f" {_number(m[0])} ", text)
    return "".join(f" {_number(_value(c))} " if unicodedata.category(c)[0] == "N" else c for c in text)


def _value(char: str) -> str:
    return format(Decimal(str(round(unicodedata.numeric(char, 0.0), 3))).normalize(), "f")


def _number(digits: str) -> str:
    from num2words import num2words

    plain = digits.replace(",", "")
    if len(plain) > 30:
        return _spell_digits(plain)
    value = Decimal(plain)
    return str(num2words(int(value) if value == int(value) else value)).replace(",", "")


def _spell_digits(text: str) -> str:
    return " ".join(_DIGITS[int(char)] for char in text if char in "0123456789")
