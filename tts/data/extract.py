"""Prepared cuts -> cuts with speech tokens, and how many of them each phoneme lasts."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lhotse import CutSet
from lhotse.cut import MonoCut
from tqdm import tqdm

from codec.errors import UserError
from tts.data.datasets import frames_of, phonemes_of
from tts.data.prepare import relative_cuts, write_cuts
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable

log = logging.getLogger(__name__)

Encode = Callable[
    [list[npt.NDArray[np.float32]], list[list[int]]],
    Sequence[tuple[Sequence[int], Sequence[int]] | None],
]
"""Frames (T, D) and segment ids of some utterances -> for each its tokens, and tokens per segment id; None
where the segments cannot be aligned."""


def add_tokens(
    cuts: CutSet,
    encode: Encode,
    out: str | Path,
    *,
    symbols: SymbolTable = DEFAULT_SYMBOLS,
    batch_seconds: float = 120.0,
    progress: bool = True,
) -> list[str]:
    """Encode all cuts and write them, in their order, with the fields ``tokens`` and ``durations``.

    ``durations`` are tokens per phoneme group (`SymbolTable.groups` of all the cut's phonemes); their sum is
    the number of tokens. Cuts that cannot be aligned are left out, with a warning that counts them.

    Args:
        cuts: as `read_cuts` gives them.
        out: file to write, ``.../cuts_<split>.jsonl.gz``.
        batch_seconds: audio given to ``encode`` at once, counting padding. Batches are sorted by length.

    Returns:
        The ids of the cuts left out.

    Raises:
        UserError: no cut can be aligned.
    """
    out = Path(out)
    done: dict[str, MonoCut] = {}
    with tqdm(total=len(cuts), desc="tokens", unit="utt", disable=not progress) as bar:
        for batch in _batches(cuts, batch_seconds):
            ids = [symbols.encode(phonemes_of(cut)) for cut in batch]
            answers = encode([frames_of(cut) for cut in batch], [symbols.segments(one) for one in ids])
            for cut, one, answer in zip(batch, ids, answers, strict=True):
                if answer is not None and (durations := per_group(symbols, one, answer[1])) is not None:
                    done[cut.id] = _with_tokens(cut, [int(token) for token in answer[0]], durations)
            bar.update(len(batch))
    dropped = [cut.id for cut in cuts if cut.id not in done]
    if dropped:
        log.warning("%d of %d utterances cannot be aligned and are left out", len(dropped), len(cuts))
    if not done:
        raise UserError(
            f"none of {len(cuts)} utterances can be aligned; train the tokenizer longer, or check the texts"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_cuts(relative_cuts((done[cut.id] for cut in cuts if cut.id in done), out.parent), out)
    return dropped


def per_group(symbols: SymbolTable, ids: Sequence[int], durations: Sequence[int]) -> list[int] | None:
    """Tokens per segment id, summed to tokens per phoneme group; None where a group cannot be heard."""
    groups = symbols.groups(ids)
    sizes = [len(symbols.segments(group)) for group in groups]
    if not all(sizes) or not sizes:
        return None
    if sum(sizes) != len(durations):
        raise ValueError(f"{len(durations)} durations for {sum(sizes)} segments")
    ends = np.cumsum(sizes)
    return [int(sum(durations[end - size : end])) for end, size in zip(ends, sizes, strict=True)]


def _with_tokens(cut: MonoCut, tokens: list[int], durations: list[int]) -> MonoCut:
    if sum(durations) != len(tokens):
        raise ValueError(f"durations of {cut.id} sum to {sum(durations)}, not to its {len(tokens)} tokens")
    return cut.with_custom("tokens", tokens).with_custom("durations", durations)


def _batches(cuts: CutSet, seconds: float) -> Iterator[list[MonoCut]]:
    """Cuts of like length, longest first (what does not fit in memory fails at once)."""
    batch: list[MonoCut] = []
    longest = math.inf
    for cut in sorted(cuts, key=lambda cut: (-cut.duration, cut.id)):
        if batch and (len(batch) + 1) * longest > seconds:
            yield batch
            batch = []
        longest = cut.duration if not batch else longest
        batch.append(cut)
    if batch:
        yield batch
