"""One rank of a run: its description and its tables, read when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from commlens.trace.arrival import fill_started
from commlens.trace.columns import Integers, from_arrow, one_array
from commlens.trace.nccl.recorded import DeviceTimes, find_logs, with_nccl_times
from commlens.trace.schema import PACKED_TABLE, TABLE_FILE, TABLES
from commlens.trace.storage.files import Files, FolderFiles
from commlens.trace.storage.packs import PackFiles
from commlens.trace.stream import parse, settled
from commlens.trace.windows import WindowTrace, window_traces, with_kernels, with_window_times

# What the latest row of an event, the order of issue and the begin of a collective are told from.
_TIMES_NEED: Final = ("event", "group", "op", "issued_ns", "started_ns", "completed_ns", "timing")

_READ_TOGETHER: Final = ("collectives", "phases", "overhead", "kernels", "device_ops")


class Rank:
    """One rank. To pickle it is cheap: tables are left behind, and read anew by whoever has it then.

    Attributes:
        rank: Global rank.
        path: Folder of the rank; in a pack what it would be.
        files: What is in it.
        info: Content of rank.json; `alive_ns` with it, where the rank has no end and its recorder left signs of life.
        truncated: Tables read so far whose file is damaged or ends within a batch.
        device_times: How far NCCL's plugin told when collectives ran, once they were read; None where it was not there.
        notes: What a reader of results should know of deep windows and NCCL's operations, as far as they were read;
            one line each.
    """

    def __init__(self, rank: int, path: Path, info: dict[str, Any], files: Files | None = None) -> None:
        self.rank = rank
        self.path = path
        self.files: Files = files or FolderFiles(path)
        self.info = info
        self.truncated: set[str] = set()
        self.device_times: DeviceTimes | None = None
        self.notes: list[str] = []
        self._traces: list[WindowTrace] | None = None
        self._tables: dict[str, pa.Table] = {}

    def __repr__(self) -> str:
        return f"Rank({self.rank}, {str(self.path)!r})"

    @property
    def trace_bytes(self) -> int:
        """Size on disk of the rank's tables, bytes."""
        sizes, form = self.files.sizes(), PACKED_TABLE if self.files.packed else TABLE_FILE
        names = {form.format(table=name) for name in TABLES}.union(find_logs(sizes, self.info))
        return sum(size for name, size in sizes.items() if name in names)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": {}, "_traces": None}

    def table(self, name: str) -> pa.Table:
        """Every column of a table, latest row per event, collectives in the order of issue.

        An absent file is an empty table; of a damaged one the rows up to the
        last whole batch remain. Null `started_ns` is estimated, see `arrival`.
        What deep windows tell is joined to it, see `windows`.

        Raises:
            KeyError: `name` is not one of `schema.TABLES`.
            TraceError: The file may not be read.
        """
        return self._table(name, tuple(TABLES[name]))

    def columns(self, name: str, columns: Sequence[str]) -> dict[str, Integers]:
        """Columns as read-only integers: values, or codes into `vocabulary`; `MISSING` where null.

        Of a pack only these are read, so ask for all that are wanted at once.

        Raises:
            KeyError: No such table or column.
            TraceError: The file may not be read.
        """
        rows = self._table(name, columns)
        return {column: from_arrow(one_array(rows, column)) for column in columns}

    def vocabulary(self, name: str, column: str) -> list[str]:
        """What the codes of a names column stand for.

        Raises:
            KeyError: No such table, or no such names column in it.
            TraceError: The file may not be read.
        """
        array = one_array(self._table(name, (column,)), column)
        if not isinstance(array, pa.DictionaryArray):
            raise KeyError(f"{name}.{column} holds numbers, not names")
        words: list[str] = array.dictionary.to_pylist()
        return words

    def forget(self) -> None:
        """Lets go of the tables that were read; they are read anew when asked for again."""
        self._tables.clear()
        self.files.let_go()
        for trace in self._traces or []:
            trace.rank.forget()

    def _table(self, name: str, columns: Sequence[str]) -> pa.Table:
        """The table with these columns at least."""
        unknown = next((column for column in columns if column not in TABLES[name]), None)
        if unknown is not None:
            raise KeyError(f"{name} has no column {unknown}")
        rows = self._tables.get(name)
        if rows is None or not {*columns} <= {*rows.column_names}:  # another thread may forget them meanwhile
            before = [] if rows is None else rows.column_names
            rows = self._tables[name] = self._read(name, [*before, *columns])
        return rows

    def _read(self, name: str, columns: Sequence[str]) -> pa.Table:
        rows, whole = self._recorded(name, columns)
        if not whole:
            self.truncated.add(name)
        if name == "device_ops" and not rows.num_rows:
            return self._nccl_operations(rows)
        if name == "collectives":
            rows = fill_started(self._with_nccl_times(rows), self.info.get("groups"))
            return with_window_times(rows, self.windows, self.rank, self.notes) if self.windows else rows
        return with_kernels(rows, self.windows) if name == "kernels" and self.windows else rows

    def _recorded(self, name: str, columns: Sequence[str]) -> tuple[pa.Table, bool]:
        """What the recorder wrote; of a pack the columns, and those that others are made of."""
        if name == "collectives":
            form = PACKED_TABLE if self.files.packed else TABLE_FILE
            self.files.read_ahead([form.format(table=each) for each in _READ_TOGETHER])
        if not isinstance(self.files, PackFiles):
            return parse(self._content(name), name)
        from commlens.trace.storage.parquet import read_table

        if name != "collectives":
            everything = name in ("kernels", "device_ops")  # others are joined to these
            return read_table(self.files, name, tuple(TABLES[name]) if everything else columns)
        everything = bool(find_logs(self.files.names(), self.info)) or bool(self.windows)
        wanted = tuple(TABLES[name]) if everything else (*columns, *_TIMES_NEED)
        rows, whole = read_table(self.files, name, wanted)
        return settled(rows), whole

    def _with_nccl_times(self, rows: pa.Table) -> pa.Table:
        """The collectives with what NCCL's plugin knows of them; its operations are kept."""
        rows, operations, self.device_times = with_nccl_times(rows, self.files, self.info)
        if self.device_times is not None:
            self._tables["device_ops"] = operations
            if not self.device_times.whole:
                self._note(f"rank {self.rank}: {self.device_times.note}")
        return rows

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _nccl_operations(self, otherwise: pa.Table) -> pa.Table:
        if find_logs(self.files.names(), self.info):  # else all columns of a pack would be read for nothing
            self.table("collectives")
        return self._tables.get("device_ops", otherwise)

    @property
    def windows(self) -> list[WindowTrace]:
        """The deep windows whose files can be read; read once."""
        if self._traces is None:
            self._traces = window_traces(self.files, self.info, self.notes)
        return self._traces

    def _content(self, name: str) -> bytes:
        return self.files.read(TABLE_FILE.format(table=name)) or b""
