"""How fast bytes moved, against their size, and what the links carried."""

from __future__ import annotations

from typing import Any

from dash import Dash, html

from commlens.analyzers import Report
from commlens.analyzers.across.transfers import ALIGNED, CLOCK_FREE
from commlens.analyzers.at_scale.collective_kinds import CollectiveKind, collective_kinds
from commlens.analyzers.at_scale.many import MANY, is_many
from commlens.analyzers.collectives import BASIS
from commlens.render.at_scale.collectives import group_lines_table, kinds_section, kinds_title
from commlens.render.report import sections
from commlens.render.words import number, size
from commlens.ui import figures
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query, write_query
from commlens.ui.dashboard.choice import group_address
from commlens.ui.dashboard.components import chart, linked, nothing, question, section
from commlens.ui.dashboard.runs import Runs, View

MOST = MANY  # lines
_MEASURES = {
    ALIGNED: "by the median transfer of its ranks' parts",
    CLOCK_FREE: "by the shortest durations over its ranks",
    BASIS: "by durations that include waiting",
}
_FAR = 1.25  # times as long as like groups, from which on it is said first
NAME, TITLE = "bandwidth", "Bandwidth"
QUESTION = "How fast do bytes move, and what limits them: latency or bandwidth?"


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Bandwidth by size with the fitted cost, then the tables it is made of, then links."""
    report = view.examined.report
    parts = {part.key: part for part in sections(report, wide_console(), MOST)}
    beside = {"collectives": [chart(figures.sizes(report))], "links": [chart(figures.links(report))]}
    many = is_many(report) and report.collectives  # then they stand above, with links
    shown = ("costs", "links", "waits") if many else ("costs", "collectives", "links", "waits")
    return [
        question(TITLE, QUESTION, _answer(report)),
        chart(figures.bandwidth(report)),
        *(_together(view, query) if is_many(report) else []),
        *(section(parts[key], *beside.get(key, [])) for key in shown if key in parts),
    ]


def _together(view: View, query: Query) -> list[Any]:
    """Alike groups on one line, each with the address that shows the single ones; these where one was asked for."""
    report, key, console = view.examined.report, view.key, wide_console()
    found = collective_kinds(report)
    body = kinds_section(report, console, MOST)
    if body is None:
        return []
    here = [f"/{NAME}{write_query({'run': key, 'kind': each.key})}" for each in found[:MOST]]
    title = kinds_title(report, MOST)
    parts = [html.H2(title), chart(figures.sizes(report)), *linked(body, here)]
    one = next((each for each in found if each.key == query.get("kind")), None)
    return [*([] if one is None else _single(one, key)), html.Section(parts, id="section-collectives")]


def _single(one: CollectiveKind, key: str) -> list[Any]:
    """The groups of a kind, the slowest first, each with the address of its ranks."""
    lines, count = one.lines[:MOST], len(one.lines)
    left = [nothing(f"The {MOST} slowest of {count:,} groups.")] if count > MOST else []
    ranks = [group_address("ranks", key, line.group) for line in lines]
    head = html.H2(f"Single groups: {one.op} of {size(one.bytes)}, {one.kind.name}")
    return [head, *linked(group_lines_table(lines, wide_console()), ranks), *left]


def _answer(report: Report) -> str:
    known = [line for line in report.collectives if line.busbw_gb_s is not None]
    if not known:
        return "No bandwidth is known: see the figure's words."
    if is_many(report) and (slow := _slow(report)):
        return slow
    most = max(known, key=lambda line: (line.exposed_ms_per_step or 0, line.busbw_gb_s or 0))
    regime = f", {most.regime}" if most.regime else ""
    basis = f" ({_MEASURES[most.bandwidth_basis]})" if most.bandwidth_basis else ""
    least = "at least " if most.bandwidth_basis == BASIS else ""
    return (
        f"{most.op} of {size(most.bytes)} in group {most.group} moves {least}{number(most.busbw_gb_s)} GB/s bus"
        f" bandwidth{basis}{regime}."
    )


def _slow(report: Report) -> str | None:
    """The group that is furthest from others like it; None where none is far."""
    apart = [(each.apart, each) for each in collective_kinds(report) if each.apart is not None]
    times, worst = max(apart, key=lambda pair: pair[0], default=(0.0, None))
    if worst is None or worst.transfer_ms is None or times < _FAR:
        return None
    what, found = worst.op if worst.bytes is None else f"{worst.op} of {size(worst.bytes)}", worst.transfer_ms
    return (
        f"{what} takes {number(times)} times as long in group {found.whose} as in the median of the"
        f" {found.count:,} groups of its kind ({worst.kind.name})."
    )


def register(app: Dash, runs: Runs) -> None:
    """Nothing moves here."""
