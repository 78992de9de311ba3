"""The exported graphs at work in onnxruntime: tokens of a recording, frames of tokens, sound of frames.

It is the reference of how the graphs go together, and needs numpy and onnxruntime only; the LM's graph is run by
`tts.engines`.

Shapes: T frames, D numbers of a frame, N tokens, S positions of the past.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codec.errors import UserError
from tts.text.triphones import CONTEXT, NOTHING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def session(path: Path, *, threads: int | None = None) -> "InferenceSession":
    """A graph, ready to run.

    Raises:
        UserError: onnxruntime is not installed, or the file is none that it can run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError('onnxruntime is not installed; run pip install ".[export]"') from error
    if not path.is_file():
        raise UserError(f"{path}: no such graph; write it with python -m tts.export --to onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime's own classes, which it does not tell
        raise UserError(f"{path}: onnxruntime cannot run it ({str(error).splitlines()[0][:120]})") from error


@dataclass
class State:
    """What a stream of chunks needs of the past.

    Attributes:
        pasts: keys and values at each time of the solver, (S, L, 2, B, H, K).
        speaker: (B, dim): with the condition and, with guidance, without.
        guidance: weight w of ``(1 + w) conditional - w unconditional``.
    """

    pasts: list[Floats]
    speaker: Floats
    guidance: float


class OnnxChain:
    """The graphs of a folder, for one row at a time.

    Args:
        folder: from `export_onnx`.
        threads: processor cores; all by default.

    Raises:
        UserError: a file is missing or broken.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self._folder, self._threads = folder, threads
        self._sessions: dict[str, Any] = {}
        try:
            known = json.loads((folder / "chain.json").read_text(encoding="utf-8"))
            self.per, self.codes = int(known["spec"]["frames_per_token"]), int(known["spec"]["codes"])
            self._mean, self._std, self._no_speaker = (
                np.asarray(known[name], np.float32) for name in ("mean", "std", "no_speaker")
            )
            self.steps, self.guidance = int(known["steps"]), float(known["guidance"])
            self._cache = [int(size) for size in known["cache"]["flow_step"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder}: no ONNX export of this project; write it with python -m tts.export"
            ) from error

    def run(self, graph: str, *inputs: Any) -> Any:
        """The outputs of a graph, which is loaded when it is run first."""
        if graph not in self._sessions:
            self._sessions[graph] = session(self._folder / f"{graph}.onnx", threads=self._threads)
        ready = self._sessions[graph]
        names = [one.name for one in ready.get_inputs()]
        return ready.run(None, dict(zip(names, inputs, strict=True)))

    def encode(self, frames: Floats) -> Ints:
        """Frames (T, D) -> tokens (N,)."""
        tokens: Ints = self.run("tokenizer_encoder", frames[None], np.array([len(frames)]))[0][0]
        return tokens

    def read(self, tokens: Ints) -> Floats:
        """Tokens (N,) -> log probabilities of phonemes (M, symbols)."""
        log_probs: Floats = self.run("tokenizer_reader", tokens[None], np.array([len(tokens)]))[0][0]
        return log_probs

    def start(
        self, frames: Floats, tokens: Ints, *, steps: int | None = None, guidance: float | None = None
    ) -> State:
        """Take in a voice prompt, frames (T, D) and tokens (N,) or (N, 4), once; see `FlowDecoder.start`."""
        steps = self.steps if steps is None else steps
        guidance = self.guidance if guidance is None else guidance
        speaker = self.run("speaker", frames[None], np.array([len(frames)]))[0]
        clean, ids = ((frames - self._mean) / self._std)[None], told(tokens)[None]
        if guidance:
            speaker = np.concatenate([speaker, self._no_speaker[None]])
            clean = np.concatenate([clean, np.zeros_like(clean)])
            ids = np.concatenate([ids, self._nothing(ids)])
        layers, two, heads, size = self._cache
        empty = np.zeros((0, layers, two, len(ids), heads, size), np.float32)
        pasts = []
        for time in times(steps)[:-1]:
            at, prompt = np.full(len(ids), time, np.float32), np.ones(ids.shape[:2], bool)
            pasts.append(self.run("flow_step", clean, at, ids, speaker, prompt, empty)[1])
        return State(pasts, speaker, guidance)

    def decode(self, state: State, tokens: Ints, noise: Floats, *, keep: bool = False) -> Floats:
        """Tokens (N,), or (N, 4) with their phonemes, and standard normal noise (T, D) -> frames (T, D).

        Args:
            state: from `start`.
            tokens, noise: of the whole, or of the next chunk.
            keep: add the chunk to the state, for those to come.
        """
        rows = len(state.speaker)
        row = told(tokens)[None]
        ids = np.concatenate([row, self._nothing(row)])[:rows]
        prompt, x = np.zeros(ids.shape[:2], bool), noise[None].astype(np.float32)
        for step, (time, following) in enumerate(pairwise(times(len(state.pasts)))):
            at, both = np.full(rows, time, np.float32), np.repeat(x, rows, 0)
            past = state.pasts[step]
            velocity, new = self.run("flow_step", both, at, ids, state.speaker, prompt, past)
            if keep:
                state.pasts[step] = np.concatenate([past, new])
            if rows == 2:
                velocity = (1 + state.guidance) * velocity[:1] - state.guidance * velocity[1:]
            x = (x + (following - time) * velocity).astype(np.float32)
        frames: Floats = x[0] * self._std + self._mean
        return frames

    def _nothing(self, ids: Ints) -> Ints:
        """Of the shape of ids (1, N, 4): no token and no phoneme."""
        return np.where(np.arange(ids.shape[-1]) == 0, self.codes, NOTHING) + np.zeros_like(ids)

    def vocode(self, frames: Floats) -> Floats:
        """Frames (T, D) -> waveform (samples,)."""
        wav: Floats = self.run("vocoder", frames[None])[0][0]
        return wav


def told(tokens: Ints) -> Ints:
    """(N, 4) as the graphs take them, see `tts.text.triphones.told`; bare tokens (N,) tell no phonemes."""
    if tokens.ndim == 2:
        return tokens
    return np.pad(tokens[:, None], ((0, 0), (0, CONTEXT)), constant_values=NOTHING)


def times(steps: int) -> Sequence[float]:
    """The times that the solver visits, as `tts.acoustic.flow.time_grid` has them."""
    grid: list[float] = (1 - np.cos(np.linspace(0, 1, steps + 1) * np.pi / 2)).tolist()
    return grid
