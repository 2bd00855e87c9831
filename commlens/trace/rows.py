"""Rows of one rank's table as they were recorded, filtered, for people to look at."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from commlens.errors import CommlensError
from commlens.trace.rank import Rank
from commlens.trace.schema import TABLES

_EQUAL, _OTHER, _CONTAINS = "=", "not", "contains"
_MORE, _LESS = ">", "<"
OPERATORS: Final = (_EQUAL, _OTHER, _MORE, _LESS, _CONTAINS)


class RowsError(CommlensError):
    """The rows asked for make no sense."""


@dataclass(frozen=True)
class Filter:
    """A column, one of `OPERATORS`, and what it is compared with, as text."""

    column: str
    operator: str
    value: str


def chosen_rows(rank: Rank, name: str, chosen: Filter | None = None) -> pa.Table:
    """The rows of a table that a filter lets through, all of them without one; names as plain strings.

    Raises:
        RowsError: there is no such table or column, or a number is compared with something else.
        TraceError: the table cannot be read.
    """
    if name not in TABLES:
        raise RowsError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    rows = _plain(rank.table(name))
    rank.forget()
    return rows if chosen is None else rows.filter(_mask(rows, chosen))


def write_csv(rows: pa.Table) -> bytes:
    """The rows as CSV with a head."""
    from pyarrow import csv

    written = io.BytesIO()
    csv.write_csv(rows, written)
    return written.getvalue()


def _plain(rows: pa.Table) -> pa.Table:
    fields = [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in rows.schema]
    return rows.cast(pa.schema(fields))


def _mask(rows: pa.Table, chosen: Filter) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    if chosen.column not in rows.schema.names:
        raise RowsError(f"there is no column {chosen.column!r}; there are {', '.join(rows.schema.names)}")
    if chosen.operator not in OPERATORS:
        raise RowsError(f"{chosen.operator!r} is none of {', '.join(OPERATORS)}")
    column = rows.column(chosen.column)
    text = pa.types.is_string(column.type)
    if chosen.operator == _CONTAINS:
        return pc.match_substring(column if text else pc.cast(column, pa.string()), chosen.value)
    value = chosen.value if text else _number(chosen, column.type)
    if chosen.operator in (_EQUAL, _OTHER):
        same = pc.equal(column, pa.scalar(value, column.type))
        return same if chosen.operator == _EQUAL else pc.invert(same)
    return (pc.greater if chosen.operator == _MORE else pc.less)(column, pa.scalar(value, column.type))


def _number(chosen: Filter, kind: pa.DataType) -> int:
    try:
        value = int(chosen.value)
        pa.scalar(value, kind)
    except (ValueError, OverflowError, pa.ArrowInvalid):
        raise RowsError(f"{chosen.column} holds whole numbers, and {chosen.value[:40]!r} is none that fits") from None
    return value
