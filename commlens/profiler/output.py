"""Turns what the flush thread drained into columns, and keeps the rank's files.

Until the run has a folder (its name may still be on the way) batches are held,
up to a limit.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from commlens.profiler import live
from commlens.profiler.counters.readings import devices_and_words
from commlens.profiler.location import Agreement, make_run_folder
from commlens.profiler.packing.asked import asked, local_folder
from commlens.trace.schema import ALIVE_EVERY_S, DTYPES, MISSING, OPS, PHASES, SOURCES, TIMINGS
from commlens.trace.writer import RankWriter, write_run_info

if TYPE_CHECKING:
    from commlens.profiler.counters.readings import Rows as CounterRows
    from commlens.profiler.counters.source import Key
    from commlens.profiler.gradients import Ready
    from commlens.profiler.groups import Group
    from commlens.profiler.packing.rank import Node
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
        self._packing = asked()
        self._node: Node | None = None
        self._rank = rank
        self._agreement: Agreement | None = Agreement(store, generation)
        self._writer: RankWriter | None = None
        self.run_id = ""
        self.total_bytes = 0  # of all tables
        self._written = 0
        self._signed_ns = 0
        self._unwritten = [0, 0, 0, 0]  # events, hook_ns, flush_ns and dropped that no row of `overhead` has yet

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
        try:
            return self._open_in(run_id)
        except FileExistsError:
            # Another process has this rank of this run: a run of its own, so that nothing is mixed.
            self.run_id = f"{run_id}-{time.time_ns() % 0xFFFF:04x}"
            live.warn(f"{self._path} already has rank {self._rank}; this process writes to {self.run_id}")
            return self._open_in(self.run_id)

    def _open_in(self, run_id: str) -> RankWriter:
        folder = self._folder if self._packing is None else str(local_folder())
        self._path = make_run_folder(folder, run_id)
        if self._packing is None:
            return RankWriter(self._path, self._rank)
        from commlens.profiler.packing.rank import Node

        try:
            self._node = Node(self._path, Path(self._folder) / run_id, self._packing, self._rank)
        except FileExistsError:
            raise
        except OSError as error:
            live.warn(f"no packs: {self._path} has no locks ({live.one_line(error)}); name another by COMMLENS_LOCAL")
            self._packing = None
            return self._open_in(run_id)
        try:
            return RankWriter(self._path, self._rank)
        except OSError:
            self._node.abandon()
            raise

    @property
    def is_packed(self) -> bool:
        """Whether this rank writes into its node's folder, from where it is packed."""
        return self._packing is not None

    def look(self) -> None:
        """Once a flush: whether the node's packing process is there."""
        if self._node is not None:
            self._node.look()

    def leave(self, at_exit: bool) -> None:
        """When all is written: at exit the last rank of a node waits for its pack, for seconds."""
        if self._node is not None:
            self._node.leave(at_exit)

    @property
    def folder(self) -> Path:
        """The rank's folder, once `is_placed`."""
        assert self._writer is not None
        return self._writer.path

    def describe(self, run: dict[str, Any], rank: dict[str, Any]) -> None:
        """Writes run.json (the first rank to come does) and rank.json."""
        assert self._writer is not None
        packed = {} if self._node is None else {"pack": self._node.described()}
        write_run_info(self._path, {"run_id": self.run_id, **run, **packed})
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

    def add_aggregates(self, tables: dict[str, Columns]) -> int:
        """Sums, by table; gives back the bytes written."""
        before = self.total_bytes
        for table, columns in tables.items():
            self._append(table, columns)
        return self.total_bytes - before

    def add_overhead(
        self,
        time_ns: int,
        events: int,
        hook_ns: int,
        dropped: int,
        cpu_from_ns: int,
        under_way: bool,
        later: bool = False,
    ) -> None:
        """The row of this flush, which is a sign of life too: it tells a rank that hangs from one that was killed.

        A second in which nothing is under way gets no row; then a sign in place of the last one, each few seconds.
        So it is where the row is to be written `later`, in one with that of a later flush.
        """
        new = (events, hook_ns, time.thread_time_ns() - cpu_from_ns, dropped)
        if later:
            self._unwritten = [a + b for a, b in zip(self._unwritten, new, strict=True)]
        if later or not (events or hook_ns or dropped or under_way or any(self._unwritten)):
            self._sign(time_ns)
            return
        values = (time_ns, *(a + b for a, b in zip(self._unwritten, new, strict=True)), self._written)
        names = ("time_ns", "events", "hook_ns", "flush_ns", "dropped", "written_bytes")
        self._written, self._signed_ns, self._unwritten = 0, time_ns, [0, 0, 0, 0]
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
            size = self._writer.append(table, columns)
            self._written += size
            self.total_bytes += size

    def close(self, info: dict[str, Any]) -> None:
        """Completes the files."""
        if self._writer is not None:
            self._writer.write_info({"run_id": self.run_id, **info})
            self._writer.close()

    def give_up(self, why: str) -> None:
        """Leaves a word of why nothing more comes, where there is room for it."""
        if self._writer is not None:
            self._writer.give_up(why)

    def abandon(self) -> None:
        """Lets go of the files without writing."""
        if self._writer is not None:
            self._writer.abandon()
        if self._node is not None:
            self._node.abandon()


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
