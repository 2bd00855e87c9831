"""What a recorded run shows, read from its columns alone: the lab's own check that a fault is where it was planted.

It shares no code with the analyzers, on purpose: they are measured against it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from commlens.trace import open_run

SKIPPED_STEPS = 2
_COLUMNS = ("group", "seq", "op", "in_bytes", "out_bytes", "issued_ns", "started_ns", "completed_ns", "step")


@dataclass(frozen=True)
class Matched:
    """One collective on all the ranks that finished it; issues and arrivals by rank and end in ns."""

    group: str
    seq: int
    op: str
    step: int
    num_bytes: int
    issues: Mapping[int, int]
    arrivals: Mapping[int, int]
    end_ns: float

    @property
    def last(self) -> int:
        return max(self.arrivals, key=self.arrivals.__getitem__)

    @property
    def wait_ms(self) -> float:
        """Mean over the ranks."""
        return fmean(self.arrivals[self.last] - at for at in self.arrivals.values()) / 1e6

    @property
    def spread_ms(self) -> float:
        """Mean over the ranks of how much earlier than the last they issued it, queued or not."""
        return fmean(max(self.issues.values()) - at for at in self.issues.values()) / 1e6

    @property
    def transfer_ms(self) -> float:
        return (self.end_ns - self.arrivals[self.last]) / 1e6

    def late_ms(self, rank: int) -> float:
        """How much later than the median of the others it came."""
        return (self.arrivals[rank] - median(at for r, at in self.arrivals.items() if r != rank)) / 1e6


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All collectives of a run, one dict each, with the rank that recorded it."""
    run = open_run(path)
    return [
        {"rank": number, **{name: row[name] for name in _COLUMNS}}
        for number, rank in run.ranks.items()
        for row in rank.table("collectives").to_pylist()
    ]


def matched(path: Path) -> list[Matched]:
    """Collectives that several recorded ranks finished, after the first steps, in the order of their numbers."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows_of(path):
        if row["step"] >= SKIPPED_STEPS and row["op"] not in ("send", "recv") and row["completed_ns"] is not None:
            found[row["group"], row["seq"]].append(row)
    return [_match(rows) for _, rows in sorted(found.items(), key=lambda item: item[0]) if len(rows) > 1]


def _match(rows: list[dict[str, Any]]) -> Matched:
    first = rows[0]
    return Matched(
        group=first["group"],
        seq=first["seq"],
        op=first["op"],
        step=first["step"],
        num_bytes=max(max(row["in_bytes"], row["out_bytes"]) for row in rows),
        issues={row["rank"]: row["issued_ns"] for row in rows},
        arrivals={row["rank"]: row["started_ns"] for row in rows},
        end_ns=median(row["completed_ns"] for row in rows),
    )


def by_step(found: Iterable[Matched]) -> dict[int, list[Matched]]:
    steps: dict[int, list[Matched]] = defaultdict(list)
    for each in found:
        steps[each.step].append(each)
    return dict(steps)


def groups(path: Path) -> dict[str, tuple[int, ...]]:
    """Global ranks of each group, by name."""
    infos = [rank.info for rank in open_run(path).ranks.values()]
    return {group["name"]: tuple(sorted(group["ranks"])) for info in infos for group in info["groups"]}


def step_ms(path: Path) -> float:
    """Median time from one end of the optimizer to the next."""
    lengths = []
    for rank in open_run(path).ranks.values():
        ends = [row["end_ns"] for row in rank.table("phases").to_pylist() if row["phase"] == "optimizer"]
        lengths += [after - before for before, after in pairwise(ends[1:])]
    return median(lengths) / 1e6 if lengths else float("nan")
