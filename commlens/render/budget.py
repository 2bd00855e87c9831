"""Where a step goes: its parts, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.findings.context import LEAST_SHARE
from commlens.analyzers.summary import TimeBudget
from commlens.render.columns import note
from commlens.render.words import bar, milliseconds, percent

BAR = 30
_APART = 0.02  # of all communication: the overlap of the medians from that of all steps
_MEANING = (
    "wait: this rank had arrived, another had not; transfer: all had arrived, bytes were moving. other: outside"
    " forward, backward and optimizer: loading data, logging, whatever no hook sees."
)
_ON_DEVICE_MEANING = "wait: this rank had arrived, another had not; transfer: all had arrived, bytes were moving."
_ON_HOST = "exposed: the training thread stood still for a collective. "
_ON_DEVICE = "exposed: a collective's kernel ran and no compute kernel did. "
_OTHERS = {"host-bound": "nothing launched", "gaps": "launched, not begun"}


def budget_section(report: Report, console: Console) -> RenderableType | None:
    """The parts of a step with bars, None where they are not known."""
    budget = report.time_budget
    if budget.step_ms is None or budget.exposed_ms is None:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="crop")
    for name, value in _parts(budget):
        share = (value or 0) / budget.step_ms if budget.step_ms else 0
        table.add_row(name, f"{milliseconds(value)} ms", percent(share), bar(console, share, BAR))
    for name, ms in (budget.other_parts_ms or {}).items():
        if ms >= LEAST_SHARE * budget.step_ms:
            table.add_row(f"  {_OTHERS.get(name, name)}", f"{milliseconds(ms)} ms", percent(ms, budget.step_ms))
    table.add_row("step", f"{milliseconds(budget.step_ms)} ms", "", "", style="bold")
    table.add_row("hidden", f"{milliseconds(budget.hidden_ms)} ms", "", _hidden(budget))
    if budget.exposed_wait_ms is None:
        return table
    meaning = _ON_DEVICE + _ON_DEVICE_MEANING if budget.other_parts_ms else _ON_HOST + _MEANING
    return Group(table, note(meaning + _bursts(report) + _uneven_overlap(budget)))


def _parts(budget: TimeBudget) -> Iterator[tuple[str, float | None]]:
    yield "compute", budget.compute_ms
    if budget.exposed_wait_ms is None:
        yield "exposed communication", budget.exposed_ms
    else:
        yield "exposed wait", budget.exposed_wait_ms
        yield "exposed transfer", budget.exposed_transfer_ms
        if budget.exposed_unsplit_ms:
            yield "exposed, not split", budget.exposed_unsplit_ms
    yield "other", budget.other_ms


def _hidden(budget: TimeBudget) -> str:
    overlap = "" if budget.overlap is None else f"overlap {percent(budget.overlap)}: "
    return f"{overlap}in flight meanwhile"


def _uneven_overlap(budget: TimeBudget) -> str:
    """Where the overlap, which is of all steps together, is not what the medians beside it say."""
    if budget.overlap is None or budget.exposed_ms is None or budget.hidden_ms is None:
        return ""
    usual = budget.hidden_ms / both if (both := budget.hidden_ms + budget.exposed_ms) else 0.0
    if abs(budget.overlap - usual) < _APART:
        return ""
    return f" The overlap is of all steps together: of the medians it would be {percent(usual)}."


def _bursts(report: Report) -> str:
    mean = uneven_wait_ms(report)
    if mean is None:
        return ""
    usual = milliseconds(report.time_budget.exposed_wait_ms)
    return f" Waiting is uneven: {milliseconds(mean)} ms a step on average, {usual} ms in the usual one."


def uneven_wait_ms(report: Report) -> float | None:
    """Mean waiting a step, where medians do not show it because it falls into a few steps; else None."""
    budget = report.time_budget
    means = [line.wait_ms_per_step for line in report.ranks if line.wait_ms_per_step is not None]
    if not means or budget.exposed_wait_ms is None or budget.step_ms is None:
        return None
    mean = sum(means) / len(means)
    return None if mean - budget.exposed_wait_ms < LEAST_SHARE * budget.step_ms else mean
