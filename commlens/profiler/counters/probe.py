"""What can be read on this machine, tried out: for `commlens doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from commlens.profiler.counters import gpus, infiniband
from commlens.profiler.counters.process import Process
from commlens.profiler.counters.sampler import node_sources
from commlens.profiler.counters.source import ALL, Link, Source


class Answer(NamedTuple):
    """What was found: each device with the counters it tells, and what cannot be read, with the reason."""

    told: list[tuple[Link, list[str]]]
    refused: list[tuple[str, str]]


def look(sources: Iterable[Source] | None = None) -> Answer:
    """Reads every source once."""
    told: list[tuple[Link, list[str]]] = []
    refused: list[tuple[str, str]] = []
    words: dict[str, list[str]] = {}
    tried = list(sources) if sources is not None else [*node_sources(), Process()]
    for source in tried:
        source.refresh()
        raw = source.read()
        for (device, word), _ in source.decode(raw) if raw is not None else ():
            words.setdefault(device, []).append(word)
        source.close()
    for source in tried:
        told += [(each, words.get(each["name"], [])) for each in source.links]
        refused += [
            (each["device"] if each["counter"] == ALL else f"{each['device']} {each['counter']}", each["reason"])
            for each in source.unsupported
        ]
    return Answer(told, refused + (_absent() if sources is None else []))


def _absent() -> list[tuple[str, str]]:
    """The kinds of devices of which this machine has none."""
    absent = []
    if not infiniband.ROOT.is_dir():
        absent.append(("InfiniBand, RoCE", f"no adapter: {infiniband.ROOT} is not there"))
    if not gpus.has_driver():
        absent.append(("NVLink, PCIe, GPUs", "no NVIDIA driver here"))
    return absent
