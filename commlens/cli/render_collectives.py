"""The collectives of a report as a table."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.collective_line import CollectiveLine
from commlens.cli.render import milliseconds, number, plain_table, size

TOP_COLLECTIVES = 10


def collectives_table(report: Report) -> tuple[str, Table | None]:
    """Title and rows of the costliest collectives."""
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
        table.add_row(group_name(line), line.op, ("~" if line.bytes_vary else "") + size(line.bytes), *_figures(line))
    return title, table


def _figures(line: CollectiveLine) -> Iterator[str]:
    yield number(line.count_per_step)
    for value in (line.duration_ms_p50, line.duration_ms_p95, line.exposed_ms_per_step):
        yield milliseconds(value)
    yield number(line.algbw_gb_s)
    yield number(line.busbw_gb_s)


def group_name(line: CollectiveLine) -> str:
    """A group as torch names it, with its description where it has one."""
    described = line.group_desc not in ("", "undefined", line.group)
    return f"{line.group} ({line.group_desc})" if described else line.group
