"""How large messages are, and which sizes cost time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commlens.analyzers import Report
from commlens.analyzers.sizes import SizeBucket
from commlens.render.words import size
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, figure, named, saying, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LABELS = 16


def sizes(report: Report) -> Figure:
    """Exposed ms per step by message size, stacked by operation; how many there are is in the words of each bar."""
    buckets = report.sizes
    if not buckets:
        return saying(report, "no message size is known", "time-budget")
    if not any(bucket.exposed_ms_per_step for bucket in buckets):
        return saying(report, "no message size cost exposed time", "time-budget")
    if len({bucket.from_bytes for bucket in buckets}) == 1:
        return saying(report, _one(buckets[0]))
    edges = sorted({bucket.from_bytes for bucket in buckets})
    ops = list(dict.fromkeys(bucket.op for bucket in sorted(buckets, key=lambda each: -each.exposed_ms_per_step)))
    traces = [
        _bars(op, place, [each for each in buckets if each.op == op], edges, len(ops)) for place, op in enumerate(ops)
    ]
    names = [_from(edge) for edge in edges]
    return figure(
        traces,
        f"Bars: exposed time by message size, {len(ops)} operations.",
        300,
        barmode="stack",
        bargap=0.2,
        showlegend=len(ops) > 1,
        xaxis=axis(
            "message size, from",
            showgrid=False,
            zeroline=False,
            range=[-0.6, max(len(edges), 6) - 0.4],
            **named(range(len(edges)), names, _LABELS),
        ),
        yaxis=axis("exposed ms per step", rangemode="tozero"),
    )


def _bars(op: str, place: int, own: list[SizeBucket], edges: list[int], ops: int) -> Trace:
    shape = ("", "/", "x", ".", "-", "\\", "+", "|")[place % 8] if ops > 1 else ""
    marker = {"color": palette.SERIES[place % len(palette.SERIES)], "line": {"width": 0}}
    pattern = {"shape": shape, "fillmode": "overlay", "fgcolor": "rgba(255, 255, 255, 0.55)", "size": 6}
    return {
        "type": "bar",
        "name": shown(op),
        "x": [edges.index(bucket.from_bytes) for bucket in own],
        "y": [bucket.exposed_ms_per_step for bucket in own],
        "marker": marker | ({"pattern": pattern | {"solidity": 0.25}} if shape else {}),
        "customdata": [_said(bucket) for bucket in own],
        "hovertemplate": "%{customdata}<br>%{y:.4~g} ms exposed a step<extra></extra>",
    }


def _said(bucket: SizeBucket) -> str:
    return f"{shown(bucket.op)} from {_from(bucket.from_bytes)} to {_from(bucket.to_bytes)}<br>{bucket.count:,} of them"


def _one(bucket: SizeBucket) -> str:
    return f"all messages have from {_from(bucket.from_bytes)} to {_from(bucket.to_bytes)}"


def _from(count: int) -> str:
    return size(count)
