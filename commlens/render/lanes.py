"""What the devices did: over the whole trace where no steps are known, and compute slowed by communication."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.lane_lines import LaneLine
from commlens.render.columns import INDENT, Column, clipped, fitted, note
from commlens.render.words import milliseconds, number

TOP_RANKS = 12
TOP_KERNELS = 4
_LEAST = 0.002  # of the step: kernels that lose less are not shown
_FIGURES = 46  # columns that counts and times take
_LANES = "exposed: a collective's kernel ran and no compute kernel did. The columns after it: nothing of both ran."
_SLOWED = "Kernels of one name and grid; alone and beside: median durations with communication under way or not."


def lanes_title(report: Report) -> str:
    """The section's title, with what is not shown."""
    count = len(report.device_lanes)
    which = "with most exposed communication" if is_many(report) else "the first"
    few = f": {which} {TOP_RANKS} of {count} ranks" if count > TOP_RANKS else ""
    return f"Devices (ms over the whole trace){few}"


def lanes_section(report: Report, console: Console) -> RenderableType | None:
    """One line a rank; None where steps are known, or no device was recorded."""
    lanes = _shown(report)
    if not lanes or report.run.steps.analyzed:
        return None

    def column(head: str, field: str, drop: int) -> Column:
        return Column(head, [milliseconds(getattr(lane, field)) for lane in lanes], drop=drop)

    columns = [
        Column("rank", [str(lane.rank) for lane in lanes]),
        column("span", "span_ms", 0),
        column("compute", "compute_ms", 1),
        column("communication", "communication_ms", 3),
        column("exposed", "exposed_ms", 1),
        column("copies", "copies_ms", 6),
        *([column("not known", "unclassified_ms", 4)] if any(lane.unclassified for lane in lanes) else []),
        column("launched,\nnot begun", "gaps_ms", 5),
        column("nothing\nlaunched", "host_bound_ms", 2),
    ]
    return Group(fitted(console, columns), note(_LANES))


def _shown(report: Report) -> list[LaneLine]:
    """The first ranks; of many those that are exposed longest, ascending."""
    lanes = list(report.device_lanes)
    if is_many(report):
        lanes = sorted(sorted(lanes, key=lambda lane: -lane.exposed_ms)[:TOP_RANKS], key=lambda lane: lane.rank)
    return lanes[:TOP_RANKS]


def contention_title(report: Report) -> str:
    """The section's title: what all kernels together lose."""
    lost = sum(line.lost_ms_per_step for line in report.contention)
    per = "a step" if report.run.steps.analyzed else "over the whole trace"
    return f"Compute beside communication: {milliseconds(lost)} ms lost {per}"


def contention_section(report: Report, console: Console) -> RenderableType | None:
    """The kernels that lose most; None where none loses much."""
    step = report.time_budget.step_ms or max((lane.span_ms for lane in report.device_lanes), default=0.0)
    lines = [line for line in report.contention if line.lost_ms_per_step >= _LEAST * step][:TOP_KERNELS]
    if not lines:
        return None
    most = max(24, min(console.width, 100) - INDENT - _FIGURES)
    columns = [
        Column("kernel", [clipped(console, line.name, most) for line in lines], right=False),
        Column("grid", [number(line.blocks) for line in lines], drop=3),
        Column("alone", [milliseconds(line.alone_ms) for line in lines], drop=2),
        Column("beside", [milliseconds(line.beside_ms) for line in lines], drop=1),
        Column("longer", [f"{line.slowdown:.2f}x" for line in lines]),
        Column("lost", [milliseconds(line.lost_ms_per_step) for line in lines]),
    ]
    return Group(fitted(console, columns), note(_SLOWED))
