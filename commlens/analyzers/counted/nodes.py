"""The nodes whose links and devices were read: what they have, and every reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from commlens.analyzers.counted.series import Series
from commlens.analyzers.intervals import Intervals, merge, subtract

NETWORK = ("ethernet", "infiniband", "roce")
RDMA = ("infiniband", "roce")
BYTES = ("tx_bytes", "rx_bytes")
LOOPBACK = "lo"
PROCESS = "process"  # what one process sends: every rank reads its own
# Made of software: they carry again what a real link carries, or nothing that leaves the host.
_SOFTWARE = ("bridge", "veth", "tun", "dummy", "vxlan", "802.1Q VLAN Support")
_VIRTUAL = ("lo", "docker", "veth", "virbr", "br-", "cni", "flannel", "cali", "tun", "tap", "dummy")


@dataclass(frozen=True)
class Device:
    """A link or device of a node, as rank.json describes it.

    Attributes:
        name: as readings name it.
        kind: one of `LINK_KINDS`.
        peak: bytes/s each way, None where not known.
        peak_from: who says so, "" where nobody does.
        netdev: the network interface of an InfiniBand or RoCE port, None where not known.
        uuid: of a GPU, None where not known.
        driver: of a network interface, None where not known.
    """

    name: str
    kind: str
    peak: float | None
    peak_from: str
    netdev: str | None
    uuid: str | None
    driver: str | None

    @property
    def network(self) -> bool:
        """It can carry bytes to another host."""
        return self.kind in NETWORK and self.name != LOOPBACK

    @property
    def virtual(self) -> bool:
        """It is made of software, as its driver or its name tells."""
        return self.driver in _SOFTWARE or self.name.startswith(_VIRTUAL)


class Connections(NamedTuple):
    """Bytes that one process sent and received over all of its TCP connections."""

    sent: Series
    received: Series


@dataclass(frozen=True)
class Node:
    """A host of which one rank read the counters.

    Attributes:
        host: its name.
        machine: what tells it from other hosts.
        sampler: position (among the ranks analysed) of the rank that read.
        positions: of the ranks on this host.
        devices: as described, in that order, each name once.
        series: readings by device and counter.
        interval_ns: usual time between two readings, 0 where that is not known.
        unsupported: (device, counter) to the reason why it was not read.
        settings: the sampler's environment variables.
        addressed: interfaces that are up and have an address.
        several: ranks of this machine are in different networks, each with counters of its own.
        connections: of each rank on this host, None where they were not read.
    """

    host: str
    machine: str
    sampler: int
    positions: tuple[int, ...]
    devices: tuple[Device, ...]
    series: Mapping[tuple[str, str], Series]
    interval_ns: int
    unsupported: Mapping[tuple[str, str], str]
    settings: Mapping[str, str]
    addressed: frozenset[str]
    several: bool = False
    connections: tuple[Connections | None, ...] = ()

    @cached_property
    def covered(self) -> Intervals:
        """When totals are known: from the first reading to the last, but for those in which bytes began anew."""
        if not self.series:
            return merge([], [])
        first = min(int(each.time_ns[0]) for each in self.series.values())
        last = max(int(each.time_ns[-1]) for each in self.series.values())
        known = merge([first], [last])
        for (_, counter), each in self.series.items():
            known = subtract(known, each.resets) if counter in BYTES else known
        return known

    def read(self, device: Device, *counters: str) -> bool:
        """Whether there are readings of all these counters of a device."""
        return all((device.name, counter) in self.series for counter in counters)

    def grown(self, device: Device, counter: str, windows: Intervals) -> float:
        """What a total grew by in merged windows; 0 where it was not read."""
        found = self.series.get((device.name, counter))
        return found.grown_in(windows) if found is not None else 0.0
