"""The critical path of a run as the report shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from commlens.analyzers.across.critical_path import Path
from commlens.analyzers.ranks import RankFacts


@dataclass(frozen=True)
class PathPart:
    """A part of the path, ms per step; `kind` is compute, transfer, other or unmatched communication."""

    kind: str
    rank: int
    name: str
    ms: float


@dataclass(frozen=True)
class CriticalPath:
    """What fixes the step's end, mean over steps, ms per step.

    The parts add up to `step_ms`, and so do `by_kind` and `by_rank`; `step_ms` is from the end of one step
    on the rank that ends it last to the end of the next.
    """

    steps: int
    step_ms: float
    parts: tuple[PathPart, ...]
    by_kind: dict[str, float]
    by_rank: dict[str, float]


def path_lines(path: Path | None, ranks: Sequence[RankFacts]) -> CriticalPath | None:
    """The path with ranks by number, its parts the longest first."""
    if path is None:
        return None
    scale = 1e6 * path.steps
    kinds: defaultdict[str, int] = defaultdict(int)
    by_rank: defaultdict[str, int] = defaultdict(int)
    for (kind, position, _), ns in path.parts.items():
        kinds[kind] += ns
        by_rank[str(ranks[position].rank)] += ns
    ordered = sorted(path.parts.items(), key=lambda item: (-item[1], item[0]))
    return CriticalPath(
        steps=path.steps,
        step_ms=round(path.total_ns / scale, 6),
        parts=tuple(PathPart(kind, ranks[p].rank, name, round(ns / scale, 6)) for (kind, p, name), ns in ordered),
        by_kind={kind: round(ns / scale, 6) for kind, ns in sorted(kinds.items(), key=lambda item: -item[1])},
        by_rank={rank: round(ns / scale, 6) for rank, ns in sorted(by_rank.items(), key=lambda item: -item[1])},
    )
