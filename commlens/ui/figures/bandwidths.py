"""Bandwidth against message size, with the cost that was fitted to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from commlens.analyzers import Report
from commlens.analyzers.across.transfers import CostLine
from commlens.analyzers.at_scale.collective_kinds import CollectiveKind, collective_kinds
from commlens.analyzers.at_scale.cost_kinds import cost_kinds
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.at_scale.spread import Spread
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.collectives import BASIS
from commlens.render.words import number, percent, size
from commlens.trace.ops import busbw_factor
from commlens.trace.schema import POINT_TO_POINT
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, figure, note, saying, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BUS, ALGORITHM = "busbw", "algbw"
MOST_POINTS = 2_000
MOST_CURVES = 6
_MOST_SERIES = 8  # beyond them groups share the marker of their operation
_CURVE = 60  # points of a curve
_MOST_TICKS = 10
_TICK = 0.07  # of the axis that the name of a size takes
_BOUND = " (lower bound: waiting included)"
_Key = tuple[str, str]  # group, operation


def bandwidth(report: Report, measure: str = BUS) -> Figure:
    """Bandwidths of the collectives, GB/s, 1 GB = 1e9 bytes; a point is one group, operation and size.

    Of many ranks a point is the median of all groups of a kind, with a line from the lowest to the highest.

    Args:
        report: of the run.
        measure: BUS or ALGORITHM, as nccl-tests define them.
    """
    spreads = _spreads(report, measure) if is_many(report) else {}
    lines = [line for line in spreads or report.collectives if line.bytes and _rate(line, measure) is not None]
    if not lines:
        return saying(report, "no bandwidth is known", "cost-model", "time-budget", "unknown-ends")
    kept = lines[:MOST_POINTS]
    several = len({line.group for line in kept}) > 1
    together = _series(kept)
    fits = [cost for cost in _costs(report) if _drawn(cost)][:MOST_CURVES]
    low, high = _range(kept)
    traces = [_curve(cost, measure, low, high, several) for cost in fits]
    for place, (name, own) in enumerate(together.items()):
        traces += _points(name, own, place, measure, several, spreads)
    traces += _calibrated(kept, measure)
    layout: dict[str, Any] = {"shapes": [], "annotations": []}
    if len(fits) == 1:
        layout = _boundary(fits[0], low, high)
    if len(lines) > len(kept):
        layout["annotations"].append(
            note(f"{len(kept):,} of {len(lines):,} kinds of collectives, the costliest", x=1, xanchor="right")
        )
    return figure(
        traces,
        _alt(kept, fits, measure),
        340,
        showlegend=True,
        xaxis=axis("message size", type="log", **_ticks(kept, low, high)),
        yaxis=axis(f"{measure} GB/s", rangemode="tozero"),
        **layout,
    )


def _spreads(report: Report, measure: str) -> dict[CollectiveLine, Spread | None]:
    """A line for each kind of collectives, and how its bandwidth is spread over the groups."""
    return {_typical(each): each.busbw_gb_s if measure == BUS else each.algbw_gb_s for each in collective_kinds(report)}


def _typical(each: CollectiveKind) -> CollectiveLine:
    """All groups of a kind as one line: medians of their bandwidths."""
    shown_as = next((line for line in each.lines if (line.bandwidth_basis == BASIS) == each.bound), each.lines[0])
    return replace(
        shown_as,
        group=f"{each.kind.name} x {len(each.lines):,}",
        bytes=each.bytes,
        count_per_step=each.count_per_step,
        busbw_gb_s=None if each.busbw_gb_s is None else each.busbw_gb_s.median,
        algbw_gb_s=None if each.algbw_gb_s is None else each.algbw_gb_s.median,
    )


def _costs(report: Report) -> Sequence[CostLine]:
    """Fits; of many ranks the one of the median bandwidth for each kind of groups."""
    if not is_many(report):
        return report.cost_model
    found = [(each.kind.name, each.typical) for each in cost_kinds(report)]
    return [replace(cost, group=name) for name, cost in found if cost is not None]


def _rate(line: CollectiveLine, measure: str) -> float | None:
    return line.busbw_gb_s if measure == BUS else line.algbw_gb_s


def _series(lines: Sequence[CollectiveLine]) -> dict[str, list[CollectiveLine]]:
    """Lines of one marker, by its name."""
    apart = len({(line.group, line.op) for line in lines}) <= _MOST_SERIES
    several = apart and len({line.group for line in lines}) > 1
    found: dict[str, list[CollectiveLine]] = {}
    for line in lines:
        name = f"{shown(line.op)}, group {shown(line.group, 20)}" if several else shown(line.op)
        found.setdefault(name, []).append(line)
    return found


def _points(
    name: str,
    lines: list[CollectiveLine],
    place: int,
    measure: str,
    several: bool,
    spreads: Mapping[CollectiveLine, Spread | None],
) -> Iterator[Trace]:
    """Markers: filled where the transfer was measured, open where it is a lower bound; with the spread of several."""
    colour, symbol = palette.series(place)
    for bound in (False, True):
        own = [line for line in lines if (line.bandwidth_basis == BASIS) == bound]
        if not own:
            continue
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": name + _BOUND * bound,
            "x": [line.bytes for line in own],
            "y": [_rate(line, measure) for line in own],
            "marker": {"size": 9, "color": colour, "symbol": "triangle-up-open" if bound else symbol},
            "customdata": [_said(line, several) + _spread(spreads.get(line)) for line in own],
            "hovertemplate": f"%{{customdata}}<br>{measure} {'at least ' * bound}%{{y:.4~g}} GB/s<extra></extra>",
            **({"error_y": _whiskers([spreads.get(line) for line in own])} if spreads else {}),
        }


def _spread(found: Spread | None) -> str:
    if found is None or found.count < 2:
        return ""
    lowest = f"lowest {number(found.worst)} GB/s in group {shown(found.whose)}"
    return f"<br>{found.count:,} groups: {lowest}, highest {number(found.best)}"


def _whiskers(found: Sequence[Spread | None]) -> dict[str, Any]:
    """From the lowest to the highest bandwidth of each kind."""
    above = [0.0 if each is None else each.best - each.median for each in found]
    below = [0.0 if each is None else each.median - each.worst for each in found]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.5, "width": 5}


def _said(line: CollectiveLine, several: bool) -> str:
    group = f" in group {shown(line.group)}" if several else ""
    count = "" if line.count_per_step is None else f", {number(line.count_per_step)} a step"
    regime = "" if line.regime is None else f"<br>{line.regime}"
    peak = "" if line.efficiency is None else f"<br>{percent(line.efficiency)} of the calibrated peak"
    return f"{shown(line.op)} of {size(line.bytes)}{group}{count}{regime}{peak}"


def _drawn(cost: CostLine) -> bool:
    return cost.alpha_us is not None and cost.bandwidth_gb_s is not None


def _factor(cost: CostLine, measure: str) -> float:
    """What turns algorithm bandwidth into what is shown."""
    if measure != BUS or cost.op in POINT_TO_POINT:
        return 1.0
    return busbw_factor(cost.op, len(cost.ranks)) or 1.0


def _curve(cost: CostLine, measure: str, low: float, high: float, several: bool) -> Trace:
    """Bandwidth by the fitted cost: bytes / (alpha + bytes / bandwidth)."""
    alpha, peak = cost.alpha_us or 0.0, cost.bandwidth_gb_s or math.inf
    sizes = [low * (high / low) ** (place / (_CURVE - 1)) for place in range(_CURVE)]
    factor = _factor(cost, measure)
    where = f", group {shown(cost.group, 20)}" if several else ""
    name = f"fit of {shown(cost.op)}{where}: alpha {number(alpha)} us, {number(peak * factor)} GB/s"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "legendrank": 1001,  # behind the points, which are drawn on it
        "x": sizes,
        "y": [factor * each / (alpha * 1e3 + each / peak) for each in sizes],
        "line": {"color": palette.COLOURS[palette.FIT], "width": 2, "dash": "dash"},
        "hovertemplate": f"{name}<extra></extra>",
    }


def _calibrated(lines: Sequence[CollectiveLine], measure: str) -> list[Trace]:
    """What the calibration reached at the same sizes."""
    own = [(line, rate) for line in lines if line.efficiency and (rate := _rate(line, measure)) is not None]
    if not own:
        return []
    marker = {"symbol": "line-ew-open", "size": 16, "color": palette.COLOURS[palette.PEAK], "line": {"width": 3}}
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "calibrated peak",
            "x": [line.bytes for line, _ in own],
            "y": [rate / (line.efficiency or 1.0) for line, rate in own],
            "marker": marker,
            "hovertemplate": "calibrated: %{y:.4~g} GB/s<extra></extra>",
        }
    ]


def _boundary(cost: CostLine, low: float, high: float) -> dict[str, Any]:
    """Where alpha takes as long as the bytes: below it latency decides, above it bandwidth."""
    edge = (cost.alpha_us or 0.0) * 1e3 * (cost.bandwidth_gb_s or 0.0)
    if not low < edge < high:
        side = "bandwidth-bound: every size lies above" if edge <= low else "latency-bound: every size lies below"
        return {"shapes": [], "annotations": [note(f"{side} {size(edge)}", x=1, y=0.01, xanchor="right")]}
    line = {"color": palette.LINE, "width": 1, "dash": "dot"}
    share = math.log(edge / low) / math.log(high / low)
    left = note("latency-bound ", x=share, y=0.01, xanchor="right")
    right = note(f" bandwidth-bound, from {size(edge)}", x=share, y=0.01)
    shape = {"type": "line", "x0": edge, "x1": edge, "y0": 0, "y1": 1, "yref": "paper", "line": line}
    return {"shapes": [shape], "annotations": [left, right]}


def _range(lines: Sequence[CollectiveLine]) -> tuple[float, float]:
    """Of sizes, with room on both sides."""
    sizes = [line.bytes or 1 for line in lines]
    return min(sizes) / 2, max(sizes) * 2


def _ticks(lines: Sequence[CollectiveLine], low: float, high: float) -> dict[str, Any]:
    """The sizes there are, or powers of ten where these are many, named as bytes."""
    ticks = _apart(sorted({line.bytes or 1 for line in lines}), high / low)
    if len(ticks) > _MOST_TICKS:
        ticks = [10**power for power in range(16) if low <= 10**power <= high]
    edges = [math.log10(low), math.log10(high)]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [_bytes(each) for each in ticks], "range": edges}


def _apart(sizes: Sequence[int], span: float) -> list[int]:
    """Those that leave room for the name of the one before."""
    kept = sizes[:1]
    for each in sizes[1:]:
        if each > kept[-1] * span**_TICK:
            kept = [*kept, each]
    return list(kept)


def _bytes(count: float) -> str:
    return size(count).replace(".0 ", " ")


def _alt(lines: Sequence[CollectiveLine], fits: Sequence[CostLine], measure: str) -> str:
    best = max(lines, key=lambda line: _rate(line, measure) or 0.0)
    rate = number(_rate(best, measure))
    fitted = f"; {len(fits)} fitted curves" if fits else ""
    return f"Points: {measure} of {len(lines)} kinds of collectives, at most {rate} GB/s at {size(best.bytes)}{fitted}."
