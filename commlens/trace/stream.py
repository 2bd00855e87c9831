"""Reading one table file back, as far as it is whole.

Used by the reader, and by the writer to compact what it wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from commlens.trace.columns import Integers, from_arrow, one_array, to_arrow
from commlens.trace.schema import MISSING, arrow_schema

END_OF_STREAM: Final = b"\xff\xff\xff\xff\0\0\0\0"

# What pyarrow raises on damaged bytes, seen or documented.
_DAMAGE: Final = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)

# Batches are small, and a training job that compacts at its end has no cores to spare.
_ONE_THREAD: Final = pa.ipc.IpcReadOptions(use_threads=False)


def parse(data: bytes, table: str) -> tuple[pa.Table, bool]:
    """Rows of a table file; of collectives the latest row per event, in the order of issue.

    Args:
        data: Content of the file; may end or be wrong anywhere.
        table: Key of `schema.TABLES`.

    Returns:
        The rows up to the last whole batch, and whether `data` was whole. A
        stream without an end mark is whole if it ends with a batch.
    """
    schema = arrow_schema(table)
    reader = Batches(pa.BufferReader(data), schema)
    rows = pa.Table.from_batches(list(reader), schema=schema).unify_dictionaries().combine_chunks()
    return settled(rows) if table == "collectives" else rows, reader.whole


def settled(rows: pa.Table) -> pa.Table:
    """Collectives, as they were recorded, as the latest row per event, in the order of issue."""
    return _ordered(_latest(rows))


class Batches:
    """Iterates over the whole batches of a stream, at its beginning; never raises on damaged bytes.

    Attributes:
        whole: Whether nothing is behind the last whole batch, known when the iteration has ended.
    """

    def __init__(self, source: pa.NativeFile, schema: pa.Schema) -> None:
        self.whole = False
        self._source = source
        self._schema = schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        end = 0
        try:
            if self._source.size():
                reader = pa.ipc.open_stream(self._source, options=_ONE_THREAD)
                end = self._source.tell()
                for batch in reader:
                    checked = _checked(batch, self._schema)
                    end = self._source.tell()
                    yield checked
            # Anything else here is a dictionary whose batch was cut off.
            self._source.seek(end)
            self.whole = self._source.read(len(END_OF_STREAM) + 1) in (b"", END_OF_STREAM)
        except _DAMAGE:
            return


def _checked(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_arrays([_column(batch, field) for field in schema], schema=schema)
    batch.validate(full=True)
    return batch


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    index = batch.schema.get_field_index(field.name)
    if index < 0:
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(index)
    if column.type != field.type:
        raise ValueError(f"column {field.name} holds {column.type}")
    if isinstance(column, pa.DictionaryArray) and column.dictionary.null_count:
        raise ValueError(f"column {field.name} has a nameless code")
    return column


def _latest(rows: pa.Table) -> pa.Table:
    """Without the rows a later row of the same event replaced."""
    keep = latest_rows(from_arrow(one_array(rows, "event")))
    return rows if keep.size == rows.num_rows else _take(rows, keep)


def latest_rows(events: Integers) -> NDArray[np.intp]:
    """Indices of the last row of every event, ascending; a row without an event stays."""
    _, first = np.unique(events[::-1], return_index=True)
    keep = events == MISSING
    keep[events.size - 1 - first] = True
    return np.flatnonzero(keep)


def _ordered(rows: pa.Table) -> pa.Table:
    issued = from_arrow(one_array(rows, "issued_ns"))
    if (issued[1:] >= issued[:-1]).all():
        return rows
    return _take(rows, np.argsort(issued, kind="stable"))


def _take(rows: pa.Table, indices: NDArray[np.intp]) -> pa.Table:
    return rows.take(to_arrow(indices, pa.int64())).combine_chunks()
