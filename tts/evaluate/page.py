"""The results as one HTML page that needs nothing else: sounds and pictures of the worst cases are in it."""

import base64
import difflib
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import torch
from matplotlib.image import imsave
from torch import Tensor
from tqdm import tqdm

from codec.audio import read_audio, resample, write_whole
from codec.errors import AudioError
from codec.features.mel import LogMel
from codec.spec import FrameSpec
from tts.evaluate.figures import Figure
from tts.evaluate.report import level_lines, memory_line, model_line, settings_line

if TYPE_CHECKING:
    from tts.evaluate.run import Results

PLAYERS = 40
WORST_BY = ("wer", "per", "similarity", "dnsmos_ovrl")
"""Figures that decide which case is worse, the first that differs."""
COLUMNS = ("wer", "cer", "similarity", "dnsmos_ovrl", "per", "pace_ratio", "rtf")
FLAGS = {"skipped": "skip", "repeated": "repeat", "babbled": "babble", "held": "held", "endless": "no end"}
PROMPT_SECONDS = 15.0
PIXELS = 90  # a second
LIMITS = (-11.5, 1.5)  # of the log-mels' colours

Sound = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --mark: #f003; --head: #8881 }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em } h3 { font-size: 1em; margin: 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25em .7em; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th:first-child, td:first-child, .words { text-align: left }
.words { min-width: 20em }
thead th { background: var(--head) }
thead button { font: inherit; font-weight: bold; color: inherit; background: none; border: 0;
  cursor: pointer; padding: 0 }
small, .soft { color: var(--soft) }
mark { background: var(--mark); color: inherit; border-radius: .2em }
article { border: 1px solid var(--line); border-radius: .5em; padding: 1em; margin: 1em 0 }
.row { display: grid; grid-template-columns: 6em 1fr; gap: .3em 1em; margin-top: .9em; align-items: start }
.mel { height: 100px; image-rendering: auto; display: block; max-width: none }
audio { height: 2.2em; width: 100%; max-width: 30em }
.ipa { font-family: ui-monospace, monospace; overflow-wrap: anywhere }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("thead button").forEach((button, column) => button.addEventListener("click", () => {
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const down = button.dataset.down = button.dataset.down === "1" ? "0" : "1";
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)], numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return (down === "1" ? -1 : 1) * (numbers ? x - y : String(x).localeCompare(String(y)));
    });
    table.tBodies[0].append(...rows);
  }));
"""


def write_page(path: Path, results: "Results", *, players: int = PLAYERS, progress: bool = False) -> None:
    """Write the page: the table, all cases worst first, and the worst to hear and see.

    Args:
        path: the HTML file; the sounds of the other cases are linked relative to it.
        players: cases to hear and see.
        progress: show a bar on standard error.
    """
    groups = worst_first(results)
    shown = groups[:players]
    articles = [
        _article(number, group, results, path.parent)
        for number, group in enumerate(tqdm(shown, "page", unit="case", disable=not progress or not shown))
    ]
    title = f"Evaluation of {Path(results.made_with['model']).name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _about(results),
        "<h2>Figures</h2>",
        _summary(results),
        f"<h2>All cases, worst first</h2>{_index(groups, len(shown), results)}",
        f"<h2>The {len(shown)} worst to hear and see</h2>" if shown else "",
        *articles,
    ]
    html = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{SCRIPT}</script>\n</body></html>\n"
    )
    write_whole(path, html.encode())


def worst_first(results: "Results") -> list[list[Sound]]:
    """The sounds of each case together, the case first whose first row is worst; see `WORST_BY`."""
    groups: dict[str, list[Sound]] = {}
    for sound in results.cases:
        groups.setdefault(sound["id"], []).append(sound)
    order = list(results.rows)
    for group in groups.values():
        group.sort(key=lambda sound: order.index(sound["row"]))
    figures = [f for key in WORST_BY for f in results.figures if f.key == key]

    def badness(group: list[Sound]) -> list[float]:
        values = [(figure, figure.of(group[0])) for figure in figures]
        return [0.0 if v is None else v if figure.better == "low" else -v for figure, v in values]

    return sorted(groups.values(), key=badness, reverse=True)


# ------------------------------------------------------------------------------------------------------ the parts


def _about(results: "Results") -> str:
    """What was measured, with what."""
    measured = "; ".join(f"{name} by {by}" for name, by in results.measured_by.items())
    lines = [model_line(results.made_with), settings_line(results.made_with), measured]
    levels = level_lines(results)
    if levels:
        lines.append("similarity of the list's own recordings: " + "; ".join(levels))
    if memory := memory_line(results):
        lines.append(f"peak memory while speaking: {memory}")
    return "<p>" + "<br>".join(map(escape, lines)) + "</p>"


def _summary(results: "Results") -> str:
    head = "".join(
        f"<th>{escape(row)}<br><small>{results.counts[row]} cases</small></th>" for row in results.rows
    )
    lines = []
    for figure in results.figures:
        cells = []
        for row in results.rows:
            whole = figure.show_estimate(results.rows[row][figure.key])
            value, _, ends = whole.partition(" (")
            cells.append(
                f"<td>{value}" + (f"<br><small>{ends.removesuffix(')')}</small>" if ends else "") + "</td>"
            )
        lines.append(f"<tr><td>{escape(figure.label)}</td>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="soft">Below each figure its 95 % interval, by bootstrap over cases.</p>'
    )


def _index(groups: Sequence[Sequence[Sound]], players: int, results: "Results") -> str:
    """One line a case, of its first row: the figures of `COLUMNS` and what went wrong."""
    figures = [figure for key in COLUMNS for figure in results.figures if figure.key == key]
    names = ["case", "text", *(figure.label for figure in figures), "flags"]
    head = "".join(
        f"<th{' class=words' if name == 'text' else ''}><button>{escape(name)}</button></th>"
        for name in names
    )
    lines = []
    for number, group in enumerate(groups):
        first = group[0]
        link = f"#case-{number}" if number < players else str(first["audio"])
        cells = "".join(_number(figure, first) for figure in figures)
        lines.append(
            f'<tr><td><a href="{escape(link)}">{escape(first["id"])}</a></td>'
            f'<td class="words">{escape(first["text"])}</td>{cells}<td>{_flags(first)}</td></tr>'
        )
    return (
        f'<p class="soft">Of the row “{escape(next(iter(results.rows)))}”. A click on a heading sorts.</p>'
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _number(figure: Figure, sound: Sound) -> str:
    value = figure.of(sound)
    data = "" if value is None else f"{value:.6g}"
    return f'<td data-value="{data}">{figure.show(value)}</td>'


def _flags(sound: Sound) -> str:
    return ", ".join(told for key, told in FLAGS.items() if sound.get(key))


def _article(number: int, group: Sequence[Sound], results: "Results", folder: Path) -> str:
    """A case to hear and see."""
    first = group[0]
    parts = [
        f'<article id="case-{number}"><h3>{escape(first["id"])}: {escape(first["text"])}</h3>',
        _prompt(first),
    ]
    for sound in group:
        wav, rate = soundfile.read(folder / sound["audio"], dtype="float32")
        parts.append(_row(sound["row"], torch.from_numpy(wav), rate, _told(sound, results.figures)))
    return "".join([*parts, "</article>"])


def _prompt(sound: Sound) -> str:
    """The voice prompt; without a player where it has gone."""
    told = escape(sound["prompt_text"] or "")
    spec = FrameSpec()
    try:
        wav = read_audio(sound["prompt"], spec.sample_rate, max_seconds=PROMPT_SECONDS)
    except AudioError as error:
        return f'<div class="row"><b>prompt</b><div>{escape(str(error))}</div></div>'
    return _row("prompt", wav, spec.sample_rate, f"<div>{told}</div>" if told else "")


def _row(name: str, wav: Tensor, rate: int, told: str) -> str:
    """A sound (samples,) with its player, its picture and what is told of it."""
    spec = FrameSpec()
    wav = resample(wav, rate, spec.sample_rate)
    seconds = len(wav) / spec.sample_rate
    sound, image = _data("audio/mpeg", mp3(wav, spec.sample_rate)), _data("image/webp", picture(wav))
    about = f"log-mel of {escape(name)}, {seconds:.1f} s"
    return (
        f'<div class="row"><b>{escape(name)}</b><div>'
        f'<audio controls preload="none" aria-label="{escape(name)}" src="{sound}"></audio>'
        f'<div class="scroll"><img class="mel" style="width:{max(1, round(PIXELS * seconds))}px" '
        f'alt="{about}" src="{image}"></div>{told}</div></div>'
    )


def _told(sound: Sound, figures: Sequence[Figure]) -> str:
    """What was heard and read in one sound, what went wrong, and its figures."""
    parts = []
    if "heard" in sound:
        parts.append(f"<div>heard: {marked(sound['text'], sound['heard'])}</div>")
    if "read" in sound:
        read = marked(sound["wanted"], sound["read"], letters=True)
        parts.append(f'<div class="ipa soft">read back: {read}</div>')
    told = [f"<b>{flags}</b>"] if (flags := _flags(sound)) else []
    for figure in figures:
        if figure.single and (value := figure.of(sound)) is not None:
            told.append(f"{escape(figure.label)} {figure.show(value)}")
    return "".join(parts) + f'<div class="soft">{", ".join(told)}</div>'


def marked(wanted: str, got: str, *, letters: bool = False) -> str:
    """HTML of what was got, with a mark on what is not as wanted; a dot where something is missing."""

    def plain(word: str) -> str:
        return word if letters else "".join(filter(str.isalnum, word)).lower()

    a, b = (list(wanted), list(got)) if letters else (wanted.split(), got.split())
    glue, out = "" if letters else " ", []
    matcher = difflib.SequenceMatcher(None, [plain(x) for x in a], [plain(x) for x in b], autojunk=False)
    for tag, _, _, start, end in matcher.get_opcodes():
        words = escape(glue.join(b[start:end]))
        out.append(words if tag == "equal" else f"<mark>{words or '·'}</mark>")
    return glue.join(out)


# ---------------------------------------------------------------------------------------------------------- media


def mp3(wav: Tensor, sample_rate: int) -> bytes:
    """A waveform (samples,) as an mp3: a tenth of a wav, and every browser plays it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wav.clamp(-1, 1).numpy(), sample_rate, format="MP3", subtype="MPEG_LAYER_III")
    return buffer.getvalue()


def picture(wav: Tensor) -> bytes:
    """The log-mel of a waveform (samples,) at 24 kHz as a WebP, one pixel a number."""
    with torch.inference_mode():
        frames = LogMel()(wav[None])[0].numpy()
    buffer = io.BytesIO()
    low, high = LIMITS
    image = np.clip(frames.T, low, high)
    imsave(
        buffer,
        image,
        vmin=low,
        vmax=high,
        cmap="magma",
        format="webp",
        origin="lower",
        pil_kwargs={"quality": 60},
    )
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
