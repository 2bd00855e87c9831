"""What is hidden behind compute, and what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dash import Dash, html

from commlens.analyzers import Report
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.at_scale.overlap_kinds import overlap_kinds
from commlens.analyzers.overlap_lines import OverlapLine
from commlens.render.words import milliseconds, number, percent, size
from commlens.ui import figures
from commlens.ui.dashboard.address import Query, write_query
from commlens.ui.dashboard.choice import group_address
from commlens.ui.dashboard.components import chart, nothing, question, table
from commlens.ui.dashboard.runs import Runs, View

NAME, TITLE = "overlap", "Overlap"
_MOST: Final = 40  # lines: a browser takes seconds for hundreds
_MEANS: Final = (
    "Means over steps and over the ranks of the group; the table of the bandwidth page has medians over steps, and"
    " means over all ranks of the job."
)
QUESTION = "Is communication hidden behind compute, by step, group and bucket?"


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Exposed and hidden, by collective and by step."""
    report = view.examined.report
    return [
        question(TITLE, QUESTION, _answer(report)),
        chart(figures.overlap(report)),
        chart(figures.steps(report)),
        *(_together(view, query) if is_many(report) else [_lines(report, report.overlaps)]),
    ]


def _together(view: View, query: Query) -> list[Any]:
    """Alike groups on one line, each with the address that shows the single ones; these where one was asked for."""
    report, key = view.examined.report, view.key
    found = overlap_kinds(report)
    if not found:
        return [_lines(report, ())]
    here = [f"/{NAME}{write_query({'run': key, 'kind': each.key})}" for each in found]
    parts = [html.H2("Alike groups together, means over them"), _lines(report, [each.mean for each in found], here)]
    one = next((each for each in found if each.key == query.get("kind")), None)
    if one is None:
        return [nothing("A kind of groups is a link to its single groups."), *parts]
    ranks = [group_address("ranks", key, line.group) for line in one.lines]
    head = html.H2(f"Single groups: {one.mean.op}, {one.kind.name}")
    return [head, _lines(report, one.lines, ranks), *parts]


def _answer(report: Report) -> str:
    budget = report.time_budget
    if budget.overlap is None or budget.exposed_ms is None:
        return "How much is hidden cannot be told: see the figure's words."
    return (
        f"{percent(budget.overlap)} of the communication of all steps is hidden; in the usual step"
        f" {milliseconds(budget.hidden_ms)} ms are beside compute, {milliseconds(budget.exposed_ms)} ms exposed."
    )


def _lines(report: Report, lines: Sequence[OverlapLine], addresses: Sequence[str] = ()) -> Any:
    if not report.overlaps:
        return nothing("No collective was issued in an analysed step.")
    head = ["group", "operation", "bucket", "size", "a step", "exposed ms", "of it wait ms", "hidden ms", "overlap"]
    rows = [
        [
            line.group,
            line.op,
            "-" if line.bucket is None else str(line.bucket),
            size(line.bytes),
            number(line.count_per_step),
            milliseconds(line.exposed_ms_per_step),
            milliseconds(line.exposed_wait_ms_per_step),
            milliseconds(line.hidden_ms_per_step),
            percent(line.overlap),
        ]
        for line in lines[:_MOST]
    ]
    more = len(lines) - _MOST
    left = f"The {_MOST} longest exposed of {len(lines):,}. The report's JSON (commlens report --format json) has all."
    shown = table(head, rows, [False, False, *[True] * 7], addresses=addresses[:_MOST])
    return html.Div([shown, nothing(_MEANS), *([nothing(left)] if more > 0 else [])])


def register(app: Dash, runs: Runs) -> None:
    """Nothing moves here."""
