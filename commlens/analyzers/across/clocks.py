"""The clocks of a run's hosts, read from its collectives."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

import numpy as np

from commlens.analyzers.across.clock_evidence import Summary, Told, summarise, tell
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.offsets import Bounds, Contradiction, Offset, fit_offset
from commlens.analyzers.held import each, engine_of, keep
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

ONE_HOST = "one clock: all ranks are on one host"
ASSUMED = "one clock, assumed: the files name no hosts, and no collective contradicts it"
NO_TIMES = "the files tell how long collectives took, not when"
NOT_JOINED = "not joined"
_WRONG_SHARE = 0.01


class _Reader(Protocol):
    """What reads one clock on another."""

    @property
    def method(self) -> str:
        """What it rests on."""

    @property
    def uncertainty_ns(self) -> int:
        """How far it can be wrong."""

    def at(self, times: Ints) -> Ints:
        """What to add to times of the one clock, ns."""


@dataclass(frozen=True)
class Clocks:
    """How to read every rank's clock on the clock of the first host.

    Attributes:
        method: how the clocks were compared.
        uncertainty_ns: the most any two ranks' aligned times can be wrong against each other.
        shift_ns: added to each rank's own times first, so that ranks of a host agree, shape (ranks,).
        offsets: for each rank the offsets to apply in turn, from its host towards the first.
        refusal: why times of different ranks cannot be compared, None where they can.
        contradiction: the refusal is that what was recorded contradicts itself: then nothing may be concluded
            from comparing ranks, not even from durations.
    """

    method: str
    uncertainty_ns: int
    shift_ns: Ints
    offsets: tuple[tuple[_Reader, ...], ...]
    refusal: str | None
    contradiction: bool = False

    def aligned(self, rank: int, times: Ints) -> Ints:
        """Times of the rank at position `rank` on the common clock, ns; MISSING stays so."""
        result = times + self.shift_ns[rank]
        for offset in self.offsets[rank]:
            result = result + offset.at(result)
        return np.where(times == MISSING, MISSING, result)


def find_clocks(ranks: Sequence[RankFacts], matched: Sequence[Matched]) -> Clocks:
    """Compare the clocks of all hosts.

    Ranks of one host (same boot id) share a monotonic clock, so they need no estimate; their wall clocks
    are that clock plus an offset each read once. Hosts are compared by what collectives allow (see
    `offsets`), along the chain of least uncertainty to the host of the first rank. Ranks whose hosts are not
    known are taken to share a clock, unless their collectives end at different times of it.
    """
    machines = _machines(ranks)
    shift = _shifts(ranks, machines)
    if not all(facts.who.timed for facts in ranks):
        return Clocks(NOT_JOINED, 0, shift, tuple(() for _ in ranks), NO_TIMES)
    if any(machines):
        return _compared(ranks, matched, machines, shift)
    as_one, together = _asked(ranks, matched, machines, shift)
    if together:
        return as_one
    apart = _compared(ranks, matched, [f"rank {facts.rank}" for facts in ranks], shift)
    return apart if apart.refusal is None else as_one


def _compared(ranks: Sequence[RankFacts], matched: Sequence[Matched], machines: Sequence[str], shift: Ints) -> Clocks:
    return _asked(ranks, matched, machines, shift)[0]


def _asked(
    ranks: Sequence[RankFacts], matched: Sequence[Matched], machines: Sequence[str], shift: Ints
) -> tuple[Clocks, bool]:
    """The clocks of machines, and whether collectives end together by the clocks as they are."""
    told = keep(partial(tell, ranks=ranks, machines=machines, shift=shift), matched)
    heads = each(summarise, told)
    return _joined_clocks(ranks, told, heads, machines, shift), all(head.together for head in heads)


def _joined_clocks(
    ranks: Sequence[RankFacts], told: Sequence[Told], heads: Sequence[Summary], machines: Sequence[str], shift: Ints
) -> Clocks:
    broken = _contradiction(heads)
    none: tuple[tuple[_Reader, ...], ...] = tuple(() for _ in ranks)
    if broken:
        return Clocks(NOT_JOINED, 0, shift, none, broken, contradiction=True)
    hosts = list(dict.fromkeys(machines))
    if len(hosts) <= 1:
        return Clocks(ONE_HOST if hosts != [""] else ASSUMED, 0, shift, none, None)
    fitted = _edges(told, heads)
    contradictions = [edge for edge in fitted.values() if isinstance(edge, Contradiction)]
    if contradictions:
        reason = f"the clocks contradict each other: {contradictions[0].reason}"
        return Clocks(NOT_JOINED, 0, shift, none, reason, contradiction=True)
    chains = _chains({pair: e for pair, e in fitted.items() if isinstance(e, Offset)}, machines[0])
    if len(chains) < len(hosts):
        apart = len(hosts) - len(chains)
        reason = f"no collective joins {apart} of {len(hosts)} hosts with the first rank's, so their clocks are unknown"
        return Clocks(NOT_JOINED, 0, shift, none, reason)
    worst = sorted(uncertainty for uncertainty, _ in chains.values())
    methods = sorted({offset.method for _, chain in chains.values() for offset in chain})
    # Two hosts are wrong against each other by the sum of both at most.
    return Clocks(
        "collectives: " + ", ".join(methods),
        sum(worst[-2:]),
        shift,
        tuple(chains[machine][1] for machine in machines),
        None,
    )


def _machines(ranks: Sequence[RankFacts]) -> list[str]:
    """What tells each rank's host; ranks whose host is not known are taken to share one."""
    return [facts.who.machine for facts in ranks]


def _shifts(ranks: Sequence[RankFacts], machines: Sequence[str]) -> Ints:
    """What makes the wall clocks of a host's ranks one, ns: they share the monotonic clock."""
    first: dict[str, int | None] = {}
    shifts = []
    for facts, machine in zip(ranks, machines, strict=True):
        own = facts.who.wall_offset_ns
        base = first.setdefault(machine, own)
        shifts.append(base - own if machine and base is not None and own is not None else 0)
    return np.array(shifts, np.int64)


def _contradiction(heads: Sequence[Summary]) -> str | None:
    """Whether ranks that share a clock complete collectives which others of them have not begun."""
    wrong, total = sum(head.wrong for head in heads), sum(head.total for head in heads)
    if wrong <= _WRONG_SHARE * total:
        return None
    return (
        f"{wrong} of {total} collectives end on one rank before another rank of the same host has begun them:"
        " the ranks are matched wrongly, or are not of one run"
    )


class _Reversed:
    """An offset read the other way."""

    def __init__(self, offset: Offset) -> None:
        self._offset = offset
        self.method, self.uncertainty_ns = offset.method, offset.uncertainty_ns

    def at(self, times: Ints) -> Ints:
        """What to add to a time of a's clock to read b's."""
        other = times - self._offset.at(times)
        for _ in range(3):  # drifts are below 1e-3: each round gains three digits
            other = times - self._offset.at(other)
        return other - times


def _edges(told: Sequence[Told], heads: Sequence[Summary]) -> Mapping[tuple[str, str], Offset | Contradiction]:
    """Offset of host b as host a reads it, for each (a, b) compared: in every communicator all with its first host."""
    tellers: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, head in enumerate(heads):
        for pair in head.pairs:
            tellers[pair].append(number)
    fitted = engine_of(told).each(partial(_fit, told=told), list(tellers), list(tellers.values()))
    return {pair: offset for pair, offset in zip(tellers, fitted, strict=True) if offset is not None}


def _fit(pair: tuple[str, str], numbers: Sequence[int], told: Sequence[Told]) -> Offset | Contradiction | None:
    return fit_offset(_joined([told[number].bounds[pair] for number in numbers]))


def _joined(parts: Sequence[Bounds]) -> Bounds:
    names = ("time_ns", "lower_ns", "upper_ns", "ends_ns", "slack_ns")
    joined = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    order = np.argsort(joined[0], kind="stable")
    return Bounds(*(values[order] for values in joined))


def _chains(edges: Mapping[tuple[str, str], Offset], first: str) -> dict[str, tuple[int, tuple[_Reader, ...]]]:
    """Least summed uncertainty (Dijkstra) and the offsets from each host to the first one."""
    neighbours: defaultdict[str, list[tuple[str, _Reader]]] = defaultdict(list)
    for (a, b), offset in edges.items():
        neighbours[a].append((b, offset))
        neighbours[b].append((a, _Reversed(offset)))
    found: dict[str, tuple[int, tuple[_Reader, ...]]] = {}
    order = count()  # so that equals are never compared further
    waiting: list[tuple[int, int, str, tuple[_Reader, ...]]] = [(0, next(order), first, ())]
    while waiting:
        uncertainty, _, host, chain = heapq.heappop(waiting)
        if host in found:
            continue
        found[host] = uncertainty, chain
        for other, reader in neighbours[host]:
            total = uncertainty + reader.uncertainty_ns
            heapq.heappush(waiting, (total, next(order), other, (reader, *chain)))
    return found
