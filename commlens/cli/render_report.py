"""The report as a page of text."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from commlens.analyzers import Report
from commlens.cli.render import bar, counted, milliseconds, number, pairs, percent, plain_table, size
from commlens.cli.render_collectives import collectives_table, group_name
from commlens.cli.render_trust import abstentions_table, evidence_table

TOP_RANKS = 12
BAR = 30


def print_report(report: Report, console: Console) -> None:
    """Print a report, sections from the answer down to the small print."""
    console.print(_header(report))
    console.print()
    console.print(Text(headline(report), style="bold"))
    _section(console, "Where a step goes (medians over steps, means over ranks)", _budget(report, console))
    _section(console, _ranks_title(report), _ranks(report))
    _section(console, *collectives_table(report))
    _section(console, "What this rests on", evidence_table(report))
    _section(console, "Not answered, and why", abstentions_table(report.abstentions))


def headline(report: Report) -> str:
    """The one sentence: what communication costs, and what the most of it is."""
    budget = report.time_budget
    if budget.step_ms is None or budget.exposed_ms is None:
        reason = next((a.reason for a in report.abstentions), "nothing was recorded")
        return f"What communication costs cannot be told: {reason}."
    first = (
        f"Communication, waiting for late ranks included, costs {milliseconds(budget.exposed_ms)} ms of each "
        f"{milliseconds(budget.step_ms)} ms step ({percent(budget.exposed_ms, budget.step_ms)})"
    )
    if budget.overlap is not None:
        first += f"; {percent(budget.overlap)} of all communication is hidden behind other work"
    return f"{first}.{_costliest(report)}"


def _costliest(report: Report) -> str:
    line = next(iter(report.collectives), None)
    if line is None or not line.exposed_ms_per_step:
        return ""
    often = f", {number(line.count_per_step)} a step" if line.count_per_step is not None else ""
    what = line.op if line.bytes is None or line.op == "barrier" else f"{line.op} of {size(line.bytes)}"
    return f" The costliest: {what} in group {group_name(line)}{often}, {milliseconds(line.exposed_ms_per_step)} ms."


def _header(report: Report) -> Table:
    run, steps = report.run, report.run.steps
    missing = f", {len(run.ranks_missing)} missing" if run.ranks_missing else ""
    software = ", ".join(word for word in (run.backend, run.torch and f"torch {run.torch}") if word)
    hosts = run.hosts[0] if len(run.hosts) == 1 else counted(len(run.hosts), "host")
    rows = {
        "run": run.path if run.path.endswith(run.run_id) else f"{run.run_id} ({run.path})",
        "command": shlex.join(run.command) or "not known",
        "ranks": f"{len(run.ranks_present)} of {run.world_size}{missing}"
        + (f", on {hosts}" if run.hosts else "")
        + (f" ({software})" if software else ""),
        "steps": f"{steps.analyzed} of {steps.count} analysed" + (f", {steps.how}" if steps.analyzed else ""),
    }
    return pairs(rows.items())


def _budget(report: Report, console: Console) -> Table | None:
    budget = report.time_budget
    if budget.step_ms is None or budget.exposed_ms is None:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(no_wrap=True, overflow="crop")
    parts = {
        "compute": budget.compute_ms,
        "exposed communication": budget.exposed_ms,
        "other": budget.other_ms,
    }
    for name, value in parts.items():
        share = (value or 0) / budget.step_ms if budget.step_ms else 0
        table.add_row(name, f"{milliseconds(value)} ms", percent(share), bar(console, share, BAR))
    table.add_row("step", f"{milliseconds(budget.step_ms)} ms", "", "", style="bold")
    table.add_row("hidden communication", f"{milliseconds(budget.hidden_ms)} ms", "", "during compute or other")
    return table


def _shown_ranks(report: Report) -> int:
    return min(TOP_RANKS, len(report.time_budget.per_rank))


def _ranks_title(report: Report) -> str:
    count = len(report.time_budget.per_rank)
    few = "" if count <= TOP_RANKS else f": the {TOP_RANKS} most exposed of {count}, the rest with --format json"
    return f"Each rank (ms per step){few}"


def _ranks(report: Report) -> Table | None:
    ranks = report.time_budget.per_rank
    if all(rank.exposed_ms is None for rank in ranks):
        return None
    costliest = sorted(ranks, key=lambda r: -(r.exposed_ms or 0))[: _shown_ranks(report)]
    table = plain_table([], ["rank", "step", "compute", "exposed", "other", "hidden", "overlap"])
    for rank in sorted(costliest, key=lambda r: r.rank):
        parts = (rank.step_ms, rank.compute_ms, rank.exposed_ms, rank.other_ms, rank.hidden_ms)
        table.add_row(str(rank.rank), *(milliseconds(part) for part in parts), percent(rank.overlap))
    return table


def _section(console: Console, title: str, body: Table | None) -> None:
    if body is not None:
        console.print()
        console.print(Text(title, style="bold cyan"))
        console.print(Padding(body, (0, 0, 0, 2)))
