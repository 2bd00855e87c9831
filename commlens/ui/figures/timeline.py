"""All ranks on one clock: a picture of shares far out, single collectives close up, the critical path over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.intervals import Ints
from commlens.analyzers.views.lines import Line
from commlens.analyzers.views.side_by_side import side_by_side
from commlens.analyzers.views.states import COMPUTE, OTHER, STATES, TRANSFER, UNSPLIT, WAIT
from commlens.analyzers.views.timeline import Bars, Timeline
from commlens.render.words import milliseconds, size
from commlens.trace.schema import MISSING
from commlens.ui import palette
from commlens.ui.figures.density import picture
from commlens.ui.figures.frame import Trace, axis, figure, named, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_BARS: Final = 2_000  # a browser draws more too slowly
_COLUMNS: Final = 1_200  # of the picture
_HOVERED: Final = 5_000  # places where the picture says its shares
_PATH: Final = 1_500  # stretches of the critical path
_STEPS: Final = 40  # that are marked
_AROUND: Final = 130  # px of the figure that are not lines
_ABOVE: Final = 18  # of them between lines and legend, for the names of steps
_KINDS: Final = {
    WAIT: palette.WAIT,
    TRANSFER: palette.TRANSFER,
    UNSPLIT: palette.UNSPLIT,
    COMPUTE: palette.COMPUTE,
    OTHER: palette.OTHER,
}
_WORDS: Final = {WAIT: "wait", TRANSFER: "transfer", UNSPLIT: "not split", COMPUTE: "compute", OTHER: "other"}


@dataclass(frozen=True)
class Window:
    """What of the time is shown, ns of the common clock."""

    begin_ns: int
    end_ns: int


def timeline(
    times: Timeline, lines: Sequence[Line], window: Window, selected: tuple[int, int] | None = None
) -> tuple[Figure, bool]:
    """The figure, and whether it shows single collectives.

    Args:
        times: of the run.
        lines: which ranks, from above.
        window: which time; it is at least a microsecond.
        selected: communicator and place of a collective to stress.
    """
    bars = times.bars(lines, window.begin_ns, window.end_ns, MOST_BARS)
    traces = [] if bars is None else _bars(times, bars)
    pictures = [] if bars is not None else [_picture(times, lines, window)]
    traces += [] if bars is not None else _hovered(times, lines, window)
    traces += [] if bars is None else _links(times, bars, selected)
    traces += _path(times, lines, window)
    what = "single collectives" if bars is not None else "shares of time"
    names, height = [shown(line.name, 20) for line in lines], max(130, 22 * len(lines))
    return (
        figure(
            [*traces, *_legend(bars is None)],
            f"{len(lines)} lines over {milliseconds((window.end_ns - window.begin_ns) / 1e6)} ms: {what}.",
            height + _AROUND,
            images=pictures,
            shapes=_steps(times, window),
            barmode="overlay",
            dragmode="zoom",
            hovermode="closest",
            hoverdistance=30,
            uirevision="timeline",
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1 + _ABOVE / height, "yanchor": "bottom"},
            margin={"l": 16, "r": 16, "t": 66, "b": 16},
            xaxis=axis("ms since the first record", range=[_ms(times, window.begin_ns), _ms(times, window.end_ns)])
            | {"tickformat": ",~r" if window.end_ns - window.begin_ns > 10_000_000 else ",.3f", "showgrid": False},
            yaxis=axis("", range=[len(lines) - 0.4, -0.6], fixedrange=True, showgrid=False, zeroline=False)
            | named(range(len(lines)), names),
        ),
        bars is not None,
    )


def _ms(times: Timeline, at_ns: Any) -> Any:
    """On the figure's axis: ms since the first record."""
    return (at_ns - times.begin_ns) / 1e6


def _picture(times: Timeline, lines: Sequence[Line], window: Window) -> dict[str, Any]:
    shares = times.shares(lines, window.begin_ns, window.end_ns, _COLUMNS)
    order = [COMPUTE, WAIT, TRANSFER, UNSPLIT]
    stacked = shares[:, [STATES.index(state) for state in order]]
    return {
        "source": picture(stacked, [palette.COLOURS[_KINDS[state]] for state in order]),
        "xref": "x",
        "yref": "y",
        "x": _ms(times, window.begin_ns),
        "y": -0.5,
        "sizex": (window.end_ns - window.begin_ns) / 1e6,
        "sizey": len(lines),
        "sizing": "stretch",
        "layer": "below",
    }


def _hovered(times: Timeline, lines: Sequence[Line], window: Window) -> list[Trace]:
    """Cells that cannot be seen, and say the shares under the pointer."""
    if not lines:
        return []
    columns = max(1, min(200, _HOVERED // len(lines)))
    shares = times.shares(lines, window.begin_ns, window.end_ns, columns)
    percent = np.rint(100 * shares).astype(int).transpose(0, 2, 1)
    width = (window.end_ns - window.begin_ns) / columns
    said = ", ".join(f"{_WORDS[state]} %{{customdata[{place}]}} %" for place, state in enumerate(STATES))
    return [
        {
            "type": "heatmap",
            "x": _ms(times, window.begin_ns + width * (np.arange(columns) + 0.5)),
            "y": np.arange(len(lines)),
            "z": np.zeros((len(lines), columns), np.int8),
            "customdata": percent.tolist(),
            "hovertemplate": f"%{{y}}, %{{x:,.1f}} ms<br>{said}<extra></extra>",
            "opacity": 0,
            "showscale": False,
            "showlegend": False,
        }
    ]


def _bars(times: Timeline, bars: Bars) -> list[Trace]:
    """Collectives above, what the rank computed below, on each line; collectives under way at once share its height."""
    traces = []
    track, tracks = _tracks(bars)
    height = 0.48 / tracks
    for number, state in enumerate(STATES):
        own = np.flatnonzero(bars.state == number)
        if not own.size:
            continue
        computed = state == COMPUTE
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": _WORDS[state],
                "showlegend": False,
                "base": _ms(times, bars.start_ns[own]),
                "x": (bars.end_ns[own] - bars.start_ns[own]) / 1e6,
                "y": bars.line[own],
                "offset": 0.12 if computed else -0.42 + height[own] * track[own],
                "width": 0.3 if computed else height[own],
                "marker": {"color": palette.COLOURS[_KINDS[state]], "line": {"width": 0}},
                "customdata": _said(times, bars, own, state),
                "hovertemplate": "%{customdata[2]}<extra></extra>",
            }
        )
    return traces


def _tracks(bars: Bars) -> tuple[Ints, Ints]:
    """Which of how many tracks of its line each bar is on, so that no collective covers another, shape (bars,) each."""
    track, tracks = np.zeros_like(bars.line), np.ones_like(bars.line)
    collectives = np.flatnonzero(bars.row != MISSING)
    for line in np.unique(bars.line[collectives]):
        own = collectives[bars.line[collectives] == line]
        _, of = np.unique(bars.row[own], return_inverse=True)
        starts, ends = np.full(of.max() + 1, bars.start_ns.max()), np.full(of.max() + 1, bars.end_ns.min())
        np.minimum.at(starts, of, bars.start_ns[own])
        np.maximum.at(ends, of, bars.end_ns[own])
        found = side_by_side(starts, ends)
        track[own], tracks[own] = found[of], found.max() + 1
    return track, tracks


def _said(times: Timeline, bars: Bars, own: Ints, state: str) -> list[list[Any]]:
    """Communicator, place, and words of each bar."""
    length = (bars.end_ns[own] - bars.start_ns[own]) / 1e6
    if state == COMPUTE:
        return [[MISSING, MISSING, f"compute, {milliseconds(each)} ms"] for each in length]
    found = []
    for bar, ms in zip(own, length, strict=True):
        facts = times.examined.ranks[bars.position[bar]]
        row, words = int(bars.row[bar]), facts.columns.words
        group, op = (words[name].words[words[name].codes[row]] for name in ("group", "op"))
        count = int(facts.columns.collectives["bytes"][row])
        what = f"{shown(op)} of {size(count)}" if count != MISSING else shown(op)
        text = f"rank {facts.rank}: {_WORDS[state]} {milliseconds(ms)} ms<br>{what} in group {shown(group)}"
        found.append([int(bars.communicator[bar]), int(bars.place[bar]), text])
    return found


def _links(times: Timeline, bars: Bars, selected: tuple[int, int] | None) -> list[Trace]:
    """A line through the arrivals of each collective; a stronger one through those of the selected.

    Where clocks are not compared there is none: it would say who came first.
    """
    if times.refusal is not None:
        return []
    keys = np.stack([bars.communicator, bars.place, bars.line], axis=1)
    matched = np.flatnonzero(bars.communicator != MISSING)
    order = matched[np.lexsort((bars.start_ns[matched], *keys[matched].T[::-1]))]
    first = np.ones(order.size, bool)
    first[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    order = order[first]  # the first bar of each part begins at its arrival
    chosen = (
        (keys[order, 0] == selected[0]) & (keys[order, 1] == selected[1]) if selected else np.zeros(order.size, bool)
    )
    style = {"color": "rgba(128, 128, 128, 0.55)", "width": 1}
    strong = {"color": palette.COLOURS[palette.CRITICAL_PATH], "width": 2, "dash": "dot"}
    return [
        _joined(times, bars, order[~chosen], keys, style, "arrivals of one collective"),
        *([_joined(times, bars, order[chosen], keys, strong, "the selected collective")] if chosen.any() else []),
    ]


def _joined(
    times: Timeline, bars: Bars, order: Ints, keys: NDArray[np.int64], style: dict[str, Any], name: str
) -> Trace:
    """One line a collective, with gaps between them."""
    breaks = np.flatnonzero((keys[order][1:, :2] != keys[order][:-1, :2]).any(axis=1)) + 1
    x = np.insert(_ms(times, bars.start_ns[order]), breaks, np.nan)
    y = np.insert(bars.line[order].astype(float) - 0.18, breaks, np.nan)
    line = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": style, "name": name}
    return {**line, "hoverinfo": "skip", "connectgaps": False}


def _path(times: Timeline, lines: Sequence[Line], window: Window) -> list[Trace]:
    """The critical path, along the lower edge of the ranks' lines; where it is on a rank that is not shown, a gap."""
    found = times.path(window.begin_ns, window.end_ns, _PATH)
    if found is None or not len(found):
        return []
    line_of = {position: number for number, line in enumerate(lines) for position in line.positions}
    x: list[float] = []
    y: list[float | None] = []
    for begin, end, position, _ in found.tolist():
        at = line_of.get(position)
        x += [_ms(times, max(begin, window.begin_ns)), _ms(times, min(end, window.end_ns))]
        y += [None, None] if at is None else [at + 0.46, at + 0.46]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": {"color": palette.COLOURS[palette.CRITICAL_PATH], "width": 2.5},
            "name": palette.NAMES[palette.CRITICAL_PATH],
            "hoverinfo": "skip",
            "connectgaps": False,
        }
    ]


def _steps(times: Timeline, window: Window) -> list[dict[str, Any]]:
    """Where steps begin, where they are not too many."""
    inside = np.flatnonzero((times.steps.ends > window.begin_ns) & (times.steps.starts < window.end_ns))
    if not 0 < inside.size <= _STEPS:
        return []
    every = -(-inside.size // 12)
    return [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": (at := _ms(times, int(times.steps.starts[step]))),
            "x1": at,
            "y0": 0,
            "y1": 1,
            "line": {"color": palette.LINE, "width": 1, "dash": "dot"},
            "label": {
                "text": f"step {times.step_index[step]}" if place % every == 0 else "",
                "textposition": "end",
                "textangle": 0,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 11},
            },
        }
        for place, step in enumerate(inside.tolist())
        if window.begin_ns <= times.steps.starts[step] < window.end_ns
    ]


def _legend(far: bool) -> list[Trace]:
    """One entry a state, which the picture itself cannot have."""
    states = (COMPUTE, WAIT, TRANSFER, UNSPLIT)
    exposed = "exposed " if far else ""
    names = {COMPUTE: "compute", WAIT: f"{exposed}wait", TRANSFER: f"{exposed}transfer", UNSPLIT: f"{exposed}not split"}
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [None],
            "y": [None],
            "marker": {"symbol": "square", "size": 11, "color": palette.COLOURS[_KINDS[state]]},
            "name": names[state],
        }
        for state in states
    ]
