"""How many bytes a step reads, and how fast memory is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tts.benchmark import bandwidth as module
from tts.benchmark.bandwidth import bandwidth, step_bytes
from tts.lm.llama import Llama, LlamaConfig

V, D, F, LAYERS, HEADS, KV = 50, 24, 40, 3, 6, 2


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_a_step_reads_all_weights_but_the_input_embedding(dtype: torch.dtype, size: int) -> None:
    llama = Llama(LlamaConfig(V, D, F, LAYERS, HEADS, KV)).to(dtype)
    attention = 2 * D * D + 2 * D * (D // HEADS * KV)
    layer = attention + 3 * D * F + 2 * D
    numbers = LAYERS * layer + D + V * D  # layers, the last norm, the output layer
    assert step_bytes(llama) == size * (numbers + D)
    assert step_bytes(llama, rows=16) == size * (numbers + 16 * D)
    llama.precision = "int8"
    norms = (2 * LAYERS + 1) * D
    assert step_bytes(llama) == numbers - norms + size * (norms + D)


def test_bandwidth_is_of_the_best_way(monkeypatch: pytest.MonkeyPatch) -> None:
    times, passed = iter([0.5, 0.25, 1.0]), []

    def seconds(way: Callable[[], object], passes: int) -> float:
        way()
        passed.append(passes)
        return next(times)

    monkeypatch.setattr(module, "_seconds", seconds)
    assert bandwidth(1024, 8192) == 8 * 1024 / 0.25
    assert passed == [8, 8, 8]


def test_bandwidth_is_measured() -> None:
    assert 0 < bandwidth(2**12, 2**14) < 1e13
