"""What sums tell of the steps that were recorded as aggregates only."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.aggregated.lines import AggregateLine, AggregateRank, Aggregates
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.words import NOT_KNOWN, counted, milliseconds, number, pairs, percent, size

TOP_RANKS, TOP_LINES = 8, 12
_HOST, _GROUP = 12, 16
_LEGEND = {
    "count": "count and bytes: over the whole time, of all these ranks together.",
    "p50": "p50 and p95: of a histogram, right to 9 %, waiting among them.",
    "transfer": "transfer: at most that, the mean of the member with the shortest one.",
    "wait": "wait: at least that, what members took beyond it, a mean.",
    "last": "last: the member that has the shortest mean most often, and in what share of the stretches of steps.",
}


def aggregates_title(report: Report) -> str:
    """The section's title."""
    told = report.aggregates
    if told is not None and told.stepless:
        after = "" if told.only else ": all else in this report is of what came before"
        return f"Sums over {'the whole run' if told.only else 'the rest of the run'} (COMMLENS_QUOTA){after}"
    if told is None or told.only or told.from_step is None:
        return "Sums of all steps (COMMLENS_QUOTA)"
    return f"Sums of the steps from {told.from_step} on (COMMLENS_QUOTA): all else in this report is of those before"


def aggregates_section(report: Report, console: Console) -> RenderableType | None:
    """Steps, ranks and collectives; None where no rank kept sums."""
    told = report.aggregates
    if told is None:
        return None
    parts: list[RenderableType] = [pairs(_facts(told, report.run.world_size))]
    ranks = _worst(told.per_rank)
    if any(rank.step_ms is not None or rank.wait_ms_per_step_at_least is not None for rank in ranks):
        parts.append(_ranks(ranks, len(told.per_rank), console))
    if told.lines:
        table = _lines(told.lines[:TOP_LINES], console)
        parts += [table, note(_more(told) + _legend(table))]
    return Group(*parts)


def _facts(told: Aggregates, world_size: int) -> list[tuple[str, str]]:
    step = "not known" + (": nothing says where steps after the job's first two began" if told.stepless else "")
    if told.step_ms_mean is not None:
        step = (
            f"{milliseconds(told.step_ms_mean)} ms on average over {counted(told.steps, 'step')} without the first two"
        )
        step += f"; p50 {milliseconds(told.step_ms_p50)}, p95 {milliseconds(told.step_ms_p95)}"
    seen = f"{counted(told.collectives, 'collective')} (a part on each rank) of {told.ranks:,} of {world_size:,} ranks"
    odd = [("left out", f"{counted(told.dropped, 'row')} that make no sense")] if told.dropped else []
    return [("summed", seen), ("step", step), *odd]


def _worst(ranks: Sequence[AggregateRank]) -> list[AggregateRank]:
    """All, or those that wait least, for they are waited for, and those that wait most."""
    if len(ranks) <= TOP_RANKS:
        return list(ranks)
    known = [rank for rank in ranks if rank.wait_ms_per_step_at_least is not None] or list(ranks)
    by_wait = sorted(known, key=lambda rank: (rank.wait_ms_per_step_at_least or 0.0, rank.rank))
    half = TOP_RANKS // 2
    return [*by_wait[:half], *by_wait[max(half, len(by_wait) - half) :]]


def _ranks(ranks: Sequence[AggregateRank], of: int, console: Console) -> RenderableType:
    columns = [
        Column("rank", [str(rank.rank) for rank in ranks]),
        Column("host", [clipped(console, rank.host or NOT_KNOWN, _HOST) for rank in ranks], right=False, drop=2),
        Column("collectives", [f"{rank.collectives:,}" for rank in ranks], drop=3),
        Column("step\nms", [milliseconds(rank.step_ms) for rank in ranks], drop=1),
        Column("stands still\nms/step", [milliseconds(rank.blocked_ms_per_step) for rank in ranks], drop=2),
        Column("waits at least\nms/step", [milliseconds(rank.wait_ms_per_step_at_least) for rank in ranks]),
        Column("for messages\nms/step", [milliseconds(rank.message_wait_ms_per_step) for rank in ranks], drop=1),
    ]
    table = fitted(console, columns)
    if of <= len(ranks):
        return table
    return Group(
        table, note(f"{len(ranks)} of {of:,} ranks: those that wait least are the ones waited for, then most.")
    )


def _lines(lines: Sequence[AggregateLine], console: Console) -> Table:
    """Counts a step, or in all where no step is known."""
    in_all = all(line.count_per_step is None for line in lines)
    totals = [
        Column("count", [f"{line.count:,}" for line in lines], drop=5),
        Column("bytes", [size(line.total_bytes) for line in lines], drop=6),
    ]
    named = any(line.last_rank is not None for line in lines)
    last = [NOT_KNOWN if line.last_rank is None else f"{line.last_rank} ({percent(line.last_share)})" for line in lines]
    columns = [
        Column("group", [clipped(console, _group(line), _GROUP) for line in lines], right=False),
        Column("operation", [line.op for line in lines], right=False),
        Column("size", [size(line.bytes) for line in lines]),
        *(totals if in_all else [Column("per\nstep", [number(line.count_per_step) for line in lines], drop=2)]),
        Column("p50\nms", [milliseconds(line.duration_ms_p50) for line in lines], drop=3),
        Column("p95\nms", [milliseconds(line.duration_ms_p95) for line in lines], drop=4),
        Column("transfer\nms", [milliseconds(line.transfer_ms_at_most) for line in lines], drop=1),
        Column("wait\nms", [milliseconds(line.wait_ms_at_least) for line in lines], drop=1),
        *([Column("last", last, drop=1)] if named else []),
    ]
    return fitted(console, columns)


def _legend(table: Table) -> str:
    """What the columns of the table are."""
    heads = [str(column.header).split("\n")[0] for column in table.columns]
    return " ".join(["From sums, not from single collectives.", *(_LEGEND[head] for head in heads if head in _LEGEND)])


def _group(line: AggregateLine) -> str:
    described = line.group_desc not in ("", "undefined", line.group)
    return f"{line.group} ({line.group_desc})" if described else line.group


def _more(told: Aggregates) -> str:
    more = len(told.lines) - TOP_LINES
    return f"{counted(more, 'line')} more, in which less is waited. " if more > 0 else ""
