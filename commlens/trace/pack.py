"""Writing the ranks of a node as one packed file, which shared storage survives better than six files a rank.

A pack is a zip of stored members, so that a reader finds a member by the directory at the end and takes the columns
that it needs by byte ranges. Tables are Parquet; all other files of a rank's folder are as they were.
"""

from __future__ import annotations

import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from commlens.trace.schema import PACKED_TABLE, RANK_FOLDER, TABLE_FILE, TABLES, arrow_schema
from commlens.trace.stream import Batches

TRUNCATED: Final = b"commlens.truncated"  # key in the metadata of a Parquet table whose file was damaged or cut off
_GROUP_ROWS: Final = 2**17
_COPIED_AT_ONCE: Final = 2**20
_RISING: Final = frozenset({"event", "order", "value"})  # beside times: what grows a little with each row
_SCATTERED: Final = frozenset({"seq", "blocked_ns"})


def write_pack(run: Path, ranks: Sequence[int], pack: Path) -> None:
    """Writes rank folders of a run as one file: beside its place, flushed, then renamed, so that it is always whole.

    Rows keep their number and order: of an event with several rows the latest is for the reader to find. A table
    whose file is damaged or cut off keeps its whole batches, and says so (`TRUNCATED`).
    In memory are some 130,000 rows at a time.

    Args:
        run: Folder with the ranks' folders; they may grow meanwhile.
        ranks: Global ranks whose folders are packed.
        pack: The file, replaced where it is there.

    Raises:
        OSError: A folder cannot be read, or the pack not written; then there is no part of it.
    """
    part = pack.with_name(f".{pack.name}.{uuid.uuid4().hex}")
    try:
        with part.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for rank in ranks:
                    _add_rank(archive, run / RANK_FOLDER.format(rank=rank))
            file.flush()
            os.fsync(file.fileno())
        part.replace(pack)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def packed_files(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The files of a rank's folder that belong into a pack, in order, and of a table's file which table it is.

    Raises:
        OSError: The folder cannot be read.
    """
    tables = {TABLE_FILE.format(table=table): table for table in TABLES}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):  # what is being written has a dot
            yield path, tables.get(path.name)


def member_name(path: Path, table: str | None) -> str:
    """What a file of a rank's folder is called in a pack."""
    return f"{path.parent.name}/{path.name if table is None else PACKED_TABLE.format(table=table)}"


def _add_rank(archive: zipfile.ZipFile, folder: Path) -> None:
    for path, table in packed_files(folder):
        if table is None:
            _add_file(archive, path)
        else:
            _add_table(archive, path, table)


def _add_file(archive: zipfile.ZipFile, path: Path) -> None:
    try:
        source = path.open("rb")
    except FileNotFoundError:
        return  # signs of life go when a rank ends
    with source, _member(archive, member_name(path, None)) as member:
        shutil.copyfileobj(source, member, _COPIED_AT_ONCE)


def _add_table(archive: zipfile.ZipFile, path: Path, table: str) -> None:
    schema = arrow_schema(table)
    with (
        pa.OSFile(str(path)) as source,
        _member(archive, member_name(path, table)) as member,
        pq.ParquetWriter(_Sink(member), schema, **_encodings(table)) as writer,
    ):
        batches = Batches(source, schema)
        for rows in _row_groups(batches, schema):
            writer.write_table(rows, row_group_size=_GROUP_ROWS)
        if not batches.whole:
            writer.add_key_value_metadata({TRUNCATED: b"1"})


def _row_groups(batches: Batches, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of small batches in groups of at least `_GROUP_ROWS`, but the last."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= _GROUP_ROWS:
            yield pa.Table.from_batches(held, schema).unify_dictionaries()
            held, rows = [], 0
    if held:
        yield pa.Table.from_batches(held, schema).unify_dictionaries()


def _encodings(table: str) -> dict[str, Any]:
    """How each column becomes small: measured on recordings; what is in no list repeats a few values."""
    encodings = {}
    for column, kind in TABLES[table].items():
        if column in _SCATTERED:
            encodings[column] = "BYTE_STREAM_SPLIT"
        elif column in _RISING or (column.endswith("_ns") and kind == "int64"):
            encodings[column] = "DELTA_BINARY_PACKED"
    others = [column for column in TABLES[table] if column not in encodings]
    return {"compression": "zstd", "use_dictionary": others or False, "column_encoding": encodings or None}


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    with archive.open(entry, "w", force_zip64=True) as member:
        yield member


class _Sink:
    """What Parquet's writer needs of a file, on a member of a zip, which cannot say where it stands."""

    closed = False

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        self._at = 0

    def write(self, data: bytes) -> int:
        self._at += self._member.write(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None: ...

    def close(self) -> None: ...
