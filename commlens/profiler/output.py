"""Turns what the flush thread drained into columns, and keeps the rank's files.

Until the run has a folder (its name may still be on the way) batches are held,
up to a limit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from commlens.profiler import live
from commlens.profiler.counters.readings import devices_and_words
from commlens.profiler.location import Agreement, make_run_folder
from commlens.trace.schema import ALIVE_EVERY_S, DTYPES, MISSING, OPS, PHASES, SOURCES, TIMINGS
from commlens.trace.writer import RankWriter, write_run_info

if TYPE_CHECKING:
    from pathlib import Path

    from commlens.profiler.counters.readings import Rows as CounterRows
    from commlens.profiler.counters.source import Key
    from commlens.profiler.gradients import Ready
    from commlens.profiler.groups import Group
    from commlens.profiler.phases import Phase
    from commlens.profiler.slots import Rows

Columns = dict[str, Any]
_AT_ONCE = 8192
_TIMES = ("issued_ns", "started_ns", "completed_ns", "waited_ns")
_SAME = ("event", "seq", "in_bytes", "out_bytes", "blocked_ns", "group_size", "peer", "step", "bucket")


class Output:
    """One rank's files, opened as soon as the ranks agree on the run's name."""

    def __init__(self, folder: str, rank: int, store: Any, generation: int) -> None:
        self._folder = folder
        self._rank = rank
        self._agreement: Agreement | None = Agreement(store, generation)
        self._writer: RankWriter | None = None
        self.run_id = ""
        self._written = 0
        self._signed_ns = 0

    def agreed_name(self) -> str:
        """The run's name, as soon as the ranks agree; any thread may wait for it."""
        agreement = self._agreement
        return self.run_id if agreement is None else agreement.run_id()

    def is_placed(self) -> bool:
        """Whether files are open; opens them when the name is known."""
        if self._writer is None and self._agreement is not None:
            self.run_id, self._agreement = self._agreement.run_id(), None
            self._writer = self._open(self.run_id)
            self._writer.sign(time.time_ns())  # readers know by it that this recorder leaves signs
        return self._writer is not None

    def _open(self, run_id: str) -> RankWriter:
        path = make_run_folder(self._folder, run_id)
        self._path = path
        try:
            return RankWriter(path, self._rank)
        except FileExistsError:
            # Another process has this rank of this run: a run of its own, so that nothing is mixed.
            self.run_id = f"{run_id}-{time.time_ns() % 0xFFFF:04x}"
            live.warn(f"{path} already has rank {self._rank}; this process writes to {self.run_id}")
            self._path = make_run_folder(self._folder, self.run_id)
            return RankWriter(self._path, self._rank)

    @property
    def folder(self) -> Path:
        """The rank's folder, once `is_placed`."""
        assert self._writer is not None
        return self._writer.path

    def describe(self, run: dict[str, Any], rank: dict[str, Any]) -> None:
        """Writes run.json (the first rank to come does) and rank.json."""
        assert self._writer is not None
        write_run_info(self._path, {"run_id": self.run_id, **run})
        self._writer.write_info({"run_id": self.run_id, **rank})

    def add_collectives(self, rows: Rows, groups: list[Group], offset_ns: int, source: str) -> None:
        for start in range(0, len(rows), _AT_ONCE):  # one big batch would take many times its size to make
            part = rows[start : start + _AT_ONCE]
            self._append("collectives", _collective_columns(part, groups, offset_ns, source))

    def add_phases(self, phases: list[Phase], names: list[str], offset_ns: int) -> None:
        if not phases:
            return
        table = np.array(phases, dtype=np.int64)
        columns: Columns = {
            "phase": (table[:, 0], list(PHASES)),
            "name": (table[:, 1], list(names)),
            "start_ns": table[:, 2] + offset_ns,
            "end_ns": table[:, 3] + offset_ns,
            "step": table[:, 4],
            "thread": table[:, 5],
        }
        self._append("phases", columns)

    def add_gradients(self, samples: list[Ready], offset_ns: int) -> None:
        for sample in samples:
            count = len(sample.places)
            columns: Columns = {
                "model": np.full(count, sample.model),
                "parameter": sample.places,
                "ready_ns": sample.ready_ns + offset_ns,
                "step": np.full(count, sample.step),
            }
            self._append("gradients", columns)

    def add_counters(self, rows: CounterRows, keys: list[Key], offset_ns: int) -> None:
        """Readings of links and devices."""
        if not rows.times:
            return
        devices, words, places = devices_and_words(keys)
        codes = np.array(places)[np.array(rows.codes)]
        columns: Columns = {
            "time_ns": np.array(rows.times) + offset_ns,
            "device": (codes[:, 0], devices),
            "counter": (codes[:, 1], words),
            "value": np.array(rows.values),
        }
        self._append("counters", columns)

    def add_overhead(
        self, time_ns: int, events: int, hook_ns: int, dropped: int, cpu_from_ns: int, under_way: bool
    ) -> None:
        """The row of this flush, which is a sign of life too: it tells a rank that hangs from one that was killed.

        A second in which nothing is under way gets no row; then a sign in place of the last one, each few seconds.
        """
        if not (events or hook_ns or dropped or under_way):
            self._sign(time_ns)
            return
        values = (time_ns, events, hook_ns, time.thread_time_ns() - cpu_from_ns, dropped, self._written)
        names = ("time_ns", "events", "hook_ns", "flush_ns", "dropped", "written_bytes")
        self._written, self._signed_ns = 0, time_ns
        self._append("overhead", {name: np.array([value]) for name, value in zip(names, values, strict=True)})

    def _sign(self, time_ns: int) -> None:
        if self._writer is not None and time_ns - self._signed_ns >= 1e9 * ALIVE_EVERY_S:
            self._writer.sign(time_ns)
            self._signed_ns = time_ns

    def add_held(self, time_ns: int, held_ns: int) -> None:
        """A row of `overhead` for what deep windows held the job for."""
        if held_ns:
            self._append("overhead", {"time_ns": np.array([time_ns]), "window_ns": np.array([held_ns])})

    def _append(self, table: str, columns: Columns) -> None:
        if self.is_placed() and self._writer is not None:
            self._written += self._writer.append(table, columns)

    def close(self, info: dict[str, Any]) -> None:
        """Completes the files."""
        if self._writer is not None:
            self._writer.write_info({"run_id": self.run_id, **info})
            self._writer.close()

    def abandon(self) -> None:
        """Lets go of the files without writing."""
        if self._writer is not None:
            self._writer.abandon()


def _collective_columns(rows: Rows, groups: list[Group], offset_ns: int, source: str) -> Columns:
    count = len(rows)
    columns: Columns = {name: rows[name].astype(np.int64) for name in _SAME}
    for name in _TIMES:
        columns[name] = np.where(rows[name] >= 0, rows[name] + offset_ns, MISSING)
    columns["thread"] = rows["thread"].astype(np.int16)
    columns["group"] = (rows["group"], [group.name for group in groups])
    columns["group_desc"] = (rows["group"], [group.desc for group in groups])
    columns["op"] = (rows["op"], list(OPS))
    columns["dtype"] = (rows["dtype"], list(DTYPES))
    columns["source"] = (np.full(count, SOURCES.index(source), dtype=np.int8), list(SOURCES))
    columns["timing"] = (rows["timing"], list(TIMINGS))
    return columns
