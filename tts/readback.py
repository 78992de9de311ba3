"""Read-back: the tokenizer reads tokens, and what it reads is held against what was to be said.

It needs no audio, so what a language model wrote is judged before any is made. Wanted and read segments are laid
against each other with the fewest edits (Levenshtein 1966); edits beside each other, or with one right segment
between them, make a stretch. The tokenizer misreads single segments of good speech, too, so what counts is

- a stretch in which segments are missing: a skip;
- a stretch with segments too many: a repeat, or babble;
- a long stretch of wrong ones: babble;
- segments missing at the very end: the end was not said;
- more errors in all than the tokenizer makes on good speech, by much;
- several phonemes that lasted as long as one may, and were ended by that bound (one is often a pause that no comma
  tells of: people make them, too).

Shapes: N tokens, M reading positions, S symbols.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from codec.errors import UserError
from codec.tokenizer.model import Tokenizer
from tts.text.symbols import SymbolTable
from tts.text.words import Word

CALIBRATION = "reading.json"
"""File of a model folder with what its tokenizer's reading is like."""


@dataclass(frozen=True)
class Calibration:
    """What a tokenizer's reading is like on good speech, and what is beyond that.

    Attributes:
        error: share of segments that it misreads in recordings.
        spread: standard deviations (of as many independent errors) beyond which there are too many of them.
        skip: missing segments of one stretch that make a skip.
        extra: segments too many of one stretch that make a repeat, or babble.
        garbled: errors of one stretch that make babble.
        end: segments missing at the very end.
        stuck: phonemes that were ended by the bound on their length.
        lag: seconds after a phoneme's start until it is read.
    """

    error: float = 0.15
    spread: float = 4.0
    skip: float = 4
    extra: float = 4
    garbled: float = 8
    end: float = 3
    stuck: float = 2
    lag: float = 0.03

    @classmethod
    def of(cls, folder: Path) -> "Calibration":
        """What is noted in a model folder; the defaults where nothing is.

        Raises:
            UserError: the note cannot be read.
        """
        path = folder / CALIBRATION
        if not path.is_file():
            return cls()
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            known = {field.name for field in fields(cls)}
            return cls(**{key: float(value) for key, value in note.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a calibration of this program ({error}); take it away") from error

    def most_errors(self, wanted: int) -> float:
        """How many errors good speech of so many segments may have."""
        return self.error * wanted + self.spread * math.sqrt(self.error * (1 - self.error) * wanted)


@dataclass(frozen=True)
class Quality:
    """How what was made reads.

    Attributes:
        error: phoneme errors (substitutions, insertions, deletions) per wanted phoneme.
        coverage: share of the wanted phonemes that are read where they belong.
        problems: what is wrong, in words; nothing where all is well.
        attempts: how often it was made until it was taken.
    """

    error: float
    coverage: float
    problems: tuple[str, ...] = ()
    attempts: int = 1

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems


class Reading(NamedTuple):
    """What is read in a row of tokens.

    Attributes:
        segments: their ids.
        log_probs: (M, S) what it is read from.
    """

    segments: list[int]
    log_probs: Tensor


class Stretch(NamedTuple):
    """Errors that belong together: spans of wanted and of read segments, and how many errors there are."""

    wanted: tuple[int, int]
    read: tuple[int, int]
    errors: int

    @property
    def missing(self) -> int:
        """Wanted segments that are not there; those too many where negative."""
        return (self.wanted[1] - self.wanted[0]) - (self.read[1] - self.read[0])


class Reader:
    """Reads tokens and judges what they say.

    Args:
        tokenizer: who reads.
        symbols: its phoneme table.
        calibration: what to expect of it.
    """

    def __init__(self, tokenizer: Tokenizer, symbols: SymbolTable, calibration: Calibration) -> None:
        self.tokenizer, self.symbols, self.calibration = tokenizer, symbols, calibration

    def read(self, rows: Sequence[Sequence[int]]) -> list[Reading]:
        """Read rows of tokens, all in one batch; every row reads as it does alone."""
        lens = [len(row) for row in rows]
        readings: dict[int, Reading] = {}
        present = [n for n, count in enumerate(lens) if count]
        if present:
            device = next(self.tokenizer.parameters()).device
            width = max(lens)
            ids = torch.tensor([[*rows[n], *[0] * (width - lens[n])] for n in present], device=device)
            counts = torch.tensor([lens[n] for n in present], device=device)
            log_probs = self.tokenizer.token_log_probs(ids, counts)
            best = log_probs.argmax(-1).tolist()
            for k, n in enumerate(present):
                size = lens[n] * self.tokenizer.reads_per_token
                readings[n] = Reading(self._merged(best[k][:size]), log_probs[k, :size])
        nothing = Reading([], torch.zeros(0, len(self.symbols)))
        return [readings.get(n, nothing) for n in range(len(rows))]

    def _merged(self, path: Sequence[int]) -> list[int]:
        """A CTC path -> the segments that it says."""
        said = [i for i, before in zip(path, [0, *path], strict=False) if i != before]
        return self.symbols.segments(said)

    def starts(self, log_probs: Tensor, groups: Sequence[Sequence[int]]) -> list[float] | None:
        """Seconds from the start of the tokens at which each phoneme group starts, by forced alignment.

        Args:
            log_probs: (M, S) of a `Reading`.
            groups: of what is said.

        Returns:
            None where there are more phonemes than can be said in so many tokens.
        """
        segments = [self.symbols.segments(group) for group in groups]
        flat = torch.tensor([i for group in segments for i in group], device=log_probs.device)
        try:
            places = self.tokenizer.starts(log_probs, flat).tolist()
        except UserError:
            return None
        starts: list[float] = []
        at = 0
        for group in segments:
            # a group without a segment, of a text without any sound, has no place of its own
            place = places[min(at, len(places) - 1)] if places else 0.0
            starts.append(max(0.0, place / self.tokenizer.spec.rate - self.calibration.lag))
            at += len(group)
        return starts

    def judge(
        self,
        wanted: Sequence[int],
        read: Sequence[int],
        *,
        words: Sequence[Word] = (),
        stuck: int = 0,
        endless: bool = False,
    ) -> Quality:
        """Hold what was read against what was wanted.

        Args:
            wanted: ids of the text's symbols; those that are no segments are left out.
            read: ids of segments.
            words: of the text, to say where something is wrong.
            stuck: phonemes that were ended by the bound on their length.
            endless: whether the last one was; it counts for two.
        """
        wanted = self.symbols.segments(wanted)
        found = list(stretches(wanted, read))
        errors = sum(one.errors for one in found)
        problems = [self._problem(one, wanted, words) for one in found]
        if stuck + endless >= self.calibration.stuck:
            problems.append(
                f"{stuck} {_phonemes(stuck)} without an end" + (", the last among them" if endless else "")
            )
        if errors > self.calibration.most_errors(len(wanted)) and not any(problems):
            problems.append("too many wrong phonemes")
        right = sum(
            op.src_end - op.src_start for op in Levenshtein.opcodes(wanted, read) if op.tag == "equal"
        )
        count = max(1, len(wanted))
        return Quality(errors / count, right / count if wanted else 1.0, tuple(filter(None, problems)))

    def _problem(self, found: Stretch, wanted: Sequence[int], words: Sequence[Word]) -> str:
        """What is wrong with a stretch, "" where the tokenizer alone may be."""
        limits, missing = self.calibration, found.missing
        at_end = found.wanted[1] == len(wanted)
        if missing >= limits.skip or (at_end and missing >= limits.end):
            what = f"{missing} {_phonemes(missing)} missing"
        elif -missing >= limits.extra:
            what = f"{-missing} {_phonemes(-missing)} too many"
        elif found.errors >= limits.garbled:
            what = f"{found.errors} wrong phonemes in a row"
        else:
            return ""
        return what + self._place(found, wanted, words)

    def _place(self, found: Stretch, wanted: Sequence[int], words: Sequence[Word]) -> str:
        """The words that a stretch touches."""
        bases = list(accumulate(self.symbols.is_base(i) for i in wanted))
        groups = [count - 1 for count in bases[found.wanted[0] : max(found.wanted[1], found.wanted[0] + 1)]]
        first, last = (groups[0], groups[-1]) if groups else (len(bases), len(bases))
        touched = [word.text for word in words if word.first <= last and word.last > first]
        if not touched:
            return " at the end" if words else ""
        shown = " ".join(touched if len(touched) <= 3 else [touched[0], "…", touched[-1]])
        return f" at {shown!r}"


def _phonemes(count: int) -> str:
    return "phoneme" if count == 1 else "phonemes"


def stretches(wanted: Sequence[int], read: Sequence[int]) -> Iterator[Stretch]:
    """The stretches of errors of an alignment with the fewest of them."""
    open_: Stretch | None = None
    for op in Levenshtein.opcodes(wanted, read):
        w0, w1, r0, r1 = op.src_start, op.src_end, op.dest_start, op.dest_end
        if op.tag == "equal":
            if open_ is not None and w1 - w0 > 1:
                yield open_
                open_ = None
            continue
        errors = max(w1 - w0, r1 - r0)
        if open_ is None:
            open_ = Stretch((w0, w1), (r0, r1), errors)
        else:
            open_ = Stretch((open_.wanted[0], w1), (open_.read[0], r1), open_.errors + errors)
    if open_ is not None:
        yield open_
