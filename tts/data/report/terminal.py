"""The report in the terminal: figures, findings with their worst cases, what to do. The page has all of it."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tts.data.report.checks import Group, Repair
from tts.data.report.examine import Report
from tts.data.report.page import overview

SHOWN = 2  # findings of a kind


def show(report: Report, console: Console) -> None:
    """Print the report, short."""
    figures = Table(show_header=False, box=None, pad_edge=False)
    for name, value in overview(report):
        figures.add_row(f"[bold]{escape(name)}[/]", escape(value))
    console.print(figures)
    console.print()
    if not report.groups:
        console.print("[green]Nothing was found that needs doing.[/]")
    else:
        console.print(_findings(report.groups))
    for language, one in report.coverage.items():
        if one.missing_sounds or one.rare_sounds:
            missing = f"never said: {' '.join(one.missing_sounds)}" if one.missing_sounds else ""
            rare = f"hardly said: {' '.join(one.rare_sounds)}" if one.rare_sounds else ""
            console.print(
                f"[bold]sounds of {escape(language)}[/]  " + "; ".join(filter(None, (missing, rare)))
            )


def _findings(groups: list[Group]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("finding")
    table.add_column("worst (line: what)")
    table.add_column("what to do")
    for group in groups:
        worst = [f"{one.line}: {escape(one.what)}" for one in group.findings[:SHOWN]]
        advice, _, _ = group.advice.partition(". ")
        table.add_row(
            str(len(group.findings)),
            f"[bold]{group.kind}[/]" + (f"\n{escape(group.title)}" if group.title != group.kind else ""),
            "\n".join(worst),
            f"{escape(advice).rstrip('.')}.{_fixed(group)}",
        )
    return table


def _fixed(group: Group) -> str:
    """What ``--fix`` would do."""
    dropped = sum(one.action == "drop" for one in group.findings)
    repaired = sum(isinstance(one.action, Repair) for one in group.findings)
    told = [f"drops {dropped}"] * bool(dropped) + [f"repairs {repaired}"] * bool(repaired)
    return f"\n[green]--fix {', '.join(told)}[/]" if told else ""
