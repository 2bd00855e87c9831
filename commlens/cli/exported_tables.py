"""A table of all ranks in one file, written a rank at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from commlens.trace.schema import arrow_schema

if TYPE_CHECKING:
    from commlens.trace import Run

_ROWS = 1 << 17  # of a group of rows in Parquet, of a piece of CSV


def write_table(run: Run, name: str, path: Path, kind: str) -> None:
    """Write a table with a `rank` column first and names as plain strings; in memory there is one rank's at most.

    Args:
        run: the run.
        name: key of `schema.TABLES`.
        path: a new file.
        kind: parquet or csv.

    Raises:
        OSError: it cannot be written.
    """
    schema = joined_schema(name)
    with _writer(path, schema, kind) as write:
        for rows in joined_rows(run, name, schema):
            write(rows)


def joined_schema(name: str) -> pa.Schema:
    """Schema of a table of all ranks."""
    return pa.schema([pa.field("rank", pa.int32()), *(_plain(field) for field in arrow_schema(name))])


def joined_rows(run: Run, name: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of each rank that has some, ascending by rank."""
    for number, rank in sorted(run.ranks.items()):
        rows = rank.table(name)
        rank.forget()
        if rows.num_rows:
            numbers = pa.repeat(pa.scalar(number, pa.int32()), rows.num_rows)
            columns = [rows.column(field.name).cast(field.type) for field in list(schema)[1:]]
            yield pa.Table.from_arrays([numbers, *columns], schema=schema)


@contextmanager
def _writer(path: Path, schema: pa.Schema, kind: str) -> Iterator[Callable[[pa.Table], None]]:
    if kind == "csv":
        from pyarrow import csv

        with csv.CSVWriter(path, schema) as writer:
            yield lambda rows: writer.write_table(rows, _ROWS)
    else:
        from pyarrow import parquet

        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            yield lambda rows: writer.write_table(rows, _ROWS)


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
