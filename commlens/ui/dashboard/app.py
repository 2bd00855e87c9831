"""The dashboard's pages, put together."""

from __future__ import annotations

import time
from typing import Any

from dash import Dash, Input, Output, State, clientside_callback, ctx, html, no_update

from commlens.errors import CommlensError
from commlens.ui.dashboard.address import Query, merged, read_query, write_query
from commlens.ui.dashboard.pages import PAGES
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.dashboard.shell import navigation, shell

_SILENT_S = 30.0  # a recorder at work writes each second
_BY_NAME = {page.NAME: page for page in PAGES}


def create_app(runs: Runs) -> Dash:
    """The dashboard of some runs.

    Args:
        runs: what it shows; nothing else can be reached through it.
    """
    from commlens import ui

    app = Dash(
        "commlens",
        title="commlens",
        update_title="",
        assets_folder=str(ui.ASSETS),
        assets_ignore=r"report\..*",  # those are of the one-file report
        serve_locally=True,
        suppress_callback_exceptions=True,
        add_log_handler=False,
        on_error=_told,
    )
    app.layout = shell(PAGES, runs.keys, runs.unlisted)
    _add_routing(app, runs)
    for page in PAGES:
        page.register(app, runs)
    return app


def _told(error: Exception) -> Any:
    """A user's mistake is shown on the page; what is ours goes to the terminal, and the page says so."""
    from dash import set_props

    if not isinstance(error, CommlensError):
        import logging

        logging.getLogger("commlens").error("internal error: %s: %s", type(error).__name__, error)
    text = str(error) if isinstance(error, CommlensError) else "internal error, see the terminal of the dashboard"
    if ctx.triggered_id in ("address", "grown"):  # what is shown may be of another run
        set_props("page", {"children": []})
    set_props("message", {"children": html.P(text, className="alert")})
    return no_update


def _add_routing(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("page", "children"),
        Output("nav", "children"),
        Output("run", "value"),
        Output("state", "children"),
        Output("message", "children"),
        Output("clock", "disabled"),
        Output("version", "data"),
        Output("link", "data"),
        Input("address", "pathname"),
        Input("address", "search"),
        Input("grown", "data"),
        State("link", "data"),
    )
    def show(path: str, search: str, grown: int | None, link: str | None) -> Any:
        asked = read_query(search)
        key = asked["run"] if asked.get("run") in runs.keys else runs.keys[0]
        ticked = ctx.triggered_id == "grown"
        name = (path or "/").strip("/") or PAGES[0].NAME
        here = write_query({**asked, "run": key})  # nothing of what was chosen on another page, or of another run
        try:
            view = runs.view(key)
        except CommlensError as error:
            body = _unreadable(key, error)
            return body, navigation(PAGES, name, key), key, "", [], True, 0, here
        # Controls that were moved since the address was opened count, where only the run has grown.
        query = merged(search, link, key) if ticked else asked
        page = _BY_NAME.get(name)
        body = page.layout(view, query, runs) if page is not None else _unknown(key)
        return (
            body,
            navigation(PAGES, name, key),
            key,
            _state(view),
            _problem(view, asked, runs),
            not view.growing,
            view.version,
            no_update if ticked else here,
        )

    # Apart from `show`: a tick in which nothing has grown must not take the place of a page that was asked for.
    @app.callback(
        Output("grown", "data"),
        Output("state", "children", allow_duplicate=True),
        Input("clock", "n_intervals"),
        State("run", "value"),
        State("version", "data"),
        prevent_initial_call=True,
    )
    def look(ticks: int, key: str, version: int) -> Any:
        if key not in runs.keys or not version:
            return no_update, no_update
        now = runs.version(key)
        return (now, no_update) if now != version else (no_update, _state(runs.view(key)))  # it may have fallen silent

    @app.callback(
        Output("address", "search"),
        Input("run", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def choose(key: str, search: str) -> Any:
        asked = read_query(search)
        if key is None or asked.get("run", runs.keys[0]) == key:
            return no_update
        return write_query({"run": key})

    clientside_callback(
        "function(link, run) { window.commlens.follow(link, run); return window.dash_clientside.no_update; }",
        Output("linked", "data"),
        Input("link", "data"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    clientside_callback(
        "function(clicks) { return window.commlens.theme(clicks); }",
        Output("theme", "title"),
        Input("theme", "n_clicks"),
    )


def _unknown(key: str) -> list[Any]:
    overview = html.A("overview", href=f"/{write_query({'run': key})}")
    return [html.H1("No such page"), html.P(["There is none at this address; ", overview, "."])]


def _unreadable(key: str, error: CommlensError) -> list[Any]:
    """In the place of the page: what another run's page says must not stand under this one's name."""
    return [html.H1("This run cannot be read"), html.P(f"{key}: {error}", className="alert")]


def _state(view: View) -> str:
    if not view.growing:
        return ""
    if time.time() - view.written_at > _SILENT_S:
        return f"not written since {_clock(view.written_at)}, and without an end: hung, killed or copied"
    return f"recording, read at {_clock(view.read_at)}"


def _problem(view: View, asked: Query, runs: Runs) -> list[Any]:
    shown = f"{view.problem}; shown as it was at {_clock(view.read_at)}"
    told = [html.P(shown, className="alert")] if view.problem else []
    if "run" in asked and asked["run"] not in runs.keys:
        told.append(html.P("this dashboard has no run of that name; this is its first", className="alert"))
    return told


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
