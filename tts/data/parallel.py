"""The same call on many things, in order, in several processes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")

CHUNK = 8  # things handed to a process at a time

_call: Callable[[Any], Any]  # of a process that `ordered_map` started


def ordered_map(call: Callable[[S], T], things: Iterable[S], jobs: int) -> Iterator[T]:
    """``call`` of each, in the order of the things.

    Args:
        call: with one job anything; with more what pickles. It is sent to each process once.
        jobs: processes; 1 does it here.
    """
    if jobs <= 1:
        yield from map(call, things)
        return
    things = list(things)
    jobs = max(1, min(jobs, -(-len(things) // CHUNK)))  # a process takes seconds to start
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start, initargs=(call,)
    ) as pool:
        try:
            yield from pool.map(_do, things, chunksize=CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)


def _start(call: Callable[[Any], Any]) -> None:
    global _call
    _call = call
    torch.set_num_threads(1)


def _do(thing: Any) -> Any:
    return _call(thing)
