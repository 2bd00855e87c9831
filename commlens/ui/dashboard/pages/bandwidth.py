"""How fast bytes moved, against their size, and what the links carried."""

from __future__ import annotations

from typing import Any

from dash import Dash

from commlens.analyzers import Report
from commlens.render.report import sections
from commlens.render.words import number, size
from commlens.ui import figures
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query
from commlens.ui.dashboard.components import chart, question, section
from commlens.ui.dashboard.runs import Runs, View

NAME, TITLE = "bandwidth", "Bandwidth"
QUESTION = "How fast do bytes move, and what limits them: latency or bandwidth?"


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Bandwidth by size with the fitted cost, then the tables it is made of, then links."""
    report = view.examined.report
    parts = {part.key: part for part in sections(report, wide_console())}
    beside = {"collectives": [chart(figures.sizes(report))], "links": [chart(figures.links(report))]}
    shown = ("costs", "collectives", "links", "waits")
    return [
        question(TITLE, QUESTION, _answer(report)),
        chart(figures.bandwidth(report)),
        *(section(parts[key], *beside.get(key, [])) for key in shown if key in parts),
    ]


def _answer(report: Report) -> str:
    known = [line for line in report.collectives if line.busbw_gb_s is not None]
    if not known:
        return "No bandwidth is known: see the figure's words."
    most = max(known, key=lambda line: (line.exposed_ms_per_step or 0, line.busbw_gb_s or 0))
    regime = f", {most.regime}" if most.regime else ""
    basis = f" (on {most.bandwidth_basis})" if most.bandwidth_basis else ""
    return (
        f"{most.op} of {size(most.bytes)} in group {most.group} moves {number(most.busbw_gb_s)} GB/s bus"
        f" bandwidth{basis}{regime}."
    )


def register(app: Dash, runs: Runs) -> None:
    """Nothing moves here."""
