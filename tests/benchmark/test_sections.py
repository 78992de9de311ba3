"""Every section runs on a model of random weights; its figures belong together as they should."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tts.benchmark import lm as lm_module
from tts.benchmark import memory as memory_module
from tts.benchmark import reference
from tts.benchmark.acoustic import Acoustic
from tts.benchmark.bandwidth import step_bytes
from tts.benchmark.lm import LM
from tts.benchmark.measure import Sample
from tts.benchmark.memory import Job, Memory, forget_peak, fresh, memory, probe
from tts.benchmark.parts import PARTS, Batch, Parts
from tts.benchmark.section import Bench, Point, doubled
from tts.benchmark.stream import Stream
from tts.benchmark.table import Cells, Table
from tts.benchmark.texts import SENTENCES, words


def values(table: Table) -> dict[str, list[tuple[float, ...] | None]]:
    """The values of each round, by label; indented ones with the label that they stand below."""
    found: dict[str, list[tuple[float, ...] | None]] = {}
    above = ""
    for line in table.lines:
        above = above if line.label.startswith(" ") else line.label
        name = line.label if line.label == above else f"{above}/{line.label.strip()}"
        found[name] = [None if cell is None else cell.values for cell in line.cells]
    return found


def median(cells: Cells, column: int) -> float:
    cell = cells[column]
    assert cell is not None
    return cell.median


def calls(
    target: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of every call from now on."""
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    inner = getattr(target, name)

    def counted(*args: Any, **more: Any) -> Any:
        made.append((args, more))
        return inner(*args, **more)

    monkeypatch.setattr(target, name, counted)
    return made


def test_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (2, 4):
        bench.spoken([words(count)])
    spoken = calls(bench.tts, "synthesize", monkeypatch)
    written, decoded = (calls(reference, name, monkeypatch) for name in ("write", "decode"))
    tables = list(Parts(bench).tables())
    assert [(table.against, list(table.columns)) for table in tables] == [
        ("words", [2, 4]),
        ("steps", [1, 2]),
        ("threads", [1]),
    ]
    once_warm, rounds = len(tables), 2
    assert len(spoken) == once_warm + rounds * 5
    assert len(written) == len(decoded) == len(spoken)
    assert [args[2].steps for args, _ in spoken[3 + 2 : 3 + 2 + 5]] == [1, 1, 2, 1, 2]
    assert spoken[0][0][0] == [words(2)] and spoken[0][0][2].batch == 8
    assert "steps 2, threads 1, batch 8" in tables[0].title
    found = values(tables[0])
    for column in range(2):
        for turn in range(rounds):
            mine = {name: cells[column][turn] for name, cells in found.items()}  # type: ignore[index]
            assert sum(mine[part] for part in PARTS) <= mine["whole"] * 1.0001
            assert mine["lm/times as fast"] == pytest.approx(mine["lm/reference"] / mine["lm"])
            replaced = mine["lm/reference"] - mine["lm"] + mine["acoustic/reference"] - mine["acoustic"]
            assert mine["whole/reference"] == pytest.approx(mine["whole"] + replaced)


def test_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.spoken(SENTENCES[:3])
    rows = calls(bench.tts.model.lm, "generate", monkeypatch)
    (table,) = Batch(bench).tables()
    assert [len(args[0]) for args, _ in rows[3:]] == [1, 1, 1, 2, 1] * 2  # the first three only warmed up
    found = values(table)
    for column in range(2):
        whole, rate = found["whole"][column], found["seconds of sound a second"][column]
        assert whole is not None and rate == pytest.approx([1 / one for one in whole])
        gain = found["times the throughput of 1 at once"][column]
        assert gain == pytest.approx([a / b for a, b in zip(found["whole"][0] or (), whole, strict=True)])


def test_lm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_module, "bandwidth", lambda size, traffic: 2e9 if size == 2**12 else 8e9)
    llama = bench.tts.model.lm.llama
    steps: list[int] = []
    hook = llama.register_forward_pre_hook(lambda _, args: steps.append(args[0].shape[1]))
    section = LM(bench)
    try:
        found = section.arms(Point(words=2))["ours"]()
    finally:
        hook.remove()
    prefix = len(bench.tts.model.lm.prefix(section.request(Point(words=2))))
    assert steps == [prefix, 1, 1, 1, 1, 1]  # six ids, each fed once
    assert found["ids"] == pytest.approx(5 / (found["whole"] - found["start"]))
    tables = list(section.tables())
    assert [table.against for table in tables] == ["batch", "words", "threads"]
    shown = values(tables[0])
    assert shown["ids a second, one at a time/the same ids"] == [(1.0, 1.0)] * 2
    for column, rows in enumerate((1, 2)):
        size = step_bytes(llama, rows)
        assert shown["weights that a step reads"][column] == (size / 1e6,) * 2
        ids = shown["ids a second, one at a time"][column] or ()
        used = [one / rows * size / 2e9 for one in ids]
        assert shown["memory bandwidth/used"][column] == pytest.approx(used)
        assert shown["bandwidth over so few bytes/used"][column] == pytest.approx([one / 4 for one in used])


def test_the_chain_is_timed_step_by_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # a clock that ticks once a step, and once before them
    lm = bench.tts.model.lm
    now = [0.0]

    def write(requests: Any, *_: Any) -> Any:
        for step in range(11):
            now[0] += 5.0 if step == 0 else 0.5
            yield [None] * len(requests) if step % 2 else []

    monkeypatch.setattr(lm, "write", write)
    monkeypatch.setattr(lm_module.time, "perf_counter", lambda: now[0])
    found = LM(bench).write(lm, Point(words=2, batch=4))
    assert found["tokens"] == pytest.approx(5 * 4 / 10.0)  # the prefix takes 5 s, ten steps 5 s
    assert found["steps"] == pytest.approx(2.0)
    assert found["read"] == pytest.approx(2.0 * step_bytes(lm.llama, 4) / 1e9)


def test_acoustic(bench: Bench) -> None:
    tables = list(Acoustic(bench).tables())
    assert [table.against for table in tables] == ["seconds", "chunk", "steps", "threads"]
    for table in tables:
        for line in table.lines:
            if line.label.strip().startswith("largest difference"):
                assert all(cell is not None and max(cell.values) < 1e-3 for cell in line.cells)
    assert [note.label for note in tables[0].notes] == [
        "times as long for twice the sound, ours",
        "times as long for twice the sound, the reference",
    ]
    assert not tables[1].notes


def test_stream(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    started = calls(bench.tts.model.acoustic, "start", monkeypatch)
    streamed = calls(bench.tts, "stream", monkeypatch)
    section = Stream(bench)
    section.varied = ("words",)
    bench.tts.started(bench.voice, Point(steps=2).settings())
    started.clear()
    (table,) = section.tables()
    # each of ours and of a new voice, warm and in two rounds of two columns
    assert len(streamed) == 2 * (1 + 2 * 2)
    assert all(args[2].chunk == 5 and args[2].steps == 2 for args, _ in streamed)
    voices = [args[1] for args, _ in streamed]
    assert sum(voice is bench.voice for voice in voices) == len(voices) / 2
    fresh_voices = len({id(voice) for voice in voices if voice is not bench.voice})
    assert fresh_voices == len(voices) / 2
    found = values(table)
    assert found["first sound/reference"][1] is None  # too many words for it here
    assert found["first sound/times as fast"][1] is None
    for column in range(2):
        first, whole = found["first sound"][column], found["whole stream"][column]
        assert first is not None and whole is not None
        assert all(0 < a < b for a, b in zip(first, whole, strict=True))
        at_once = found["whole at once"][column] or ()
        share = [a / b for a, b in zip(first, at_once, strict=True)]
        assert found["first sound/of the time of the whole at once"][column] == pytest.approx(share)
    assert [note.label for note in table.notes] == ["times as long for twice the text, ours"]


def test_doubling_leaves_out_what_was_not_measured() -> None:
    def row(**times: float) -> Mapping[str, Mapping[str, Sample]]:
        return {who: {"all": Sample((time,))} for who, time in times.items()}

    found = [row(ours=1.0, reference=1.0), row(ours=2.0, reference=4.0), row(ours=6.0)]
    notes = doubled(found, [10, 20, 60], "text")
    assert [median(note.cells, 0) for note in notes] == pytest.approx([2.0, 4.0])
    assert doubled(found[:1], [10], "text") == []


# ----------------------------------------------------------------------------------------------------- memory


def test_a_process_of_its_own() -> None:
    assert fresh(os.getpid) != os.getpid()


@pytest.mark.skipif(not memory_module.STATUS.is_file(), reason="Linux tells what is resident")
def test_resident_and_peak() -> None:
    forget_peak()
    before, _ = memory()
    block = torch.ones(64 * 2**20)  # 256 MiB
    held, _ = memory()
    del block
    after, peak = memory()
    assert 0.9 < (held - before) / 2**28 < 1.1
    assert peak > 0.99 * held and after < 0.9 * held  # the system counts in strides


def test_memory_table(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    def here(work: Callable[[Job], dict[str, float]], job: Job) -> dict[str, float]:
        assert work is probe
        jobs.append(job)
        return probe(job)

    monkeypatch.setattr(memory_module, "fresh", here)
    section = Memory(bench)
    section.varied = ("batch",)
    (table,) = section.tables()
    assert [(job.who, len(job.texts)) for job in jobs[:6]] == [
        (who, batch) for batch in (1, 2) for who in ("ours", "stream", "reference")
    ]
    assert {job.model for job in jobs} == {str(bench.tts.model.folder)}
    assert Path(jobs[0].voice).is_file()
    found = values(table)
    for resident, peak in zip(found["model loaded"], found["most while speaking"], strict=True):
        assert resident is not None and peak is not None
        assert all(math.isnan(a) or 20 < a <= b < 2**16 for a, b in zip(resident, peak, strict=True))
