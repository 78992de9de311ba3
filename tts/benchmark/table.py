"""Tables: a line a figure, a column a value of what is varied; as text and as JSON."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tts.benchmark.measure import Sample, combined

Cells = Sequence[Sample | None]


@dataclass(frozen=True)
class Line:
    """One figure.

    Attributes:
        label: its name for people.
        unit: "s", "MiB" ...; "%" for a share, "" for a plain number.
        cells: one a column; None where there is nothing to tell.
    """

    label: str
    unit: str
    cells: Cells

    @property
    def head(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def show(self, cell: Sample | None) -> str:
        """``0.213 (0.209 to 0.220)``: the median and the quartiles."""
        if cell is None:
            return "-"
        scale = 100 if self.unit == "%" else 1
        middle, low, high = (number(scale * x) for x in (cell.median, *cell.quartiles))
        return f"{middle} ({low} to {high})"


@dataclass(frozen=True)
class Table:
    """The figures of one section against one thing that is varied.

    Attributes:
        section, title: where it belongs, and what it shows.
        against: what is varied.
        columns: its values.
        lines: the figures.
        notes: figures of the whole table, one cell each.
    """

    section: str
    title: str
    against: str
    columns: Sequence[float]
    lines: Sequence[Line]
    notes: Sequence[Line] = ()

    def __str__(self) -> str:
        head = [self.against, *(f"{column:g}" for column in self.columns)]
        rows = [head, *([line.head, *map(line.show, line.cells)] for line in self.lines)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        shown = [
            "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(cells))
            for cells in (list(zip(row, widths, strict=True)) for row in rows)
        ]
        notes = [f"{note.head}: {note.show(note.cells[0])}" for note in self.notes]
        return "\n".join([f"{self.section}: {self.title}", *shown, *notes])

    def to_dict(self) -> dict[str, Any]:
        """The same with every round's value."""
        return {
            "section": self.section,
            "title": self.title,
            "against": self.against,
            "columns": list(self.columns),
            "lines": [_line(line) for line in self.lines],
            "notes": [_line(line) for line in self.notes],
        }


def _line(line: Line) -> dict[str, Any]:
    return {
        "label": line.label,
        "unit": line.unit,
        "cells": [cell and cell.to_dict() for cell in line.cells],
    }


def compared(label: str, unit: str, ours: Cells, theirs: Cells, *, rate: bool = False) -> list[Line]:
    """Three lines: ours, the reference's, and how many times as fast ours is, round by round.

    Args:
        label, unit: of the figure.
        ours, theirs: seconds of something, or something a second.
        rate: the latter.
    """

    def faster(mine: float, other: float) -> float:
        return mine / other if rate else other / mine

    return [
        Line(label, unit, ours),
        Line("  reference", unit, theirs),
        Line("  times as fast", "", each(faster, ours, theirs)),
    ]


def each(make: Callable[..., float], *lines: Cells) -> list[Sample | None]:
    """The cells of a line made of others, cell by cell and round by round."""
    return [
        combined(make, *(cell for cell in cells if cell is not None)) if None not in cells else None
        for cells in zip(*lines, strict=True)
    ]


def number(value: float) -> str:
    """Three digits that matter, and no exponent."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    exponent = int(f"{value:.2e}".split("e")[1])  # after rounding: 9.996 is 10.0
    return f"{value:.{max(0, 2 - exponent)}f}"
