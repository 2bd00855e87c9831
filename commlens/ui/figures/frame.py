"""What every figure is made of: traces and a layout as plain dicts, words that are shown as they are, bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from commlens.analyzers import Report
from commlens.ui import palette

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_MARKS = 30_000  # of one figure
MOST_PATTERNED = 60  # bars
LONGEST = 48  # characters of a name
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "{": "&#123;", "$": "&#36;"})
_NOT_SHOWN = "Not shown: "

Trace = dict[str, Any]


@lru_cache(maxsize=8192)
def shown(text: str, most: int = LONGEST) -> str:
    """A name as a figure may show it: plotly takes tags, `%{...}` and `$...$` in a text for markup.

    Line breaks and other control characters become spaces; the middle of what is longer than `most` is left out.
    """
    plain = text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)
    if len(plain) > most:
        plain = f"{plain[: most - most // 3 - 1]}…{plain[-(most // 3) :]}"
    return plain.translate(_MARKUP)


def figure(traces: Sequence[Trace], alt: str, height: int, **layout: Any) -> Figure:
    """A figure of plain dicts, which plotly is not asked to check: that takes longer than to make it (tests do).

    Args:
        traces: as plotly has them.
        alt: what it shows, in a sentence; kept as `layout.meta.alt`.
        height: px.
        layout: more of plotly's layout.
    """
    from plotly.graph_objects import Figure

    return Figure({"data": list(traces), "layout": _layout(alt, height) | layout}, _validate=False)


def saying(report: Report, text: str, *analyses: str) -> Figure:
    """A figure that says why there is none: the abstention of the first of `analyses` that has one, else `text`."""
    reason = why_not(report, *analyses) or text
    words = shown(_NOT_SHOWN + reason, 400)
    layout = {
        "xaxis": {"visible": False, "fixedrange": True},
        "yaxis": {"visible": False, "fixedrange": True},
        "annotations": [note(_wrapped(words), x=0.5, y=0.5, xanchor="center", yanchor="middle", size=14)],
        "showlegend": False,
    }
    empty = figure([], f"{_NOT_SHOWN}{reason}", 120, **layout)
    empty.layout["meta"] = {"alt": f"{_NOT_SHOWN}{reason}", "empty": True}
    return empty


def why_not(report: Report, *analyses: str) -> str | None:
    """Why a question was not answered, of the first of `analyses` that was not."""
    reasons: dict[str, list[str]] = {}
    for each in report.abstentions:
        reasons.setdefault(each.analysis, []).append(each.reason)
    return next(("; ".join(reasons[analysis]) for analysis in analyses if analysis in reasons), None)


def alt(shown: Figure) -> str:
    """What a figure shows, in a sentence."""
    return str(shown.layout.meta["alt"])


def empty(shown: Figure) -> bool:
    """Whether it only says why there is nothing to show."""
    return bool(shown.layout.meta.get("empty"))


def marks(shown: Figure) -> int:
    """Points and bars that the browser has to draw."""
    return sum(len(trace.get("x") or ()) for trace in shown.to_plotly_json()["data"])


def note(text: str, x: float = 0, y: float = 1, size: int = 12, **more: Any) -> dict[str, Any]:
    """Words in a figure; x and y are of the plot's area, 0 to 1. `text` has been through `shown`."""
    place = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return {"text": text, "x": x, "y": y, "font": {"size": size}, "align": "left", **place, **more}


def bars(kind: str, values: Sequence[float | None], places: Sequence[Any], flat: bool = False, **more: Any) -> Trace:
    """One part of stacked bars, in the colour and by the name of its kind.

    Args:
        kind: key of `palette.NAMES`.
        values: lengths; None is drawn as none.
        places: where along the other axis.
        flat: bars lie.
        more: of plotly's trace.
    """
    x, y = (values, places) if flat else (places, values)
    return {
        "type": "bar",
        "name": palette.NAMES[kind],
        "x": list(x),
        "y": list(y),
        "orientation": "h" if flat else "v",
        "marker": fill(kind, patterned=len(x) <= MOST_PATTERNED),
        **more,
    }


def fill(kind: str, patterned: bool = True) -> dict[str, Any]:
    """How bars of a kind are painted; thin ones without a pattern, which could not be seen and takes long to draw."""
    marker: dict[str, Any] = {"color": palette.COLOURS[kind], "line": {"width": 0}}
    if patterned and kind in palette.PATTERNS:
        pattern = {"shape": palette.PATTERNS[kind], "fillmode": "overlay", "fgcolor": "rgba(255, 255, 255, 0.55)"}
        marker["pattern"] = pattern | {"size": 6, "solidity": 0.25}
    return marker


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis with a quiet grid."""
    lines = {"gridcolor": palette.GRID, "zerolinecolor": palette.LINE, "linecolor": palette.LINE, "automargin": True}
    return {"title": {"text": title, "standoff": 10, "font": {"size": 12}}, **lines, **more}


def named(places: Iterable[float], names: Sequence[str], most: int = 0) -> dict[str, Any]:
    """Of an axis: names at places, every n-th where there are more than `most` (0: all)."""
    step = -(-len(names) // most) if most else 1
    return {"tickmode": "array", "tickvals": list(places)[::step], "ticktext": list(names)[::step]}


def legend(traces: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is more than one thing to be told apart."""
    return len({trace.get("name") for trace in traces if trace.get("showlegend", True)}) > 1


def _layout(alt: str, height: int) -> dict[str, Any]:
    return {
        "template": {"layout": {}},
        "meta": {"alt": alt},
        "height": height,
        "autosize": True,
        "paper_bgcolor": palette.CLEAR,
        "plot_bgcolor": palette.CLEAR,
        "font": {"family": FONT, "size": 12, "color": palette.TEXT},
        "hoverlabel": {"bgcolor": palette.HOVER, "bordercolor": palette.HOVER, "font": {"color": "#FFFFFF"}},
        "margin": {"l": 16, "r": 16, "t": 44, "b": 16},
        "legend": {"orientation": "h", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "traceorder": "normal"},
        "dragmode": False,
    }


def _wrapped(text: str) -> str:
    """In lines of some 80 characters; `text` has been through `shown`."""
    import textwrap

    return "<br>".join(textwrap.wrap(text, 80, break_long_words=False))
