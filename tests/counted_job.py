"""A blocking job on several hosts whose links were read: every byte on them is chosen.

The job's own bytes flow while its transfers do, at one rate; what else a test adds flows when it says so. Readings are
taken every `INTERVAL` and thinned as the sampler thins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from blocking_job import BlockingJob, Ints
from numpy.typing import NDArray
from synthetic import MS, START, RankTruth

INTERVAL = 20 * MS
SIZE = 20_000_000
Row = tuple[int, str, str, int]


def link(name: str, kind: str = "ethernet", gb_s: float | None = 1.25, **more: Any) -> dict[str, Any]:
    """A device as rank.json has it."""
    peak = None if gb_s is None else gb_s * 1e9
    return {"name": name, "kind": kind, "peak_bytes_per_s": peak, "peak_from": "a test", "bytes": "payload", **more}


@dataclass
class CountedJob:
    """A job of all_reduces, its hosts, and what their devices count.

    Attributes:
        job: who works and waits when; its `hosts` say who is where.
        links: devices of every host, or of one by name.
        carries: share of the job's bytes between hosts that each device carries.
        more: further totals by host, device and counter: bytes (or what it counts) up to a time since START.
        gauges: likewise, the value at a time.
        unread: hosts without readings.
        info: further entries of every rank's rank.json.
        counters: the entry of that name.
        until: share of the job's time that was read.
    """

    job: BlockingJob
    links: Sequence[Mapping[str, Any]] = (link("eth0"),)
    carries: Mapping[str, float] = field(default_factory=lambda: {"eth0": 1.0})
    more: Mapping[tuple[str, str, str], Callable[[Ints], NDArray[Any]]] = field(default_factory=dict)
    gauges: Mapping[tuple[str, str, str], Callable[[Ints], NDArray[Any]]] = field(default_factory=dict)
    unread: Sequence[str] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    counters: Mapping[str, Any] = field(default_factory=lambda: {"interval_ms": INTERVAL // MS})
    until: float = 1.0
    interval: int = INTERVAL

    def truths(self) -> dict[int, RankTruth]:
        """What every rank records; the first rank of each host has the readings."""
        found, seen = {}, set()
        for rank, truth in self.job.truths().items():
            host = self.job.hosts[rank]
            info = {**truth.info, **self.info}
            if host not in seen and host not in self.unread:
                info |= {"links": list(self.links), "counters": dict(self.counters)}
                truth = replace(truth, counters=self._rows(rank, host))
            seen.add(host)
            found[rank] = replace(truth, info=info)
        return found

    def moved(self, times: Ints) -> NDArray[np.float64]:
        """Bytes of the job out of (and into) a host up to each time since START, while transfers run."""
        begins = self.job.issued.max(axis=0).ravel() - START
        ends = self.job.ends.max(axis=0).ravel() - START
        sizes = np.tile(np.array(list(self.job.bytes) or [4096] * self.job.work.shape[2]), self.job.work.shape[1])
        ranks = self.job.work.shape[0]
        each = 2 * (ranks - 1) / ranks * sizes
        edges = np.stack([begins, ends], axis=1).ravel()
        totals = np.stack([np.cumsum(each) - each, np.cumsum(each)], axis=1).ravel()
        return np.interp(times, edges, totals)

    def _rows(self, rank: int, host: str) -> list[Row]:
        last = int((self.job.ends.max() - START) * self.until)
        times = np.arange(-self.interval, last + self.interval, self.interval, dtype=np.int64)
        rows: list[Row] = []
        for name, share in self.carries.items():
            for counter in ("tx_bytes", "rx_bytes"):
                values = self.moved(times) * share + self._added(host, name, counter, times)
                rows += self._series(rank, times, name, counter, 10**9 + np.round(values).astype(np.int64))
        for (where, name, counter), grows in self.more.items():
            if where == host and not (name in self.carries and counter.endswith("_bytes")):
                rows += self._series(rank, times, name, counter, np.round(grows(times)).astype(np.int64))
        for (where, name, counter), value in self.gauges.items():
            if where == host:
                rows += self._series(rank, times, name, counter, np.round(value(times)).astype(np.int64))
        return rows

    def _added(self, host: str, name: str, counter: str, times: Ints) -> NDArray[Any]:
        more = self.more.get((host, name, counter))
        return more(times) if more is not None else np.zeros(times.size)

    def _series(self, rank: int, times: Ints, name: str, counter: str, values: Ints) -> list[Row]:
        kept = np.ones(values.size, bool)
        kept[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
        shown = self.job.clock(rank, START + times[kept])
        return [(int(at), name, counter, int(value)) for at, value in zip(shown, values[kept], strict=True)]


def two_hosts(steps: int = 60, transfer_ms: float = 24.0, **options: Any) -> CountedJob:
    """Two ranks on two hosts, which all_reduce 20 MB a step for 24 ms: 0.83 GB/s on a link of 1.25 GB/s."""
    draw = np.random.default_rng(0)
    work = 30 * MS + draw.integers(0, MS // 5, (2, steps, 1))
    job = BlockingJob(work, np.array([int(transfer_ms * MS)]), hosts=("a", "b"), bytes=[SIZE])
    return CountedJob(job, **options)


def steady(per_s: float) -> Callable[[Ints], NDArray[Any]]:
    """A total that grows all the time."""
    return lambda times: np.maximum(times, 0) * per_s / 1e9


def nothing(times: Ints) -> NDArray[Any]:
    """A total that stays zero."""
    return np.zeros(times.size)
