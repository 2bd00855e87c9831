"""What each link carried while that cost time, beside what it can carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from commlens.analyzers import Report
from commlens.analyzers.at_scale.link_kinds import used_gb_s, worst_links
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.counted.link_lines import CARRIED, LinkLine
from commlens.render.links import shown_links
from commlens.render.words import number, percent
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, bars, figure, named, note, saying, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_LINKS = 32
_ROW, _AROUND = 26, 110  # px


def links(report: Report) -> Figure:
    """GB/s of the busier direction while transfers were exposed, against each link's peak, 1 GB = 1e9 bytes."""
    lines = worst_links(shown_links(report)) if is_many(report) else shown_links(report)
    kept = [line for line in lines if used_gb_s(line) is not None or line.peak_gb_s is not None][:MOST_LINKS]
    if not kept:
        return saying(report, "of no link is known what it can carry, or carried while that cost time", "links")
    names = [f"{shown(line.host, 24)} {shown(line.device, 18)}" for line in kept]
    which = ", with errors or nearest to their peak" if is_many(report) else ""
    few = f"{len(kept)} of {len(lines):,} links{which}" if len(lines) > len(kept) else ""
    unknown = [note(f"  {_state(line)}", x=0, y=at, yref="y", yanchor="middle") for at, line in enumerate(kept)]
    silent = [
        each for each, line in zip(unknown, kept, strict=True) if used_gb_s(line) is None or line.state != CARRIED
    ]
    return figure(
        _traces(kept, names),
        f"Bars: what {len(kept)} links carried against what they can carry, GB/s.",
        _AROUND + _ROW * len(kept),
        bargap=0.35,
        showlegend=True,
        xaxis=axis("GB/s", rangemode="tozero"),
        yaxis=axis(showgrid=False, zeroline=False, range=[len(kept) - 0.4, -0.6], **named(range(len(kept)), names)),
        annotations=[*silent, *([note(few, x=1, xanchor="right")] if few else [])],
    )


def _traces(lines: Sequence[LinkLine], names: Sequence[str]) -> list[Trace]:
    said = [f"{name}<br>{_said(line)}" for name, line in zip(names, lines, strict=True)]
    template = "%{customdata}<extra></extra>"
    used = [used_gb_s(line) for line in lines]
    traces = [bars(palette.USED, used, range(len(lines)), flat=True, customdata=said, hovertemplate=template)]
    peaks = [(place, line.peak_gb_s) for place, line in enumerate(lines) if line.peak_gb_s is not None]
    if peaks:
        marker = {"symbol": "line-ns-open", "size": 20, "color": palette.COLOURS[palette.PEAK], "line": {"width": 3}}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": palette.NAMES[palette.PEAK],
                "x": [peak for _, peak in peaks],
                "y": [place for place, _ in peaks],
                "marker": marker,
                "customdata": [said[place] for place, _ in peaks],
                "hovertemplate": template,
            }
        )
    return traces


def _state(line: LinkLine) -> str:
    return "not known" if line.state == CARRIED else shown(line.state)


def _said(line: LinkLine) -> str:
    """Used, peak and errors in words."""
    how = "" if line.used_gb_s_p50 is not None else " (a mean)"
    used = "what it carried is not known" if used_gb_s(line) is None else f"used {number(used_gb_s(line))} GB/s{how}"
    peak = "its peak is not known" if line.peak_gb_s is None else f"peak {number(line.peak_gb_s)} GB/s"
    share = "" if line.share_of_peak is None else f", {percent(line.share_of_peak)} of it"
    return f"{used}; {peak}{share}" + (f"; {line.errors:,} errors" if line.errors else "")
