"""The ranks of a node in a folder of its own: brought into the run's folder on shared storage as one pack.

Every function here may hang with the storage it touches: none is called in a process that trains.
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from commlens.trace.on_nodes import run_info
from commlens.trace.pack import member_name, packed_files, write_pack
from commlens.trace.schema import PACK_FILE, RANK_FILE, RANK_FOLDER, RUN_FILE, arrow_schema
from commlens.trace.stream import Batches
from commlens.trace.writer import write_run_info

_RANK: Final = re.compile(r"rank-(\d{5,7})")


def local_ranks(local: Path) -> list[int]:
    """The ranks whose folders are in a node-local run folder, ascending.

    Raises:
        OSError: It cannot be read.
    """
    return sorted(int(match[1]) for path in local.iterdir() if (match := _RANK.fullmatch(path.name)))


def size(local: Path) -> int:
    """Bytes of the files in the rank folders."""
    total = 0
    for path in local.glob("rank-*/*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def describe_run(local: Path, run: Path) -> bool:
    """Sees to run.json in the run's folder, which is made where it is missing; of many nodes one writes it.

    Returns:
        Whether there is something to write, or it was there.

    Raises:
        OSError: The folder cannot be written.
    """
    if (run / RUN_FILE).exists():
        return True
    info = run_info(local)
    if info:
        write_run_info(run, info)
    return bool(info)


def pack_node(local: Path, run: Path) -> Path | None:
    """Writes the pack of the ranks in `local` into `run`, with run.json where it is missing.

    Returns:
        The pack; None where there is no rank.

    Raises:
        OSError: It cannot be written, or a rank not read.
    """
    ranks = local_ranks(local)
    if not ranks:
        return None
    run.mkdir(parents=True, exist_ok=True)
    describe_run(local, run)
    pack = run / PACK_FILE.format(rank=ranks[0])
    write_pack(local, ranks, pack)
    return pack


def difference(local: Path, pack: Path) -> str | None:
    """What of the ranks in `local` is not in `pack` as it can be read back, a clause; None where all is.

    Every byte of the pack is read and checked; tables are compared by their numbers of rows, other files by size.
    """
    try:
        with zipfile.ZipFile(pack) as archive:
            if (damaged := archive.testzip()) is not None:
                return f"{damaged} in {pack.name} reads back damaged"
            for rank in local_ranks(local):
                if (found := _difference(archive, local / RANK_FOLDER.format(rank=rank))) is not None:
                    return found
    except (OSError, zipfile.BadZipFile, pa.ArrowException) as error:
        return f"{pack.name} cannot be read back ({' '.join(str(error).split())[:200]})"
    return None


def _difference(archive: zipfile.ZipFile, folder: Path) -> str | None:
    names = set(archive.namelist())
    for path, table in packed_files(folder):
        name = member_name(path, table)
        if name not in names:
            return f"{name} is not packed"
        if table is None:
            same = archive.getinfo(name).file_size == path.stat().st_size
        else:
            same = pq.read_metadata(io.BytesIO(archive.read(name))).num_rows == _rows(path, table)
        if not same:
            return f"{name} has changed since it was packed"
    return None


def _rows(path: Path, table: str) -> int:
    with pa.OSFile(str(path)) as source:
        return sum(batch.num_rows for batch in Batches(source, arrow_schema(table)))


def remove(local: Path) -> None:
    """Removes a node-local run folder; half a removal is never taken for a run.

    Raises:
        OSError: It cannot be removed.
    """
    gone = local.with_name(f".{local.name}.packed")
    shutil.rmtree(gone, ignore_errors=True)
    local.replace(gone)
    for path in (gone / RUN_FILE, *gone.glob(f"rank-*/{RANK_FILE}")):  # what makes a run of a folder goes first
        path.unlink(missing_ok=True)
    shutil.rmtree(gone, ignore_errors=True)
