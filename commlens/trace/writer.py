"""Writing a run from inside a training job: append-only, readable after any crash.

Every table is one Arrow IPC stream. A batch is serialised in memory and then
appended with one write, so a killed process leaves whole batches and at most
one cut one at the end. Loads numpy and pyarrow, nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from numpy.typing import NDArray

from commlens.trace.columns import names_to_arrow, to_arrow
from commlens.trace.schema import (
    ALIVE_FILE,
    FORMAT_VERSION,
    RANK_FILE,
    RANK_FOLDER,
    RUN_FILE,
    SIGN_BYTES,
    TABLE_FILE,
    TABLES,
    arrow_schema,
)
from commlens.trace.stream import parse

Column = NDArray[Any] | tuple[NDArray[Any], Sequence[str]]

_QUICK: Final = "lz4"  # a fifth of zstd's time, for half as much again in bytes
_COMPACT_BELOW_BYTES: Final = 2**20  # takes about thirty times that in memory
_COMPACT_BATCH_ROWS: Final = 2**17
_REASON: Final = 1000  # bytes of it at most
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class RankWriter:
    """Writes the folder of one rank. One thread at a time may use it.

    Args:
        run_path: Folder of the run; created where it is missing.
        rank: Global rank of this process.

    Raises:
        FileExistsError: Another process writes or wrote this rank.
        OSError: The folder cannot be created.
    """

    def __init__(self, run_path: Path, rank: int) -> None:
        self.path = Path(run_path) / RANK_FOLDER.format(rank=rank)
        self.path.mkdir(parents=True, exist_ok=True)
        if any(self.path.glob(TABLE_FILE.format(table="*"))):
            raise FileExistsError(f"{self.path} already holds the tables of another process")
        self._streams: dict[str, _Stream] = {}
        self._failed = self._closed = False
        self._alive = -1

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Writes or replaces rank.json; readers see the old or the new one, never a part.

        Raises:
            OSError: It cannot be written.
        """
        write_rank_info(self.path, info)

    def append(self, table: str, columns: Mapping[str, Column]) -> int:
        """Appends one batch of rows.

        Args:
            table: Key of `schema.TABLES`.
            columns: Integer arrays of one length, `MISSING` for unknown; a names
                column is (codes, vocabulary), and a vocabulary only ever grows at
                its end. A column left out is unknown in every row.

        Returns:
            Bytes written.

        Raises:
            KeyError: No such table or column.
            ValueError: Columns differ in length, or are not of their column's form.
            IndexError: A code is not in its vocabulary.
            OverflowError: A value does not fit its column.
            TypeError: A column does not hold integers.
            OSError: The batch could not be written: the file holds the batches
                before it, and every later append raises.
            RuntimeError: An append failed before, or the writer is closed.
        """
        if self._closed or self._failed:
            raise RuntimeError(f"the writer of {self.path} is {'closed' if self._closed else 'broken'}")
        batch = _batch(table, columns)
        self._failed = True
        if table not in self._streams:
            self._streams[table] = _Stream(self.path / TABLE_FILE.format(table=table), batch.schema)
        written = self._streams[table].append(batch)
        self._failed = False
        return written

    def sign(self, time_ns: int) -> None:
        """Notes that the rank lives, over the note before: the file does not grow.

        Raises:
            OSError: It cannot be written.
            RuntimeError: The writer is closed.
        """
        if self._closed:
            raise RuntimeError(f"the writer of {self.path} is closed")
        if self._alive < 0:
            self._alive = os.open(self.path / ALIVE_FILE, os.O_WRONLY | os.O_CREAT, 0o666)
        os.pwrite(self._alive, b"%020d\n" % time_ns, 0)

    def give_up(self, why: str) -> None:
        """Notes behind the sign of life why nothing more will come: on a full disk that place is there already."""
        if self._alive >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._alive, f"{why}\n".encode()[:_REASON], SIGN_BYTES)

    def close(self, compact: bool = True) -> None:
        """Ends the streams; a second call does nothing. A full disk loses no row and raises nothing.

        Args:
            compact: Rewrite tables under 1 MiB without superseded rows.
        """
        if self._closed:
            return
        self._closed = True
        self._let_go_of_signs()
        with contextlib.suppress(OSError):
            (self.path / ALIVE_FILE).unlink(missing_ok=True)  # rank.json says from now on how it ended
        for table, stream in self._streams.items():
            stream.finish()
            if compact:
                with contextlib.suppress(OSError, MemoryError, pa.ArrowException):
                    _compact(stream.path, table)

    def abandon(self) -> None:
        """Lets go of the files without writing: for the child of a fork, whose parent goes on."""
        self._closed = True
        self._let_go_of_signs()
        for stream in self._streams.values():
            stream.let_go()

    def _let_go_of_signs(self) -> None:
        if self._alive >= 0:
            with contextlib.suppress(OSError):
                os.close(self._alive)
        self._alive = -1


def write_rank_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Writes or replaces rank.json in the folder of a rank; readers see the old or the new one, never a part.

    Raises:
        OSError: It cannot be written.
    """
    part = _write_part(folder / RANK_FILE, info)
    with _removed_on_error(part):
        part.replace(folder / RANK_FILE)


def write_table(folder: Path, table: str, columns: Mapping[str, Column]) -> None:
    """Writes a whole table of a rank at once, for what was not recorded but read elsewhere; no rows, no file.

    Raises:
        FileExistsError: The rank has this table already.
        OSError: It cannot be written.
        Others: As of `RankWriter.append`.
    """
    batch = _batch(table, columns)
    if not batch.num_rows:
        return
    memory = io.BytesIO()
    with _ipc_writer(memory, batch.schema, _QUICK) as writer:
        writer.write_batch(batch)
    _write_new(folder / TABLE_FILE.format(table=table), memory.getvalue())


class _Stream:
    """One Arrow IPC stream on an append-only file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._fd = os.open(path, _NEW_FILE | os.O_APPEND, 0o666)
        self._length = 0
        self._memory = io.BytesIO()
        self._writer = _ipc_writer(self._memory, schema)

    def append(self, batch: pa.RecordBatch) -> int:
        self._writer.write_batch(batch)
        return self._flush()

    def finish(self) -> None:
        """Writes the end mark, which readers can do without, and closes the file."""
        with contextlib.suppress(OSError):
            self._memory.truncate(self._memory.seek(0))  # of a failed append
            self._writer.close()
            self._flush()
        self.let_go()

    def let_go(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd = -1

    def _flush(self) -> int:
        data = self._memory.getvalue()
        self._memory.truncate(self._memory.seek(0))
        try:
            _write_all(self._fd, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._length)
            raise
        self._length += len(data)
        return len(data)


def write_run_info(run_path: Path, info: Mapping[str, Any]) -> bool:
    """Writes run.json unless there is one; of many ranks doing so at once one wins.

    Returns:
        Whether this call wrote it.

    Raises:
        OSError: It cannot be written.
    """
    path = Path(run_path) / RUN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _write_part(path, info)
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links on this file system
        return _write_exclusively(path, part.read_bytes())
    finally:
        part.unlink()
    return True


def _write_exclusively(path: Path, data: bytes) -> bool:
    try:
        _write_new(path, data)
    except FileExistsError:
        return False
    return True


def _write_part(path: Path, info: Mapping[str, Any]) -> Path:
    """Writes `info` beside `path` under a name no other process uses."""
    text = json.dumps({**info, "format_version": FORMAT_VERSION}, indent=1)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    _write_new(part, text.encode())
    return part


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, _NEW_FILE, 0o666)
    try:
        with _removed_on_error(path):
            _write_all(fd, data)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Any:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _ipc_writer(sink: io.BytesIO, schema: pa.Schema, codec: str = "zstd") -> pa.RecordBatchStreamWriter:
    options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False, emit_dictionary_deltas=True)
    return pa.ipc.new_stream(sink, schema, options=options)


def _batch(table: str, columns: Mapping[str, Column]) -> pa.RecordBatch:
    schema = arrow_schema(table)
    if unknown := columns.keys() - TABLES[table].keys():
        raise KeyError(f"{table} has no column {', '.join(sorted(unknown))}")
    arrays = {name: _array(column, schema.field(name).type) for name, column in columns.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1:
        raise ValueError(f"the columns of a {table} batch have lengths {sorted(lengths)}")
    rows = lengths.pop()
    full = [arrays.get(field.name, pa.nulls(rows, field.type)) for field in schema]
    return pa.RecordBatch.from_arrays(full, schema=schema)


def _array(column: Column, kind: pa.DataType) -> pa.Array:
    if isinstance(column, tuple) != pa.types.is_dictionary(kind):
        raise ValueError("names columns, and only those, are given as (codes, vocabulary)")
    if isinstance(column, tuple):
        return names_to_arrow(*column, kind)
    return to_arrow(column, kind)


def _compact(path: Path, table: str) -> None:
    """Rewrites a table file smaller; leaves it alone unless every row of it was read."""
    if path.stat().st_size >= _COMPACT_BELOW_BYTES:
        return
    rows, whole = parse(path.read_bytes(), table)
    if not whole:
        return
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    _write_new(part, _serialised(rows))
    with _removed_on_error(part):
        with part.open("rb") as written:
            os.fsync(written)  # a crash of the machine must not find the new name without its content
        part.replace(path)


def _serialised(rows: pa.Table) -> bytes:
    memory = io.BytesIO()
    with _ipc_writer(memory, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=_COMPACT_BATCH_ROWS)
    return memory.getvalue()
