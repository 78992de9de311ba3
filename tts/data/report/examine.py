"""A manifest -> everything that the report tells of it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from codec.errors import UserError
from tts.data.manifest import ManifestError, Row, read_manifest
from tts.data.parallel import ordered_map
from tts.data.prepare import read_texts
from tts.data.report.checks import Corpus, Group, check
from tts.data.report.coverage import Coverage, coverage
from tts.data.report.measure import Item, Measures, Rate, Reader, measure
from tts.data.report.reading import judge
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable

Phonemize = Callable[[Sequence[str], str], list[str]]
BATCH = 256  # texts to phonemise at once


@dataclass(frozen=True)
class Report:
    """Attributes:
    manifest: what was looked at.
    corpus: utterances and their measures.
    groups: findings.
    coverage: characters and sounds by language.
    noise: how noise was measured, in words.
    """

    manifest: Path
    corpus: Corpus
    groups: list[Group]
    coverage: Mapping[str, Coverage]
    noise: str

    @property
    def rows(self) -> list[Row]:
        return [item.row for item in self.corpus.items]

    @property
    def seconds(self) -> float:
        return sum(row.duration for row in self.rows)

    def seconds_by(self, what: str) -> Counter[str]:
        """Seconds of each "speaker", "language", "split" or "text_by"."""
        total: Counter[str] = Counter()
        for row in self.rows:
            total[getattr(row, what) or ""] += row.duration  # type: ignore[assignment]  # a counter of floats
        return total


def examine(
    manifest: str | Path,
    *,
    reader: Reader | None = None,
    rate: Rate | None = None,
    symbols: SymbolTable = DEFAULT_SYMBOLS,
    phonemize: Phonemize = read_texts,
    most_rated: int = 200,
    jobs: int = 1,
    progress: bool = True,
) -> Report:
    """Look at a corpus.

    Args:
        manifest: as `read_manifest` takes it.
        reader: reads phonemes in speech; without one transcripts are not checked.
        rate: DNSMOS; without it noise is estimated from the level.
        symbols: the reader's phoneme table.
        phonemize: (texts as written, language) -> phoneme strings.
        most_rated: utterances that ``rate`` hears, spread over the corpus.
        jobs: processes that measure.

    Raises:
        ManifestError: there is no manifest, or no usable line in it.
    """
    manifest = Path(manifest)
    rows, bad = read_manifest(manifest, skip_bad=True, min_seconds=0.0, max_seconds=float("inf"))
    phonemes, unspeakable = _phonemes(rows, phonemize, symbols, progress)
    step = max(1, -(-len(rows) // most_rated)) if most_rated else 0
    items = [
        Item(
            row,
            tuple(symbols.segments(symbols.encode(phonemes.get(row.line, "")))),
            bool(step) and number % step == 0,
        )
        for number, row in enumerate(rows)
    ]
    measures: dict[int, Measures] = {}
    unreadable: dict[int, str] = {}
    call = partial(measure, reader=reader, rate=rate)
    with tqdm(total=len(items), desc="recordings", unit="utt", disable=not progress) as bar:
        for item, answer in zip(items, ordered_map(call, items, jobs), strict=True):
            if isinstance(answer, Measures):
                measures[item.row.line] = answer
            else:
                unreadable[item.row.line] = str(answer)
            bar.update()
    expected, verdicts = judge(items, measures)
    corpus = Corpus(items, bad, unspeakable, measures, unreadable, expected, verdicts, symbols)
    said = [row for row in rows if row.line in phonemes]
    rated = sum(one.mos is not None for one in measures.values())
    noise = (
        f"DNSMOS of {rated} utterances, else a signal-to-noise estimate"
        if rated
        else "a signal-to-noise estimate"
    )
    return Report(manifest, corpus, check(corpus), coverage(said, phonemes, symbols, phonemize), noise)


def _phonemes(
    rows: Sequence[Row], phonemize: Phonemize, symbols: SymbolTable, progress: bool
) -> tuple[dict[int, str], dict[int, str]]:
    """Phoneme strings by line, and why there are none."""
    by_language: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_language[row.language].append(row)
    phonemes: dict[int, str] = {}
    without: dict[int, str] = {}
    with tqdm(total=len(rows), desc="phonemes", unit="utt", disable=not progress) as bar:
        for language, group in by_language.items():
            for start in range(0, len(group), BATCH):
                batch = group[start : start + BATCH]
                for row, answer in zip(batch, _each(batch, language, phonemize), strict=True):
                    if isinstance(answer, UserError):
                        without[row.line] = str(answer)
                    elif not any(map(symbols.is_base, symbols.encode(answer))):
                        without[row.line] = f"nothing in text {row.text!r} can be spoken"
                    else:
                        phonemes[row.line] = answer
                bar.update(len(batch))
    return phonemes, without


def _each(batch: Sequence[Row], language: str, phonemize: Phonemize) -> list[str | UserError]:
    """Phonemise a batch; if that fails, each alone, to know which did it."""
    try:
        return list(phonemize([row.text for row in batch], language))
    except UserError as problem:
        if len(batch) == 1:
            return [problem]
    return [answer for row in batch for answer in _each([row], language, phonemize)]


__all__ = ["ManifestError", "Report", "examine"]
