"""Text as a person writes it -> utterances as the models read them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tts.text.errors import TextError
from tts.text.normalize import normalize
from tts.text.phonemize import DEFAULT_LANGUAGE, phonemize, resolve_language
from tts.text.sentences import Sentence, split_sentences
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable


@dataclass(frozen=True)
class Utterance:
    """One sentence, ready to be spoken.

    Args:
        text: as it was written.
        spoken: as it is said aloud, in words.
        phonemes: IPA with stress and punctuation, words parted by spaces.
        ids: of the phonemes' symbols.
        ends_paragraph: whether a longer pause follows.
    """

    text: str
    spoken: str
    phonemes: str
    ids: tuple[int, ...]
    ends_paragraph: bool = False


class Frontend:
    """Splits, normalises and phonemises text of one language.

    Args:
        symbols: the table that the models were trained with.
        language: a code, alias or English name, see ``resolve_language``.

    Raises:
        TextError: the language is unknown.
    """

    def __init__(self, symbols: SymbolTable = DEFAULT_SYMBOLS, language: str = DEFAULT_LANGUAGE) -> None:
        self.symbols = symbols
        self.language = resolve_language(language)

    def __call__(self, text: str) -> list[Utterance]:
        """The utterances of a text of any length, in order; what has no sound is left out.

        Raises:
            TextError: nothing in the text has a sound.
        """
        utterances: list[Utterance] = []
        for utterance in self._read(split_sentences(text, self.language)):
            if self._has_sound(utterance):
                utterances.append(utterance)
            elif utterances and utterance.ends_paragraph:
                utterances[-1] = replace(utterances[-1], ends_paragraph=True)
        if not utterances:
            raise TextError(_nothing_to_speak(text))
        return utterances

    def whole(self, texts: Sequence[str]) -> list[Utterance]:
        """One utterance for each text, however long, even where it has no sound: for transcripts."""
        return self._read([Sentence(text) for text in texts])

    def _read(self, sentences: Sequence[Sentence]) -> list[Utterance]:
        spoken = [normalize(sentence.text, self.language) for sentence in sentences]
        return [
            Utterance(sentence.text, words, ipa, tuple(self.symbols.encode(ipa)), sentence.ends_paragraph)
            for sentence, words, ipa in zip(sentences, spoken, phonemize(spoken, self.language), strict=True)
        ]

    def _has_sound(self, utterance: Utterance) -> bool:
        return any(self.symbols.is_base(i) for i in utterance.ids)


def _nothing_to_speak(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        return "the text is empty: give at least one word"
    shown = line if len(line) <= 40 else line[:39] + "…"
    return f"nothing in {shown!r} can be spoken: give at least one word"
