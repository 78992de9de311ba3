"""Zero-shot text-to-speech that people can train themselves.

>>> from tts import TTS, Voice
>>> tts = TTS.load()
>>> speech = tts.synthesize("Hello there.", Voice.from_audio("me.wav"))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tts.pipeline import TTS, Settings, Speech
    from tts.voice import Voice

__all__ = ["TTS", "Settings", "Speech", "Voice"]


def __getattr__(name: str) -> Any:
    """Load the chain only when it is asked for: ``tts.text`` alone needs no torch."""
    if name == "Voice":
        from tts.voice import Voice

        return Voice
    if name in __all__:
        from tts import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
