"""The critical path: what kind of work on which rank fixes the step's end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from commlens.analyzers import Report
from commlens.analyzers.across.critical_path import OTHER, TRANSFER, UNMATCHED, UNSPLIT
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.at_scale.path_hosts import path_hosts
from commlens.analyzers.own_work import COPIES, GAPS, HOST_BOUND
from commlens.analyzers.path_lines import CriticalPath, PathPart
from commlens.render.path import kind_name
from commlens.render.words import milliseconds, percent
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, figure, fill, named, note, saying, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_RANKS = 16
MOST_HOSTS = 8
_LEAST = 0.01  # of the path: hosts with less are put together
_PARTS = 4  # named of each bar
_ROW, _AROUND = 28, 110  # px
_KINDS: Final = {
    TRANSFER: palette.TRANSFER,
    UNSPLIT: palette.UNSPLIT,
    UNMATCHED: palette.UNSPLIT,
    OTHER: palette.OTHER,
    COPIES: palette.OTHER,
    HOST_BOUND: palette.IDLE,
    GAPS: palette.GAP,
}
_WORK: Final = (palette.GREEN, palette.SKY, palette.BLUE, palette.YELLOW)  # kinds of compute: forward, backward, ...
_Row = tuple[str, list[PathPart]]


def critical_path(report: Report) -> Figure:
    """Parts of the path by kind, for the whole of it and for each rank on it; ms per step, means."""
    path = report.critical_path
    if path is None or not path.step_ms:
        return saying(report, "the critical path is not known", "critical-path", "time-budget")
    rows, more = _rows(path, _host_rows(report, path), MOST_HOSTS) if is_many(report) else _rows(path)
    kinds = list(path.by_kind)
    work = [kind for kind in kinds if kind not in _KINDS]
    traces = [_bars(kind, rows, path, work) for kind in kinds]
    left = note(f"{more} more ranks on the path", x=1, xanchor="right")
    return figure(
        traces,
        _alt(path),
        _AROUND + _ROW * len(rows),
        barmode="stack",
        bargap=0.3,
        showlegend=True,
        xaxis=axis("ms per step", rangemode="tozero"),
        yaxis=axis(
            showgrid=False,
            zeroline=False,
            range=[len(rows) - 0.4, -0.6],
            **named(range(len(rows)), [name for name, _ in rows]),
        ),
        annotations=[left] if more else [],
    )


def _rows(path: CriticalPath, hosts: Sequence[_Row] = (), most: int = MOST_RANKS) -> tuple[list[_Row], int]:
    """The whole path, transfers, hosts, and the ranks that work most on it; how many others there are."""
    own: defaultdict[int, list[PathPart]] = defaultdict(list)
    moved: list[PathPart] = []
    for part in path.parts:
        (moved if part.kind == TRANSFER else own[part.rank]).append(part)
    order = sorted(own, key=lambda rank: -sum(part.ms for part in own[rank]))
    rows = [("<b>whole path</b>", list(path.parts)), *([("between ranks", moved)] if moved else [])]
    return [*rows, *hosts, *((f"rank {rank}", own[rank]) for rank in order[:most])], max(len(order) - most, 0)


def _host_rows(report: Report, path: CriticalPath) -> list[_Row]:
    """The hosts whose work is longest on the path, and the others together, so that nothing is left out."""
    hosts = path_hosts(report)
    first = [host for host in hosts[:MOST_HOSTS] if host.ms >= _LEAST * path.step_ms]
    rest = [part for host in hosts[len(first) :] for part in host.parts]
    found = [(shown(host.host, 20), list(host.parts)) for host in first]
    return [*found, *([(f"{len(hosts) - len(first):,} more hosts", rest)] if rest else [])]


def _bars(kind: str, rows: Sequence[_Row], path: CriticalPath, work: Sequence[str]) -> Trace:
    own = [[part for part in parts if part.kind == kind] for _, parts in rows]
    values = [sum(part.ms for part in parts) for parts in own]
    said = [_said(kind, *each, path) for each in zip(values, own, strict=True)]
    marker = fill(_KINDS[kind]) if kind in _KINDS else {"color": _WORK[work.index(kind) % len(_WORK)]}
    return {
        "type": "bar",
        "orientation": "h",
        "name": shown(kind_name(kind)),
        "x": [value or None for value in values],
        "y": list(range(len(rows))),
        "marker": marker,
        "customdata": said,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _said(kind: str, value: float, parts: Sequence[PathPart], path: CriticalPath) -> str:
    """What a bar is, and its longest parts."""
    head = f"{shown(kind_name(kind))}: {milliseconds(value)} ms a step, {percent(value, path.step_ms)}"
    by_name: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        if part.name != kind:
            by_name[part.name] += part.ms
    longest = sorted(by_name.items(), key=lambda item: -item[1])[:_PARTS]
    return "<br>".join([head, *(f"{shown(name)}: {milliseconds(ms)} ms" for name, ms in longest if name)])


def _alt(path: CriticalPath) -> str:
    kinds = ", ".join(f"{kind_name(kind)} {milliseconds(ms)} ms" for kind, ms in path.by_kind.items())
    return f"Bars: the critical path of {milliseconds(path.step_ms)} ms a step, by kind and rank: {kinds}."
