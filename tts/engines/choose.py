"""From a word in a config to an engine."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from codec.errors import UserError
from tts.checkpoint import Model
from tts.engines.engine import Engine, EngineLM
from tts.lm.compiled import prepare
from tts.lm.model import SpeechLM

TORCH, COMPILED = "torch", "compiled"
KINDS = "torch, compiled, transformers[:FOLDER], onnxruntime:FOLDER, llama.cpp:FILE, or http://HOST:PORT/v1"


def with_engine(model: Model, engine: str | Engine = TORCH) -> Model:
    """The model with its LM run by an engine.

    Args:
        model: as it was loaded.
        engine: one, or a word for it, see `engine_of`.

    Raises:
        UserError: see `engine_of`.
    """
    if engine == COMPILED:
        return replace(model, lm=compiled(model.lm))
    chosen = engine_of(engine, model) if isinstance(engine, str) else engine
    return model if chosen is None else replace(model, lm=EngineLM(model.lm.layout, chosen))


def compiled(lm: SpeechLM) -> SpeechLM:
    """The LM with its steps of one row compiled; the one given stays as it is.

    Raises:
        UserError: they cannot be compiled here.
    """
    other = deepcopy(lm)
    other.llama.compiled = True
    prepare(other.llama)
    return other


def engine_of(word: str, model: Model) -> Engine | None:
    """The engine that a word names; None is the model's own, torch.

    Args:
        word: one of `KINDS`; what stands behind the colon was written with ``python -m tts.export``.
        model: whose LM it is to run.

    Raises:
        UserError: no such engine, its library is not installed, or its file is missing, broken, or of another model.
    """
    if word == TORCH:
        return None
    if word.startswith(("http://", "https://")):
        from tts.engines.server import ServerEngine

        return ServerEngine(word, model)
    kind, _, place = word.partition(":")
    path = Path(place) if place else None
    if kind == "transformers":
        from tts.engines.with_transformers import TransformersEngine

        return TransformersEngine(model, path)
    if kind in ("onnxruntime", "llama.cpp") and path is None:
        target = {"onnxruntime": "onnx", "llama.cpp": "gguf"}[kind]
        raise UserError(
            f"engine {word!r} lacks its file: {kind}:PLACE, written with python -m tts.export --to {target}"
        )
    if kind == "onnxruntime" and path is not None:
        from tts.engines.with_onnxruntime import OnnxEngine

        return OnnxEngine(model, path)
    if kind == "llama.cpp" and path is not None:
        from tts.engines.with_llama_cpp import LlamaCppEngine

        return LlamaCppEngine(model, path)
    raise UserError(f"no engine {word!r}; give {KINDS}")
