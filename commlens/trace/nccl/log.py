"""Reading one file of the plugin, as far as it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.errors import DamagedRunError, NewerFormatError, TraceError
from commlens.trace.nccl import layout


class Communicator(NamedTuple):
    """A communicator of the process.

    Attributes:
        id: the same in all its ranks.
        name: that it was given, "" where none.
        ranks, nodes: how many it has; 0 where NCCL does not tell (up to 2.26).
        rank: the process's rank in it.
        device: ordinal of its device in the process, -1 where not known.
        table: version of NCCL's table that told of it.
    """

    id: int
    name: str
    ranks: int
    rank: int
    nodes: int
    device: int
    table: int


@dataclass
class Log:
    """One file.

    Attributes:
        path: where it is.
        host, boot_id, pid: of the process.
        wall_offset_ns: wall clock minus monotonic clock, read when the file was made.
        communicators: by the number operations have.
        names: NCCL's words by the number operations have.
        operations: `layout.OPERATION_RECORD`s, the latest of each, by communicator and order.
        tallies: what was seen and lost, of `layout.TALLIES`; empty where the process was killed before it wrote any.
        torn: bytes after the last whole record.
        damaged: records that are not as they were written, and left out.
    """

    path: Path
    host: str
    boot_id: str
    pid: int
    wall_offset_ns: int
    communicators: Mapping[int, Communicator]
    names: Mapping[int, str]
    operations: NDArray[Any]
    tallies: Mapping[str, int]
    torn: int = 0
    damaged: int = 0


def recognise(head: bytes) -> bool:
    """Whether a file that begins so is one of the plugin's."""
    return head.startswith(layout.MAGIC)


def read_log(path: Path) -> Log:
    """The log at `path`.

    Raises:
        TraceError: It is none, or may not be read.
        DamagedRunError: It ends within its header, or nothing in it is as it was written.
        NewerFormatError: A newer commlens wrote it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}; make it readable for this user") from error
    return parse_log(data, path)


def parse_log(data: bytes, path: Path) -> Log:
    """The log that `data` is; `path` is named in errors.

    Raises:
        TraceError, DamagedRunError, NewerFormatError: As `read_log`.
    """
    header = _header(data, path)
    body = data[layout.HEADER_BYTES :]
    good = layout.checks(body)
    if len(good) and not good.any():
        raise DamagedRunError(f"{path} is damaged: none of its {len(good)} records is whole; record the job again")
    raw = np.frombuffer(body[: len(good) * layout.RECORD_BYTES], f"V{layout.RECORD_BYTES}")[good]
    kinds = raw.view(layout.NAME_RECORD)["kind"]
    communicators = {
        int(each["index"]): _communicator(each)
        for each in raw.view(layout.COMMUNICATOR_RECORD)[kinds == layout.COMMUNICATOR]
    }
    operations = _latest(raw.view(layout.OPERATION_RECORD)[kinds == layout.OPERATION])
    known = np.isin(operations["communicator"], list(communicators))
    return Log(
        path=path,
        host=_text(header["host"]),
        boot_id=_text(header["boot_id"]),
        pid=int(header["pid"]),
        wall_offset_ns=int(header["wall_ns"]) - int(header["monotonic_ns"]),
        communicators=communicators,
        names={int(each["id"]): _text(each["text"]) for each in raw.view(layout.NAME_RECORD)[kinds == layout.NAME]},
        operations=operations[known],
        tallies=_tallies(raw.view(layout.TALLY_RECORD)[kinds == layout.TALLY]),
        torn=len(body) - len(good) * layout.RECORD_BYTES,
        damaged=int((~good).sum() + (~known).sum()),
    )


def _header(data: bytes, path: Path) -> Any:
    if not recognise(data):
        raise TraceError(f"{path} is no file of commlens' NCCL plugin; give files named nccl-<host>-<process>.events")
    if len(data) < layout.HEADER_BYTES:
        raise DamagedRunError(f"{path} ends within its header: the job was killed as it began; record it again")
    header = np.frombuffer(data, layout.HEADER, 1)[0]
    if header["version"] > layout.VERSION:
        raise NewerFormatError(
            f"{path} has version {header['version']}, this commlens reads up to {layout.VERSION};"
            " update it with: pip install -U commlens"
        )
    if (header["header_bytes"], header["record_bytes"]) != (layout.HEADER_BYTES, layout.RECORD_BYTES):
        raise DamagedRunError(f"{path} is damaged: its header tells of records that no version has; record it again")
    return header


def _communicator(record: Any) -> Communicator:
    numbers = [int(record[name]) for name in ("ranks", "rank", "nodes", "device", "table")]
    return Communicator(int(record["id"]), _text(record["name"]), *numbers)


def _text(value: bytes) -> str:
    return bytes(value).split(b"\0", 1)[0].decode("utf-8", "replace")


def _latest(operations: NDArray[Any]) -> NDArray[Any]:
    """Of each operation the record written last, by communicator and order."""
    order = np.lexsort((np.arange(len(operations)), operations["order"], operations["communicator"]))
    ordered = operations[order]
    same = (ordered["order"][1:] == ordered["order"][:-1]) & (
        ordered["communicator"][1:] == ordered["communicator"][:-1]
    )
    return ordered[~np.append(same, False)] if len(ordered) else ordered


def _tallies(records: NDArray[Any]) -> dict[str, int]:
    return {name: int(records[name][-1]) for name in layout.TALLIES} if len(records) else {}
