"""Reading what rank.json and the tables say of a node's links; what is absent or of another shape is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from commlens.analyzers.across.communicators import split_by
from commlens.analyzers.counted.nodes import BYTES, PROCESS, Connections, Device, Node
from commlens.analyzers.counted.series import Series, series_of
from commlens.analyzers.intervals import distinct, intersect, length
from commlens.analyzers.ranks import RankFacts
from commlens.trace.counters import COUNTERS, LINK_KINDS
from commlens.trace.schema import MISSING

if TYPE_CHECKING:
    from commlens.trace import Rank

_SHORTEST_NS = 1_000_000  # between readings: nobody reads more often, whatever a file says


def read_nodes(ranks: Sequence[RankFacts], recorded: Mapping[int, Rank]) -> tuple[Node, ...]:
    """The nodes with readings of links, in the order of their ranks. Tables are let go of.

    A rank may take over where the one that read has ended: then the longer readings are those of the node.
    """
    found: dict[str, Node] = {}
    connections: dict[str, list[Connections | None]] = {}
    for position, facts in enumerate(ranks):
        rank, machine = recorded[facts.rank], facts.who.machine
        devices = _devices(rank.info)
        series = _series(rank) if devices else {}
        rank.forget()
        connections.setdefault(machine, []).append(_connections(devices, series))
        if any(device.name == name and device.kind != PROCESS for device in devices for name, _ in series):
            node = _node(ranks, position, rank.info, devices, series)
            found[machine] = _longer(found[machine], node) if machine in found else node
    return tuple(replace(node, connections=tuple(connections[machine])) for machine, node in found.items())


def _connections(devices: Sequence[Device], series: Mapping[tuple[str, str], Series]) -> Connections | None:
    """What a rank's process moved over TCP, None where that was not read."""
    name = next((each.name for each in devices if each.kind == PROCESS), "")
    own = [series.get((name, counter)) for counter in BYTES]
    return Connections(own[0], own[1]) if own[0] is not None and own[1] is not None else None


def _longer(first: Node, second: Node) -> Node:
    """The node with more readings; of two that read at the same time neither knows all of the machine's links."""
    at_once = length(intersect(first.covered, second.covered)) > first.interval_ns + second.interval_ns
    longer = max(first, second, key=lambda node: length(node.covered))
    return replace(longer, several=first.several or second.several or at_once)


def _node(
    ranks: Sequence[RankFacts],
    position: int,
    info: Mapping[str, Any],
    devices: tuple[Device, ...],
    series: dict[tuple[str, str], Series],
) -> Node:
    who = ranks[position].who
    told = info.get("counters")
    counters = told if isinstance(told, dict) else {}
    interfaces = [each for each in _list(info.get("interfaces")) if isinstance(each, dict)]
    settings = info.get("environment")
    return Node(
        host=who.host or who.machine or f"of rank {who.rank}",
        machine=who.machine,
        sampler=position,
        positions=tuple(at for at, facts in enumerate(ranks) if facts.who.machine == who.machine),
        devices=devices,
        series=series,
        interval_ns=_interval_ns(counters, series),
        unsupported=dict(_unsupported(counters)),
        settings={str(name): str(value) for name, value in settings.items()} if isinstance(settings, dict) else {},
        addressed=frozenset(
            str(each.get("name")) for each in interfaces if each.get("address") and each.get("state") != "down"
        ),
    )


def _devices(info: Mapping[str, Any]) -> tuple[Device, ...]:
    found: dict[str, Device] = {}
    for each in _list(info.get("links")):
        if isinstance(each, dict) and isinstance(each.get("name"), str) and each.get("kind") in LINK_KINDS:
            found.setdefault(each["name"], _device(each))
    return tuple(found.values())


def _device(described: Mapping[str, Any]) -> Device:
    peak = described.get("peak_bytes_per_s")
    known = isinstance(peak, int | float) and not isinstance(peak, bool) and isfinite(peak) and peak > 0
    return Device(
        name=described["name"],
        kind=described["kind"],
        peak=float(peak) if known and peak is not None else None,
        peak_from=_text(described.get("peak_from")) or "",
        netdev=_text(described.get("netdev")),
        uuid=_text(described.get("uuid")),
        driver=_text(described.get("driver")),
    )


def _series(rank: Rank) -> dict[tuple[str, str], Series]:
    """Readings by device and counter; rows without a time, a device, a known counter or a value are left out."""
    columns = rank.columns("counters", ["time_ns", "device", "counter", "value"])
    devices, counters = (rank.vocabulary("counters", name) for name in ("device", "counter"))
    time, device, counter, value = (np.asarray(each).astype(np.int64) for each in columns.values())
    kept = np.flatnonzero((time != MISSING) & (device != MISSING) & (counter != MISSING) & (value >= 0))
    found = {}
    for code, rows in split_by(device[kept] * max(len(counters), 1) + counter[kept]):
        names = devices[code // len(counters)], counters[code % len(counters)]
        if names[1] in COUNTERS:
            found[names] = series_of(time[kept[rows]], value[kept[rows]])
    return found


def _interval_ns(counters: Mapping[str, Any], series: Mapping[tuple[str, str], Series]) -> int:
    said = counters.get("interval_ms")
    if isinstance(said, int | float) and not isinstance(said, bool) and isfinite(said) and said > 0:
        return max(int(said * 1e6), _SHORTEST_NS)
    times = distinct(np.concatenate([each.time_ns for each in series.values()]))
    return max(int(np.median(np.diff(times))), _SHORTEST_NS) if times.size > 1 else 0


def _unsupported(counters: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    for each in _list(counters.get("unsupported")):
        if isinstance(each, dict):
            yield (str(each.get("device")), str(each.get("counter"))), str(each.get("reason"))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
