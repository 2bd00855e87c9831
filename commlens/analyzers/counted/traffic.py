"""A host's collectives and counters side by side: what had to move, what was seen, how fast while it cost time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.counted.busy import Busy, Which, between_hosts, find_busy
from commlens.analyzers.counted.crossing import Crossing, crossing, groups_by_machine
from commlens.analyzers.counted.nodes import BYTES, Device, Node
from commlens.analyzers.counted.series import Series
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Intervals, intersect, length, length_within, merge
from commlens.analyzers.ranks import RankFacts
from commlens.trace.ops import busbw_factor
from commlens.trace.schema import MISSING, OPS

FEWEST = 20  # readings over the analysed steps
_SEVERAL = "ranks of this machine are in different networks"
_NEXT = 1.5  # intervals: readings no farther apart are next to each other
_STALE = 0.1  # of the time in which bytes moved a total may stand still
_MOSTLY = 0.8  # of the time between two readings was exposed transfer: then that is its rate
_IMPOSSIBLE = 1.1  # times the peak: bytes moved at other times too, so that their time is not known


@dataclass(frozen=True)
class Rate:
    """How fast a device moved bytes in its busier direction while transfers were exposed, bytes/s.

    Attributes:
        p50: of the times between readings in which transfers were exposed throughout; None where they are too few.
        p95: likewise.
        mean: all bytes of the analysed steps over the time in which bytes moved between hosts, hidden or not.
    """

    p50: float | None
    p95: float | None
    mean: float | None

    @property
    def usual(self) -> float | None:
        """The median where it is known, else the mean."""
        return self.p50 if self.p50 is not None else self.mean


UNKNOWN = Rate(None, None, None)


@dataclass(frozen=True)
class Traffic:
    """One host's counters beside its collectives, over the analysed steps that readings cover.

    Attributes:
        node: whose counters.
        ranks: global ranks on the host.
        window: those steps, merged, on the clock of the sampling rank.
        each: those steps, one by one, ascending.
        expected: bytes that the collectives had to move to and from other hosts; None where that is not known.
        unknown: why, "" where it is.
        within: bytes that the ranks of this host had to send one another at least, by half the textbook's form.
        busy: when bytes moved between hosts; None where transfers are not known.
    """

    node: Node
    ranks: tuple[int, ...]
    window: Intervals
    each: Intervals
    expected: Crossing | None
    unknown: str
    within: float
    busy: Busy | None

    @property
    def steps(self) -> int:
        """How many."""
        return int(self.each.starts.size)

    @cached_property
    def seconds(self) -> float:
        """Length of the window."""
        return length(self.window) / 1e9

    @cached_property
    def readings(self) -> float:
        """How often each counter was read in the window; 0 where the interval is not known."""
        return length(self.window) / self.node.interval_ns if self.node.interval_ns else 0.0

    @property
    def enough(self) -> bool:
        """The window is long enough for its totals to mean something."""
        return self.readings >= FEWEST

    @property
    def name(self) -> str:
        """The host."""
        return self.node.host

    def moved(self, device: Device) -> tuple[float, float]:
        """Bytes sent and received in the window."""
        return self._moved.get(device.name, (0.0, 0.0))

    @cached_property
    def _moved(self) -> dict[str, tuple[float, float]]:
        found = {}
        for device in self.node.devices:
            sent, received = (self.node.grown(device, counter, self.window) for counter in BYTES)
            found[device.name] = (sent, received)
        return found

    def most(self, device: Device) -> float:
        """Bytes in the busier direction."""
        return max(self.moved(device))

    @cached_property
    def of_processes(self) -> float | None:
        """Bytes over the TCP connections of the host's ranks, busier direction; None where not read of all."""
        read = [each for each in self.node.connections if each is not None]
        if not read or len(read) < len(self.ranks):
            return None
        return max(sum(each[way].grown_in(self.window) for each in read) for way in (0, 1))

    def rate(self, device: Device) -> Rate:
        """How fast it moved bytes while that cost time."""
        if self.busy is None or not self.enough:
            return UNKNOWN
        sent, received = self.moved(device)
        counter = BYTES[0] if sent >= received else BYTES[1]
        most = _IMPOSSIBLE * device.peak if device.peak is not None else float("inf")
        mean = max(sent, received) / (length(self.busy.transfer) / 1e9)
        rates = self._while_exposed(self.node.series[device.name, counter])
        p50, p95 = np.quantile(rates, [0.5, 0.95]) if rates.size >= FEWEST else (float("inf"), float("inf"))
        return Rate(*(float(each) if each < most else None for each in (p50, p95, mean)))

    @cached_property
    def carriers(self) -> tuple[Device, ...]:
        """Network devices whose bytes were read, the one that moved most first."""
        read = [each for each in self.node.devices if each.network and self.node.read(each, *BYTES)]
        return tuple(sorted(read, key=lambda each: -self.most(each)))

    def stretches(self, readings: int) -> tuple[Intervals, int]:
        """Stretches of as many whole steps as last for so many readings, and how many steps that is."""
        usual = float(np.median(self.each.ends - self.each.starts)) if self.steps else 0.0
        count = max(1, int(np.ceil(readings * self.node.interval_ns / usual))) if usual else 1
        whole = self.steps // count * count
        return Intervals(self.each.starts[:whole:count], self.each.ends[count - 1 : whole : count]), count

    def _while_exposed(self, series: Series) -> Floats:
        """Rates between readings next to each other with exposed transfers for most of that time, bytes/s."""
        if self.busy is None:
            return np.zeros(0)
        starts, ends = series.time_ns[:-1], series.time_ns[1:]
        if self._refreshed_seldom(series):
            return np.zeros(0)
        near = ends - starts <= _NEXT * self.node.interval_ns  # of equal readings some were left out
        spans = Intervals(starts[near], ends[near])
        full = length_within(self.busy.exposed, *spans) >= _MOSTLY * (spans.ends - spans.starts)
        spans = Intervals(spans.starts[full], spans.ends[full])
        return series.grown(*spans) / np.maximum(length_within(self.busy.transfer, *spans), 1) * 1e9

    def _refreshed_seldom(self, series: Series) -> bool:
        """Whether a total stood still while bytes moved for long: its driver brings it up to date more seldom."""
        if self.busy is None:
            return False
        still = series.standing
        moving = length(self.busy.exposed)
        return length(intersect(self.busy.exposed, still)) > _STALE * moving


def find_traffic(
    ranks: Sequence[RankFacts], joined: Joined, nodes: Sequence[Node], backend: str | None
) -> tuple[Traffic, ...]:
    """Every node's counters beside its collectives, in the order of the nodes.

    Args:
        ranks: stage one of each rank, ascending.
        joined: stage two of the same ranks.
        nodes: those with readings.
        backend: of the job, None where not known.
    """
    inter = between_hosts(ranks, joined) if nodes else ()
    gloo = backend is not None and "gloo" in backend and "nccl" not in backend
    groups = groups_by_machine(ranks, joined.matched) if nodes else {}
    return tuple(_traffic(ranks, joined, node, inter, groups.get(node.machine, []), gloo) for node in nodes)


def _traffic(
    ranks: Sequence[RankFacts],
    joined: Joined,
    node: Node,
    inter: Sequence[Which],
    groups: Sequence[Matched],
    gloo: bool,
) -> Traffic:
    shift = joined.clocks.shift_ns - joined.clocks.shift_ns[node.sampler]
    steps = ranks[node.sampler].steps
    covered = length_within(node.covered, steps.start_ns, steps.end_ns) == steps.end_ns - steps.start_ns
    window = merge(steps.start_ns[covered], steps.end_ns[covered])
    found: Crossing | str = _SEVERAL
    if not node.several:
        found = crossing(ranks, groups, node.machine, window, shift, gloo)
    return Traffic(
        node=node,
        ranks=tuple(ranks[position].rank for position in node.positions),
        window=window,
        each=Intervals(steps.start_ns[covered], steps.end_ns[covered]),
        expected=found if isinstance(found, Crossing) else None,
        unknown=found if isinstance(found, str) else "",
        within=sum(_within(ranks[p], ~inter[p], window, int(shift[p])) for p in node.positions),
        busy=find_busy(ranks, joined, node.positions, inter, shift, window),
    )


def _within(facts: RankFacts, inside: Which, window: Intervals, shift_ns: int) -> float:
    """Bytes a rank sends to others of its host at least: half of a ring's."""
    columns, total = facts.columns.collectives, 0.0
    issued = columns["issued_ns"] + shift_ns
    chosen = inside & (length_within(window, issued, issued + 1) > 0) & (columns["bytes"] != MISSING)
    for size in set(columns["group_size"][chosen].tolist()):
        for word in OPS:
            rows = chosen & (columns["group_size"] == size) & facts.columns.words["op"].equals(word)
            total += 0.5 * (busbw_factor(word, size) or 0.0) * float(columns["bytes"][rows].sum())
    return total
