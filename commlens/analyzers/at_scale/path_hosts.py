"""The critical path of many ranks, by host."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from commlens.analyzers.across.critical_path import TRANSFER
from commlens.analyzers.at_scale.rank_sets import UNKNOWN_HOST
from commlens.analyzers.path_lines import PathPart
from commlens.analyzers.report import Report


@dataclass(frozen=True)
class PathHost:
    """A host's work on the critical path.

    Attributes:
        host: its name.
        ranks: of it that are on the path, the longest first.
        ms: per step, mean over steps; transfers are of no host.
        parts: of the path, of these ranks.
    """

    host: str
    ranks: tuple[int, ...]
    ms: float
    parts: tuple[PathPart, ...]


def path_hosts(report: Report) -> tuple[PathHost, ...]:
    """Hosts, the one whose work is longest on the path first; none where the path is not known."""
    if report.critical_path is None:
        return ()
    host_of = {line.rank: line.host or UNKNOWN_HOST for line in report.ranks}
    found: defaultdict[str, list[PathPart]] = defaultdict(list)
    for part in report.critical_path.parts:
        if part.kind != TRANSFER:
            found[host_of.get(part.rank, UNKNOWN_HOST)].append(part)
    return tuple(sorted((_host(host, parts) for host, parts in found.items()), key=lambda each: -each.ms))


def _host(host: str, parts: list[PathPart]) -> PathHost:
    own: defaultdict[int, float] = defaultdict(float)
    for part in parts:
        own[part.rank] += part.ms
    order = sorted(own, key=lambda rank: -own[rank])
    return PathHost(host, tuple(order), round(sum(own.values()), 6), tuple(parts))
