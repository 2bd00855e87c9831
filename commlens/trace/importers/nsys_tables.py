"""An SQLite export of Nsight Systems as integer columns: opened so that nothing in the file can act.

Schemas differ between versions, so a column or table that is absent is unknown or empty, never an error.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.errors import TraceError
from commlens.trace.importers.content import Content
from commlens.trace.schema import MISSING

Ints = NDArray[np.int64]

MAGIC: Final = b"SQLite format 3\0"
LATEST_NS: Final = 1 << 61  # later times are damage, and a sum of two still fits
_GZIP: Final = b"\x1f\x8b"
_MOST_UNPACKED: Final = 16 << 30  # bytes of a gzipped export on disk
_LEAST_ROW: Final = 4  # bytes: no row of a database is smaller
_LONGEST_MESSAGE: Final = 100
_THREAD_BITS: Final = 24  # of a global thread id; those above are its process


def process_of(thread: Ints) -> Ints:
    """Global process ids of global thread ids; MISSING stays so."""
    return np.where(thread == MISSING, MISSING, thread >> _THREAD_BITS << _THREAD_BITS)


class Tables:
    """The tables of an open export. Every method raises sqlite3.Error where the file is damaged."""

    def __init__(self, connection: sqlite3.Connection, most_rows: int) -> None:
        self._connection = connection
        self._most_rows = most_rows
        # Of a view a query could never come back; a virtual table would run somebody's code.
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        plain = [str(name) for name, sql in rows if not str(sql).upper().startswith("CREATE VIRTUAL")]
        self._columns = {name: self._columns_of(name) for name in plain}

    def __contains__(self, table: str) -> bool:
        return table in self._columns

    def has(self, table: str, *columns: str) -> bool:
        """Whether a table has all these columns."""
        return set(columns) <= set(self._columns.get(table, ()))

    def numbers(self, table: str, columns: Sequence[str]) -> dict[str, Ints]:
        """Integer columns, MISSING where the cell is no integer or the column is absent, shape (rows,)."""
        have = [column for column in columns if column in self._columns.get(table, ())]
        if not have:
            return {column: np.zeros(0, np.int64) for column in columns}
        cells = ", ".join(f'CASE typeof("{name}") WHEN \'integer\' THEN "{name}" ELSE {MISSING} END' for name in have)
        found = np.fromiter(self._rows(f'SELECT {cells} FROM "{table}"'), [(name, np.int64) for name in have])
        unknown = np.full(found.size, MISSING, np.int64)
        return {name: np.ascontiguousarray(found[name]) if name in have else unknown for name in columns}

    def rows(self, table: str, columns: Sequence[str], where: str = "TRUE") -> Iterator[tuple[Any, ...]]:
        """Rows as they are, None for a column that is absent; nothing where the table is."""
        have = self._columns.get(table, ())
        cells = ", ".join(f'"{name}"' if name in have else "NULL" for name in columns)
        return self._rows(f'SELECT {cells} FROM "{table}" WHERE {where}') if have else iter(())

    def texts(self, ids: Collection[int]) -> dict[int, str]:
        """Texts of StringIds by id."""
        rows = self.rows("StringIds", ("id", "value"))
        return {number: text for number, text in rows if number in ids and isinstance(text, str)}

    def value(self, table: str, name: str) -> str | None:
        """What a table of names and values has for a name."""
        return next((str(value) for key, value in self.rows(table, ("name", "value")) if key == name), None)

    def _columns_of(self, table: str) -> tuple[str, ...]:
        """Without generated columns, which would be computed."""
        quoted = table.replace('"', '""')
        return tuple(str(row[1]) for row in self._connection.execute(f'PRAGMA table_info("{quoted}")'))

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, no more than the file has room for: pages of a damaged one may lead to each other."""
        for count, row in enumerate(self._connection.execute(query)):
            if count >= self._most_rows:
                raise sqlite3.DatabaseError("more rows than the file has room for")
            yield row


@contextmanager
def open_tables(path: Path) -> Iterator[Tables]:
    """The tables of an export, gzipped or not.

    Raises:
        TraceError: It is no SQLite database, a damaged one, or may not be read; also when found out only in use.
    """
    try:
        with _plain(path) as plain:
            uri = f"{plain.absolute().as_uri()}?mode=ro&immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                connection.text_factory = _text
                connection.execute("PRAGMA trusted_schema = OFF")
                yield Tables(connection, plain.stat().st_size // _LEAST_ROW)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from sqlite's own message about a damaged name
        raise TraceError(f"{path} is damaged or no SQLite database ({_line(error)}); export it again") from None
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}; make it readable for this user") from error


def _line(error: Exception) -> str:
    """What sqlite says, which may quote the file, in one line."""
    said = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "?" for letter in said[:_LONGEST_MESSAGE])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """The database itself: the file, or where that is gzipped a temporary copy."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    if not packed:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="commlens-") as folder:
        copy = Path(folder) / "export.sqlite"
        _unpack(path, copy)
        yield copy


def _unpack(path: Path, copy: Path) -> None:
    content, written = Content(path), 0
    with copy.open("wb") as file:
        for chunk in content.chunks():
            written += file.write(chunk)
            if written > _MOST_UNPACKED:
                raise TraceError(f"{path} unpacks to more than {_MOST_UNPACKED >> 30} GiB; unpack it and give the file")
    if not content.whole:
        raise TraceError(f"{path} is cut off or damaged within its gzip; copy it again")
