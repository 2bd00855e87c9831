"""What everything rests on: coverage, abstentions, settings that differ, and the raw rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import flask
from dash import Dash, Input, Output, State, dcc, html

from commlens.analyzers import Report
from commlens.analyzers.at_scale.many import MANY
from commlens.analyzers.health.recording import examine_health
from commlens.render.checks import check_table
from commlens.render.report import sections
from commlens.render.run_health import diagnosis
from commlens.render.words import counted
from commlens.trace.rank import Rank
from commlens.trace.rows import OPERATORS, Filter, RowsError, chosen_rows, write_csv
from commlens.trace.schema import TABLES
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query, one_of, read_query, whole, write_query
from commlens.ui.dashboard.components import nothing, question, section, table, words
from commlens.ui.dashboard.runs import Runs, View

NAME, TITLE = "data", "Data"
QUESTION = "What was recorded, what was not, and what do the numbers rest on?"
PER_PAGE: Final = 50
_LONGEST: Final = 60  # characters of a cell
_ORDER: Final = ("collectives", *(name for name in TABLES if name != "collectives"))


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Coverage, then the tables of one rank."""
    report, run = view.examined.report, view.examined.run
    parts = [part for part in sections(report, wide_console()) if part.key in ("evidence", "abstentions")]
    ranks = sorted(run.ranks)
    name, operator = one_of(query, "table", _ORDER), one_of(query, "is", OPERATORS)
    rank = whole(query, "rank", 0, 10_000_000)
    rank = rank if rank in run.ranks else (ranks[0] if ranks else None)
    return [
        question(TITLE, QUESTION, _answer(report)),
        *(section(part) for part in parts),
        *_health(view),
        html.H2("Rows as they were recorded"),
        html.Div(
            [
                _labelled("table", dcc.Dropdown(list(_ORDER), name, id="data-table", clearable=False)),
                _labelled("rank", _rank_field(ranks, rank)),
                _labelled("column", dcc.Dropdown(list(TABLES[name]), query.get("column"), id="data-column")),
                _labelled("is", dcc.Dropdown(list(OPERATORS), operator, id="data-is", clearable=False)),
                _labelled("value", dcc.Input(query.get("value", ""), id="data-value", debounce=True, maxLength=200)),
                html.Button("back", id="data-back"),
                html.Button("on", id="data-on"),
                html.A("CSV", id="data-csv", className="button"),
            ],
            className="controls",
        ),
        dcc.Store(id="data-page", data=whole(query, "page", 0, 1 << 40) or 0),
        html.Div(id="data-rows"),
    ]


def _health(view: View) -> list[Any]:
    """What commlens doctor says of the run: its health, and what differs between its ranks."""
    health = examine_health(view.examined, int(view.read_at * 1e9))
    found = [part for part in diagnosis(view.examined, health).parts if part.checks]
    return [html.Section([html.H2(part.title), *words(check_table(part.checks))]) for part in found]


def _rank_field(ranks: Sequence[int], rank: int | None) -> Any:
    """One of a list; of many ranks a number to type."""
    if len(ranks) <= MANY:
        return dcc.Dropdown(ranks, rank, id="data-rank", clearable=False)
    return dcc.Input(rank, id="data-rank", type="number", min=ranks[0], max=ranks[-1], step=1, debounce=True)


def _labelled(text: str, control: Any) -> html.Label:
    return html.Label([html.Span(text, className="dim"), control], className="labelled")


def _answer(report: Report) -> str:
    run, coverage = report.run, report.coverage
    missing = f", {counted(len(run.ranks_missing), 'rank')} missing" if run.ranks_missing else ""
    return (
        f"{len(run.ranks_present)} of {counted(run.world_size, 'rank')} recorded{missing};"
        f" {coverage.collectives_matched:,} of {coverage.collectives_seen:,} rows of collectives have a counterpart on"
        f" every rank; {counted(len(report.abstentions), 'question')} not answered."
    )


def _rows(view: View, query: Query, page: int) -> tuple[list[Any], int]:
    """A page of rows, and its number, which is less where there are not so many."""
    rank = _rank(view, query)
    if rank is None:
        return [nothing(_no_rank(view, query))], 0
    try:
        found = chosen_rows(rank, query["table"], _filter(query))
    except RowsError as error:
        return [nothing(str(error))], 0
    if not found.num_rows:
        return [nothing(view.problem or "No such row.")], 0
    page = min(page, (found.num_rows - 1) // PER_PAGE)
    begin = page * PER_PAGE
    part = found.slice(begin, PER_PAGE)
    rows = [[_cell(value) for value in row.values()] for row in part.to_pylist()]
    numbers = [not _is_text(field.type) for field in part.schema]
    told = f"rows {begin + 1:,} to {begin + part.num_rows:,} of {found.num_rows:,}"
    return [html.P(told, className="dim"), table(part.schema.names, rows, numbers, named=False)], page


def _no_rank(view: View, query: Query) -> str:
    """Why there are no rows."""
    ranks = sorted(view.examined.run.ranks)
    asked = query.get("rank", "")
    return (
        f"Of rank {asked} nothing can be read; ranks go from {ranks[0]} to {ranks[-1]}."
        if ranks and asked.isdecimal()
        else "No rank can be read."
    )


def _rank(view: View, query: Query) -> Rank | None:
    number = whole(query, "rank", -1, 10_000_000)
    return None if number is None else view.examined.run.ranks.get(number)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))


def _cell(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _filter(query: Query) -> Filter | None:
    column, value = query.get("column"), query.get("value")
    return Filter(column, one_of(query, "is", OPERATORS), value) if column and value else None


def register(app: Dash, runs: Runs) -> None:
    """Rows, and the same as CSV."""

    @app.callback(
        Output("data-rows", "children"),
        Output("data-page", "data"),
        Output("data-csv", "href"),
        Output("data-column", "options"),
        Output("link", "data", allow_duplicate=True),
        Input("data-table", "value"),
        Input("data-rank", "value"),
        Input("data-column", "value"),
        Input("data-is", "value"),
        Input("data-value", "value"),
        Input("data-back", "n_clicks"),
        Input("data-on", "n_clicks"),
        State("data-page", "data"),
        State("run", "value"),
        prevent_initial_call="initial_duplicate",
    )
    def chosen(name: str, rank: int, column: str | None, operator: str, value: str | None, *rest: Any) -> Any:
        from dash import ctx

        page, key = rest[2:]
        name = name if name in TABLES else _ORDER[0]
        column = column if column in TABLES[name] else None
        query = {"table": name, "rank": str(rank), "column": column or "", "is": operator, "value": value or ""}
        step = {"data-back": -1, "data-on": 1}.get(str(ctx.triggered_id))
        page = (
            max(0, int(page or 0) + step) if step is not None else (int(page or 0) if ctx.triggered_id is None else 0)
        )
        rows, page = _rows(runs.view(key), query, page)
        link = write_query({"run": key, **query, "page": page or None})
        return rows, page, f"/rows.csv{link}", list(TABLES[name]), link

    def csv() -> flask.Response:
        query = read_query(flask.request.query_string.decode("ascii", "replace"))
        key = query.get("run", "")
        if key not in runs.keys or query.get("table") not in TABLES:
            return flask.Response("commlens: there is no such table\n", status=404, mimetype="text/plain")
        found = _rank(runs.view(key), query)
        if found is None:
            return flask.Response("commlens: there is no such rank\n", status=404, mimetype="text/plain")
        name = f"{query['table']}-rank{found.rank}.csv"
        try:
            rows = chosen_rows(found, query["table"], _filter(query))
        except RowsError as error:
            return flask.Response(f"commlens: {error}\n", status=400, mimetype="text/plain")
        head = {"Content-Disposition": f'attachment; filename="{name}"'}
        return flask.Response(write_csv(rows), mimetype="text/csv", headers=head)

    app.server.add_url_rule("/rows.csv", view_func=csv)
