"""Text as a person writes it -> utterances as the models read them."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tts.text.errors import TextError
from tts.text.lexicon import Lexicon
from tts.text.markup import Given, Pause, Piece, Plain, Spelled, read_markup
from tts.text.normalize import normalize
from tts.text.phonemize import DEFAULT_LANGUAGE, phonemize, resolve_language
from tts.text.pronounce import StandIns, clean_ipa, spell
from tts.text.sentences import Sentence, split_sentences
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable
from tts.text.words import Word, find_words, split_words


@dataclass(frozen=True)
class Utterance:
    """One sentence, ready to be spoken.

    Args:
        text: as it was written, without markup.
        spoken: as it is said aloud, in words.
        phonemes: IPA with stress and punctuation, words parted by spaces.
        ids: of the phonemes' symbols.
        ends_paragraph: whether a longer pause follows.
        words: the written words that have a sound, with the phoneme groups that say them, where they were found.
        pause: seconds of silence after it that the text asks for; None where it does not.
        lead: seconds of silence before it that the text asks for.
    """

    text: str
    spoken: str
    phonemes: str
    ids: tuple[int, ...]
    ends_paragraph: bool = False
    words: tuple[Word, ...] = ()
    pause: float | None = None
    lead: float = 0.0


class Frontend:
    """Splits, normalises and phonemises text of one language.

    Args:
        symbols: the table that the models were trained with.
        language: a code, alias or English name, see ``resolve_language``.
        lexicon: words with their pronunciation, where the user has some.

    Raises:
        TextError: the language is unknown, or the lexicon has what is no IPA.
    """

    def __init__(
        self,
        symbols: SymbolTable = DEFAULT_SYMBOLS,
        language: str = DEFAULT_LANGUAGE,
        lexicon: Lexicon | None = None,
    ) -> None:
        self.symbols = symbols
        self.language = resolve_language(language)
        self.lexicon = lexicon or Lexicon({})
        for word, ipa in self.lexicon.words.items():
            try:
                clean_ipa(ipa, symbols, self.language)
            except TextError as error:
                raise TextError(f"lexicon, {word!r}: {error}") from error

    def __call__(self, text: str) -> list[Utterance]:
        """The utterances of a text of any length, in order; what has no sound is left out.

        Markup in it is obeyed, see `tts.text.markup`.

        Raises:
            TextError: nothing in the text has a sound, or its markup cannot be understood.
        """
        pieces = [one for piece in read_markup(text) for one in self.lexicon.apply(piece)]
        utterances: list[Utterance] = []
        lead = 0.0
        for utterance in self._script(text, pieces):
            if isinstance(utterance, Pause):
                if utterances:
                    utterances[-1] = _then_pause(utterances[-1], utterance.seconds, self.symbols)
                else:
                    lead += utterance.seconds
            elif self._has_sound(utterance):
                utterances.append(replace(utterance, lead=0.0 if utterances else lead))
            elif utterances and utterance.ends_paragraph:
                utterances[-1] = replace(utterances[-1], ends_paragraph=True)
        if not utterances:
            raise TextError(_nothing_to_speak(text))
        return utterances

    def whole(self, texts: Sequence[str], *, words: bool = False) -> list[Utterance]:
        """One utterance for each text, however long, even where it has no sound: for transcripts.

        Markup is text like other text here. The words are found only where they are asked for: it takes a third
        of the time.
        """
        return self._read([Sentence(text) for text in texts], words=words)

    def _script(self, text: str, pieces: Sequence[Piece]) -> Iterator[Utterance | Pause]:
        """The sentences of a text, with or without a sound, and the pauses that it asks for."""
        stand_ins = StandIns(text, self.language)
        part, given = "", list[Given]()
        for piece in pieces:
            if isinstance(piece, Plain):
                part += piece.text
            elif isinstance(piece, Pause):
                yield from self._part(part, given, stand_ins)
                yield piece
                part, given = "", []
            else:
                given.append(self._pronounced(piece))
                part += stand_ins.word_for(given[-1].text, given[-1].ipa)
        yield from self._part(part, given, stand_ins)

    def _pronounced(self, piece: Given | Spelled) -> Given:
        if isinstance(piece, Spelled):
            return Given(piece.text, spell(piece.text, self.language))
        return replace(piece, ipa=clean_ipa(piece.ipa, self.symbols, self.language))

    def _part(self, part: str, given: Sequence[Given], stand_ins: StandIns) -> list[Utterance]:
        """The sentences of a part without pauses, in which something stands for what is given."""
        sentences = split_sentences(part, self.language)
        if not given:
            return self._read(sentences)
        utterances, at = [], 0
        for sentence in sentences:
            own = given[at : (at := at + stand_ins.count(sentence.text))]
            utterances.append(self._read_given(sentence, own, stand_ins))
        if at != len(given):  # cut in two with a word of hundreds of letters
            raise TextError(
                f"{given[at].text!r} stands in a word too long to be spoken: put spaces around it"
            )
        return utterances

    def _read(self, sentences: Sequence[Sentence], *, words: bool = True) -> list[Utterance]:
        spoken = [normalize(sentence.text, self.language) for sentence in sentences]
        return [
            self._utterance(sentence, said, ipa, self._words(sentence.text, said, ipa) if words else ())
            for sentence, said, ipa in zip(sentences, spoken, phonemize(spoken, self.language), strict=True)
        ]

    def _read_given(self, sentence: Sentence, given: Sequence[Given], stand_ins: StandIns) -> Utterance:
        """A sentence in which stand-ins stand for what is given."""
        if not given:
            return self._read([sentence])[0]
        texts, readings = [one.text for one in given], [one.ipa for one in given]
        spoken, ipa = stand_ins.read(sentence.text, readings)
        words = self._words(sentence.text, spoken, ipa, stand_ins, readings)
        display = iter(texts)
        shown = tuple(replace(word, text=stand_ins.restore(word.text, display)) for word in words)
        restored = replace(sentence, text=stand_ins.restore(sentence.text, iter(texts)))
        return self._utterance(restored, stand_ins.restore(spoken, iter(texts)), ipa, shown)

    def _words(
        self,
        written: str,
        spoken: str,
        ipa: str,
        stand_ins: StandIns | None = None,
        given: Sequence[str] = (),
    ) -> tuple[Word, ...]:
        def read_alone(words: Sequence[str]) -> list[str]:
            own = iter(given)
            return [
                next(own) if stand_ins and stand_ins.count(word) else one
                for word, one in zip(words, phonemize(words, self.language), strict=True)
            ]

        return find_words(
            split_words(written),
            split_words(spoken),
            ipa,
            self.symbols,
            normalize=lambda words: [_normalized(word, self.language) for word in words],
            phonemize=read_alone,
        )

    def _utterance(self, sentence: Sentence, spoken: str, ipa: str, words: tuple[Word, ...]) -> Utterance:
        ids = tuple(self.symbols.encode(ipa))
        return Utterance(sentence.text, spoken, ipa, ids, sentence.ends_paragraph, words)

    def _has_sound(self, utterance: Utterance) -> bool:
        return any(self.symbols.is_base(i) for i in utterance.ids)


@functools.lru_cache(maxsize=4096)
def _normalized(word: str, language: str) -> str:
    """What is said for a word alone: the grammars take their time, and words come again."""
    return normalize(word, language)


def _then_pause(utterance: Utterance, seconds: float, symbols: SymbolTable) -> Utterance:
    """An utterance before a pause; without a mark at its end it gets a comma, or it would sound cut off."""
    total = seconds + (utterance.pause or 0.0)
    if symbols.is_segment(utterance.ids[-1]) and seconds:
        phonemes = utterance.phonemes + ","
        utterance = replace(utterance, phonemes=phonemes, ids=tuple(symbols.encode(phonemes)))
    return replace(utterance, pause=total, ends_paragraph=False)


def _nothing_to_speak(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        return "the text is empty: give at least one word"
    shown = line if len(line) <= 40 else line[:39] + "…"
    return f"nothing in {shown!r} can be spoken: give at least one word"
