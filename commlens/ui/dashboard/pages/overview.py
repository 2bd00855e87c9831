"""The verdict: what communication costs, why, and what to do."""

from __future__ import annotations

from typing import Any

from dash import Dash, html

from commlens.analyzers import Report
from commlens.render.findings import TOP_FINDINGS, findings_title
from commlens.render.headline import headline
from commlens.render.report import header, sections
from commlens.ui import figures
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query
from commlens.ui.dashboard.components import chart, finding, question, section, words
from commlens.ui.dashboard.runs import Runs, View

NAME, TITLE = "overview", "Overview"
QUESTION = "What does communication cost this job, why, and what should change?"
_SHOWN = ("findings", "budget", "progress", "considered", "evidence", "abstentions")


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """The report's findings and budget."""
    report = view.examined.report
    parts = {part.key: part for part in sections(report, wide_console())}
    if report.findings:
        del parts["findings"]
    beside: dict[str, list[Any]] = {"budget": [chart(figures.budget(report)), chart(figures.steps(report))]}
    return [
        question(TITLE, QUESTION, headline(report)),
        html.Div(words(header(report)), className="facts"),
        *_findings(report),
        *(section(parts[key], *beside.get(key, [])) for key in _SHOWN if key in parts),
    ]


def _findings(report: Report) -> list[Any]:
    found = [finding(report, each, place) for place, each in enumerate(report.findings[:TOP_FINDINGS], start=1)]
    return [html.Section([html.H2(findings_title(report)), *found], id="section-findings")] if found else []


def register(app: Dash, runs: Runs) -> None:
    """Nothing moves here."""
