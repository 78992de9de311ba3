"""How fast this machine reads its memory, and how much of it one step of the LM has to read."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from tts.lm.llama import Llama


def step_bytes(llama: Llama, rows: int = 1) -> int:
    """Bytes of weights that one step reads, in its precision: all of them, but of the input embedding only the rows
    that are looked up. The keys and values of earlier positions come on top, and are not counted.

    Args:
        llama: the LM.
        rows: of the batch, one new id each.
    """
    table = llama.model.embed_tokens.weight
    weights = sum(p.numel() * _size(llama, p) for p in llama.parameters() if p is not table)
    return weights + rows * table.shape[1] * table.element_size()


def _size(llama: Llama, weight: Tensor) -> int:
    return 1 if llama.precision == "int8" and weight.ndim == 2 else weight.element_size()


def bandwidth(size: int, traffic: int) -> float:
    """Bytes a second at which `size` bytes of memory pass, with torch's threads: the best of three ways to use them.

    The ways are a sum, a product of both halves, and a copy of one half to the other (half read, half written). The
    best way's mean counts, not its best moment: what it is compared with had bad moments, too.

    Args:
        size: bytes gone over; many times the processor's caches to measure the memory, or what fits into them.
        traffic: bytes to pass each way; a small size is gone over again until so many did.
    """
    buffer = torch.ones(size // 8 * 2)  # float32, two halves
    first, second = buffer.chunk(2)
    passes = max(1, traffic // (4 * len(buffer)))
    ways: list[Callable[[], object]] = [
        buffer.sum,
        lambda: torch.dot(first, second),
        lambda: second.copy_(first),
    ]
    return passes * 4 * len(buffer) / min(_seconds(way, passes) for way in ways)


def _seconds(way: Callable[[], object], passes: int) -> float:
    way()  # once for nothing: threads start, caches fill
    started = time.perf_counter()
    for _ in range(passes):
        way()
    return time.perf_counter() - started
