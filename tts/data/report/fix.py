"""The manifest without what is safe to leave out, and with what is safe to repair."""

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from codec.audio import write_whole
from codec.errors import UserError
from tts.data.importers.run import shown_path
from tts.data.manifest import cut_fields, numbered_lines
from tts.data.report.checks import Repair
from tts.data.report.examine import Report


class Fixed(NamedTuple):
    """Attributes:
    kept: lines written, the repaired ones among them.
    dropped: by kind of finding; a line with several counts to the first.
    repaired: by kind of finding.
    """

    kept: int
    dropped: Counter[str]
    repaired: Counter[str]


def fix(report: Report, out: str | Path, *, also_drop: Collection[str] = ()) -> Fixed:
    """Write the mended manifest.

    Args:
        out: a new file; the report's manifest stays as it is.
        also_drop: kinds of findings to drop that are not dropped by themselves.

    Raises:
        UserError: nothing would be left, ``out`` is the manifest itself, or a kind is unknown.
    """
    out = Path(out)
    if out.resolve() == report.manifest.resolve():
        raise UserError(f"{out} is the manifest itself, which is never changed; give --fix another name")
    drop: dict[int, str] = {}
    repairs: dict[int, tuple[str, Repair]] = {}
    for group in report.groups:
        for finding in group.findings:
            if finding.action == "drop" or group.kind in also_drop:
                drop.setdefault(finding.line, group.kind)
            elif isinstance(finding.action, Repair):
                repairs.setdefault(finding.line, (group.kind, finding.action))
    rows = {row.line: row for row in report.rows if row.line not in drop}
    if not rows:
        raise UserError(f"{report.manifest}: nothing would be left of it; look at the report")
    lines = []
    for number, text in numbered_lines(report.manifest):
        if number in rows:
            fields = _fields(text)
            fields["audio"] = shown_path(rows[number].audio, out.parent)
            if number in repairs:
                fields |= repairs[number][1]._asdict()
            lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, "".join(lines).encode("utf-8"))
    repaired = Counter(kind for line, (kind, _) in repairs.items() if line in rows)
    return Fixed(len(lines), Counter(drop.values()), repaired)


def _fields(line: str) -> dict[str, Any]:
    """What a line says, all of it; a cut of Lhotse's as a line of ours."""
    fields: dict[str, Any] = json.loads(line)
    return cut_fields(fields) if "supervisions" in fields else fields
