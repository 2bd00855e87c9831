"""Why ranks come late: what they did before they arrived, compared with what the others did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.clocks import Clocks
from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.lateness import STEP, Lateness
from commlens.analyzers.across.matching import EVERYONE, Matched
from commlens.analyzers.across.selftime import BEFORE_FORWARD, ELSEWHERE, own_time
from commlens.analyzers.across.stragglers import Late
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints, common
from commlens.analyzers.own_work import HOST_BOUND
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING, PHASES

TRANSFERS = "exposed transfer"
UNKNOWN = "cause not known"
LATE_FORWARD = "longer before forward"  # loading input, or anything else: what it was is not known
_LARGE = 0.25  # of the longest excess: gaps that count as the pause that recurs


@dataclass(frozen=True)
class Cause:
    """Why ranks come late.

    Attributes:
        kind: "longer compute", LATE_FORWARD, "late launch", "slow transfers" or UNKNOWN.
        where: the phase, where there is one; else "".
        ms: how much longer than on the other ranks, per step (per pause where there are no steps).
        parts_ms: the same for every kind of own time that was compared; where collectives were compared, over
            all of a step's (of the trace's where there are no steps).
    """

    kind: str
    where: str
    ms: float
    parts_ms: dict[str, float]


_UNKNOWN = Cause(UNKNOWN, "", 0.0, {})


def find_cause(ranks: Sequence[RankFacts], joined: Joined, lateness: Lateness, late: Late) -> Cause:
    """Compare the late ranks' own time in the samples in question with the others'.

    Ranks without positions in `late` take turns: then the slowest of each step is compared with the median.
    """
    matched, clocks, exposed = joined.matched, joined.clocks, joined.exposed
    if lateness.unit == STEP and all(facts.budgeted for facts in ranks):
        return _by_own_time(ranks, exposed, lateness.index[late.samples], late.positions)
    if clocks.refusal is not None:
        return _UNKNOWN
    if all(facts.budgeted and facts.lanes is not None for facts in ranks):
        return _by_lanes(ranks, joined, lateness, late)
    return _by_launch(ranks, matched, clocks, late.positions, lateness.per_step)


def _by_own_time(
    ranks: Sequence[RankFacts], exposed: Sequence[Exposed], steps: Ints, positions: tuple[int, ...]
) -> Cause:
    parts = each(partial(_parts_of, steps=steps), ranks, exposed)
    longer = {name: _longer_ms(np.array([own[name] for own in parts]), list(positions)) for name in parts[0]}
    name = max(longer, key=lambda part: longer[part])
    rounded = {part: round(ms, 3) for part, ms in longer.items()}
    if longer[name] <= 0:
        return Cause(UNKNOWN, "", 0.0, rounded)
    return Cause(_KINDS.get(name, "longer compute"), name if name in PHASES else "", round(longer[name], 3), rounded)


def _longer_ms(table: Ints, late: list[int]) -> float:
    """How much longer the late ranks took than the others usually do, shape (ranks, steps); the slowest if none is."""
    others = np.delete(np.arange(len(table)), late)
    if not late or not others.size:
        return float(np.median(table.max(axis=0) - np.median(table, axis=0))) / 1e6
    return float(np.median(table[late].min(axis=0) - np.median(table[others], axis=0))) / 1e6


def _parts_of(facts: RankFacts, exposed: Exposed, steps: Ints) -> dict[str, Ints]:
    """What a rank did in some steps."""
    chosen = np.searchsorted(facts.steps.index, steps)
    return {name: ns[chosen] for name, ns in (own_time(facts) | {TRANSFERS: exposed.transfer}).items()}


SLOW_TRANSFERS = "slow transfers"
_KINDS = {
    BEFORE_FORWARD: LATE_FORWARD,
    ELSEWHERE: "late launch",
    HOST_BOUND: "late launch",
    TRANSFERS: SLOW_TRANSFERS,
}


def _by_lanes(ranks: Sequence[RankFacts], joined: Joined, lateness: Lateness, late: Late) -> Cause:
    """What the device did longer; where it had nothing to do, the host's pause tells more exactly how long."""
    steps = common(*(facts.steps.index for facts in ranks))
    if not steps.size:
        return _by_launch(ranks, joined.matched, joined.clocks, late.positions, lateness.per_step)
    found = _by_own_time(ranks, joined.exposed, steps, late.positions)
    if found.kind != "late launch":
        return found
    pause = _by_launch(ranks, joined.matched, joined.clocks, late.positions, lateness.per_step)
    return replace(found, ms=pause.ms) if pause.kind == found.kind and pause.ms else found


def _by_launch(
    ranks: Sequence[RankFacts],
    matched: Sequence[Matched],
    clocks: Clocks,
    positions: tuple[int, ...],
    per_step: float | None,
) -> Cause:
    """Whether the host was late to launch, or the device late to begin what was launched in time.

    The host was late where the others' part was already under way when it launched its own. Its pause
    shows in the gap between its launches, which the others do not have.
    """
    table = _largest(ranks, matched)
    others = np.delete(np.arange(len(ranks)), list(positions))
    if table is None or not table.size or not others.size or not positions:
        return _UNKNOWN
    host = [_host(ranks, clocks, position, table[position]) for position in range(len(ranks))]
    issued, started, gaps = (np.array(each) for each in zip(*host, strict=True))
    late = np.array(positions)[started[list(positions)].argmax(axis=0)]
    column = np.arange(late.size)
    begun = np.median(started[others], axis=0)
    behind = (started[late, column] - begun).clip(0)
    launched_late = behind * (issued[late, column] > begun)
    parts = {"launched late": launched_late.sum() / 1e6, "began late": (behind - launched_late).sum() / 1e6}
    steps = late.size / per_step if per_step else 1.0
    parts = {name: round(float(ms) / steps, 3) for name, ms in parts.items()}
    if 2 * launched_late.sum() < behind.sum():
        return Cause("longer compute", "", round(float(behind.mean()) / 1e6, 3), parts)
    excess = gaps[late, column] - np.median(gaps[others], axis=0)
    pauses = excess[excess >= _LARGE * max(excess.max(), 1.0)]
    return Cause("late launch", "", round(float(np.median(pauses)) / 1e6, 3) if pauses.size else 0.0, parts)


def _largest(ranks: Sequence[RankFacts], matched: Sequence[Matched]) -> Ints | None:
    """Rows of the collectives, their launches seen, of the communicator with the most that all ranks take part in."""
    everyone = tuple(range(len(ranks)))
    tables = [m.rows[:, m.whole & m.is_op(*EVERYONE)] for m in matched if m.communicator.present == everyone]
    table = max(tables, key=lambda table: table.shape[1], default=None)
    if table is None:
        return None
    seen = np.all([_launch_seen(facts)[rows] for facts, rows in zip(ranks, table, strict=True)], axis=0)
    return table[:, seen]


def _launch_seen(facts: RankFacts) -> NDArray[np.bool_]:
    """Which rows have a launch of their own: one before the trace began is written as its first one."""
    launched = facts.columns.kernels["launched_ns"]
    first = launched[launched != MISSING].min(initial=np.iinfo(np.int64).max)
    issued = facts.columns.collectives["issued_ns"]
    return np.asarray(issued > first) if launched.size else np.ones(issued.size, bool)


def _host(ranks: Sequence[RankFacts], clocks: Clocks, position: int, rows: Ints) -> tuple[Floats, Floats, Floats]:
    """Issue and start on the common clock, and the gap to the issue before, ns."""
    columns = ranks[position].columns.collectives
    issued = columns["issued_ns"]
    gap = np.diff(issued, prepend=issued[:1])[rows]
    times = [clocks.aligned(position, columns[name][rows]).astype(np.float64) for name in ("issued_ns", "started_ns")]
    return times[0], times[1], gap.astype(np.float64)
