"""How much of each kind of collective is hidden, and how much the job stands still for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from commlens.analyzers import Report
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.at_scale.overlap_kinds import overlap_kinds
from commlens.analyzers.overlap_lines import OverlapLine
from commlens.render.words import number, percent, size
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, bars, figure, named, note, saying, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_LINES = 30
_REST = "exposed transfer, or not split"  # where some collectives have no counterpart
_ROW, _AROUND = 26, 110  # px


def overlap(report: Report) -> Figure:
    """Exposed and hidden time of each group, operation and bucket, ms per step; the longest exposed first.

    Of many ranks alike groups are one bar, their mean.
    """
    told = [each.mean for each in overlap_kinds(report)] if is_many(report) else report.overlaps
    lines = [line for line in told if line.exposed_ms_per_step or line.hidden_ms_per_step]
    if not lines:
        return saying(report, "no collective was exposed or hidden in the analysed steps", "time-budget", "steps")
    kept = lines[:MOST_LINES]
    names = _names(kept)
    few = f"{len(kept)} of {len(lines):,}, the longest exposed" if len(lines) > len(kept) else ""
    return figure(
        _traces(kept, names, unsplit=any(line.exposed_unsplit_ms for line in report.by_step)),
        f"Bars: exposed and hidden time of {len(kept)} kinds of collectives.",
        _AROUND + _ROW * len(kept),
        barmode="stack",
        bargap=0.3,
        showlegend=True,
        xaxis=axis("ms per step", rangemode="tozero"),
        yaxis=axis(showgrid=False, zeroline=False, range=[len(kept) - 0.4, -0.6], **named(range(len(kept)), names)),
        annotations=[note(few, x=1, xanchor="right")] if few else [],
    )


def _traces(lines: Sequence[OverlapLine], names: Sequence[str], unsplit: bool) -> list[Trace]:
    said = [f"{name}<br>{_often(line)}" for name, line in zip(names, lines, strict=True)]
    traces = []
    for kind, value in _parts(lines).items():
        values = [value(line) for line in lines]
        if any(values):
            name = _REST if kind == palette.TRANSFER and unsplit else palette.NAMES[kind]
            template = f"%{{customdata}}<br>{name}: %{{x:.4~g}} ms a step<extra></extra>"
            more: dict[str, Any] = {"name": name, "customdata": said, "hovertemplate": template}
            traces.append(bars(kind, values, range(len(lines)), flat=True, **more))
    return traces


def _parts(lines: Sequence[OverlapLine]) -> dict[str, Callable[[OverlapLine], float | None]]:
    hidden = {palette.HIDDEN: lambda line: line.hidden_ms_per_step}
    if any(line.exposed_wait_ms_per_step is None for line in lines):
        return {palette.EXPOSED: lambda line: line.exposed_ms_per_step, **hidden}
    return {palette.WAIT: lambda line: line.exposed_wait_ms_per_step, palette.TRANSFER: _moved, **hidden}


def _moved(line: OverlapLine) -> float:
    """What of the exposed time did not wait."""
    return max(line.exposed_ms_per_step - (line.exposed_wait_ms_per_step or 0.0), 0.0)


def _names(lines: Sequence[OverlapLine]) -> list[str]:
    several = len({line.group for line in lines}) > 1
    return [_name(line, several) for line in lines]


def _name(line: OverlapLine, several: bool) -> str:
    group = f", group {shown(line.group, 14)}" if several else ""
    bucket = "" if line.bucket is None else f", bucket {line.bucket}"
    return f"{shown(line.op)}{'' if line.bytes is None else ' ' + size(line.bytes)}{bucket}{group}"


def _often(line: OverlapLine) -> str:
    return f"{number(line.count_per_step)} a step, overlap {percent(line.overlap)}"
