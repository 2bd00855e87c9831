"""What each rank's devices did over the whole trace, one line a rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.intervals import Intervals, length
from commlens.analyzers.lanes import Lanes
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class LaneLine:
    """The devices of one rank from the first kernel to the last, ms.

    compute + exposed + copies + unclassified + gaps + host_bound == span.

    Attributes:
        rank: global rank.
        span_ms: from the first kernel's start to the last one's end.
        compute_ms: a compute kernel ran.
        communication_ms: a collective's kernel ran, beside compute or not.
        exposed_ms: one ran and no compute did.
        copies_ms: a copy ran, and neither of those.
        unclassified_ms: nothing but kernels ran whose name is like communication's, but not known.
        gaps_ms: nothing ran, though something was launched.
        host_bound_ms: nothing ran, and nothing was launched.
        kernels: kernels and copies.
        launched_before: those that were launched before the trace begins.
        unclassified: kernels of that kind.
    """

    rank: int
    span_ms: float
    compute_ms: float
    communication_ms: float
    exposed_ms: float
    copies_ms: float
    unclassified_ms: float
    gaps_ms: float
    host_bound_ms: float
    kernels: int
    launched_before: int
    unclassified: int


def lane_lines(ranks: Sequence[RankFacts]) -> tuple[LaneLine, ...]:
    """A line for every rank whose devices were recorded."""
    return tuple(_line(facts, facts.lanes) for facts in ranks if facts.lanes is not None)


def _line(facts: RankFacts, lanes: Lanes) -> LaneLine:
    parts = lanes.parts(*lanes.span)
    launched = facts.columns.kernels["launched_ns"]
    return LaneLine(
        rank=facts.rank,
        span_ms=_ms(lanes.span),
        compute_ms=_ms(lanes.compute),
        communication_ms=_ms(lanes.communication),
        exposed_ms=_ms(lanes.exposed),
        copies_ms=int(parts["copies"].sum()) / 1e6,
        unclassified_ms=int(parts["unclassified"].sum()) / 1e6,
        gaps_ms=int(parts["gaps"].sum()) / 1e6,
        host_bound_ms=int(parts["host-bound"].sum()) / 1e6,
        kernels=launched.size,
        launched_before=int(np.count_nonzero(launched == MISSING)),
        unclassified=lanes.unclassified_count,
    )


def _ms(times: Intervals) -> float:
    return length(times) / 1e6
