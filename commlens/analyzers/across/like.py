"""Like compared with like: the same operation, size and group shape in different groups, and over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from commlens.analyzers.across.communicators import Communicator
from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.transfers import ALIGNED, Transfers
from commlens.analyzers.grouped import group_keys
from commlens.analyzers.held import each
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_FEWEST = 5  # transfers, to speak of a usual one
WHOLE, SHORTEST = "usual collective (median over its ranks)", "usual collective (shortest over its ranks)"
_SLOWER = 1.25  # times the usual transfer of its like, to be called slow


@dataclass(frozen=True)
class Usual:
    """The usual transfer of one operation and size in one group.

    Attributes:
        communicator: which group.
        op: torch's spelling.
        bytes: message size.
        ms: median over its collectives, which are taken whole: see `measure`.
        low_ms: first quartile.
        high_ms: third quartile.
        samples: how many it rests on.
        exposed_ms: exposed transfer of such collectives per step, mean over the group's members.
        measure: what stands for a collective: WHOLE, of its ranks' transfers the median; SHORTEST of their durations
            where clocks are unsure. The collectives table is of single ranks' parts.
    """

    communicator: Communicator
    op: str
    bytes: int
    ms: float
    low_ms: float
    high_ms: float
    samples: int
    exposed_ms: float
    measure: str


@dataclass(frozen=True)
class Slow:
    """A group that is slower than its like.

    Attributes:
        usual: its transfers, the costliest operation and size.
        like_ms: median of what the same takes in the other groups.
        peers: how many others.
        lost_ms: exposed transfer per step beyond that, all its operations and sizes together.
    """

    usual: Usual
    like_ms: float
    peers: int
    lost_ms: float


def usual_transfers(
    ranks: Sequence[RankFacts], exposed: Sequence[Exposed], transfers: Sequence[Transfers]
) -> list[Usual]:
    """The usual transfer of every group, operation and size with enough samples."""
    found = each(partial(_usual_of, ranks=ranks, exposed=exposed), transfers)
    return [usual for own in found for usual in own]


def _usual_of(transfers: Transfers, ranks: Sequence[RankFacts], exposed: Sequence[Exposed]) -> list[Usual]:
    """Of one communicator."""
    matched, which = transfers.timed.matched, transfers.which
    if not which.size:
        return []
    found = []
    keys, first = group_keys([matched.op[which], matched.bytes[which]])
    for key in range(first.size):
        own = np.flatnonzero(keys == key)
        size = int(matched.bytes[which[first[key]]])
        if own.size >= _FEWEST and size > 0:
            low, middle, high = np.percentile(transfers.ns[own], (25, 50, 75)) / 1e6
            cost = _exposed_ms(ranks, exposed, transfers, which[own])
            op = matched.ops[matched.op[which[first[key]]]]
            measure = WHOLE if transfers.basis == ALIGNED else SHORTEST
            found.append(Usual(matched.communicator, op, size, middle, low, high, own.size, cost, measure))
    return found


def _exposed_ms(
    ranks: Sequence[RankFacts], exposed: Sequence[Exposed], transfers: Transfers, which: np.ndarray
) -> float:
    """Exposed transfer of some collectives, ms per step and member."""
    matched = transfers.timed.matched
    total, steps = 0.0, 0
    for line, position in enumerate(matched.communicator.present):
        rows = matched.rows[line, which]
        rows = rows[rows != MISSING]
        own = exposed[position]
        total += float((ranks[position].exposed_ns - own.row_wait - own.row_unsplit)[rows].sum())
        steps += ranks[position].steps.index.size
    return total / steps / 1e6 if steps else 0.0


def slow_groups(usual: Sequence[Usual]) -> list[Slow]:
    """Groups that take longer than their like, the costliest first."""
    alike: defaultdict[tuple[str, int, int, str | None, bool], list[Usual]] = defaultdict(list)
    for one in usual:
        alike[(one.op, one.bytes, *_shape(one.communicator))].append(one)
    worst: dict[Hashable, list[tuple[Usual, float, int]]] = defaultdict(list)
    for peers in alike.values():
        together: defaultdict[Hashable, list[int]] = defaultdict(list)
        for place, one in enumerate(peers):
            together[one.communicator.members].append(place)
        middle, high = _Middle([one.ms for one in peers]), _Middle([one.high_ms for one in peers])
        for one in peers:
            same = together[one.communicator.members]
            if len(same) == len(peers):
                continue
            like = middle.without(same)  # of one fast and one slow peer the fast one
            if one.ms > _SLOWER * like and one.low_ms > max(like, high.without(same)):
                worst[one.communicator.key].append((one, like, len(peers) - len(same)))
    slow = []
    for found in worst.values():
        lost = sum(one.exposed_ms * (1 - like / one.ms) for one, like, _ in found)
        one, like, peers_seen = max(found, key=lambda item: item[0].exposed_ms)
        slow.append(Slow(one, like, peers_seen, lost))
    return sorted(slow, key=lambda one: -one.lost_ms)


class _Middle:
    """Low medians of all values but some: thousands of groups are each compared with all the others."""

    def __init__(self, values: Sequence[float]) -> None:
        order = sorted(range(len(values)), key=lambda place: values[place])
        self._ordered = [values[place] for place in order]
        self._rank = {place: rank for rank, place in enumerate(order)}

    def without(self, places: Sequence[int]) -> float:
        """The low median of the values at other places, of which there is at least one."""
        at = (len(self._ordered) - len(places) - 1) // 2
        for rank in sorted(self._rank[place] for place in places):
            at += rank <= at
        return self._ordered[at]


def common_place(slow: Sequence[Slow], usual: Sequence[Usual], places: dict[int, str]) -> str | None:
    """The host (or rank) that all slow groups share and whose every group is slow; None where there is no one.

    Args:
        slow: the slow groups.
        usual: all groups compared.
        places: of each global rank, the host or whatever is suspected.
    """

    def of(communicator: Communicator) -> frozenset[str]:
        return frozenset(places[rank] for rank in communicator.members if rank in places)

    slow_sets = [of(one.usual.communicator) for one in slow]
    if len(slow_sets) < 2:
        return None
    shared = frozenset.intersection(*slow_sets)
    slow_ids = {one.usual.communicator.key for one in slow}
    shapes = {_shape(one.usual.communicator) for one in slow}
    groups = {one.communicator.key: of(one.communicator) for one in usual if _shape(one.communicator) in shapes}
    for place in sorted(shared):
        there = {key for key, hosts in groups.items() if place in hosts and len(hosts) > 1}
        if there and there <= slow_ids:
            return place
    return None


def _shape(communicator: Communicator) -> tuple[int, str | None, bool]:
    return communicator.size, communicator.scope, communicator.point_to_point
