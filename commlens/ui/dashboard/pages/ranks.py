"""Which ranks wait, and which are waited for."""

from __future__ import annotations

from typing import Any, Final

from dash import Dash, Input, Output, State, dcc, html

from commlens.analyzers import Report
from commlens.analyzers.views.lines import ORDERS, pick_lines
from commlens.render.report import sections
from commlens.render.words import milliseconds
from commlens.ui import figures
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query, one_of, read_query, write_query
from commlens.ui.dashboard.components import chart, nothing, question, section
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures.heat import CAUSED, WAITED, heat

NAME, TITLE = "ranks", "Ranks"
QUESTION = "Which ranks do the others wait for, and which wait?"
NAMES: Final = {"rank": "by rank", "worst": "worst first", "host": "by host"}


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Heat maps of waiting, then each rank's budget."""
    report = view.examined.report
    order = one_of(query, "order", ORDERS)
    parts = [part for part in sections(report, wide_console()) if part.key in ("ranks", "progress")]
    return [
        question(TITLE, QUESTION, _answer(report)),
        html.Div(
            dcc.RadioItems(id="ranks-order", options=NAMES, value=order, inline=True, className="radio"),
            className="controls",
        ),
        html.Div(_maps(view, order), id="ranks-maps"),
        chart(figures.ranks(report)),
        chart(figures.rank_budgets(report)),
        *(section(part) for part in parts),
    ]


def _maps(view: View, order: str) -> list[Any]:
    report = view.examined.report
    lines = pick_lines(report, order)
    shown = [heat(report, view.heat, lines.lines, what) for what in (CAUSED, WAITED)]
    left = [nothing(lines.left_out)] if lines.left_out else []
    titles = ("Waiting that each one caused, ms a step", "Waiting that each one suffered, ms a step")
    return [*left, *(part for title, each in zip(titles, shown, strict=True) for part in (html.H2(title), chart(each)))]


def _answer(report: Report) -> str:
    known = [line for line in report.ranks if line.caused_wait_ms_per_step is not None]
    if not known:
        return "Who waits for whom is not known: see the figures' words."
    worst = max(known, key=lambda line: line.caused_wait_ms_per_step or 0)
    if not worst.caused_wait_ms_per_step:
        return "No rank makes the others wait."
    per = "a step" if report.run.steps.analyzed else "over the whole trace"
    host = f" on {worst.host}" if worst.host and len(report.run.hosts) > 1 else ""
    return (
        f"Rank {worst.rank}{host} makes each of the others wait {milliseconds(worst.caused_wait_ms_per_step)} ms {per},"
        " more than any other rank."
    )


def register(app: Dash, runs: Runs) -> None:
    """The order of lines."""

    @app.callback(
        Output("ranks-maps", "children"),
        Output("link", "data", allow_duplicate=True),
        Input("ranks-order", "value"),
        State("run", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def ordered(order: str, key: str, search: str) -> Any:
        order = one_of({"order": order}, "order", ORDERS)
        link = write_query({**read_query(search), "run": key, "order": order})
        return _maps(runs.view(key), order), link
