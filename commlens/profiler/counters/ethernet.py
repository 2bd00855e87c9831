"""Bytes, packets, errors and drops of the network interfaces of this process' own namespace.

/proc/net/dev gives all interfaces in one read, which costs what five files of /sys/class/net/*/statistics do, and is
of the process' own namespace where /sys/class/net may show another's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from commlens.profiler.counters.files import CounterFile, why
from commlens.profiler.counters.interfaces import Interface, interface, is_nominal, numa_node
from commlens.profiler.counters.source import ALL, Key, Link, Pair, Source, key, link

DEV: Final = Path("/proc/net/dev")
# Place in a line of /proc/net/dev, after the name (kernel: net/core/net-procfs.c).
_PLACES: Final = {
    "rx_bytes": 0, "rx_packets": 1, "rx_errors": 2, "rx_drops": 3,
    "tx_bytes": 8, "tx_packets": 9, "tx_errors": 10, "tx_drops": 11,
}  # fmt: skip
_MOST: Final = 32
_FRAMES: Final = "frames"
_CLOCK: Final = "when read; a driver may refresh its numbers more seldom"


class Ethernet(Source):
    """Every interface that is up, the loopback too: ranks of one node talk over it."""

    name = "ethernet"

    def __init__(self, path: Path = DEV) -> None:
        super().__init__()
        self._file = CounterFile(path, pages=True)
        self._keys: dict[bytes, list[Key]] = {}
        self._lines: dict[bytes, tuple[bytes, list[Pair]]] = {}

    def refresh(self) -> None:
        try:
            names = [line.partition(b":")[0].strip() for line in self._file.read().splitlines()[2:]]
        except OSError as error:
            self.refuse("ethernet", ALL, f"{self._file.path}: {why(error)}")
            return
        for name in names:
            if name not in self._keys:
                self._add(name)

    def _add(self, raw: bytes) -> None:
        name = raw.decode("ascii", "replace")
        found = interface(name)
        if found is None or not found.up:
            return
        if len(self._keys) >= _MOST:
            self.refuse(name, ALL, f"more than {_MOST} interfaces are up")
            return
        self.links.append(_link(name, found))
        self._keys[raw] = [key(name, counter) for counter in _PLACES]

    def read(self) -> bytes | None:
        try:
            return self._file.read()
        except OSError as error:
            self.refuse("ethernet", ALL, f"{self._file.path}: {why(error)}")
            return None

    def decode(self, raw: bytes) -> Iterable[Pair]:
        for line in raw.splitlines()[2:]:
            name, _, numbers = line.partition(b":")
            name = name.strip()
            if name in self._keys:
                known = self._lines.get(name)
                if known is None or known[0] != numbers:
                    known = self._lines[name] = numbers, self._decode(name, numbers.split())
                yield from known[1]

    def _decode(self, name: bytes, numbers: list[bytes]) -> list[Pair]:
        if len(numbers) < 16:
            return []
        return [(each, int(numbers[place])) for each, place in zip(self._keys[name], _PLACES.values(), strict=True)]

    def close(self) -> None:
        self._file.close()


def _link(name: str, found: Interface) -> Link:
    peak, reason = _peak(found)
    note = "traffic between processes of this node" if found.loopback else None
    return link(
        name, "ethernet", _FRAMES, _CLOCK, peak, reason,
        driver=found.driver, pci=found.pci, numa=numa_node(found.pci), note=note,
    )  # fmt: skip


def _peak(found: Interface) -> tuple[float | None, str]:
    if found.loopback:
        return None, "loopback: as fast as the memory and cores allow"
    if found.speed_mbit_s is None:
        return None, "the driver tells no speed"
    if is_nominal(found.driver):
        return None, f"{found.speed_mbit_s} Mbit/s is what the {found.driver} driver always says"
    return found.speed_mbit_s * 1e6 / 8, f"{found.speed_mbit_s} Mbit/s (ethtool)"
