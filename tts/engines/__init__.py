"""What runs the LM: torch, or another program with the same weights.

>>> from tts import TTS
>>> tts = TTS.load("runs/mine/model", engine="llama.cpp:lm.gguf")

Sampling, read-back, streaming and batching stay ours: an engine turns ids into logits, and nothing else. Which phoneme
comes is told by the text, so an engine must take ids that it did not draw itself, and give all logits, at every step.
"""

from tts.engines.choose import engine_of, with_engine
from tts.engines.engine import Engine, EngineLM, Session

__all__ = ["Engine", "EngineLM", "Session", "engine_of", "with_engine"]
