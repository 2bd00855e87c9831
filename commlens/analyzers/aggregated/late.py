"""Who is waited for, and which groups are slow, as far as sums tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from commlens.analyzers.across.lateness import STEP, Lateness
from commlens.analyzers.across.stragglers import Late, find_tiers
from commlens.analyzers.aggregated.joined_sums import JoinedSums, Key
from commlens.analyzers.grouped import Floats, sums
from commlens.analyzers.identity import Identity
from commlens.analyzers.intervals import Ints

_SLOWER: Final = 1.5  # times the median of the groups alike
_SHORTEST_SLOWER: Final = 1.3  # and so is the shortest single one
_ALIKE: Final = 3  # groups at least, the slow one among them


@dataclass(frozen=True)
class SlowSums:
    """A group whose collectives take longer than the like elsewhere.

    Attributes:
        key: its line that loses most.
        ms: what one of it takes, at most.
        like_ms: the median of the groups alike.
        peers: how many those are.
        lost_ns: over all its lines, of a rank, in all.
    """

    key: Key
    ms: float
    like_ms: float
    peers: int
    lost_ns: float


def waiting(joined: JoinedSums, step_ns: float) -> Lateness | None:
    """What each rank stood still in each stretch that all have alike, per step; None where there are none.

    At least, in collectives that need everyone; and for messages to come, for a stage of a pipeline stands still in
    them when another stage is late.
    """
    whole = _whole_stretches(joined)
    if len(joined.ranks) < 2 or not whole.size:
        return None
    wait = joined.standstill_ns + joined.message_wait_ns
    rows = np.flatnonzero((joined.compared | (wait > 0)) & np.isin(joined.from_step, whole))
    stretch = np.searchsorted(whole, joined.from_step[rows])
    place = np.searchsorted(joined.ranks, joined.position[rows])
    length = np.zeros(whole.size)
    length[stretch] = joined.to_step[rows] - joined.from_step[rows]
    total = sums(wait[rows], place * whole.size + stretch, len(joined.ranks) * whole.size)
    table = total.reshape(len(joined.ranks), -1) / length
    return Lateness(STEP, whole, table, exposed=False, clock_free=True, sample_ns=step_ns, per_step=1.0)


def _whole_stretches(joined: JoinedSums) -> Ints:
    """First steps of the stretches in which everything is compared that is compared anywhere, on every rank."""
    ever = np.bincount(joined.line[joined.compared], minlength=len(joined.keys)) > 0
    wanted = ever[joined.line] & (joined.from_step > 0)
    bad = np.unique(joined.from_step[wanted & ~joined.compared])
    good, place = np.unique(joined.from_step[joined.compared], return_inverse=True)
    pairs = np.unique(place * len(joined.ranks) + np.searchsorted(joined.ranks, joined.position[joined.compared]))
    everybody = np.bincount(pairs // max(len(joined.ranks), 1), minlength=good.size) == len(joined.ranks)
    return np.setdiff1d(good[everybody], bad)


def find_late(lateness: Lateness) -> list[Late]:
    """The ranks that the others wait for stretch after stretch, the latest first."""
    return find_tiers(lateness, np.arange(lateness.index.size))


def but_for(lateness: Lateness, slow: Sequence[SlowSums], ranks: Sequence[int], steps: float) -> Lateness:
    """The same, had the members of slow groups waited for what those take longer: that is not held against them.

    Args:
        lateness: what each rank waited, per step.
        slow: slow groups.
        ranks: global rank of each row of `lateness`.
        steps: that the sums are of.
    """
    longer = np.zeros(len(ranks))
    for each in slow:
        longer[np.isin(ranks, each.key.members)] += each.lost_ns / max(steps, 1.0)
    return replace(lateness, wait_ns=lateness.wait_ns + longer[:, None])


def slow_groups(who: Sequence[Identity], joined: JoinedSums) -> list[SlowSums]:
    """Groups that are slower than the like, those that lose most first."""
    size = len(joined.keys)
    machines = {each.rank: each.machine for each in who}
    count, least, shortest = _per_line(joined, size)
    alike: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for place in np.flatnonzero(count > 0).tolist():
        key = joined.keys[place]
        hosts = {machines.get(rank, "") for rank in key.members}
        within = len(hosts) == 1
        alike[key.op, key.dtype, key.in_bytes, key.out_bytes, len(key.members), within].append(place)
    found: dict[tuple[str, tuple[int, ...]], list[SlowSums]] = defaultdict(list)
    for places in alike.values():
        if len(places) < _ALIKE:
            continue
        usual, usual_shortest = np.median(least[places]), np.median(shortest[places])
        for place in places:
            if least[place] >= _SLOWER * usual and shortest[place] >= _SHORTEST_SLOWER * usual_shortest:
                key = joined.keys[place]
                lost = float((least[place] - usual) * count[place])
                one = SlowSums(key, float(least[place]) / 1e6, float(usual) / 1e6, len(places) - 1, lost)
                found[key.group, key.members].append(one)
    slow = [_group(lines) for lines in found.values()]
    return sorted(slow, key=lambda each: -each.lost_ns)


def _group(lines: list[SlowSums]) -> SlowSums:
    worst = max(lines, key=lambda each: each.lost_ns)
    return SlowSums(worst.key, worst.ms, worst.like_ms, worst.peers, sum(each.lost_ns for each in lines))


def _per_line(joined: JoinedSums, size: int) -> tuple[Floats, Floats, Ints]:
    """Collectives of a member, the mean of what one takes at most, and the shortest of any; ns, shape (lines,)."""
    counts = np.where(joined.compared, joined.column("count"), 0)
    total = sums(counts, joined.line, size)
    least = sums(np.where(joined.compared, joined.least_ns, 0.0) * counts, joined.line, size) / np.maximum(total, 1)
    shortest = np.full(size, np.iinfo(np.int64).max)
    rows = np.flatnonzero(joined.compared)
    np.minimum.at(shortest, joined.line[rows], joined.column("shortest_ns")[rows])
    members = np.array([max(len(key.members), 1) for key in joined.keys])
    return total / members, least, shortest
