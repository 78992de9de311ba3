"""A user's own pronunciations: a text file with a word, a tab and its IPA in each line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tts.text.errors import TextError
from tts.text.markup import Given, Piece, Plain


@dataclass(frozen=True)
class Lexicon:
    """Words and how they are said.

    A word in small letters is found in any case ("gif" also finds "GIF"); one with a capital only as it stands.

    Attributes:
        words: written words, or several parted by spaces -> IPA.
    """

    words: Mapping[str, str]

    @classmethod
    def load(cls, path: str | Path) -> "Lexicon":
        """Read ``word<TAB>IPA`` lines, UTF-8; empty lines and those that start with ``#`` and have no tab are skipped.

        Raises:
            TextError: no such file, no UTF-8, a line of another form, or a word twice.
        """
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError as error:
            raise TextError(f"no such lexicon: {str(path)!r}; check the path") from error
        except (IsADirectoryError, UnicodeDecodeError) as error:
            raise TextError(f"{path}: not a text file in UTF-8; give lines of word<TAB>IPA") from error
        words: dict[str, str] = {}
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip() or (line.startswith("#") and "\t" not in line):
                continue
            word, _, ipa = (part.strip() for part in line.partition("\t"))
            if not word or not ipa:
                raise TextError(
                    f"{path} line {number}: {line.strip()[:40]!r} is not of the form word<TAB>IPA"
                )
            word = " ".join(word.split())
            if word in words:
                raise TextError(f"{path} line {number}: {word!r} is in it twice; take one out")
            words[word] = ipa.strip("/[]")
        return cls(words)

    def apply(self, piece: Piece) -> list[Piece]:
        """A piece of text, with the lexicon's words in it given their pronunciation."""
        if not isinstance(piece, Plain) or not self.words:
            return [piece]
        pieces: list[Piece] = []
        at = 0
        for match in self._pattern.finditer(piece.text):
            ipa = self._find(match[0])
            if ipa is None:
                continue
            pieces += [Plain(piece.text[at : match.start()]), Given(" ".join(match[0].split()), ipa)]
            at = match.end()
        return [one for one in (*pieces, Plain(piece.text[at:])) if one != Plain("")]

    def _find(self, written: str) -> str | None:
        word = " ".join(written.split())
        return self.words.get(word, self.words.get(word.lower()))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Any of the words, the longest first, not within other words."""
        words = sorted(self.words, key=len, reverse=True)
        any_of = "|".join(r"\s+".join(map(re.escape, word.split())) for word in words)
        return re.compile(rf"(?<!\w)(?:{any_of})(?!\w)", re.IGNORECASE)
