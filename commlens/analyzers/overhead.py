"""What recording itself cost, measured in this run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from commlens.analyzers.held import each
from commlens.analyzers.ranks import RankFacts


@dataclass(frozen=True)
class Overhead:
    """The recorder's own cost.

    Attributes:
        us_per_collective: CPU time in the recorder's hooks over the collectives seen.
        trampoline_known: whether it includes the call into Python and back, which the recorder
            measures at its start with the same hook on an operator that communicates with nobody.
        percent_of_step: hooks and CPU time of the flush thread over analysed time, mean over ranks.
            An upper bound: what overlapped a wait, or ran on another core, cost the job nothing.
        windows_ms: how long the job stood still for deep windows, the most of any rank; None where there were none. It
            is not part of the other numbers: the steps that it fell into are not analysed as light ones.
        trace_bytes: size on disk of all ranks' tables.
        bytes_per_collective: trace_bytes over the collectives seen.
    """

    us_per_collective: float | None
    trampoline_known: bool
    percent_of_step: float | None
    trace_bytes: int
    bytes_per_collective: float | None
    windows_ms: float | None = None


def find_overhead(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> Overhead:
    """The recorder's cost over all ranks.

    Args:
        ranks: stage one of each rank.
        infos: rank.json of each rank.
    """
    trampolines = [_trampoline(infos.get(r.rank, {})) for r in ranks]
    events, hooks, shares, windows = zip(*each(_of_rank, ranks, trampolines), strict=True) if ranks else ((),) * 4
    written = sum(r.trace_bytes for r in ranks)
    known = [share for share in shares if share is not None]
    return Overhead(
        us_per_collective=round(sum(hooks) / sum(events) / 1e3, 3) if sum(events) else None,
        trampoline_known=bool(ranks) and None not in trampolines,
        percent_of_step=round(100 * sum(known) / len(known), 4) if known else None,
        trace_bytes=written,
        bytes_per_collective=round(written / sum(events), 2) if sum(events) else None,
        windows_ms=round(held / 1e6, 3) if (held := max(windows, default=0)) else None,
    )


def _of_rank(rank: RankFacts, trampoline: int | None) -> tuple[int, int, float | None, int]:
    """Events, ns in hooks, cost over analysed time, ns of deep windows' own work."""
    events = _total(rank, "events")
    hooks = _total(rank, "hook_ns") + (trampoline or 0) * events
    return events, hooks, _share(rank, hooks, events) if events else None, _total(rank, "window_ns")


def _share(rank: RankFacts, hook_ns: int, events: int) -> float | None:
    """Cost of recording over analysed time, for one rank; None without steps.

    The flush thread's time is spread evenly over everything recorded.
    """
    analysed_ns = int((rank.steps.end_ns - rank.steps.start_ns).sum())
    times = (rank.columns.collectives["issued_ns"], rank.columns.phases["end_ns"])
    seen = np.concatenate(times)
    if not analysed_ns or not seen.size:
        return None
    recorded_ns = max(int(seen.max() - seen.min()), analysed_ns)
    hooks = hook_ns / events * int(rank.analysed.sum())
    return hooks / analysed_ns + _total(rank, "flush_ns") / recorded_ns


def _trampoline(info: Mapping[str, Any]) -> int | None:
    value = (info.get("overhead") or {}).get("trampoline_ns")
    return value if isinstance(value, int) else None


def _total(rank: RankFacts, column: str) -> int:
    return int(rank.columns.overhead[column].clip(0).sum())
