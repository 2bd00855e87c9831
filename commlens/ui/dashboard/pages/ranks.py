"""Which ranks wait, and which are waited for."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update

from commlens.analyzers import Report
from commlens.analyzers.at_scale.many import MANY, is_many
from commlens.analyzers.at_scale.rank_sets import GROUP, HOST, all_ranks, by_group, by_host
from commlens.analyzers.views.lines import BY_GROUP, BY_HOST, Lines, orders, pick_lines
from commlens.render.at_scale.ranks import sets_section
from commlens.render.ranks import rank_table
from commlens.render.report import sections
from commlens.render.words import milliseconds
from commlens.ui import figures
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query, one_of, read_query, write_query
from commlens.ui.dashboard.choice import Choice, find_choice, group_address, host_address, ranks_address, ranks_field
from commlens.ui.dashboard.components import chart, linked, nothing, question, section
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures.heat import CAUSED, WAITED, heat

NAME, TITLE = "ranks", "Ranks"
QUESTION = "Which ranks do the others wait for, and which wait?"
NAMES: Final = {"rank": "by rank", "worst": "worst first", "host": "by host", "group": "by process group"}
_MAPS: Final = {CAUSED: "Waiting that each one caused, ms a step", WAITED: "Waiting that each one suffered, ms a step"}


class _Asked(NamedTuple):
    """What is shown: in which order, and of which ranks."""

    order: str
    choice: Choice
    lines: Lines


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Heat maps of waiting, then each rank's budget; of many the worst, hosts or groups, with links to single ones."""
    report = view.examined.report
    asked = _asked(report, query)
    parts = [part for part in sections(report, wide_console()) if part.key in ("ranks", "progress")]
    return [
        question(TITLE, QUESTION, _answer(report)),
        html.Div(
            [order_field(report, asked.order, "ranks-order"), ranks_field(report, query, "ranks-chosen")],
            className="controls",
        ),
        html.Div(_left_out(asked), id="ranks-left"),
        *(
            part
            for what, title in _MAPS.items()
            for part in (html.H2(title), chart(_map(view, asked, what), f"ranks-{what}"))
        ),
        html.Div(_body(view, asked), id="ranks-body"),
        *(section(part) for part in parts),
    ]


def order_field(report: Report, order: str, id: str, without: str = "") -> dcc.RadioItems:
    """The choice of an order of lines, as many as make sense for so many ranks."""
    options: Any = {each: NAMES[each] for each in orders(report) if each != without}
    return dcc.RadioItems(id=id, options=options, value=order, inline=True, className="radio")


def _asked(report: Report, query: Query) -> _Asked:
    order, choice = one_of(query, "order", orders(report)), find_choice(report, query.get("ranks"))
    return _Asked(order, choice, pick_lines(report, order, choice.most(report), choice.among))


def _map(view: View, asked: _Asked, what: str) -> Any:
    return heat(view.examined.report, view.heat, asked.lines.lines, what)


def _left_out(asked: _Asked) -> list[Any]:
    return [nothing(text) for text in (asked.choice.told, asked.lines.left_out) if text]


def _body(view: View, asked: _Asked) -> list[Any]:
    report, among = view.examined.report, asked.choice.among
    drawn = [chart(figures.ranks(report, among)), chart(figures.rank_budgets(report, among))]
    return [*_single(view, asked), *drawn] if is_many(report) else drawn


def _single(view: View, asked: _Asked) -> list[Any]:
    """What the lines of the maps are, each with the address that shows it alone."""
    report, key = view.examined.report, view.key
    if asked.order in (BY_HOST, BY_GROUP) and asked.choice.among is None:
        way, find, address = (
            (HOST, by_host, host_address) if asked.order == BY_HOST else (GROUP, by_group, group_address)
        )
        sets = find(report)[: asked.choice.most(report)]
        return linked(sets_section(sets, way, wide_console()), [address(NAME, key, own.name) for own in sets])
    positions = [position for line in asked.lines.lines for position in line.positions][:MANY]
    ranks = all_ranks(report)
    shown = [ranks[position] for position in positions]
    found = rank_table(report, shown, wide_console())
    return [] if found is None else linked(found, [ranks_address("timeline", key, str(rank[0].rank)) for rank in shown])


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


def clicked_line(lines: Lines, clicked: dict[str, Any] | None, order: str) -> str | None:
    """What to show alone after a click on a line of several ranks; None where it was on none."""
    place = ((clicked or {}).get("points") or [{}])[0].get("y")
    if order not in (BY_HOST, BY_GROUP) or not isinstance(place, int | float) or not 0 <= place < len(lines.lines):
        return None
    name = lines.lines[int(place)].name
    return f"host={name}" if order == BY_HOST else f"group={name.removeprefix('group ')}"


def register(app: Dash, runs: Runs) -> None:
    """The order of lines, and which ranks; a click on a host or a group shows it alone."""

    @app.callback(
        *(Output(f"ranks-{what}", "figure") for what in _MAPS),
        Output("ranks-left", "children"),
        Output("ranks-body", "children"),
        Output("link", "data", allow_duplicate=True),
        Input("ranks-order", "value"),
        Input("ranks-chosen", "value"),
        State("run", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def ordered(order: str, text: str | None, key: str, search: str) -> Any:
        said, query = read_query(search), {"order": order, "ranks": text or ""}
        if (said.get("order", order), said.get("ranks", "")) == (order, query["ranks"]):
            return (no_update,) * 5  # the page was put there: it shows what its address says
        view = runs.view(key)
        asked = _asked(view.examined.report, query)
        maps = [_map(view, asked, what) for what in _MAPS]
        link = write_query({**said, **query, "run": key, "order": asked.order})
        return (*maps, _left_out(asked), _body(view, asked), link)

    # By itself: a callback that sets what it is called by may lose what comes while it runs.
    @app.callback(
        Output("ranks-chosen", "value"),
        Output("ranks-order", "value"),
        *(Input(f"ranks-{what}", "clickData") for what in _MAPS),
        State("ranks-order", "value"),
        State("ranks-chosen", "value"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    def opened(caused: Any, waited: Any, order: str, text: str | None, key: str) -> Any:
        report = runs.view(key).examined.report
        clicked = caused if CAUSED in ctx.triggered[0]["prop_id"] else waited
        named = clicked_line(_asked(report, {"order": order, "ranks": text or ""}).lines, clicked, order)
        return (no_update, no_update) if named is None else (named, orders(report)[0])
