"""All ranks on one clock, with the critical path."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from dash import Dash, Input, Output, State, ctx, html, no_update

from commlens.analyzers.at_scale.many import MANY
from commlens.analyzers.views.lines import BY_GROUP, Lines, orders, pick_lines
from commlens.analyzers.views.timeline import CollectiveDetail, Timeline
from commlens.render.words import counted, milliseconds, number, percent, size
from commlens.trace.schema import MISSING
from commlens.ui import figures
from commlens.ui.dashboard.address import Query, merged, one_of, whole, write_query
from commlens.ui.dashboard.choice import find_choice, ranks_field
from commlens.ui.dashboard.components import chart, nothing, question, table
from commlens.ui.dashboard.pages.ranks import clicked_line, order_field
from commlens.ui.dashboard.runs import Runs, View
from commlens.ui.figures.timeline import Window, timeline

NAME, TITLE = "timeline", "Timeline"
QUESTION = "What did all ranks do at the same time?"
_LEAST_NS: Final = 2_000  # that can be zoomed into
_FIRST_STEPS: Final = 3  # shown before anything was chosen


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """The steps, the ranks, and the collective that was chosen."""
    times, report = view.timeline, view.examined.report
    if times.end_ns <= times.begin_ns:
        return [question(TITLE, QUESTION, "Nothing with a time was recorded."), chart(figures.steps(report))]
    order = _order(view, query)
    selected = _selected(query)
    shown, close, left = _drawn(view, _window(times, query), query, selected)
    return [
        question(TITLE, QUESTION, _answer(view)),
        html.Div(
            [
                order_field(report, order, "timeline-order", without=BY_GROUP),
                ranks_field(report, query, "timeline-chosen"),
                html.Button("previous step", id="timeline-previous"),
                html.Button("next step", id="timeline-next"),
                html.Button("zoom in", id="timeline-in"),
                html.Button("zoom out", id="timeline-out"),
                html.Button("all", id="timeline-all"),
            ],
            className="controls",
        ),
        html.P(_told(times, close, left), id="timeline-told", className="dim"),
        chart(shown, id="timeline-figure", scrollZoom=True),
        html.Div(_detail(times, selected), id="timeline-detail"),
        html.H2("Steps: click one, or drag over several, to see them above"),
        chart(_brushed(figures.steps(report)), id="timeline-steps"),
    ]


def _brushed(shown: Any) -> Any:
    if "empty" not in (shown.layout.meta or {}):
        shown.layout["dragmode"] = "select"
        shown.layout["selectdirection"] = "h"
    return shown


def _answer(view: View) -> str:
    report, refusal = view.examined.report, view.timeline.refusal
    if refusal:
        return (
            f"Clocks could not be compared ({refusal}): each rank is drawn on its own clock, the first record of each"
            " host at 0."
        )
    budget = report.time_budget
    sure = report.coverage.clock.uncertainty_us
    within = f", to {number(sure / 1000)} ms" if sure else ""
    if len(report.ranks) == 1:
        return "One rank, on its own clock: who waited for whom is not known."
    ranks = counted(len(report.ranks), "rank")
    if budget.exposed_wait_ms is None or not budget.step_ms:
        return f"{ranks} on one clock{within}."
    return (
        f"{ranks} on one clock{within}: of each step"
        f" {percent(budget.exposed_wait_ms, budget.step_ms)} is exposed wait and"
        f" {percent(budget.exposed_transfer_ms, budget.step_ms)} exposed transfer."
    )


def _window(times: Timeline, query: Query) -> Window:
    """As the address says, ns since the first record; the run's first analysed steps where it does not."""
    length = times.end_ns - times.begin_ns
    first, last = whole(query, "from", 0, length), whole(query, "to", 0, length)
    if first is not None and last is not None and last - first >= _LEAST_NS:
        return Window(times.begin_ns + first, times.begin_ns + last)
    step = whole(query, "step", 0, 1 << 60)
    if step is not None and (at := np.flatnonzero(times.step_index == step)).size:
        return _steps(times, int(at[0]), int(at[0]))
    if times.step_index.size:
        return _steps(times, 0, min(_FIRST_STEPS, times.step_index.size) - 1)
    return Window(times.begin_ns, times.end_ns)


def _steps(times: Timeline, first: int, last: int) -> Window:
    """From one step to another, by their places, with a little on each side."""
    begin, end = int(times.steps.starts[first : last + 1].min()), int(times.steps.ends[first : last + 1].max())
    margin = (end - begin) // 50
    return _inside(times, begin - margin, end + margin)


def _inside(times: Timeline, begin: int, end: int) -> Window:
    begin, end = max(begin, times.begin_ns), min(end, times.end_ns)
    if end - begin < _LEAST_NS:
        begin = max(times.begin_ns, min(begin, times.end_ns - _LEAST_NS))
        end = begin + _LEAST_NS
    return Window(begin, end)


def _selected(query: Query) -> tuple[int, int] | None:
    communicator, place = whole(query, "communicator", 0, 1 << 40), whole(query, "place", 0, 1 << 60)
    return None if communicator is None or place is None else (communicator, place)


def _order(view: View, query: Query) -> str:
    """Hosts and ranks only: a group of a thousand ranks on one line would be read whole."""
    return one_of(query, "order", tuple(each for each in orders(view.examined.report) if each != BY_GROUP))


def _lines(view: View, query: Query) -> Lines:
    """The worst ranks, or those that were asked for."""
    report = view.examined.report
    choice = find_choice(report, query.get("ranks"))
    found = pick_lines(report, _order(view, query), choice.most(report), choice.among)
    return Lines(found.lines, " ".join(each for each in (choice.told, found.left_out) if each))


def _drawn(view: View, window: Window, query: Query, selected: tuple[int, int] | None) -> tuple[Any, bool, Lines]:
    lines = _lines(view, query)
    shown, close = timeline(view.timeline, lines.lines, window, selected)
    return shown, close, lines


def _told(times: Timeline, close: bool, lines: Lines) -> str:
    level = (
        "Each bar is a collective (above) or compute (below); thin lines join the arrivals of one collective. Click"
        " one to see all its ranks."
        if close
        else "Each column of a line shows what share of that time the ranks of a host spent on what, on average."
        if any(len(line.positions) > 1 for line in lines.lines)
        else "Each column of a line shows what share of that time the rank spent on what. Drag or scroll to zoom in,"
        " until single collectives appear."
    )
    unseen = (
        f"Whether ranks stood still for {times.unseen:,} of {times.rows:,} parts of collectives is not known: these are"
        " not in the picture, but among the bars."
    )
    return " ".join(part for part in (level, "" if close or not times.unseen else unseen, lines.left_out) if part)


def _detail(times: Timeline, selected: tuple[int, int] | None) -> list[Any]:
    found = times.collective(*selected) if selected is not None else None
    if found is None:
        return []
    seq = "" if found.seq is None else f", number {found.seq}"
    what = found.op if found.bytes is None else f"{found.op} of {size(found.bytes)} ({found.dtype})"
    return [html.H2(f"{what} in group {found.group}{seq}"), _parts(times, found)]


def _parts(times: Timeline, found: CollectiveDetail) -> Any:
    def at(value: int | None) -> str:
        return "-" if value is None else f"{(value - times.begin_ns) / 1e6:,.3f}"

    def ms(value: int | None) -> str:
        return milliseconds(None if value is None else value / 1e6)

    parts = sorted(found.parts, key=lambda part: -(part.started_ns or 0))[:MANY]
    rows = [
        [
            f"rank {part.rank}",
            part.host or "-",
            at(part.issued_ns),
            at(part.started_ns),
            at(part.completed_ns),
            ms(part.wait_ns),
            ms(part.transfer_ns),
            ms(part.exposed_ns),
            "last to come" if part.last else "",
        ]
        for part in parts
    ]
    head = ["rank", "host", "issued", "arrived", "completed", "wait ms", "transfer ms", "exposed ms", ""]
    left = f"{MANY} of {len(found.parts):,}, those that came last"
    more = [nothing(left)] if len(found.parts) > MANY else []
    apart = [nothing("Times are of each rank's own clock: not to be compared.")] if times.refusal else []
    return html.Div([*apart, table(head, rows, [False, False, *[True] * 6, False]), *more])


def register(app: Dash, runs: Runs) -> None:
    """Zooming, stepping, choosing."""

    states = (State("run", "value"), State("address", "search"), State("link", "data"))

    def answer(view: View, window: Window, query: Query, selected: tuple[int, int] | None) -> Any:
        times, order = view.timeline, _order(view, query)
        shown, close, lines = _drawn(view, window, query, selected)
        said: dict[str, str | int | float | None] = {
            "run": view.key,
            "order": order,
            "ranks": query["ranks"],
            "from": window.begin_ns - times.begin_ns,
            "to": window.end_ns - times.begin_ns,
            "communicator": selected[0] if selected else None,
            "place": selected[1] if selected else None,
        }
        return shown, _told(times, close, lines), _detail(times, selected), write_query(said)

    @app.callback(
        *_outputs(False),
        Input("timeline-figure", "clickData"),
        Input("timeline-steps", "clickData"),
        Input("timeline-steps", "selectedData"),
        Input("timeline-order", "value"),
        Input("timeline-chosen", "value"),
        *(Input(f"timeline-{name}", "n_clicks") for name in ("previous", "next", "in", "out", "all")),
        *states,
        prevent_initial_call=True,
    )
    def moved(
        clicked: dict[str, Any] | None,
        step: dict[str, Any] | None,
        brushed: dict[str, Any] | None,
        order: str,
        named: str | None,
        *rest: Any,
    ) -> Any:
        if len(ctx.triggered) == len(ctx.inputs):  # the page was put there: it shows what its address says
            return (no_update,) * 4
        key, search, link = rest[5:]
        view = runs.view(key)
        times, query = view.timeline, {**merged(search, link, key), "order": order, "ranks": named or ""}
        selected, cause = _selected(query), ctx.triggered[0]["prop_id"]
        if cause == "timeline-figure.clickData":
            selected = _clicked(clicked)
            if selected is None or clicked_line(_lines(view, query), clicked, order) is not None:
                return (no_update,) * 4
        window = _moved(times, _window(times, query), cause, step, brushed)
        return (no_update,) * 4 if window is None else answer(view, window, query, selected)

    # By itself: every figure that is drawn says what it shows, and of calls of one callback the last alone is answered.
    @app.callback(
        *_outputs(True),
        Input("timeline-figure", "relayoutData"),
        State("timeline-order", "value"),
        State("timeline-chosen", "value"),
        *states,
        prevent_initial_call=True,
    )
    def zoomed(
        layout: dict[str, Any] | None, order: str, named: str | None, key: str, search: str, link: str | None
    ) -> Any:
        view = runs.view(key)
        query = {**merged(search, link, key), "order": order, "ranks": named or ""}
        window = _zoomed(view.timeline, _window(view.timeline, query), layout or {})
        return (no_update,) * 4 if window is None else answer(view, window, query, _selected(query))

    # By itself: a callback that sets what it is called by may lose a click that comes while it runs.
    @app.callback(
        Output("timeline-chosen", "value"),
        Output("timeline-order", "value"),
        Input("timeline-figure", "clickData"),
        State("timeline-order", "value"),
        State("timeline-chosen", "value"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    def opened(clicked: dict[str, Any] | None, order: str, named: str | None, key: str) -> Any:
        view = runs.view(key)
        host = clicked_line(_lines(view, {"order": order, "ranks": named or ""}), clicked, order)
        return (no_update, no_update) if host is None else (host, orders(view.examined.report)[0])


def _outputs(again: bool) -> list[Output]:
    """What a move changes; `again` where another callback does that too."""
    parts = (("timeline-figure", "figure"), ("timeline-told", "children"), ("timeline-detail", "children"))
    return [*(Output(*each, allow_duplicate=again) for each in parts), Output("link", "data", allow_duplicate=True)]


def _moved(
    times: Timeline,
    now: Window,
    cause: str,
    step: dict[str, Any] | None,
    brushed: dict[str, Any] | None,
) -> Window | None:
    """The window after what the user did; None where that changes nothing."""
    if cause == "timeline-steps.clickData":
        return _around(times, [point.get("x") for point in (step or {}).get("points", [])])
    if cause == "timeline-steps.selectedData":
        return _around(times, ((brushed or {}).get("range") or {}).get("x") or [])
    length = now.end_ns - now.begin_ns
    middle = now.begin_ns + length // 2
    if cause == "timeline-all.n_clicks":
        return Window(times.begin_ns, times.end_ns)
    if cause == "timeline-in.n_clicks":
        return _inside(times, middle - length // 4, middle + length // 4)
    if cause == "timeline-out.n_clicks":
        return _inside(times, middle - length, middle + length)
    if cause in ("timeline-previous.n_clicks", "timeline-next.n_clicks") and times.step_index.size:
        at = int(np.searchsorted(times.steps.starts, middle, side="right")) - 1
        at += 1 if cause == "timeline-next.n_clicks" else -1
        return _steps(times, *(min(max(at, 0), times.step_index.size - 1),) * 2)
    return now


def _zoomed(times: Timeline, now: Window, layout: dict[str, Any]) -> Window | None:
    if layout.get("xaxis.autorange"):
        return Window(times.begin_ns, times.end_ns)
    bounds = [layout.get(f"xaxis.range[{side}]") for side in (0, 1)]
    bounds = bounds if None not in bounds else list(layout.get("xaxis.range") or [])
    if len(bounds) != 2 or not all(isinstance(each, int | float) for each in bounds):
        return None
    begin, end = sorted(times.begin_ns + round(float(each or 0) * 1e6) for each in bounds)
    window = _inside(times, begin, end)
    return None if (window.begin_ns, window.end_ns) == (now.begin_ns, now.end_ns) else window


def _around(times: Timeline, numbers: list[Any]) -> Window | None:
    """The steps from the least to the greatest of these numbers."""
    known = [float(each) for each in numbers if isinstance(each, int | float)]
    if not known or not times.step_index.size:
        return None
    inside = np.flatnonzero((times.step_index >= min(known) - 0.5) & (times.step_index <= max(known) + 0.5))
    if not inside.size:
        inside = np.array([np.abs(times.step_index - np.mean(known)).argmin()])
    return _steps(times, int(inside[0]), int(inside[-1]))


def _clicked(clicked: dict[str, Any] | None) -> tuple[int, int] | None:
    """The collective under the pointer."""
    said = ((clicked or {}).get("points") or [{}])[0].get("customdata")
    if not isinstance(said, list) or len(said) != 3 or not all(isinstance(each, int) for each in said[:2]):
        return None
    return None if MISSING in said[:2] else (said[0], said[1])
