"""The plugin's file in a rank's folder: device times for its collectives, and the table of NCCL's operations."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from commlens.errors import TraceError
from commlens.trace.columns import from_arrow, names_to_arrow, one_array, to_arrow
from commlens.trace.device_times import Joined, Membership, joined
from commlens.trace.nccl.log import Log, parse_log
from commlens.trace.nccl.operations import device_ops
from commlens.trace.schema import DEVICE_CLOCKS, MISSING, TIMINGS, arrow_schema
from commlens.trace.storage.files import Files

PATTERN: Final = "nccl-*.events"


@dataclass(frozen=True)
class DeviceTimes:
    """How far NCCL's plugin told when collectives ran on the device.

    Attributes:
        asked: collectives of which the host knows the issue alone.
        matched: those of them with device times.
        operations: of NCCL.
        lost: operations that the plugin had no room for.
        problem: why the file could not be used, "" where it could.
    """

    asked: int
    matched: int
    operations: int
    lost: int
    problem: str = ""

    @property
    def whole(self) -> bool:
        """Whether it told of every collective."""
        return not self.problem and not self.lost and self.matched == self.asked

    @property
    def note(self) -> str:
        """One line for readers of results."""
        if self.problem:
            return f"NCCL's operations are left out: {self.problem}"
        note = f"device times of {self.matched} of {self.asked} collectives, from {self.operations} operations of NCCL"
        return f"{note}; {self.lost} more were lost for want of room" if self.lost else note


def find_logs(names: Iterable[str], info: Mapping[str, Any]) -> list[str]:
    """Of the files in a rank's folder those that its process wrote."""
    pid = info.get("pid")
    logs = sorted(fnmatch.filter(names, PATTERN))
    return logs if not isinstance(pid, int) else [each for each in logs if f"-{pid}." in each or f"-{pid}-" in each]


def with_nccl_times(
    rows: pa.Table, files: Files, info: Mapping[str, Any]
) -> tuple[pa.Table, pa.Table, DeviceTimes | None]:
    """The collectives with what NCCL's plugin knows of them, its operations, and how far it went.

    Args:
        rows: `collectives` of the rank.
        files: of the rank.
        info: content of rank.json.
    """
    empty = arrow_schema("device_ops").empty_table()
    found = find_logs(files.names(), info)
    if not found:
        return rows, empty, None
    try:
        log = parse_log(files.read(found[0]) or b"", files.path / found[0])
    except TraceError as error:
        return rows, empty, DeviceTimes(0, 0, 0, 0, str(error))
    columns = device_ops(log, _wall_offset(info, log))
    match = joined(_columns(rows), columns, _memberships(log), info.get("groups") or [], int(info.get("rank", MISSING)))
    columns["event"] = _events(rows, match)
    columns["group"] = match.group, [str(group.get("name")) for group in info.get("groups") or []]
    lost = log.tallies.get("no_slot", 0) + log.tallies.get("no_room", 0)
    summary = DeviceTimes(match.asked, match.matched, len(log.operations), lost)
    seen_by_host = bool((columns["clock"][0] == DEVICE_CLOCKS.index("kernel_seen")).any())
    return _filled(rows, match, "host" if seen_by_host else "device"), _as_table(columns), summary


def _wall_offset(info: Mapping[str, Any], log: Log) -> int:
    """The recorder's own, so that both agree to the nanosecond; else the file's."""
    offset = (info.get("clock") or {}).get("wall_offset_ns")
    return offset if isinstance(offset, int) else log.wall_offset_ns


def _memberships(log: Log) -> list[Membership]:
    return [Membership(each.name, each.ranks, each.rank) for _, each in sorted(log.communicators.items())]


def _columns(rows: pa.Table) -> dict[str, Any]:
    arrays = {
        name: one_array(rows, name) for name in ("group", "op", "timing", "in_bytes", "out_bytes", "peer", "issued_ns")
    }
    columns: dict[str, Any] = {name: from_arrow(array) for name, array in arrays.items()}
    for name in ("group", "op"):
        columns[name] = (columns[name], _vocabulary(arrays[name]))
    words = _vocabulary(arrays["timing"])
    codes = np.array([*(TIMINGS.index(word) for word in words), MISSING], np.int64)
    columns["timing"] = codes[columns["timing"]]
    return columns


def _vocabulary(array: pa.Array) -> list[str]:
    words: list[str] = array.dictionary.to_pylist() if isinstance(array, pa.DictionaryArray) else []
    return words


def _events(rows: pa.Table, match: Joined) -> Any:
    events = np.append(from_arrow(one_array(rows, "event")).astype(np.int64), MISSING)
    return events[match.row]


def _filled(rows: pa.Table, match: Joined, timing: str) -> pa.Table:
    """The collectives with the times that were found, whose `timing` is the word given."""
    known = match.completed_ns != MISSING
    if not known.any():
        return rows
    for name, values in (("started_ns", match.started_ns), ("completed_ns", match.completed_ns)):
        merged = np.where(known, values, from_arrow(one_array(rows, name)))
        rows = _replaced(rows, name, to_arrow(merged, pa.int64()))
    array = one_array(rows, "timing")
    words = list(dict.fromkeys([*_vocabulary(array), timing]))
    codes = np.where(known, words.index(timing), from_arrow(array).astype(np.int64))
    return _replaced(rows, "timing", names_to_arrow(codes, words, rows.schema.field("timing").type))


def _replaced(rows: pa.Table, name: str, array: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), array)


def _as_table(columns: Mapping[str, Any]) -> pa.Table:
    schema = arrow_schema("device_ops")
    return pa.Table.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(column: Any, kind: pa.DataType) -> pa.Array:
    return names_to_arrow(column[0], column[1], kind) if isinstance(column, tuple) else to_arrow(column, kind)
