"""What NCCL did on one rank, as its profiler plugin saw it: the table `device_ops`, reduced to what reports need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Column, Columns
from commlens.analyzers.grouped import group_keys
from commlens.analyzers.intervals import Ints, distinct, length_within
from commlens.analyzers.steps import Steps
from commlens.trace.schema import MISSING

if TYPE_CHECKING:
    from commlens.trace import Rank

WAITS: Final = ("send_gpu", "send_peer", "send_network", "recv_network", "recv_flush", "recv_gpu")
_SEND_PEER: Final = WAITS.index("send_peer")
_NUMBERS: Final = [
    "event", "bytes", "channels", "enqueued_ns", "start_ns", "end_ns", "error_ns", "device_ns", "graph", "copy_engine",
    *(f"{name}_ns" for name in WAITS), "sent_bytes", "received_bytes",
]  # fmt: skip
_WORDS: Final = ["group", "communicator", "op", "algorithm", "protocol", "clock", "state"]
_TIMED: Final = ("device", "device_late", "kernel_seen")
_TELL_PEER: Final = ("device", "device_late", "contradictory")  # clocks of NCCL 2.27 on, which tells `send_peer`
_PARTS: Final = ("all_gather", "reduce_scatter")  # of which NCCL counts each rank's part


class Choice(NamedTuple):
    """What NCCL chose for an operation, in its words; None where it does not tell."""

    algorithm: str | None
    protocol: str | None
    channels: int | None


@dataclass(frozen=True)
class Waited:
    """What network proxies did for a group: sums over operations and over their steps, which overlap.

    Attributes:
        group: torch's name; NCCL's id of the communicator where it is no group's.
        operations: that proxies took part in.
        waits_ns: in the order of `WAITS`; None where this NCCL does not tell it.
        sent_bytes: by proxies.
        received_bytes: by proxies.
    """

    group: str
    operations: int
    waits_ns: tuple[int | None, ...]
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True)
class Replayed:
    """Operations that CUDA graphs replayed, which are in no collective's row.

    Attributes:
        group: as in `Waited`.
        op: torch's spelling.
        bytes: nccl-tests' message size, None where not known.
        operations: how many.
        device_ns: sum of their durations, waiting for other ranks included; None where none is known.
    """

    group: str
    op: str
    bytes: int | None
    operations: int
    device_ns: int | None


@dataclass(frozen=True)
class DeviceOperations:
    """The operations of one rank.

    Attributes:
        count: of all.
        row: the collective that an operation belongs to, of those that belong to one, shape (joined,).
        choice: of the same operations the place in `choices`, shape (joined,).
        choices: what NCCL chose.
        by_plugin: which collectives' times are those of their operations, shape (rows,).
        error_ns: how far times can be wrong, of the operations where that is known, shape (known,).
        clocks: operations by `trace.schema.DEVICE_CLOCKS`.
        states: operations by `trace.schema.DEVICE_STATES`.
        copy_engine: operations that copy engines moved.
        graph: operations that CUDA graphs replayed.
        unmatched: others that belong to no collective's row.
        waited: by group, over the analysed steps; over everything where there are none.
        replayed: by group, operation and size, over the same.
    """

    count: int
    row: Ints
    choice: Ints
    choices: tuple[Choice, ...]
    by_plugin: NDArray[np.bool_]
    error_ns: Ints
    clocks: Mapping[str, int]
    states: Mapping[str, int]
    copy_engine: int
    graph: int
    unmatched: int
    waited: tuple[Waited, ...]
    replayed: tuple[Replayed, ...]


class Read(NamedTuple):
    """Columns of `device_ops` of one rank, and the collective of each operation, MISSING where it has none."""

    numbers: Mapping[str, Ints]
    words: Mapping[str, Column]
    row: Ints


def read_operations(rank: Rank) -> Read | None:
    """The operations of a rank, None where NCCL's plugin saw none."""
    numbers = {name: _ints(values) for name, values in rank.columns("device_ops", _NUMBERS).items()}
    if not numbers["event"].size:
        return None
    codes = rank.columns("device_ops", _WORDS)
    words = {name: Column(_ints(codes[name]), rank.vocabulary("device_ops", name)) for name in _WORDS}
    events = _ints(rank.columns("collectives", ["event"])["event"])
    return Read(numbers, words, _rows(events, numbers["event"]))


def find_operations(read: Read, columns: Columns, steps: Steps) -> DeviceOperations:
    """What NCCL did on a rank. An operation belongs to the step in which it was handed to the device."""
    numbers, words, row = read
    graph = numbers["graph"] == 1
    joined = (row != MISSING) & ~graph
    keys, choices = _choices(words, numbers["channels"])
    counted = _in_steps(numbers["enqueued_ns"], steps)
    labels = _labels(words)
    return DeviceOperations(
        count=int(row.size),
        row=row[joined],
        choice=keys[joined],
        choices=choices,
        by_plugin=_timed_rows(words, numbers, np.where(joined, row, MISSING), columns),
        error_ns=numbers["error_ns"][numbers["error_ns"] != MISSING],
        clocks=_by_word(words["clock"]),
        states=_by_word(words["state"]),
        copy_engine=int((numbers["copy_engine"] == 1).sum()),
        graph=int(graph.sum()),
        unmatched=int((~graph & ~joined).sum()),
        waited=_waited(labels, words["clock"], numbers, counted),
        replayed=_replayed(labels, words["op"], numbers, counted & graph, _group_sizes(columns)),
    )


def _by_word(column: Column) -> dict[str, int]:
    return {word: count for word in column.words if (count := int(column.equals(word).sum()))}


def _ints(values: NDArray[Any]) -> Ints:
    return np.asarray(values).astype(np.int64, copy=False)


def _rows(events: Ints, wanted: Ints) -> Ints:
    """The collective of each operation, MISSING where it belongs to none."""
    if not events.size:
        return np.full(wanted.size, MISSING, np.int64)
    order = np.argsort(events, kind="stable")
    found = order[np.searchsorted(events[order], wanted).clip(max=events.size - 1)]
    return np.where((wanted != MISSING) & (events[found] == wanted), found, MISSING)


def _choices(words: Mapping[str, Column], channels: Ints) -> tuple[Ints, tuple[Choice, ...]]:
    """The place of each operation's choice, and the choices."""
    algorithm, protocol = words["algorithm"], words["protocol"]
    keys, first = group_keys([algorithm.codes + 1, protocol.codes + 1, channels])
    return keys, tuple(
        Choice(_word(algorithm, place), _word(protocol, place), int(channels[place]) if channels[place] > 0 else None)
        for place in first.tolist()
    )


def _word(column: Column, place: int) -> str | None:
    code = int(column.codes[place])
    return column.words[code] if code != MISSING else None


def _in_steps(enqueued_ns: Ints, steps: Steps) -> NDArray[np.bool_]:
    """Operations that count: those of analysed steps, all where there are none."""
    if not steps.index.size:
        return np.ones(enqueued_ns.size, bool)
    return np.asarray(length_within(steps.window, enqueued_ns, enqueued_ns + 1) > 0)


def _timed_rows(
    words: Mapping[str, Column], numbers: Mapping[str, Ints], row: Ints, columns: Columns
) -> NDArray[np.bool_]:
    """Collectives all of whose operations have times, shape (rows,)."""
    known = (numbers["start_ns"] != MISSING) & (numbers["end_ns"] != MISSING)
    known &= np.any([words["clock"].equals(each) for each in _TIMED], axis=0)
    found = np.zeros(columns.over.size, bool)
    found[row[(row != MISSING) & known]] = True
    found[row[(row != MISSING) & ~known]] = False
    return np.asarray(found & (columns.collectives["completed_ns"] != MISSING))


def _labels(words: Mapping[str, Column]) -> Column:
    """The group of each operation, the communicator's id where it is no group's."""
    group, other = words["group"], words["communicator"]
    codes = np.where(group.codes != MISSING, group.codes, other.codes + len(group.words))
    return Column(codes, [*group.words, *other.words])


def _group_sizes(columns: Columns) -> dict[str, int]:
    """Ranks in each group, as its collectives say."""
    group, sizes = columns.words["group"], columns.collectives["group_size"]
    first = {word: np.flatnonzero(group.codes == code) for code, word in enumerate(group.words)}
    return {word: int(sizes[rows[0]]) for word, rows in first.items() if rows.size and sizes[rows[0]] != MISSING}


def _waited(
    labels: Column, clock: Column, numbers: Mapping[str, Ints], counted: NDArray[np.bool_]
) -> tuple[Waited, ...]:
    by_proxies = counted & np.any([numbers[f"{name}_ns"] != MISSING for name in WAITS], axis=0)
    tells_peer = np.any([clock.equals(each) for each in _TELL_PEER], axis=0)
    found = []
    for code in distinct(labels.codes[by_proxies]).tolist():
        own = by_proxies & (labels.codes == code)
        waits: list[int | None] = [_sum(numbers[f"{name}_ns"][own]) for name in WAITS]
        if not waits[_SEND_PEER] and not tells_peer[own].any():
            waits[_SEND_PEER] = None
        moved = (_sum(numbers[name][own]) or 0 for name in ("sent_bytes", "received_bytes"))
        found.append(Waited(labels.words[code], int(own.sum()), tuple(waits), *moved))
    return tuple(found)


def _sum(values: Ints) -> int | None:
    known = values[values != MISSING]
    return int(known.sum()) if known.size else None


def _replayed(
    labels: Column, op: Column, numbers: Mapping[str, Ints], chosen: NDArray[np.bool_], sizes: Mapping[str, int]
) -> tuple[Replayed, ...]:
    rows = np.flatnonzero(chosen)
    if not rows.size:
        return ()
    keys, first = group_keys([labels.codes[rows], op.codes[rows] + 1, numbers["bytes"][rows]])
    found = []
    for key, place in enumerate(rows[first].tolist()):
        own = rows[keys == key]
        group, word = labels.words[labels.codes[place]], _word(op, place) or ""
        size = _message_bytes(word, int(numbers["bytes"][place]), sizes.get(group))
        found.append(Replayed(group, word, size, int(own.size), _sum(numbers["device_ns"][own])))
    return tuple(found)


def _message_bytes(op: str, size: int, members: int | None) -> int | None:
    """nccl-tests' message size of what NCCL counted as `size` bytes."""
    if size == MISSING or (op in _PARTS and members is None):
        return None
    return size * members if op in _PARTS and members else size
