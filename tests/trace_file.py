"""An exported trace as tests look at it: what a viewer must be able to rely on."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def nanoseconds(us: float) -> int:
    """A time of the file; exact, for traces are short enough for a float."""
    return round(us * 1000)


@dataclass
class TraceFile:
    """The events of a file, by kind.

    Attributes:
        about: what stands beside the events.
        slices: complete events.
        instants: events without a length.
        counters: values of counters.
        processes: names by pid.
        threads: names by (pid, tid).
    """

    about: dict[str, Any]
    slices: list[Event]
    instants: list[Event]
    counters: list[Event]
    processes: dict[int, str]
    threads: dict[tuple[int, int], str]

    def on(self, pid: int, thread: str) -> list[Event]:
        """Slices on the threads of a process whose names begin so, by start."""
        found = [each for each in self.slices if each["pid"] == pid and self._thread(each).startswith(thread)]
        return sorted(found, key=lambda each: each["ts"])

    def _thread(self, event: Event) -> str:
        return self.threads[event["pid"], event["tid"]]

    @property
    def collectives(self) -> list[Event]:
        """One for each part of a collective."""
        return [each for each in self.slices if each.get("cat") == "collective"]

    @property
    def flows(self) -> dict[int, tuple[list[Event], list[Event]]]:
        """By number: where an arrow leaves, and where it enters."""
        found: dict[int, tuple[list[Event], list[Event]]] = defaultdict(lambda: ([], []))
        for each in self.slices:
            if "bind_id" in each:
                assert each.get("flow_out", False) != each.get("flow_in", False)
                found[each["bind_id"]][0 if each.get("flow_out") else 1].append(each)
        return dict(found)


def read_trace(path: Path) -> TraceFile:
    """Read a file, strictly: duplicate keys, unknown events and names given twice are failures."""
    content = path.read_bytes()
    text = gzip.decompress(content) if path.name.endswith(".gz") else content
    whole = json.loads(text, object_pairs_hook=_distinct)
    assert list(whole) == ["displayTimeUnit", "otherData", "traceEvents"]
    kinds: dict[str, list[Event]] = {kind: [] for kind in "XiCM"}
    for each in whole["traceEvents"]:
        kinds[each["ph"]].append(each)
    named = [each for each in kinds["M"] if each["name"] in ("process_name", "thread_name")]
    assert max(Counter((each["name"], each["pid"], each["tid"]) for each in named).values()) == 1
    names = {(each["pid"], each["tid"]): each["args"]["name"] for each in named if each["name"] == "thread_name"}
    processes = {each["pid"]: each["args"]["name"] for each in named if each["name"] == "process_name"}
    return TraceFile(whole["otherData"], kinds["X"], kinds["i"], kinds["C"], processes, names)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), f"a key is there twice: {[key for key, _ in pairs]}"
    return found


def check_structure(trace: TraceFile) -> None:
    """Slices nest on every thread, arrows go forward in time, every thread and process has a name.

    Raises:
        AssertionError: they do not.
    """
    by_thread: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for place, each in enumerate(trace.slices):
        assert each["ts"] >= 0 and each["dur"] >= 0, each
        start = nanoseconds(each["ts"])
        by_thread[each["pid"], each["tid"]].append((start, -(start + nanoseconds(each["dur"])), place))
    assert by_thread.keys() <= trace.threads.keys()
    assert {pid for pid, _ in trace.threads} <= trace.processes.keys()
    assert all(pid != tid for pid, tid in trace.threads)  # which viewers take for the main thread
    for thread, spans in by_thread.items():
        _check_nested(trace.threads[thread], spans)
    for leaves, enters in trace.flows.values():
        assert len(leaves) == 1 and enters
        assert all(each["pid"] != leaves[0]["pid"] for each in enters)
        assert all((each["ts"], each["pid"]) > (leaves[0]["ts"], leaves[0]["pid"]) for each in enters)


def _check_nested(name: str, spans: list[tuple[int, int, int]]) -> None:
    open_ends: list[int] = []
    for start, negative_end, _ in sorted(spans):
        end = -negative_end
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1], f"slices of {name} cross at {start}"
        open_ends.append(end)
