"""A table in a pack: Parquet, of which only the columns that are needed are read where it is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from commlens.trace.schema import PACKED_TABLE, arrow_schema
from commlens.trace.storage.files import Span, needed, read_spans
from commlens.trace.storage.packs import DamagedMemberError, PackFiles, Parts

_WHOLE: Final = 1 << 20  # bytes up to which a table comes in one request: what a second one would cost
_FOOTER: Final = 1 << 16
_APART: Final = 1 << 16  # bytes between two columns that are rather read than asked for apart
_DAMAGE: Final = (pa.ArrowException, OSError, ValueError, KeyError)


def read_table(files: PackFiles, table: str, columns: Sequence[str]) -> tuple[pa.Table, bool]:
    """Columns of a table, as they were recorded, and whether the table is whole.

    A table that is not there is empty and whole, a damaged one empty and not.

    Raises:
        TraceError: The pack cannot be read, or changed since it was opened.
    """
    name = PACKED_TABLE.format(table=table)
    schema = pa.schema([field for field in arrow_schema(table) if field.name in columns])
    if name not in files.members:
        return schema.empty_table(), True
    try:
        source, is_checked = _opened(files, name, columns)
        rows, whole = _rows(source, schema)
    except DamagedMemberError:
        return schema.empty_table(), False
    except _DAMAGE:
        files.check()
        return schema.empty_table(), False
    if not is_checked:
        files.check()
    return rows, whole


def _opened(files: PackFiles, name: str, columns: Sequence[str]) -> tuple[Any, bool]:
    """The table as a file, and whether its bytes are known to be those that were packed."""
    if files.members[name].size <= _WHOLE:
        return pa.BufferReader(files.read(name)), True
    return pa.PythonFile(_pruned(files, name, columns), "r"), False


def _pruned(files: PackFiles, name: str, columns: Sequence[str]) -> Parts:
    """The footer and the columns, in two requests of several ranges."""
    import pyarrow.parquet as pq

    whole = files.span(name)
    assert whole is not None
    size = files.members[name].size
    head, tail = _read([Span(whole.path, whole.start, whole.start + 256), Span(whole.path, _late(whole), whole.end)])
    begin = files.begin(name, head)
    if begin is None:
        raise ValueError("it does not begin as a member of a pack")
    base = whole.start + begin
    footer = (_late(whole) - base, tail)
    described = pq.ParquetFile(pa.PythonFile(Parts(whole.path, size, [footer], base), "r")).metadata
    ranges = _ranges(described, columns)
    read = _read([Span(whole.path, base + start, base + end) for start, end in ranges])
    return Parts(whole.path, size, [footer, *zip((start for start, _ in ranges), read, strict=True)], base)


def _late(whole: Span) -> int:
    """From where on its end is read, which holds the footer."""
    assert whole.end is not None
    return max(whole.start, whole.end - _FOOTER)


def _ranges(described: Any, columns: Sequence[str]) -> list[tuple[int, int]]:
    """Where the columns lie, neighbours together, ascending."""
    found = []
    for group in range(described.num_row_groups):
        for index in range(described.num_columns):
            column = described.row_group(group).column(index)
            if column.path_in_schema in columns:
                start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
                found.append((start, start + column.total_compressed_size))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and start - joined[-1][1] <= _APART:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _read(spans: Sequence[Span]) -> list[bytes]:
    return [needed(answer, span.path) for span, answer in zip(spans, read_spans(spans), strict=True)]


def _rows(source: Any, schema: pa.Schema) -> tuple[pa.Table, bool]:
    """Columns of the schema, null where the file has none, and whether what was packed was whole."""
    import pyarrow.parquet as pq

    from commlens.trace.pack import TRUNCATED

    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    file = pq.ParquetFile(source, read_dictionary=words)
    known = set(file.schema_arrow.names)  # made anew each time that it is asked for
    there = [field.name for field in schema if field.name in known]
    read = file.read(columns=there, use_threads=False).unify_dictionaries()
    rows = pa.Table.from_arrays([_fitting(read, field) for field in schema], schema=schema).combine_chunks()
    rows.validate(full=True)
    return rows, TRUNCATED not in (file.metadata.metadata or {})


def _fitting(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in rows.column_names:
        return pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
    column = rows.column(field.name)
    if column.type != field.type and not pa.types.is_dictionary(field.type):
        raise ValueError(f"column {field.name} holds {column.type}")
    return column.cast(field.type)
