"""The report as one HTML page that needs nothing else: pictures and players are inside it, and no script."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import soundfile

from codec.audio import resample, write_whole
from codec.errors import UserError
from tts.data.manifest import Row
from tts.data.report.checks import Finding, Group
from tts.data.report.coverage import HARDLY
from tts.data.report.examine import Report
from tts.data.report.plots import plots
from tts.data.segment import decode

LISTED = 200  # findings of a kind
PLAYED_SECONDS = 15.0
RATE = 24_000  # Hz, of the players' mp3

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; background: #fff; color: #000; padding: .3rem; border-radius: .3rem; }
figcaption { font-size: .8rem; text-align: center; }
audio { height: 2rem; width: 15rem; }
code, .ipa { font-family: ui-monospace, monospace; font-size: .85em; overflow-wrap: anywhere; }
.small { font-size: .85em; opacity: .75; overflow-wrap: anywhere; }
.good { color: #2e7d32; }
"""


def page(report: Report, *, players: int = 20) -> str:
    """The page.

    Args:
        players: of each kind of finding, the worst so many get a player.
    """
    rows = {row.line: row for row in report.rows}
    parts = [
        f"<h1>{escape(report.manifest.name)}</h1>",
        _summary(report),
        _overview(report.groups),
        '<div class="pictures">',
        *(
            f'<figure><img src="{address}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
            for caption, address in plots(report).items()
        ),
        "</div>",
        *(_section(group, rows, players) for group in report.groups),
        _coverage(report),
        _speakers(report),
    ]
    title = escape(f"{report.manifest.name}: data report")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def overview(report: Report) -> list[tuple[str, str]]:
    """The corpus in a few figures: what, how much."""
    rows, corpus = report.rows, report.corpus
    durations = sorted(row.duration for row in rows)
    rates = sorted({m.sample_rate for m in corpus.measures.values()})
    figures = [
        ("speech", f"{_time(report.seconds)} in {len(rows)} utterances"),
        (
            "durations",
            f"{durations[0]:.1f} to {durations[-1]:.1f} s, median {durations[len(rows) // 2]:.1f} s",
        ),
        ("speakers", str(len({row.speaker for row in rows}))),
        ("languages", ", ".join(f"{k} ({_time(v)})" for k, v in report.seconds_by("language").most_common())),
        (
            "splits",
            ", ".join(f"{k or 'not given'} ({_time(v)})" for k, v in report.seconds_by("split").items()),
        ),
        ("sample rates", ", ".join(f"{rate} Hz" for rate in rates) or "-"),
        ("noise", f"by {report.noise}"),
    ]
    if any(row.text_by for row in rows):
        written = {k: v for k, v in report.seconds_by("text_by").items() if k}
        figures.append(("texts by", ", ".join(f"{k} ({_time(v)})" for k, v in written.items())))
    for language, expected in corpus.expected.items():
        told = f"{expected.error:.0%} phoneme errors, against other texts {expected.chance:.0%}"
        blind = (
            "; too near to check transcripts by: train a tokenizer on the language and give it with --model"
        )
        figures.append((f"reading of {language}", told + (blind if expected.blind else "")))
    return figures


def _summary(report: Report) -> str:
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in overview(report)
    )
    return f"<table>{lines}</table>"


def _overview(groups: Sequence[Group]) -> str:
    if not groups:
        return '<p class="good">Nothing was found that needs doing.</p>'
    lines = "".join(
        f'<tr><td class="number">{len(group.findings)}</td><td><a href="#{group.kind}">{escape(group.title)}</a></td>'
        f"<td>{escape(group.advice)}</td></tr>"
        for group in groups
    )
    return f"<h2>Findings</h2><table><tr><th></th><th>what</th><th>what to do</th></tr>{lines}</table>"


def _section(group: Group, rows: dict[int, Row], players: int) -> str:
    listed = group.findings[:LISTED]
    lines = "".join(_finding(one, rows.get(one.line), n < players) for n, one in enumerate(listed))
    more = f"<p>and {len(group.findings) - LISTED} more</p>" if len(group.findings) > LISTED else ""
    safe = f"<p><code>--fix</code>: {escape(group.safe)}</p>" if group.safe else ""
    return (
        f'<h2 id="{group.kind}">{escape(group.title)} ({len(group.findings)})</h2>'
        f"<p>{escape(group.advice)}</p>{safe}"
        f"<table><tr><th>line</th><th>finding</th><th>text</th><th></th></tr>{lines}</table>{more}"
    )


def _finding(finding: Finding, row: Row | None, played: bool) -> str:
    text = "" if row is None else escape(row.text)
    if finding.expected:
        text += f'<br><span class="ipa">text: {escape(finding.expected)}<br>read: {escape(finding.read) or "-"}</span>'
    action = finding.action if isinstance(finding.action, str) else "repair" if finding.action else ""
    player = _player(row) if played and row is not None else ""
    return (
        f'<tr><td class="number">{finding.line}</td>'
        f'<td>{escape(finding.what)}<br><span class="small">{escape(finding.id)}</span></td>'
        f'<td>{text}</td><td>{player}<br><span class="small">{action}</span></td></tr>'
    )


def _player(row: Row) -> str:
    """The utterance, packed into the page; nothing where it cannot be read."""
    try:
        wav, rate = decode(row.audio, row.offset or 0.0, min(row.duration, PLAYED_SECONDS), row.channel)
    except UserError:
        return ""
    wav = resample(wav, rate, RATE)
    buffer = io.BytesIO()
    soundfile.write(buffer, wav.clamp(-1, 1).numpy(), RATE, format="MP3", subtype="MPEG_LAYER_III")
    address = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{address}"></audio>'


def _coverage(report: Report) -> str:
    parts = ["<h2>Characters and sounds</h2>"]
    for language, one in report.coverage.items():
        told = [
            ("sounds never said that numbers, letter names or common words need", one.missing_sounds),
            (f"sounds said fewer than {HARDLY} times", _counted(one.rare_sounds, one.sounds)),
            ("letters never written", one.missing_characters),
            (f"characters written fewer than {HARDLY} times", _counted(one.rare_characters, one.characters)),
            ("sounds", _counted([sound for sound, _ in one.sounds.most_common()], one.sounds)),
        ]
        lines = "".join(
            f'<tr><th>{escape(name)}</th><td class="ipa">{escape(" ".join(values)) or "none"}</td></tr>'
            for name, values in told
        )
        parts.append(f"<h3>{escape(language)}</h3><table>{lines}</table>")
    parts.append(
        "<p>The models read sounds, not letters. A sound that is never said will not be learnt: record a few sentences "
        "with it, or train together with a corpus that has it.</p>"
    )
    return "".join(parts)


def _counted(names: Iterable[str], counts: dict[str, int]) -> list[str]:
    return [f"{name}\u00a0{counts[name]}" for name in names]


def _speakers(report: Report) -> str:
    seconds = report.seconds_by("speaker").most_common()
    counts: dict[str, int] = {}
    for row in report.rows:
        counts[row.speaker] = counts.get(row.speaker, 0) + 1
    lines = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{_time(value)}</td><td class="number">{counts[name]}</td></tr>'
        for name, value in seconds[:LISTED]
    )
    more = f"<p>and {len(seconds) - LISTED} more</p>" if len(seconds) > LISTED else ""
    return f"<h2>Speakers</h2><table><tr><th>speaker</th><th>speech</th><th>utterances</th></tr>{lines}</table>{more}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def write_page(report: Report, out: Path, *, players: int = 20) -> None:
    """Write the page, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page(report, players=players).encode("utf-8"))
