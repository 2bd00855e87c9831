"""What reading counters costs: CPU time of the sampler, in percent of one core.

    python bench/counters.py [--seconds 8] [--interval-ms 100]

The recorder's own sampler runs in a process whose main thread is idle, holds the interpreter lock as much as it can, or
computes outside of it; every few seconds its readings are decoded and written as in a job. Counted is the CPU time of
its thread, waking up and waiting for the interpreter lock included, and that of decoding and writing. `nothing` is a
source that reads nothing: what waking up ten times a second costs. `reading` is the CPU time of one reading of a source
alone, again and again (warm) and after a pause (cold).

The last line is flat JSON; `counter_sampling_percent_of_core` is that of all sources, in the dearest of the cases.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from commlens.profiler.counters import infiniband, nvml
from commlens.profiler.counters.ethernet import Ethernet
from commlens.profiler.counters.process import Process
from commlens.profiler.counters.readings import devices_and_words
from commlens.profiler.counters.sampler import IDLE_MS, Counters, node_sources
from commlens.profiler.counters.source import Source
from commlens.profiler.counters.tcp import Tcp
from commlens.trace.writer import RankWriter

Sources = Callable[[], list[Source]]
STATISTICS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")


class Nothing(Source):
    """Reads nothing."""

    name = "nothing"

    def refresh(self) -> None:
        return

    def read(self) -> None:
        return


def of(own: Sources, node: Sources, main: Callable[[], None], seconds: float, interval_ms: int) -> float:
    """Percent of a core."""
    counters = Counters(lambda: f"bench-{os.getpid()}-{time.time_ns()}", lambda: None, 0, interval_ms, own, node)
    with tempfile.TemporaryDirectory() as folder:
        writer = RankWriter(Path(folder), 0)
        counters.begin()
        until, cpu_ns, from_s = time.monotonic() + seconds, 0, time.monotonic()
        counters.charge()
        while time.monotonic() < until:
            turn_until = time.monotonic() + 1
            while time.monotonic() < turn_until:
                main()
            cpu_ns += drained(counters, writer)
        took_s = time.monotonic() - from_s
        counters.stop()
        cpu_ns += drained(counters, writer, ended=True)
        writer.close(compact=False)
    said = counters.described()["counters"]
    return ((said["cost_us_per_sample"] or 0) * said["samples"] / 1e6 + cpu_ns / 1e9) / took_s * 100


def drained(counters: Counters, writer: RankWriter, ended: bool = False) -> int:
    """CPU time of decoding and writing, in ns."""
    started = time.thread_time_ns()
    rows = counters.drain(ended)
    if rows.times:
        devices, words, places = devices_and_words(counters.readings.keys)
        codes = np.array(places)[np.array(rows.codes)]
        columns = {
            "time_ns": np.array(rows.times),
            "device": (codes[:, 0], devices),
            "counter": (codes[:, 1], words),
            "value": np.array(rows.values),
        }
        writer.append("counters", columns)
    return time.thread_time_ns() - started


def reading_us(read: Callable[[], object], pause_s: float, times: int) -> float:
    """Median CPU time of a reading."""
    took = []
    for _ in range(times):
        time.sleep(pause_s)
        started = time.thread_time_ns()
        read()
        took.append(time.thread_time_ns() - started)
    return statistics.median(took) / 1e3


def sysfs_statistics() -> Callable[[], object]:
    """The other way to read interfaces: the files of /sys/class/net, kept open."""
    folders = [folder / "statistics" for folder in Path("/sys/class/net").iterdir()]
    files = [os.open(folder / name, os.O_RDONLY) for folder in folders for name in STATISTICS]
    return lambda: [os.pread(file, 64, 0) for file in files]


def one_reading() -> dict[str, float]:
    found = {}
    tried: list[Source] = [Ethernet(), Tcp(), Process(), *infiniband.sources(), *nvml.sources()]
    ways: dict[str, Callable[[], object]] = {}
    for source in tried:
        source.refresh()
        ways[source.name] = source.read
    ways["ethernet by sysfs"] = sysfs_statistics()
    for name, read in ways.items():
        warm, cold = reading_us(read, 0.0, 1000), reading_us(read, 0.1, 40)
        print(f"one reading of {name}: {warm:.1f} us warm, {cold:.1f} us cold")
        found |= {f"reading_{name.replace(' ', '_')}_{how}_us": us for how, us in (("warm", warm), ("cold", cold))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--interval-ms", type=int, default=100)
    asked = parser.parse_args()
    matrix = np.random.default_rng(0).random((400, 400))
    cases: dict[str, Callable[[], None]] = {
        "idle": lambda: time.sleep(0.05),
        "python": lambda: sum(range(2000)) and None,
        "outside": lambda: np.matmul(matrix, matrix) is None and None,
    }
    kinds: dict[str, tuple[Sources, Sources]] = {
        "nothing": (list, lambda: [Nothing()]),
        "ethernet": (list, lambda: [Ethernet()]),
        "all": (lambda: [Process()], node_sources),
    }
    result = one_reading()
    for kind, (own, node) in kinds.items():
        for case, work in cases.items():
            percent = of(own, node, work, asked.seconds, asked.interval_ms)
            print(f"{kind}, main thread {case}: {percent:.3f} % of a core")
            result[f"percent_of_core_{kind}_{case}"] = percent
    result["percent_of_core_rank_that_does_not_sample"] = of(
        lambda: [Process()], lambda: [Nothing()], cases["outside"], asked.seconds, IDLE_MS
    )
    worst = max(result[f"percent_of_core_all_{case}"] for case in cases)
    result = {"counter_sampling_percent_of_core": worst, "interval_ms": asked.interval_ms, **result}
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
