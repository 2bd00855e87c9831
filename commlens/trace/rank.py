"""One rank of a run: its description and its tables, read when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from commlens.errors import TraceError
from commlens.trace.arrival import fill_started
from commlens.trace.columns import Integers, from_arrow, one_array
from commlens.trace.nccl.recorded import DeviceTimes, find_logs, with_nccl_times
from commlens.trace.schema import TABLE_FILE, TABLES
from commlens.trace.stream import parse
from commlens.trace.windows import WindowTrace, window_traces, with_kernels, with_window_times


class Rank:
    """One rank.

    Attributes:
        rank: Global rank.
        path: Folder of the rank.
        info: Content of rank.json; `alive_ns` with it, where the rank has no end and its recorder left signs of life.
        truncated: Tables read so far whose file is damaged or ends within a batch.
        device_times: How far NCCL's plugin told when collectives ran, once they were read; None where it was not there.
        notes: What a reader of results should know of deep windows and NCCL's operations, as far as they were read;
            one line each.
    """

    def __init__(self, rank: int, path: Path, info: dict[str, Any]) -> None:
        self.rank = rank
        self.path = path
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
        paths = (self.path / TABLE_FILE.format(table=name) for name in TABLES)
        files = [*(path for path in paths if path.is_file()), *find_logs(self.path, self.info)]
        return sum(path.stat().st_size for path in files)

    def table(self, name: str) -> pa.Table:
        """Every column of a table, latest row per event, collectives in the order of issue.

        An absent file is an empty table; of a damaged one the rows up to the
        last whole batch remain. Null `started_ns` is estimated, see `arrival`.
        What deep windows tell is joined to it, see `windows`.

        Raises:
            KeyError: `name` is not one of `schema.TABLES`.
            TraceError: The file may not be read.
        """
        rows = self._tables.get(name)
        if rows is None:  # another thread may forget them meanwhile
            rows = self._tables[name] = self._read(name)
        return rows

    def columns(self, name: str, columns: Sequence[str]) -> dict[str, Integers]:
        """Columns as read-only integers: values, or codes into `vocabulary`; `MISSING` where null.

        Raises:
            KeyError: No such table or column.
            TraceError: The file may not be read.
        """
        return {column: from_arrow(self._array(name, column)) for column in columns}

    def vocabulary(self, name: str, column: str) -> list[str]:
        """What the codes of a names column stand for.

        Raises:
            KeyError: No such table, or no such names column in it.
            TraceError: The file may not be read.
        """
        array = self._array(name, column)
        if not isinstance(array, pa.DictionaryArray):
            raise KeyError(f"{name}.{column} holds numbers, not names")
        words: list[str] = array.dictionary.to_pylist()
        return words

    def forget(self) -> None:
        """Lets go of the tables that were read; they are read anew when asked for again."""
        self._tables.clear()
        for trace in self._traces or []:
            trace.rank.forget()

    def _array(self, name: str, column: str) -> pa.Array:
        if column not in TABLES[name]:
            raise KeyError(f"{name} has no column {column}")
        return one_array(self.table(name), column)

    def _read(self, name: str) -> pa.Table:
        if name not in TABLES:
            raise KeyError(name)
        rows, whole = parse(self._content(name), name)
        if not whole:
            self.truncated.add(name)
        if name == "device_ops" and not rows.num_rows:
            return self._nccl_operations(rows)
        if name == "collectives":
            rows = fill_started(self._with_nccl_times(rows), self.info.get("groups"))
            return with_window_times(rows, self.windows, self.rank, self.notes) if self.windows else rows
        return with_kernels(rows, self.windows) if name == "kernels" and self.windows else rows

    def _with_nccl_times(self, rows: pa.Table) -> pa.Table:
        """The collectives with what NCCL's plugin knows of them; its operations are kept."""
        rows, operations, self.device_times = with_nccl_times(rows, self.path, self.info)
        if self.device_times is not None:
            self._tables["device_ops"] = operations
            if not self.device_times.whole:
                self._note(f"rank {self.rank}: {self.device_times.note}")
        return rows

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _nccl_operations(self, otherwise: pa.Table) -> pa.Table:
        self.table("collectives")
        return self._tables.get("device_ops", otherwise)

    @property
    def windows(self) -> list[WindowTrace]:
        """The deep windows whose files can be read; read once."""
        if self._traces is None:
            self._traces = window_traces(self.path, self.info, self.notes)
        return self._traces

    def _content(self, name: str) -> bytes:
        path = self.path / TABLE_FILE.format(table=name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise TraceError(
                f"cannot read {path}: {error.strerror}; make it readable for this user and try again"
            ) from error
