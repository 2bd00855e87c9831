"""The collectives of a report as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.across.transfers import ALIGNED, CLOCK_FREE
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.collectives import BASIS
from commlens.render.at_scale.collectives import kinds_section, kinds_title
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.headline import group_name
from commlens.render.nccl import choices_note
from commlens.render.words import NOT_KNOWN, milliseconds, number, percent, size

TOP_COLLECTIVES = 10
_MEASURES = {ALIGNED: "the transfer", CLOCK_FREE: "the shortest duration over the ranks"}
_PARTS = (
    "transfer: of a rank's part of a collective, over all parts, and so the bandwidths. Findings and costs of messages"
    " take of each collective the median over its ranks."
)
_SPREAD = " exposed: mean over all ranks of the job, 0 of those outside the group."
_GROUP = 14
_TITLE_GROUP = 30
_TINY = 1e-6  # below what the report's numbers are rounded to


def collectives_title(report: Report, console: Console, most: int | None = None) -> str:
    """The section's title: what the bandwidths rest on, and what is not shown; `most` as in `collectives_section`."""
    if is_many(report):
        return kinds_title(report)
    count = len(report.collectives)
    shown = report.collectives[: most or TOP_COLLECTIVES]
    more = count - len(shown)
    where = "" if _several_groups(shown) else f", group {clipped(console, group_name(shown[0]), _TITLE_GROUP)}"
    left = f"{more} more with --format json" if most is None else f"the {len(shown)} costliest of {count:,}"
    rest = f"; {left}" if more > 0 else ""
    return f"Collectives{where}: {_basis(shown)}{rest}"


def _basis(lines: Sequence[CollectiveLine]) -> str:
    bases = {line.bandwidth_basis for line in lines} - {None}
    if bases == {BASIS}:
        return "GB/s are lower bounds, durations include waiting for late ranks"
    measures = [name for basis, name in _MEASURES.items() if basis in bases]
    if not measures:
        return "no bandwidth is known"
    bounds = "; < and > are bounds, waiting included" if BASIS in bases else ", without waiting"
    return f"GB/s of {' or '.join(measures)}{bounds}"


def collectives_section(report: Report, console: Console, most: int | None = None) -> RenderableType | None:
    """Rows of the costliest collectives, and what NCCL chose for them; None where there are none.

    Args:
        report: of the run.
        console: that the table must fit.
        most: rows on a page, which has no command line; None in a terminal.
    """
    if is_many(report):
        return kinds_section(report, console)
    lines = report.collectives[: most or TOP_COLLECTIVES]
    if not lines:
        return None

    def column(head: str, value: Callable[[CollectiveLine], str], drop: int = 0) -> Column:
        return Column(head, [value(line) for line in lines], drop=drop)

    groups = [clipped(console, group_name(line), _GROUP) for line in lines]
    bounds = {line.bandwidth_basis for line in lines} > {BASIS}
    split = any(line.transfer_ms_p50 is not None for line in lines)
    what, mark = ("transfer", "<") if split else ("duration", "")
    table = fitted(
        console,
        [
            *([Column("group", groups, right=False)] if _several_groups(lines) else []),
            Column("operation", [line.op for line in lines], right=False),
            column("size", lambda line: ("~" if line.bytes_vary else "") + size(line.bytes)),
            column("per\nstep", lambda line: number(line.count_per_step), drop=2),
            column(f"{what}\np50 ms", lambda line: _time(line.transfer_ms_p50, line.duration_ms_p50, mark), drop=1),
            column(f"{what}\np95 ms", lambda line: _time(line.transfer_ms_p95, line.duration_ms_p95, mark), drop=4),
            column("wait\nmean", lambda line: milliseconds(line.wait_ms_mean), drop=1),
            column("exposed\nms/step", lambda line: milliseconds(line.exposed_ms_per_step), drop=1),
            column("algbw\nGB/s", lambda line: _rate(line, line.algbw_gb_s, bounds), drop=6),
            column("busbw\nGB/s", lambda line: _rate(line, line.busbw_gb_s, bounds), drop=1),
            column("of\npeak", lambda line: percent(line.efficiency), drop=3),
            column("bound\nby", _bound, drop=5),
        ],
    )
    notes = [note(said)] if (said := _said(report, lines)) else []
    chosen = choices_note(lines)
    return Group(table, *notes, *([] if chosen is None else [chosen]))


def _said(report: Report, lines: Sequence[CollectiveLine]) -> str:
    """What the columns are medians and means of."""
    parts = _PARTS if any(line.bandwidth_basis == ALIGNED for line in lines) else ""
    spread = any(line.exposed_ms_per_step and (line.group_size or 0) < len(report.ranks) for line in lines)
    return (parts + _SPREAD * spread).strip()


def _several_groups(lines: Sequence[CollectiveLine]) -> bool:
    return len({line.group for line in lines}) != 1


def _time(transfer: float | None, duration: float | None, mark: str) -> str:
    """The transfer; where that is not known the duration, which it cannot exceed."""
    if transfer is not None or duration is None:
        return milliseconds(transfer)
    return mark + milliseconds(duration)


def _rate(line: CollectiveLine, value: float | None, mark: bool) -> str:
    """A bandwidth, marked as a lower bound where others of the table are none."""
    if mark and value is not None and line.bandwidth_basis == BASIS:
        return f">{number(value) if value >= 0.001 else 0}"
    return number(value or _TINY) if value is not None else NOT_KNOWN


def _bound(line: CollectiveLine) -> str:
    return (line.regime or NOT_KNOWN).removesuffix("-bound")
