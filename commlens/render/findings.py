"""The findings of a report: what it is, what it costs, what says so, what to do, and when it is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from commlens.analyzers import Report
from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Action, Evidence, Finding, Predicted
from commlens.analyzers.track_record import changed_names
from commlens.render.compared import compared
from commlens.render.gain import interval, share_of, signed
from commlens.render.words import milliseconds, number, pairs, percent, size

TOP_FINDINGS = 5
TOP_EVIDENCE = 7
TOP_STEPS = 5
TOP_ACTIONS = 3
_NUMBER = 3  # columns the number of a finding takes


def findings_title(report: Report) -> str:
    """The section's title, with what is not shown."""
    more = len(report.findings) - TOP_FINDINGS
    return "Findings" + (f" ({TOP_FINDINGS} of {len(report.findings)}, all with --format json)" if more > 0 else "")


def findings_section(report: Report, console: Console) -> RenderableType:
    """The costliest findings; where there are none, what was compared and what could not be."""
    if not report.findings:
        return compared(report)
    parts: list[RenderableType] = []
    for place, finding in enumerate(report.findings[:TOP_FINDINGS], start=1):
        parts += [*([""] if parts else []), *finding_parts(report, finding, str(place))]
    return Group(*parts)


def finding_parts(
    report: Report, finding: Finding, mark: str, evidence: int = TOP_EVIDENCE, actions: int = TOP_ACTIONS
) -> Iterator[RenderableType]:
    """What it is, what it costs, what says so, what to do.

    Args:
        mark: stands before the title.
        evidence: at most so many lines of it.
        actions: at most so many.
    """
    title = Table.grid()
    title.add_column(width=_NUMBER, style="bold")
    title.add_column(overflow="fold", style="bold red" if finding.severity == "critical" else "bold")
    title.add_row(mark, finding.title)
    yield title
    cost = _cost(finding, report.time_budget.step_ms)
    yield Padding(Text(f"{finding.id}: {cost}confidence {finding.confidence}"), (0, 0, 0, _NUMBER))
    yield Padding(_evidence(finding, evidence), (0, 0, 0, _NUMBER + 2))
    yield Padding(pairs(_advice(report, finding, actions)), (0, 0, 0, _NUMBER))


def _cost(finding: Finding, step_ms: float | None) -> str:
    """What it costs at most, and in which steps, each with what parts it from the next."""
    cost, ceiling = _whose(finding), finding.ceiling_ms
    if ceiling is not None and step_ms:
        share = percent(ceiling, step_ms)
        cost += f"costs up to {milliseconds(ceiling)} ms of each {milliseconds(step_ms)} ms step ({share}); "
    elif ceiling is not None:
        cost += f"costs up to {milliseconds(ceiling)} ms a step; "
    if not finding.steps:
        return cost
    shown = ", ".join(str(step) for step in finding.steps[:TOP_STEPS])
    more = len(finding.steps) - TOP_STEPS
    return f"{cost}step{'s' if len(finding.steps) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}; "


def _whose(finding: Finding) -> str:
    """The ranks it is of, where its title does not say so."""
    named = name_ranks(finding.ranks) if finding.ranks else ""
    return f"{named}; " if named and named.lower() not in finding.title.lower() else ""


def _evidence(finding: Finding, most: int) -> Table:
    """Values, then what they are of."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    for each in finding.evidence[:most]:
        table.add_row(quantity(each), each.name)
    more = len(finding.evidence) - most
    if more > 0:
        table.add_row("", f"{more} more with --format json")
    return table


def quantity(evidence: Evidence) -> str:
    """A value with its unit: "27.2 ms", "4.2 MB", "100 %", "12"."""
    value, unit = evidence.value, evidence.unit
    if unit == "ms":
        return f"{milliseconds(value)} ms"
    if unit in ("B", "bytes"):
        return size(value)
    return f"{number(value)} {unit}".rstrip()


def _advice(report: Report, finding: Finding, most: int) -> Iterator[tuple[str, str]]:
    for action in finding.actions[:most]:
        yield "do", action.text
        if action.change:
            yield "change", action.change
        if action.predicted is not None:
            yield "gain", _gain(action.predicted, report.time_budget.step_ms)
        if not action.risk.startswith("none"):
            yield "risk", action.risk
        if action.verify:
            yield "check", action.verify
        if said := _record(report, action):
            yield "record", said
    if len(finding.actions) > most:
        yield "more", f"{len(finding.actions) - most} more to do with --explain {finding.id}"
    if finding.could_be_wrong_if:
        yield "wrong if", "; or ".join(finding.could_be_wrong_if)


def _gain(predicted: Predicted, step_ms: float | None) -> str:
    share = f" ({share_of(predicted.gain_ms, step_ms)})" if step_ms else ""
    return f"{signed(predicted.gain_ms)} ms a step{share}, 90 % interval {interval(predicted)}"


def _record(report: Report, action: Action) -> str | None:
    """How such a change fared when it was tried before."""
    name = changed_names(action.fix) if action.fix is not None else None
    track = next((each for each in report.track_record if each.change == name), None)
    if track is None:
        return None
    times = "once" if track.tried == 1 else f"{track.tried} times"
    said = f"tried {times} before on this account, confirmed {track.confirmed} of {track.tried}"
    if track.error_percent is None:
        return said
    return f"{said}; predicted gains were off by {plain(track.error_percent, 2)} % of the step (median)"
