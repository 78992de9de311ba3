"""Prepared cuts -> cuts with speech tokens, and how many of them each phoneme lasts.

Several processes may share the work: they make the same batches and each encodes every so-manieth, so that the
tokens do not depend on their number. What a process found lies in a file of its own beside the result until the
first process has joined all of them.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lhotse import CutSet
from lhotse.cut import MonoCut
from tqdm import tqdm

from codec.errors import UserError
from tts.data.datasets import frames_of, phonemes_of
from tts.data.prepare import relative_cuts, write_cuts
from tts.data.shar import DATA, LEFT_OUT, Shar, read_shards, split_index, write_index
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable

log = logging.getLogger(__name__)

Encode = Callable[
    [list[npt.NDArray[np.float32]], list[list[int]]],
    Sequence[tuple[Sequence[int], Sequence[int]] | None],
]
"""Frames (T, D) and segment ids of some utterances -> for each its tokens, and tokens per segment id; None
where the segments cannot be aligned."""


Found = dict[str, tuple[list[int], list[int]]]
"""Tokens and durations by cut id."""


@dataclass(frozen=True)
class Team:
    """The processes that share a work.

    Attributes:
        rank, size: number of this process, and of all.
        wait: returns when all of them have called it.
    """

    rank: int = 0
    size: int = 1
    wait: Callable[[], object] = lambda: None


ALONE = Team()


def add_tokens(
    cuts: CutSet,
    encode: Encode,
    out: str | Path,
    *,
    symbols: SymbolTable = DEFAULT_SYMBOLS,
    batch_seconds: float = 120.0,
    team: Team = ALONE,
    progress: bool = True,
) -> list[str]:
    """Encode all cuts and write them, in their order, with the fields ``tokens`` and ``durations``.

    ``durations`` are tokens per phoneme group (`SymbolTable.groups` of all the cut's phonemes); their sum is
    the number of tokens. Cuts that cannot be aligned are left out, with a warning that counts them.

    Args:
        cuts: as `read_cuts` gives them.
        out: file to write, ``.../cuts_<split>.jsonl.gz``.
        batch_seconds: audio given to ``encode`` at once, counting padding. Batches are sorted by length.
        team: the processes that share the work. The first of them writes, and returns last.

    Returns:
        The ids of the cuts left out; in all processes but the first nothing.

    Raises:
        UserError: no cut can be aligned.
    """
    out = Path(out)
    mine = list(islice(_batches(cuts, batch_seconds), team.rank, None, team.size))
    found: Found = {}
    with tqdm(
        total=sum(map(len, mine)), desc="tokens", unit="utt", disable=not progress or team.rank > 0
    ) as bar:
        for batch in mine:
            found |= _encode(batch, encode, symbols)
            bar.update(len(batch))
    everything = _gather(found, out, team)
    if everything is None:
        return []
    dropped = [cut.id for cut in cuts if cut.id not in everything]
    _warn(len(dropped), len(cuts))
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = (_with_tokens(cut, *everything[cut.id]) for cut in cuts if cut.id in everything)
    write_cuts(relative_cuts(kept, out.parent), out)
    return dropped


def add_tokens_to_shar(
    shar: Shar,
    encode: Encode,
    out: str | Path,
    *,
    symbols: SymbolTable = DEFAULT_SYMBOLS,
    batch_seconds: float = 120.0,
    team: Team = ALONE,
    progress: bool = True,
) -> int:
    """What `add_tokens` does, to Shar: new manifests beside archives that stay where they are.

    Each process takes every so-manieth shard and reads it from front to back.

    Args:
        shar: of prepared cuts.
        out: folder to write to.

    Returns:
        How many cuts were left out; in all processes but the first 0.
    """
    out = Path(out)
    index: dict[str, Any] = {}
    dropped = total = 0
    for split, shards in shar.splits.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        done: dict[str, tuple[int, float, int]] = {}
        mine = list(enumerate(shards))[team.rank :: team.size]
        bar = tqdm(mine, desc=f"tokens of {split}", unit="shard", disable=not progress or team.rank > 0)
        for number, shard in bar:
            whole = list(read_shards([shard], ("frames",), whole=True))
            found: Found = {}
            for batch in _batches(CutSet.from_cuts(whole), batch_seconds):
                found |= _encode(batch, encode, symbols)
            kept = [cut for cut in whole if cut.id in found]
            bare = read_shards([shard], (), whole=True)  # without the frames in memory, to be written
            write_cuts(
                (
                    _with_tokens(cut, *found[cut.id]) if cut.id in found else cut.with_custom(LEFT_OUT, True)
                    for cut in bare
                ),
                out / split / f"cuts.{number:06d}.jsonl.gz",
            )
            done[str(number)] = len(kept), sum(cut.duration for cut in kept), len(whole)
        everything = _gather(done, out / split / "shards", team)
        if everything is not None:
            counts = [everything[str(number)] for number in range(len(shards))]
            elsewhere = {name: _pattern(shards[0].files[name], out) for name in DATA if shards}
            index[split] = split_index(split, [(cuts, seconds) for cuts, seconds, _ in counts], **elsewhere)
            total += sum(there for _, _, there in counts)
            dropped += sum(there - cuts for cuts, _, there in counts)
    if index:
        _warn(dropped, total)
        write_index(out, index, asdict(shar.spec) if shar.spec else None)
    return dropped


def _encode(batch: Sequence[MonoCut], encode: Encode, symbols: SymbolTable) -> Found:
    """Tokens and durations of those cuts of a batch that can be aligned."""
    ids = [symbols.encode(phonemes_of(cut)) for cut in batch]
    answers = encode([frames_of(cut) for cut in batch], [symbols.segments(one) for one in ids])
    found: Found = {}
    for cut, one, answer in zip(batch, ids, answers, strict=True):
        if answer is not None and (durations := per_group(symbols, one, answer[1])) is not None:
            tokens = [int(token) for token in answer[0]]
            if sum(durations) != len(tokens):
                raise ValueError(
                    f"durations of {cut.id} sum to {sum(durations)}, not to its {len(tokens)} tokens"
                )
            found[cut.id] = tokens, durations
    return found


def _gather(mine: Mapping[str, Any], beside: Path, team: Team) -> dict[str, Any] | None:
    """In the first process what all of them have found; None in the others."""
    if team.size == 1:
        return dict(mine)
    parts = [beside.with_name(f".{beside.name}.{rank}of{team.size}") for rank in range(team.size)]
    beside.parent.mkdir(parents=True, exist_ok=True)
    with open(parts[team.rank], "w", encoding="utf-8") as file:
        for item in mine.items():
            file.write(json.dumps(item) + "\n")
    team.wait()
    if team.rank:
        return None
    everything: dict[str, Any] = {}
    for part in parts:
        with open(part, encoding="utf-8") as file:
            everything.update(map(json.loads, file))
        part.unlink()
    return everything


def _warn(dropped: int, total: int) -> None:
    if dropped == total:
        raise UserError(
            f"none of {total} utterances can be aligned; train the tokenizer longer, or check the texts"
        )
    if dropped:
        log.warning("%d of %d utterances cannot be aligned and are left out", dropped, total)


def _pattern(file: str, out: Path) -> str:
    """Where a Shar in `out` finds the archives of which `file` is the first one."""
    where = file if "://" in file else os.path.relpath(file, out)
    before, _, after = where.replace("%", "%%").rpartition("000000")
    return f"{before}%06d{after}"


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
    cut = cut.drop_custom(LEFT_OUT) if LEFT_OUT in cut.custom else cut
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
