"""An evaluation from a list of cases to its results: make what is not made, measure what is not measured, sum up."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from codec.audio import write_audio
from codec.errors import UserError
from tts.checkpoint import PARTS
from tts.engines.choose import TORCH
from tts.evaluate.cases import Case
from tts.evaluate.chain import ROWS, TEXT, Chain
from tts.evaluate.cost import Cost, peak_memory
from tts.evaluate.figures import Estimate, Figure
from tts.evaluate.folder import (
    CASES,
    PAGE,
    RESULTS,
    Folder,
    write_json,
    write_json_lines,
)
from tts.evaluate.naturalness import DNSMOS, Naturalness
from tts.evaluate.page import PLAYERS, write_page
from tts.evaluate.prosody import Prosody
from tts.evaluate.recognise import Intelligibility, Whisper
from tts.evaluate.robustness import Robustness
from tts.evaluate.sample import Made, Metric, Sample, load_wav
from tts.evaluate.similarity import Resemblyzer, Similarity
from tts.pipeline import TTS, Settings


@dataclass(frozen=True)
class Results:
    """What came out.

    Attributes:
        folder: where everything was written.
        made_with: the model and the settings, see `conditions`.
        figures: of all metrics, in the order of the table.
        rows: the figures of each row by their keys; None where a row has none.
        counts: cases of each row.
        contexts: what the metrics compare with, by metric: the levels of the similarity.
        measured_by: what measured, by metric.
        memory: bytes at the most while the sounds were made, see `peak_memory`.
        cases: one mapping a sound: its case, and everything measured on it.
    """

    folder: Path
    made_with: Mapping[str, Any]
    figures: Sequence[Figure]
    rows: Mapping[str, Mapping[str, Estimate | None]]
    counts: Mapping[str, int]
    contexts: Mapping[str, Any]
    measured_by: Mapping[str, str]
    memory: Mapping[str, int]
    cases: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """All but the single cases, as in ``results.json``."""
        return {
            "made_with": dict(self.made_with),
            "measured_by": dict(self.measured_by),
            "cases": dict(self.counts),
            "rows": {
                row: {key: made and asdict(made) for key, made in figures.items()}
                for row, figures in self.rows.items()
            },
            "contexts": dict(self.contexts),
            "memory": dict(self.memory),
        }


def default_metrics(*, progress: bool = False) -> list[Metric]:
    """All metrics with their defaults."""
    return [
        Intelligibility(Whisper()),
        Similarity(Resemblyzer(), progress=progress),
        Naturalness(DNSMOS()),
        Prosody(),
        Robustness(),
        Cost(),
    ]


def evaluate(
    cases: Sequence[Case],
    out: str | Path,
    tts: TTS | None = None,
    settings: Settings | None = None,
    *,
    rows: Sequence[str] | None = None,
    metrics: Sequence[Metric] | None = None,
    force: bool = False,
    players: int = PLAYERS,
    progress: bool = False,
) -> Results:
    """Make, measure, write ``cases.jsonl``, ``results.json`` and ``index.html``.

    Started again with the same `out`, it goes on where it was; metrics, rows and cases may have changed meanwhile.

    Args:
        cases: see `read_cases`.
        out: folder to write into.
        tts: the model; the embedded one by default.
        settings: how to speak; its ``language`` is not used, the cases have theirs.
        rows: of `ROWS`; all that the cases allow by default. The oracles take only the cases with a reference.
        metrics: all by default.
        force: start anew where `out` holds an evaluation.
        players: how many cases the page lets one hear, the worst ones.
        progress: show bars on standard error.

    Raises:
        UserError: a case cannot be used; a package is missing; `out` holds something else, or was made with something
            else.
    """
    tts, settings = tts or TTS.load(), settings or Settings()
    metrics = default_metrics(progress=progress) if metrics is None else metrics
    by_row = {row: _cases_of(row, cases) for row in check_rows(rows, cases)}
    for metric in metrics:
        metric.require()
    made_with = conditions(tts, settings)
    folder = Folder(Path(out), made_with, force=force)
    _check_same(folder, by_row)
    _make(folder, Chain(tts, settings), by_row, progress)
    _measure(folder, by_row, metrics, progress)
    results = _sum_up(folder, made_with, cases, by_row, metrics)
    write_json_lines(folder.path / CASES, results.cases)
    write_json(folder.path / RESULTS, results.to_dict())
    write_page(folder.path / PAGE, results, players=players, progress=progress)
    return results


def conditions(tts: TTS, settings: Settings) -> dict[str, Any]:
    """What the sounds and their cost depend on, and results of another of which are never taken for these."""
    about = {field.name: plain(getattr(settings, field.name)) for field in fields(settings)}
    for name in ("steps", "guidance"):
        if about[name] is None:
            about[name] = getattr(tts.model.acoustic, name)
    modules = [getattr(tts.model, part) for part in PARTS]
    return {
        "model": str(tts.model.folder),
        "fingerprint": fingerprint(tts),
        "parameters": sum(p.numel() for module in modules for p in module.parameters()),
        **{key: value for key, value in about.items() if key not in ("language", "strict")},
        "device": str(tts.device),
        "threads": torch.get_num_threads(),
        **({"precision": tts.precision} if tts.precision != "float32" else {}),
        **({"engine": tts.engine} if tts.engine != TORCH else {}),
    }


def plain(value: Any) -> Any:
    """A setting as JSON has it: numbers and words as they are, functions by name, other things by a digest."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name = getattr(value, "__qualname__", None)
    return name or hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def fingerprint(tts: TTS) -> str:
    """What tells one model from another: all numbers of all its parts, and how it judges its own reading."""
    digest = hashlib.sha256(repr(tts.reader.calibration).encode())
    for part in PARTS:
        for name, tensor in sorted(getattr(tts.model, part).state_dict().items()):
            digest.update(f"{part}.{name}".encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_rows(rows: Sequence[str] | None, cases: Sequence[Case]) -> list[str]:
    """The rows to make, in the order of `ROWS`: those asked for, or all that the cases allow.

    Raises:
        UserError: there is no such row, or an oracle is asked for and no case has a reference.
    """
    referenced = any(case.reference is not None for case in cases)
    if rows is None:
        return list(ROWS) if referenced else [TEXT]
    for row in rows:
        if row not in ROWS:
            raise UserError(f"no row named {row!r}; give some of {','.join(ROWS)}")
        if row != TEXT and not referenced:
            raise UserError(
                f"row {row!r} needs cases with a reference, and none has one; leave it out of --rows"
            )
    if not rows:
        raise UserError(f"no rows to make; give some of {','.join(ROWS)}")
    return [row for row in ROWS if row in rows]


def _cases_of(row: str, cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if row == TEXT or case.reference is not None]


def _check_same(folder: Folder, by_row: Mapping[str, Sequence[Case]]) -> None:
    """Raise `UserError` where a case with the id of a finished one is another."""
    for row, cases in by_row.items():
        for case in cases:
            done = folder.journal.get("made", row, case.id)
            if done is not None and done["digest"] != case.digest(reference=row != TEXT):
                raise UserError(
                    f"case {case.id!r} has another text or recording than when {folder.path} was made; "
                    "choose another --out, or start anew with --force"
                )


def _make(folder: Folder, chain: Chain, by_row: Mapping[str, Sequence[Case]], progress: bool) -> None:
    """Make the sounds that are not there yet, batch by batch."""
    total = sum(map(len, by_row.values()))
    todo = {row: [case for case in cases if not _is_made(folder, row, case)] for row, cases in by_row.items()}
    left = sum(map(len, todo.values()))
    with tqdm(
        total=total, initial=total - left, desc="speak", unit="case", disable=not progress or not left
    ) as bar:
        for row, cases in todo.items():
            (folder.path / "audio" / row).mkdir(parents=True, exist_ok=True)
            todo_batches = batches(chain, cases)
            if todo_batches and chain.tts.device.type != "cpu":
                # unmeasured: a device loads and chooses its kernels at first use
                chain.make(row, todo_batches[0])
            for batch in todo_batches:
                for case, (wav, made) in zip(batch, chain.make(row, batch), strict=True):
                    path = folder.audio(row, case.stem)
                    write_audio(path, wav, chain.rate, overwrite=True)  # one that is not in the journal
                    done = {"digest": case.digest(reference=row != TEXT), **made.to_dict()}
                    folder.journal.put(done, "made", row, case.id)
                    bar.update()
            if cases:
                folder.journal.put(_larger(folder.journal.get("memory") or {}, peak_memory()), "memory")


def _is_made(folder: Folder, row: str, case: Case) -> bool:
    return folder.journal.get("made", row, case.id) is not None and folder.audio(row, case.stem).is_file()


def _larger(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {key: max(a.get(key, 0), b.get(key, 0)) for key in {**a, **b}}


def batches(chain: Chain, cases: Sequence[Case]) -> list[list[Case]]:
    """Whole cases of like length, together at most as many sentences as a batch has, or one case that has more."""
    made: list[list[Case]] = []
    room = 0
    for case in sorted(cases, key=chain.size):
        sentences = chain.sentences(case)
        if sentences > room:
            made.append([])
            room = chain.settings.batch
        made[-1].append(case)
        room -= sentences
    return made


def _measure(
    folder: Folder, by_row: Mapping[str, Sequence[Case]], metrics: Sequence[Metric], progress: bool
) -> None:
    """Measure what is not measured yet, one metric after the other: one model in memory at a time."""
    for metric in metrics:
        todo = [
            (row, case)
            for row, cases in by_row.items()
            for case in cases
            if folder.journal.get("value", metric.name, metric.by, row, case.id) is None
        ]
        for row, case in tqdm(todo, metric.name, unit="sound", disable=not progress or not todo):
            sample = Sample(case, row, _made(folder, row, case), load_wav(folder.audio(row, case.stem)))
            folder.journal.put(metric.measure(sample), "value", metric.name, metric.by, row, case.id)


def _made(folder: Folder, row: str, case: Case) -> Made:
    known = folder.journal.get("made", row, case.id)
    return Made(**{key: value for key, value in known.items() if key != "digest"})


def _context(folder: Folder, metric: Metric, cases: Sequence[Case]) -> dict[str, Any]:
    """Of this list; kept, because it can take as long as measuring."""
    of = sorted(case.digest(reference=True) + (case.speaker or "") for case in cases)
    key = ("context", metric.name, metric.by, hashlib.sha256("".join(of).encode()).hexdigest()[:16])
    known: dict[str, Any] | None = folder.journal.get(*key)
    if known is None:
        known = metric.context(cases)
        if known:
            folder.journal.put(known, *key)
    return known


def _sum_up(
    folder: Folder,
    made_with: Mapping[str, Any],
    cases: Sequence[Case],
    by_row: Mapping[str, Sequence[Case]],
    metrics: Sequence[Metric],
) -> Results:
    contexts = {metric.name: _context(folder, metric, cases) for metric in metrics}
    figures = [figure for metric in metrics for figure in metric.figures(contexts[metric.name])]
    sounds = [_all_of(folder, row, case, metrics) for row, own in by_row.items() for case in own]
    rows = {
        row: {figure.key: figure.estimate([s for s in sounds if s["row"] == row]) for figure in figures}
        for row in by_row
    }
    return Results(
        folder.path,
        made_with,
        [figure for figure in figures if any(rows[row][figure.key] for row in rows)],
        rows,
        {row: len(own) for row, own in by_row.items()},
        {name: context for name, context in contexts.items() if context},
        {metric.name: metric.by for metric in metrics},
        folder.journal.get("memory") or {},
        sounds,
    )


def _all_of(folder: Folder, row: str, case: Case, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Everything known of one sound."""
    made = _made(folder, row, case)
    known: dict[str, Any] = {
        "id": case.id,
        "row": row,
        "text": case.text,
        "prompt": str(case.prompt),
        "prompt_text": case.prompt_text,
        "reference": str(case.reference) if case.reference else None,
        "language": case.language,
        "seed": made.seed,
        "audio": str(folder.audio(row, case.stem).relative_to(folder.path)),
        "seconds": round(made.seconds, 3),
    }
    for metric in metrics:
        known |= folder.journal.get("value", metric.name, metric.by, row, case.id) or {}
    return known
