"""Written text -> spoken -> sentences -> phonemes -> ids; plain Python, no torch."""

from tts.text.errors import TextError
from tts.text.frontend import Frontend, Utterance
from tts.text.lexicon import Lexicon
from tts.text.normalize import normalize
from tts.text.phonemize import DEFAULT_LANGUAGE, languages, phonemize, resolve_language
from tts.text.sentences import Sentence, split_sentences
from tts.text.symbols import DEFAULT_SYMBOLS, Kind, SymbolTable

__all__ = [
    "DEFAULT_LANGUAGE",
    "DEFAULT_SYMBOLS",
    "Frontend",
    "Kind",
    "Lexicon",
    "Sentence",
    "SymbolTable",
    "TextError",
    "Utterance",
    "languages",
    "normalize",
    "phonemize",
    "resolve_language",
    "split_sentences",
]
