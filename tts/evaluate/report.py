"""The results as text."""

from typing import TYPE_CHECKING, Any

from tts.evaluate.figures import Estimate, Figure

if TYPE_CHECKING:
    from tts.evaluate.run import Results

LEVEL = Figure("level", "", "", digits=3)
_LEVELS = {"same": "same speaker", "different": "different speakers"}


def model_line(made_with: Any) -> str:
    """``runs/mine/model (1f3c...), 21.3 million parameters``."""
    return f"{made_with['model']} ({made_with['fingerprint']}), {made_with['parameters'] / 1e6:.1f} million parameters"


def settings_line(made_with: Any) -> str:
    """``seed 0, temperature 0.8, ...``."""
    about = ("model", "fingerprint", "parameters")
    return ", ".join(f"{key} {value}" for key, value in made_with.items() if key not in about)


def level_lines(results: "Results") -> list[str]:
    """The levels that the similarity lies between."""
    known = results.contexts.get("similarity", {})
    return [
        f"{told}: {LEVEL.show_estimate(Estimate(**known[kind]))}, {known[kind]['cases']} pairs"
        for kind, told in _LEVELS.items()
        if kind in known
    ]


def memory_line(results: "Results") -> str:
    """Peak memory in people's units, "" where nothing was made."""
    told = {"main": "in main memory", "gpu": "on the GPU"}
    return ", ".join(f"{size / 2**20:.0f} MiB {told[kind]}" for kind, size in results.memory.items())


def table(results: "Results") -> str:
    """The figures, one line each, with a column a row of the evaluation."""
    rows = list(results.rows)
    head = ["", *(f"{row}, {results.counts[row]} cases" for row in rows)]
    body = [
        [figure.label, *(figure.show_estimate(results.rows[row][figure.key]) for row in rows)]
        for figure in results.figures
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(line))
        for line in (
            list(zip(head, widths, strict=True)),
            *(list(zip(line, widths, strict=True)) for line in body),
        )
    )


def report(results: "Results", left_out: list[str]) -> str:
    """All that is printed at the end."""
    lines = [
        f"model     {model_line(results.made_with)}",
        f"settings  {settings_line(results.made_with)}",
        *(f"{name:15} by {by}" for name, by in results.measured_by.items()),
        "",
        table(results),
        "in brackets: 95 % intervals, bootstrap over cases",
        *(
            ["", "similarity of the list's own recordings:", *level_lines(results)]
            if level_lines(results)
            else []
        ),
    ]
    if memory := memory_line(results):
        lines += ["", f"peak memory while speaking: {memory}"]
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    return "\n".join(lines)
