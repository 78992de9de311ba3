"""The LM as an ONNX graph in onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts.checkpoint import Model
from tts.engines.engine import Ids, alike, padded
from tts.export.note import Note
from tts.export.runtime import Floats, session

GRAPH = "lm_step.onnx"


class OnnxEngine:
    """onnxruntime on processor cores.

    Args:
        model: whose LM it is.
        path: the graph, or the folder of an export.
        threads: processor cores; as many as torch uses by default.

    Raises:
        UserError: onnxruntime is not installed, there is no graph, or it is not of this model.
    """

    def __init__(self, model: Model, path: Path, *, threads: int | None = None) -> None:
        path = path / GRAPH if path.is_dir() else path
        self.ready: Any = session(path, threads=threads or torch.get_num_threads())
        Note.read(self.ready.get_modelmeta().custom_metadata_map.get("tts"), str(path)).require(
            model, str(path)
        )
        shape = {one.name: one.shape for one in self.ready.get_inputs()}["past"]
        self.layers, self.heads, self.size = int(shape[1]), int(shape[4]), int(shape[5])

    def start(self, rows: int, positions: int) -> "_Session":
        """See `Engine`."""
        return _Session(self, np.empty((positions, self.layers, 2, rows, self.heads, self.size), np.float32))


class _Session:
    def __init__(self, engine: OnnxEngine, kept: Floats) -> None:
        self.engine, self.kept, self.length = engine, kept, 0
        self.pads = torch.zeros(0, dtype=torch.long)

    def step(self, ids: Ids) -> Tensor:
        """See `Session`."""
        if not self.length:
            new, self.pads = padded(ids)
        else:
            new = torch.tensor(alike(ids))
        inputs = {"ids": new.numpy(), "pads": self.pads.numpy(), "past": self.kept[: self.length]}
        logits, added = self.engine.ready.run(None, inputs)
        end = self.length + len(added)
        if end > len(self.kept):  # rows whose padding and text together are longer than any alone
            self.kept = np.concatenate(
                [self.kept[: self.length], np.empty((end, *added.shape[1:]), np.float32)]
            )
        self.kept[self.length : end], self.length = added, end
        return torch.from_numpy(logits)
