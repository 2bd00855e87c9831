"""What ran on the devices in an Nsight Systems export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.nsys_launches import find_launches
from commlens.trace.importers.nsys_tables import LATEST_NS, Ints, Tables
from commlens.trace.kernel_names import classify
from commlens.trace.schema import COMMUNICATION, COPY, KERNEL_KINDS, MISSING, OPS

_KERNEL, _MEMCPY, _MEMSET = (f"CUPTI_ACTIVITY_KIND_{name}" for name in ("KERNEL", "MEMCPY", "MEMSET"))
_WHERE: Final = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid")
_MOST_DEVICES, _MOST_STREAMS = 1 << 15, 1 << 31
_COMMUNICATION: Final = KERNEL_KINDS.index(COMMUNICATION)
# CUPTI's kinds of copies, from 1; nsys names more of them in ENUM_CUDA_MEMCPY_OPER.
_COPIES: Final = ("HtoD", "DtoH", "HtoA", "AtoH", "AtoA", "AtoD", "DtoA", "DtoD", "HtoH", "PtoP")
_MEMSET_NAME: Final = "memset"
_COPY_NAMES: Final = ("memcpy", *(f"memcpy {way}" for way in _COPIES))


@dataclass(frozen=True)
class DeviceRows:
    """Rows of all devices, by start; arrays of shape (rows,), times in ns of the file.

    Attributes:
        start, end, device, stream: as in the kernels table.
        process: global id of the process, MISSING where not known.
        launched: begin of the call that launched it, MISSING where not known.
        thread: global id of the thread of that call, MISSING where not known.
        kind: code in `schema.KERNEL_KINDS`.
        op: code in `schema.OPS`, MISSING where the name does not tell.
        name: code in `names`.
        is_kernel: no copy.
        names: the words.
        damaged: rows that were left out because they make no sense.
    """

    start: Ints
    end: Ints
    device: Ints
    stream: Ints
    process: Ints
    launched: Ints
    thread: Ints
    kind: Ints
    op: Ints
    name: Ints
    is_kernel: NDArray[np.bool_]
    names: list[str]
    damaged: int

    def at(self, rows: NDArray[Any]) -> DeviceRows:
        """Some of the rows."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value[rows] for name, value in arrays.items() if isinstance(value, np.ndarray)})


def read_device(tables: Tables) -> DeviceRows:
    """All rows of kernels, copies and fills; empty where the export has none."""
    kernels = tables.numbers(_KERNEL, (*_WHERE, "demangledName", "shortName"))
    copies = tables.numbers(_MEMCPY, (*_WHERE, "copyKind"))
    fills = tables.numbers(_MEMSET, _WHERE)
    names, codes = _names(tables, kernels, copies["copyKind"], fills["start"].size)
    kinds, ops = _classes(names, set(codes[: kernels["start"].size].tolist()))
    rows = {column: np.concatenate([part[column] for part in (kernels, copies, fills)]) for column in _WHERE}
    launched, thread = find_launches(tables, rows["correlationId"], rows["globalPid"])
    found = DeviceRows(
        start=rows["start"],
        end=rows["end"],
        device=rows["deviceId"],
        stream=np.where(rows["streamId"] < _MOST_STREAMS, rows["streamId"], MISSING),
        process=rows["globalPid"],
        launched=launched,
        thread=thread,
        kind=kinds[codes],
        op=ops[codes],
        name=codes,
        is_kernel=np.arange(codes.size) < kernels["start"].size,
        names=names,
        damaged=0,
    )
    return _sane(found)


def _sane(rows: DeviceRows) -> DeviceRows:
    """Without rows that make no sense, by start."""
    good = (rows.start >= 0) & (rows.start <= rows.end) & (rows.end < LATEST_NS)
    good &= (rows.device >= 0) & (rows.device < _MOST_DEVICES) & (rows.stream >= MISSING)
    kept = np.flatnonzero(good)
    damaged = int(good.size - kept.size)
    return replace(rows.at(kept[np.argsort(rows.start[kept], kind="stable")]), damaged=damaged)


def _names(tables: Tables, kernels: Mapping[str, Ints], ways: Ints, fills: int) -> tuple[list[str], Ints]:
    """Names of kernels, copies and fills, and the code of each row's."""
    ids = np.where(kernels["demangledName"] == MISSING, kernels["shortName"], kernels["demangledName"])
    distinct, code = np.unique(ids, return_inverse=True)
    texts = tables.texts(set(distinct.tolist()))
    names = [texts.get(number, "") for number in distinct.tolist()]
    way = np.where((ways > 0) & (ways < len(_COPY_NAMES)), ways, 0)
    codes = [code, len(names) + way, np.full(fills, len(names) + len(_COPY_NAMES))]
    return [*names, *_COPY_NAMES, _MEMSET_NAME], np.concatenate(codes).astype(np.int64)


def _classes(names: list[str], kernels: set[int]) -> tuple[Ints, Ints]:
    """Kind and operation of each name; what is no kernel's is a copy's."""
    known = [classify(name) if code in kernels else (COPY, None) for code, name in enumerate(names)]
    kinds = [KERNEL_KINDS.index(kind) for kind, _ in known]
    ops = [MISSING if op is None else OPS.index(op) for _, op in known]
    return np.array(kinds, np.int64), np.array(ops, np.int64)


def split_ranks(rows: DeviceRows) -> tuple[list[DeviceRows], int]:
    """The rows of each rank, by device and process; and how many devices of processes are left out.

    A process may touch devices that are not its own: such ran no kernel, or no communication while another
    device of the process did.
    """
    processes, place = np.unique(rows.process, return_inverse=True)
    pairs, code = np.unique(rows.device * processes.size + place.ravel(), return_inverse=True)
    code, count, process = code.ravel(), pairs.size, pairs % max(processes.size, 1)
    kernels = np.bincount(code, rows.is_kernel, count) > 0
    talks = np.bincount(code, rows.kind == _COMMUNICATION, count) > 0
    own = kernels & (talks | ~np.isin(process, process[talks]))
    order = np.argsort(code, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(code, minlength=count))[:-1]) if count else []
    return [rows.at(part) for part, keep in zip(parts, own, strict=True) if keep], int((~own).sum())
