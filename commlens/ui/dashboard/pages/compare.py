"""Two runs side by side."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, dcc, html

from commlens.analyzers.comparison import Comparison, compare, side
from commlens.render.comparison import comparison_headline, comparison_notes, comparison_sections
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query, write_query
from commlens.ui.dashboard.components import chart, nothing, question, words
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures.compared import compared

NAME, TITLE = "compare", "Compare"
QUESTION = "What became faster or slower from another run to this one?"


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """The run that is shown, against another one."""
    others = [key for key in runs.keys if key != view.key]
    if not others:
        answer = "This dashboard has one run only: start it with two, as in commlens dashboard BEFORE AFTER."
        return [question(TITLE, QUESTION, answer)]
    before = query.get("before")
    return [
        html.Div(
            html.Label(
                [
                    html.Span("before", className="quiet"),
                    dcc.Dropdown(others, before if before in others else None, id="compare-before"),
                ],
                className="labelled wide",
            ),
            className="controls",
        ),
        html.Div(_body(view, before, runs), id="compare-body"),
    ]


def _body(view: View, before: str | None, runs: Runs) -> list[Any]:
    if before not in runs.keys or before == view.key:
        return [question(TITLE, QUESTION, "Choose the run to compare this one with.")]
    result = compare(side(runs.view(before).examined), side(view.examined))
    console = wide_console()
    parts = [(title, table) for title, table in comparison_sections(result, console) if table.row_count]
    return [
        question(TITLE, QUESTION, comparison_headline(result)),
        *_alerts(result),
        chart(compared(result)),
        *(html.Section([html.H2(title), *words(table)]) for title, table in parts),
        *(nothing(note) for note in comparison_notes(result)),
    ]


def _alerts(result: Comparison) -> list[Any]:
    """Why it may not be believed."""
    refused = [html.P(f"Not comparable: {each}.", className="alert") for each in result.refusals]
    return [*refused, *(nothing(f"Mind: {each}.") for each in result.warnings)]


def register(app: Dash, runs: Runs) -> None:
    """The choice of the other run."""

    @app.callback(
        Output("compare-body", "children"),
        Output("link", "data", allow_duplicate=True),
        Input("compare-before", "value"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    def chosen(before: str | None, key: str) -> Any:
        view = runs.view(key)
        return _body(view, before, runs), write_query({"run": key, "before": before})
