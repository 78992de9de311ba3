"""The LM in llama.cpp, by llama-cpp-python's thin layer: each row is a sequence of one batch, nothing is padded."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.errors import UserError
from tts.checkpoint import Model
from tts.engines.engine import Ids
from tts.export.as_gguf import KEY
from tts.export.note import Note

BATCH = 512  # ids that go through the weights at once


class LlamaCppEngine:
    """llama.cpp.

    Args:
        model: whose LM it is.
        path: the GGUF file.
        threads: processor cores; as many as torch uses by default.

    Raises:
        UserError: llama-cpp-python is not installed, or the file is missing, broken, or not of this model.
    """

    def __init__(self, model: Model, path: Path, *, threads: int | None = None) -> None:
        try:
            import llama_cpp
        except (
            ImportError,
            RuntimeError,
            OSError,
        ) as error:  # its library is not there, or not for this machine
            raise UserError(
                "llama.cpp cannot be used: llama-cpp-python is not installed, or its library does not load; run pip "
                f'install "llama-cpp-python>=0.3" ({str(error).splitlines()[0][:100]})'
            ) from error
        if not path.is_file():
            raise UserError(f"{path}: no such file; write it with python -m tts.export --to gguf")
        self.api: Any = llama_cpp
        self.threads = threads or torch.get_num_threads()
        _begin(llama_cpp)
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise UserError(
                f"{path}: llama.cpp cannot load it; write it again with python -m tts.export --to gguf"
            )
        text = ctypes.create_string_buffer(4096)
        length = llama_cpp.llama_model_meta_val_str(self.model, KEY.encode(), text, len(text))
        Note.read(text.value if length >= 0 else None, str(path)).require(model, str(path))
        self.vocab_size = model.lm.layout.vocab_size

    def start(self, rows: int, positions: int) -> "_Session":
        """See `Engine`."""
        return _Session(self, rows, positions)

    def __del__(self) -> None:
        if getattr(self, "model", None):
            self.api.llama_model_free(self.model)
            self.model = None


class _Session:
    def __init__(self, engine: LlamaCppEngine, rows: int, positions: int) -> None:
        api = engine.api
        params = api.llama_context_default_params()
        params.n_ctx, params.n_seq_max = rows * (-(-positions // 256) * 256), rows
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = engine.threads
        params.type_k = params.type_v = api.GGML_TYPE_F32
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        self.context = api.llama_init_from_model(engine.model, params)
        if not self.context:
            raise UserError(
                f"llama.cpp has no memory for {rows} rows of {positions} ids; make the batch smaller"
            )
        self.batch = api.llama_batch_init(BATCH, 0, 1)
        self.engine, self.lengths = engine, [0] * rows

    def step(self, ids: Ids) -> Tensor:
        """See `Session`."""
        logits = torch.zeros(len(ids), self.engine.vocab_size)
        new = [
            (row, self.lengths[row] + n, one, n + 1 == len(given))
            for row, given in enumerate(ids)
            for n, one in enumerate(given)
        ]
        for start in range(0, len(new), BATCH):
            self._decode(new[start : start + BATCH], logits)
        self.lengths = [length + len(given) for length, given in zip(self.lengths, ids, strict=True)]
        return logits

    def _decode(self, new: list[tuple[int, int, int, bool]], logits: Tensor) -> None:
        """Ids through the weights: (row, position, id, whether it is its row's last); fills the last ones' logits."""
        api, batch = self.engine.api, self.batch
        batch.n_tokens = len(new)
        for i, (row, position, one, last) in enumerate(new):
            batch.token[i], batch.pos[i], batch.logits[i] = one, position, last
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
        if status := api.llama_decode(self.context, batch):
            raise UserError(f"llama.cpp cannot go on (status {status}); make the batch smaller")
        for i, (row, _, _, last) in enumerate(new):
            if last:
                told = np.ctypeslib.as_array(
                    api.llama_get_logits_ith(self.context, i), (self.engine.vocab_size,)
                )
                logits[row] = torch.from_numpy(told.copy())

    def __del__(self) -> None:
        if getattr(self, "context", None):
            self.engine.api.llama_batch_free(self.batch)
            self.engine.api.llama_free(self.context)
            self.context = None


@cache
def _begin(api: Any) -> object:
    """Begin with llama.cpp, once, and keep its log, which is long, to itself; what C calls must be kept."""
    silent = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silent, ctypes.c_void_p(0))
    api.llama_backend_init()
    return silent
