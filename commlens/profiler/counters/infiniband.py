"""Ports of InfiniBand, RoCE and other RDMA adapters, from sysfs.

A port's counters are those of the whole node. `port_xmit_data` and `port_rcv_data` count octets divided by four,
headers included. Drivers cache `hw_counters/` for `lifespan` ms; reading them sooner repeats values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from commlens.profiler.counters.files import CounterFile, read_text, why
from commlens.profiler.counters.interfaces import numa_node
from commlens.profiler.counters.port_words import BYTES, EVENTS, SATURATED, Files
from commlens.profiler.counters.source import ALL, Key, Link, Pair, Source, key, link

ROOT: Final = Path("/sys/class/infiniband")
EVENTS_MS: Final = 1000
_RATE: Final = re.compile(r"([\d.]+) *Gb/sec")


class _Counter(NamedTuple):
    key: Key
    files: tuple[CounterFile, ...]
    factor: int


class Ports(Source):
    """One set of counters of every active port.

    Args:
        words: counter -> ways to read it.
        every_ms: the least time between two readings.
        describes: whether the ports' links are listed here; of several sources of the same ports one does.
    """

    def __init__(
        self, name: str, words: Mapping[str, tuple[Files, ...]], every_ms: int, describes: bool, root: Path = ROOT
    ) -> None:
        super().__init__()
        self.name = name
        self.every_ms = every_ms
        self._words = words
        self._describes = describes
        self._root = root
        self._counters: dict[str, list[_Counter]] = {}

    def refresh(self) -> None:
        for device, port in _ports(self._root):
            name = f"{device.name}/{port.name}"
            if name not in self._counters:
                self._add(name, device, port)

    def _add(self, name: str, device: Path, port: Path) -> None:
        state = read_text(port / "state")
        if state is not None and "ACTIVE" not in state:
            if self._describes:
                self.refuse(name, ALL, f"the port is not active: {state}")
            return
        self._counters[name] = found = []
        for word, ways in self._words.items():
            counter = self._found(name, word, ways, port)
            if counter is not None:
                found.append(counter)
                if counter.files[0].path.startswith(str(port / "hw_counters")):
                    self.every_ms = max(self.every_ms, _lifespan_ms(port))
        if self._describes and name not in {each["name"] for each in self.links}:
            self.links.append(_link(name, device, port))

    def _found(self, name: str, word: str, ways: tuple[Files, ...], port: Path) -> _Counter | None:
        reasons = []
        for way in ways:
            files = []
            for each in way.names:
                file = CounterFile(port / way.folder / each)
                try:
                    _check(file.read())
                    files.append(file)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    reasons.append(f"{way.folder}/{each}: {why(error)}")
                except ValueError as error:
                    reasons.append(f"{way.folder}/{each}: {error}")
            if files:
                return _Counter(key(name, word), tuple(files), way.factor)
        self.refuse(name, word, "; ".join(reasons) or f"this driver has no file for it in {_folders(ways)}")
        return None

    def read(self) -> list[tuple[_Counter, list[bytes]]] | None:
        readings = []
        for name, counters in list(self._counters.items()):
            try:
                readings += [(counter, [file.read() for file in counter.files]) for counter in counters]
            except OSError as error:
                self.refuse(name, ALL, f"while the job ran: {why(error)}")
                self._let_go(name)  # it is looked for again
        return readings or None

    def decode(self, raw: list[tuple[_Counter, list[bytes]]]) -> Iterable[Pair]:
        for counter, texts in raw:
            try:
                yield counter.key, sum(map(int, texts)) * counter.factor
            except ValueError:
                self.refuse(*counter.key, "while the job ran: no number")

    def _let_go(self, name: str) -> None:
        for counter in self._counters.pop(name):
            for file in counter.files:
                file.close()

    def close(self) -> None:
        for counters in self._counters.values():
            for counter in counters:
                for file in counter.files:
                    file.close()


def sources(root: Path = ROOT) -> list[Source]:
    """Bytes at each sample, everything else once a second: reading a file may ask the adapter's firmware."""
    if not root.is_dir():
        return []
    return [
        Ports("infiniband bytes", BYTES, 0, True, root),
        Ports("infiniband events", EVENTS, EVENTS_MS, False, root),
    ]


def _ports(root: Path) -> Iterator[tuple[Path, Path]]:
    try:
        devices = sorted(root.iterdir())
    except OSError:
        return
    for device in devices:
        try:
            ports = sorted((device / "ports").iterdir())
        except OSError:
            continue
        yield from ((device, port) for port in ports)


def _check(text: bytes) -> None:
    """Raises:
    ValueError: What was read is no running counter.
    """
    stripped = text.strip()
    if not stripped.isdigit():
        raise ValueError(f"no number: {stripped[:20].decode('ascii', 'replace')!r}")
    if int(stripped) == SATURATED:
        raise ValueError("stays at 4294967295: a 32-bit counter that is full")


def _lifespan_ms(port: Path) -> int:
    said = read_text(port / "hw_counters" / "lifespan")
    return int(said) if said is not None and said.isdigit() else 0


def _folders(ways: tuple[Files, ...]) -> str:
    return " or ".join(dict.fromkeys(way.folder for way in ways))


def _link(name: str, device: Path, port: Path) -> Link:
    rate = read_text(port / "rate")
    told = _RATE.match(rate) if rate is not None else None
    layer = read_text(port / "link_layer")
    kind = "roce" if layer == "Ethernet" else "infiniband"
    lifespan = _lifespan_ms(port)
    clock = f"when read; files of hw_counters are renewed every {lifespan} ms" if lifespan else "when read"
    pci = os.path.basename(os.path.realpath(device / "device"))  # noqa: PTH119 - Path.resolve raises on loops
    return link(
        name,
        kind,
        "with headers",
        clock,
        float(told[1]) * 1e9 / 8 if told is not None else None,
        f"rate file: {rate}" if told is not None else "no rate file",
        pci=pci if pci != "device" else None,
        numa=numa_node(pci),
        netdev=_netdev(device, port) if kind == "roce" else None,
        link_layer=layer,
    )


def _netdev(device: Path, port: Path) -> str | None:
    """The interface of a RoCE port, whose own counters do not see what RDMA moves."""
    named = read_text(port / "gid_attrs" / "ndevs" / "0")
    if named:
        return named
    try:
        found = sorted(each.name for each in (device / "device" / "net").iterdir())
    except OSError:
        return None
    return found[0] if len(found) == 1 else None
