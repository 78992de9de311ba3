"""The report's pictures, as SVG."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tts.data.report.examine import Report
from tts.data.report.reading import error_rate

COLOUR, MARK = "#3b6ea5", "#c0392b"


def plots(report: Report) -> dict[str, str]:
    """Pictures by caption, each as the address of an image (``data:``)."""
    measured = list(report.corpus.measured())
    items = [item for item, _ in measured]
    found = {
        "Duration, s": _histogram([item.row.duration for item in items]),
        "Loudness, LUFS": _histogram([m.loudness for _, m in measured]),
        "Signal-to-noise estimate, dB": _histogram([m.snr for _, m in measured]),
        "DNSMOS background, 1 to 5": _histogram([m.mos[1] for _, m in measured if m.mos]),
        "Bandwidth, kHz": _histogram([m.top / 1000 for _, m in measured]),
        "Sounds a second of speech": _histogram(
            [report.corpus.sounds(item) / m.speech for item, m in measured if m.speech > 0]
        ),
        "Phoneme error rate of the reading": _errors(report),
        "Seconds by speaker": _bars(report.seconds_by("speaker")),
    }
    return {caption: _address(figure) for caption, figure in found.items() if figure is not None}


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.4, 2.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    return figure, axes


def _histogram(values: Sequence[float]) -> Figure | None:
    if not values:
        return None
    figure, axes = _axes()
    axes.hist(values, bins=min(40, max(5, round(len(values) ** 0.5) * 2)), color=COLOUR)
    axes.set_ylabel("utterances", fontsize=7)
    return figure


def _errors(report: Report) -> Figure | None:
    corpus = report.corpus
    rates = [error_rate(item, corpus.measures) for item in corpus.items if item.row.line in corpus.verdicts]
    figure = _histogram(rates)
    if figure is not None:
        for expected in corpus.expected.values():
            figure.axes[0].axvline(expected.chance, color=MARK, linewidth=1, linestyle="--")
        figure.axes[0].set_xlabel("dashed: against texts of other recordings", fontsize=7)
    return figure


def _bars(seconds: Mapping[str, float], most: int = 20) -> Figure | None:
    largest = sorted(seconds.items(), key=lambda one: -one[1])[:most]
    if len(largest) < 2:
        return None
    figure, axes = _axes()
    axes.bar(np.arange(len(largest)), [value for _, value in largest], color=COLOUR)
    axes.set_xticks(np.arange(len(largest)), [name[:12] for name, _ in largest], rotation=90, fontsize=6)
    return figure


def _address(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
