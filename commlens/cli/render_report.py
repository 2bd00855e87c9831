"""The report as a page of text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from commlens.analyzers import Abstention, Report
from commlens.analyzers.collectives import CollectiveLine
from commlens.cli.render import (
    bar,
    counted,
    milliseconds,
    number,
    percent,
    plain_table,
    size,
)

TOP_COLLECTIVES = 10
TOP_RANKS = 12
BAR = 30


def print_report(report: Report, console: Console) -> None:
    """Print a report, sections from the answer down to the small print."""
    console.print(_header(report))
    console.print()
    console.print(Text(headline(report), style="bold"))
    _section(console, "Where a step goes (medians over steps, means over ranks)", _budget(report, console))
    _section(console, _ranks_title(report), _ranks(report))
    _section(console, *_collectives(report))
    _section(console, "What this rests on", _evidence(report))
    _section(console, "Not answered, and why", _abstentions(report.abstentions))


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
    return (
        f" The costliest: {what} in group {_group(line)}{often}, {milliseconds(line.exposed_ms_per_step)} ms."
    )


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
    return _pairs(rows.items())


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
    table.add_row(
        "hidden communication", f"{milliseconds(budget.hidden_ms)} ms", "", "during compute or other"
    )
    return table


def _shown_ranks(report: Report) -> int:
    return min(TOP_RANKS, len(report.time_budget.per_rank))


def _ranks_title(report: Report) -> str:
    count = len(report.time_budget.per_rank)
    few = (
        ""
        if count <= TOP_RANKS
        else f": the {TOP_RANKS} most exposed of {count}, the rest with --format json"
    )
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


def _collectives(report: Report) -> tuple[str, Table | None]:
    lines = report.collectives
    more = len(lines) - TOP_COLLECTIVES
    title = "Collectives (GB/s are lower bounds: durations include waiting for late ranks)"
    if more > 0:
        title += f"; {more} more with --format json"
    if not lines:
        return title, None
    head = ["size", "per\nstep", "p50\nms", "p95\nms", "exposed\nms/step", "algbw\nGB/s", "busbw\nGB/s"]
    table = plain_table(["group", "operation"], head)
    for line in lines[:TOP_COLLECTIVES]:
        table.add_row(
            _group(line), line.op, ("~" if line.bytes_vary else "") + size(line.bytes), *_figures(line)
        )
    return title, table


def _figures(line: CollectiveLine) -> Iterator[str]:
    yield number(line.count_per_step)
    for value in (line.duration_ms_p50, line.duration_ms_p95, line.exposed_ms_per_step):
        yield milliseconds(value)
    yield number(line.algbw_gb_s)
    yield number(line.busbw_gb_s)


def _group(line: CollectiveLine) -> str:
    described = line.group_desc not in ("", "undefined", line.group)
    return f"{line.group} ({line.group_desc})" if described else line.group


def _evidence(report: Report) -> Table:
    cover, cost = report.coverage, report.overhead
    lines = [
        ("seen", _seen(report)),
        ("clocks", "not aligned: no number here compares times of two ranks"),
        ("own cost", _own_cost(report)),
        ("trace", f"{size(cost.trace_bytes)}, {number(cost.bytes_per_collective)} bytes a collective"),
    ]
    cut = [("cut short", f"rank {each.rank}: {', '.join(each.tables)}") for each in cover.truncated]
    return _pairs([*lines, *cut, *(("note", note) for note in cover.notes)])


def _seen(report: Report) -> str:
    cover = report.coverage
    timings = ", ".join(sorted({line.timing for line in report.collectives if line.timing}))
    return (
        f"{counted(cover.collectives_seen, 'collective')} (a part on each rank), {cover.dropped} dropped, "
        f"{cover.ends_unknown} without a known end{f'; ends seen by: {timings}' if timings else ''}"
    )


def _own_cost(report: Report) -> str:
    cost = report.overhead
    if cost.us_per_collective is None:
        return "not measured"
    part = "" if cost.trampoline_known else ", the call into Python not included"
    share = f"; at most {cost.percent_of_step:.2g} % of a step" if cost.percent_of_step is not None else ""
    return f"{cost.us_per_collective:.1f} us a collective{part}{share}"


def _abstentions(abstentions: tuple[Abstention, ...]) -> Table | None:
    if not abstentions:
        return None
    reasons: dict[str, list[str]] = {}
    for each in abstentions:
        reasons.setdefault(each.reason, []).append(each.analysis)
    return _pairs((", ".join(names), reason) for reason, names in reasons.items())


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _section(console: Console, title: str, body: Table | None) -> None:
    if body is not None:
        console.print()
        console.print(Text(title, style="bold cyan"))
        console.print(Padding(body, (0, 0, 0, 2)))
