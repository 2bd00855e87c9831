"""The newest readings as a text file in Prometheus' exposition format, for node-exporter's textfile collector.

COMMLENS_PROMETHEUS names the file, one a node, on a disk of the node. It is replaced at once, so that a reader sees the
old or the new one, and removed when the job ends: a total of a job that is gone would stay for ever.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from commlens.profiler import live
from commlens.profiler.counters.source import Key
from commlens.trace.counters import COUNTERS

VARIABLE: Final = "COMMLENS_PROMETHEUS"
EVERY_S: Final = 15.0

# Prometheus' base units: word -> (name of the metric, units of ours in one of its).
_GAUGES: Final = {
    "sm_clock_mhz": ("commlens_sm_clock_hertz", 1e6),
    "memory_clock_mhz": ("commlens_memory_clock_hertz", 1e6),
    "power_mw": ("commlens_power_watts", 1e-3),
    "temperature_c": ("commlens_temperature_celsius", 1),
    "throttle_reasons": ("commlens_throttle_reasons_bits", 1),
}


class Own(NamedTuple):
    """commlens' own totals of this rank."""

    collectives: int = 0
    dropped: int = 0


class TextFile:
    """The file of one node. Failing to write it costs one line, never the recording."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}")  # the collector reads *.prom only
        self._next_s = 0.0
        self._written = False

    def write_when_due(self, text: Iterable[str], now_s: float | None = None) -> None:
        """Replaces the file if the one before is `EVERY_S` old. `text` is made only then."""
        at = time.monotonic() if now_s is None else now_s
        if at < self._next_s:
            return
        self._next_s = at + EVERY_S
        try:
            self._part.write_text("".join(text), encoding="utf-8")
            self._part.chmod(0o644)
            self._part.replace(self._path)
            self._written = True
        except OSError as error:
            live.warn(f"{VARIABLE}: cannot write {self._path} ({error.strerror or error}); next: a folder of this node")
            self._next_s = float("inf")

    def remove(self) -> None:
        """At the end: nothing is written any more."""
        self._next_s = float("inf")
        if self._written:
            with contextlib.suppress(OSError):
                self._path.unlink()


def asked() -> TextFile | None:
    """The file that COMMLENS_PROMETHEUS names."""
    said = os.environ.get(VARIABLE)
    return TextFile(Path(said)) if said else None


def exposition(
    run_id: str, rank: int, values: Mapping[Key, int], links: Iterable[Mapping[str, Any]], own: Own, at_s: float
) -> Iterator[str]:
    """Lines of the format: each metric's help and type once, then its samples.

    Args:
        values: the newest value of each counter.
        links: `links` of rank.json, for the kind of each device.
        at_s: seconds since the epoch: a reader tells by it whether the job still runs.
    """
    labels = {"run": run_id, "rank": str(rank)}
    kinds = {each["name"]: str(each["kind"]) for each in links}
    for word, counter in COUNTERS.items():
        samples = [
            ({**labels, "device": device, "kind": kinds.get(device, "")}, value)
            for (device, each), value in values.items()
            if each == word
        ]
        if samples and counter.total:
            yield from _metric(f"commlens_{word}_total", "counter", counter.meaning, samples)
        elif samples:
            name, factor = _GAUGES[word]
            yield from _metric(name, "gauge", counter.meaning, [(said, value * factor) for said, value in samples])
    yield from _metric("commlens_collectives_total", "counter", "collectives of this rank", [(labels, own.collectives)])
    dropped = "collectives not recorded for want of room"
    yield from _metric("commlens_dropped_total", "counter", dropped, [(labels, own.dropped)])
    yield from _metric("commlens_read_timestamp_seconds", "gauge", "when this was written", [(labels, at_s)])


def _metric(name: str, kind: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {_escaped(meaning)}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        said = ",".join(f'{label}="{_quoted(text)}"' for label, text in labels.items())
        yield f"{name}{{{said}}} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
