"""The model card: ``README.md`` with a head that a hub reads, the licence in it, and the figures below."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from codec.errors import UserError

CARD = "README.md"
FIGURES = "evaluation.json"
"""The figures of an evaluation in a model folder: ``results.json`` without the paths of the machine it ran on."""

SHOWN = {
    "wer": ("word error rate", 100.0, " %"),
    "cer": ("character error rate", 100.0, " %"),
    "similarity": ("similarity to the prompt", 1.0, ""),
    "dnsmos_ovrl": ("DNSMOS overall", 1.0, ""),
    "per": ("phoneme errors, read back", 100.0, " %"),
}
"""Figures that go onto the card where they were measured: label, factor, unit."""

ROW = "text"
"""The row of an evaluation that is the model's: text and prompt to speech."""

HEADING = "## Measured"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """A card's head and body; the head is empty where there is none.

    Raises:
        UserError: the head is no YAML.
    """
    if not text.startswith("---\n") or "\n---\n" not in text[4:]:
        return {}, text
    head, _, body = text[4:].partition("\n---\n")
    try:
        known = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise UserError(f"the head of {CARD} is no YAML ({str(error).splitlines()[0]}); mend it") from error
    if not isinstance(known, dict):
        raise UserError(
            f"the head of {CARD} holds no keys; write licence and language there, or leave it out"
        )
    return known, body.lstrip("\n")


def read_figures(path: Path) -> dict[str, Any]:
    """``results.json`` of an evaluation, or of its folder, without what belongs to the machine it ran on.

    Raises:
        UserError: there is none.
    """
    path = path / "results.json" if path.is_dir() else path
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        rows, made_with = known["rows"][ROW], dict(known["made_with"])
        assert isinstance(rows, dict)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path}: no evaluation of text and prompt; give the --out of python -m tts.evaluate"
        ) from error
    made_with.pop("model", None)
    measured = {name: _bare(by) for name, by in known.get("measured_by", {}).items()}
    return {**known, "made_with": made_with, "measured_by": measured}


def _bare(by: str) -> str:
    """What measured, a path in it shortened to its last part."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in by.split(" "))


def card(text: str, name: str, licence: str, languages: list[str], figures: Mapping[str, Any] | None) -> str:
    """The card to push.

    Args:
        text: the card that the folder has, "" for none.
        name: of the model on the hub.
        licence: as the hub names it; "" takes what stands in the card's head.
        languages: codes; none takes what stands there.
        figures: of `read_figures`.

    Raises:
        UserError: no licence is told, or the head cannot be read.
    """
    head, body = split_card(text)
    head["license"] = licence or head.get("license", "")
    if not head["license"]:
        raise UserError(
            "nobody may use a model without a licence; give one, as --licence apache-2.0 or cc-by-4.0"
        )
    if languages:
        head["language"] = languages
    head |= {"pipeline_tag": "text-to-speech", "library_name": "tts"}
    body = (
        body
        or f"# {name}\n\nA model of zero-shot text-to-speech: a text and a few seconds of a voice become speech.\n"
    )
    body = body.split(f"\n{HEADING}\n")[0].rstrip() + "\n"
    if figures is not None:
        head["model-index"] = [_index(name, figures)]
        body += f"\n{HEADING}\n{_table(figures)}"
    return f"---\n{yaml.safe_dump(head, sort_keys=True, allow_unicode=True)}---\n\n{body}"


def _shown(figures: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    row = figures["rows"][ROW]
    return {key: row[key] for key in SHOWN if row.get(key) is not None}


def _table(figures: Mapping[str, Any]) -> str:
    cases = figures.get("cases", {}).get(ROW, "?")
    lines = [
        f"Text and prompt, {cases} cases, 95 % intervals; all figures are in `{FIGURES}`.\n",
        "| | |",
        "|---|---|",
    ]
    for key, estimate in _shown(figures).items():
        label, factor, unit = SHOWN[key]
        digits = 1 if factor == 100 else 3
        value, low, high = (f"{estimate[end] * factor:.{digits}f}" for end in ("value", "low", "high"))
        lines.append(f"| {label} | {value}{unit} ({low} to {high}) |")
    return "\n".join(lines) + "\n"


def _index(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures as the hub lists them."""
    cases = figures.get("cases", {}).get(ROW, "?")
    metrics = [
        {"type": key, "name": SHOWN[key][0], "value": round(estimate["value"], 4)}
        for key, estimate in _shown(figures).items()
    ]
    task = {"type": "text-to-speech", "name": "Text-to-speech"}
    dataset = {"type": "cases", "name": f"{cases} cases"}
    return {"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
