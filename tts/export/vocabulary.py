"""The LM's vocabulary as written: a string for every id, and a fast tokenizer that goes both ways.

``<bos>həl…<text_end>həl<s12><s55>…<eos>``: a phoneme is its own character, a special or a speech token stands in
angle brackets. One written id is one id: nothing is merged, nothing is added.
"""

import re
import unicodedata
from typing import TYPE_CHECKING

from tts.lm.layout import Layout
from tts.text.symbols import _SAME_AS as SAME_AS
from tts.text.symbols import SymbolTable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIALS = ("<bos>", "<text_end>", "<eos>")
"""In the order of their ids, behind the phonemes; `Layout` says so, too."""


COMPOSED_END = 0x2000  # letters with marks of Latin, Greek and Cyrillic end here


def vocabulary(symbols: SymbolTable, layout: Layout) -> list[str]:
    """The string of every id; the first is the blank, which pads, and stands for what is not known."""
    codes = (f"<s{code}>" for code in range(layout.codes))
    strings = [*symbols.to_list(), *SPECIALS, *codes]
    assert len(strings) == layout.vocab_size and strings[layout.eos] == "<eos>"
    return strings


def fast_tokenizer(symbols: SymbolTable, layout: Layout) -> "Tokenizer":
    """A `tokenizers.Tokenizer` that reads phonemes as `SymbolTable.encode` does.

    Look-alikes and composed letters are written as the table has them, spaces and unknown signs are left out.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    strings = vocabulary(symbols, layout)
    tokenizer = Tokenizer(models.WordLevel({s: i for i, s in enumerate(strings)}, unk_token=strings[0]))
    tokenizer.add_special_tokens(
        [AddedToken(s, special=True, normalized=False) for s in (strings[0], *SPECIALS)]
    )
    known = "".join(symbols.to_list()[1:])
    # the brackets, letter and digits of <s12> pass, known or not: a stray one becomes the blank
    others = f"[^{re.escape(known)}<>s0-9]"
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            *(normalizers.Replace(char, written) for char, written in _rewritings(symbols).items()),
            normalizers.Replace(Regex(others), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"<s\d+>|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _rewritings(symbols: SymbolTable) -> dict[str, str]:
    """Characters that are not in the table, and what `SymbolTable.encode` reads in their place."""
    known = frozenset(symbols.to_list()[1:])

    def read(char: str) -> str:
        parts = char if char in known else SAME_AS.get(char) or unicodedata.normalize("NFD", char)
        if parts == char:
            return char if char in known else ""
        return "".join(read(part) for part in parts)

    composed = (
        chr(code) for code in range(COMPOSED_END) if unicodedata.decomposition(chr(code))[:1] not in ("", "<")
    )
    chars = [c for c in (*SAME_AS, *composed) if c not in known and unicodedata.normalize("NFC", c) == c]
    return {char: written for char in dict.fromkeys(chars) if (written := read(char))}
