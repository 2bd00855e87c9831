"""Which operations of NCCL each collective of torch was, and with them when the device ran it.

torch's dispatcher knows what was asked for and by which group; NCCL's profiler plugin knows what ran, and when, in
which communicator. Nothing names one for the other, so they are matched: communicators to groups by their size and
the rank in them (and by name where they have one), operations to collectives in the order of issue (`nccl.alignment`),
by what torch makes of each collective (`nccl.parts`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.trace.nccl.alignment import Call, Own, aligned
from commlens.trace.nccl.parts import collective_parts, message_parts
from commlens.trace.schema import DEVICE_CLOCKS, MISSING, TIMINGS

Columns = Mapping[str, Any]
Ints = NDArray[np.int64]

_SAMPLE: Final = 2000  # operations from which is told which group's a communicator is
_TIMED: Final = tuple(DEVICE_CLOCKS.index(each) for each in ("device", "device_late", "kernel_seen"))


class Membership(NamedTuple):
    """A communicator: the name it was given, its size (0: not known), the process's rank in it."""

    name: str
    ranks: int
    rank: int


@dataclass
class Joined:
    """What was found.

    Attributes:
        asked: collectives without device times.
        matched: those of them whose device times are now known.
        row: of each operation the collective it belongs to, MISSING where none was found.
        started_ns, completed_ns: of each collective, MISSING where not known.
        group: of each operation the place of its group in `groups`, MISSING where its communicator is no group's.
    """

    asked: int
    matched: int
    row: Ints
    started_ns: Ints
    completed_ns: Ints
    group: Ints


def joined(
    rows: Columns, operations: Columns, communicators: Sequence[Membership], groups: Sequence[Columns], rank: int
) -> Joined:
    """Matches the collectives of a rank with the operations of its process; those with device times keep theirs.

    Args:
        rows: columns of `collectives`, in the order of issue; `group` and `op` as (codes, words).
        operations: columns of `device_ops` on the same clock; `communicator` as (codes, _).
        communicators: by the codes of `communicator`.
        groups: `groups` of rank.json: name, desc, ranks, size.
        rank: global rank.
    """
    asked = rows["timing"] == TIMINGS.index("enqueue_only")
    on_device = asked | (rows["timing"] == TIMINGS.index("device"))
    operations_of = _operations_of(operations, len(communicators))
    calls_of = _calls_of(rows, on_device, groups, rank)
    row = np.full(len(operations["order"]), MISSING, np.int64)
    group = row.copy()
    for communicator, name in _pairs(communicators, groups, rank, operations_of, calls_of).items():
        own = operations_of[communicator]
        group[own.places] = name
        for place, found in aligned(own, calls_of[name]):
            row[place] = found
    _join_pairs(communicators, operations_of, calls_of, group, row)
    _group_replays(group, operations["communicator"][0], len(communicators))
    started, completed = (np.where(asked, each, MISSING) for each in _times(row, len(asked), operations))
    return Joined(int(asked.sum()), int((completed != MISSING).sum()), row, started, completed, group)


def _operations_of(operations: Columns, count: int) -> list[Own]:
    """The operations of each communicator; no call asked for those that a CUDA graph replayed."""
    codes, words = operations["op"]
    asked = operations["graph"] != 1
    found = []
    for each in range(count):
        places = np.flatnonzero((operations["communicator"][0] == each) & asked)
        places = places[np.argsort(operations["order"][places], kind="stable")]
        names = [words[code] if code >= 0 else "" for code in codes[places].tolist()]
        numbers = [operations[name][places].tolist() for name in ("enqueued_ns", "bytes", "peer")]
        found.append(Own(places, numbers[0], names, numbers[1], numbers[2]))
    return found


def _group_replays(group: Ints, communicator: Ints, count: int) -> None:
    """Gives what graphs replayed the group that the other operations of its communicator have."""
    for each in range(count):
        own = communicator == each
        group[own] = group[own].max(initial=MISSING)


def _calls_of(rows: Columns, chosen: NDArray[np.bool_], groups: Sequence[Columns], rank: int) -> list[list[Call]]:
    """What each group was asked for, in the order of issue."""
    codes, words = rows["group"]
    ops, vocabulary = rows["op"]
    calls: list[list[Call]] = [[] for _ in groups]
    place = {group.get("name"): number for number, group in enumerate(groups)}
    numbers = [rows[name].tolist() for name in ("in_bytes", "out_bytes", "peer", "issued_ns")]
    for row in np.flatnonzero(chosen & (rows["issued_ns"] != MISSING)).tolist():
        number = place.get(words[codes[row]]) if codes[row] >= 0 else None
        if number is None or ops[row] < 0:
            continue
        moved_in, moved_out, peer, issued = (column[row] for column in numbers)
        op, members = vocabulary[ops[row]], list(groups[number].get("ranks") or [])
        own = members.index(rank) if rank in members else MISSING
        other = members.index(peer) if peer in members else MISSING
        messages = message_parts(op, moved_in, moved_out, own, len(members), other)
        calls[number].append(Call(row, issued, collective_parts(op, moved_in, moved_out), messages))
    return calls


def _pairs(
    communicators: Sequence[Membership],
    groups: Sequence[Columns],
    rank: int,
    operations_of: Sequence[Own],
    calls_of: Sequence[list[Call]],
) -> dict[int, int]:
    """The group of each communicator, each group once; the surest first."""
    scores = []
    for each, communicator in enumerate(communicators):
        for name, group in enumerate(groups):
            if not len(operations_of[each].places) or not _may_be(communicator, group, rank):
                continue
            found, lag = _fit(operations_of[each], calls_of[name])
            named = bool(communicator.name) and communicator.name in (group.get("name"), group.get("desc"))
            if found:
                scores.append((not named, -found, lag, each, name))
    pairs: dict[int, int] = {}
    for *_, each, name in sorted(scores):
        if each not in pairs and name not in pairs.values():
            pairs[each] = name
    return pairs


def _may_be(communicator: Membership, group: Columns, rank: int) -> bool:
    members = list(group.get("ranks") or [])
    same_size = communicator.ranks in (0, len(members))
    return same_size and rank in members and members.index(rank) == communicator.rank


def _fit(own: Own, calls: Sequence[Call]) -> tuple[int, int]:
    """How many of a communicator's last operations a group's calls explain, and how late these follow in the middle."""
    some = slice(-_SAMPLE, None)
    last = Own(own.places[some], own.times[some], own.ops[some], own.bytes[some], own.peers[some])
    times = dict(zip(last.places.tolist(), last.times, strict=True))
    issued = {call.row: call.issued_ns for call in calls}
    lags = sorted(times[place] - issued[row] for place, row in aligned(last, calls))
    return len(lags), lags[len(lags) // 2] if lags else 0


def _join_pairs(
    communicators: Sequence[Membership],
    operations_of: Sequence[Own],
    calls_of: Sequence[list[Call]],
    group: Ints,
    row: Ints,
) -> None:
    """Sends and receives for which torch made a communicator of the two ranks alone."""
    taken = set(row.tolist())
    for each, communicator in enumerate(communicators):
        own = operations_of[each]
        if communicator.ranks != 2 or not len(own.places) or group[own.places[0]] != MISSING:
            continue
        best: tuple[int, int, list[tuple[int, int]]] = (0, MISSING, [])
        for name, calls in enumerate(calls_of):
            for calls_to in _to_each_peer(calls, taken).values():
                pairs = aligned(own, calls_to)
                best = max(best, (len(pairs), name, pairs))
        for place, found in best[2]:
            row[place] = found
        group[own.places] = best[1]
        taken |= {found for _, found in best[2]}


def _to_each_peer(calls: Sequence[Call], taken: set[int]) -> dict[int, list[Call]]:
    """Sends and receives by peer, with the peer's rank in a communicator of two, whichever it is."""
    found: defaultdict[int, list[Call]] = defaultdict(list)
    for call in calls:
        if call.row not in taken and len(call.messages) == 1 and not call.parts:
            message = call.messages[0]
            both = [message._replace(peer=place) for place in (0, 1)]
            found[message.peer].append(call._replace(messages=both))
    return found


def _times(row: Ints, count: int, operations: Columns) -> tuple[Ints, Ints]:
    """First start and last end of each collective's operations, where all of them are known."""
    started = np.full(count, np.iinfo(np.int64).max)
    completed = np.full(count, MISSING, np.int64)
    unknown = np.zeros(count, bool)
    own = np.flatnonzero(row != MISSING)
    starts, ends = operations["start_ns"][own], operations["end_ns"][own]
    timed = np.isin(operations["clock"][0][own], _TIMED) & (starts != MISSING) & (ends != MISSING)
    unknown[row[own[~timed]]] = True
    np.minimum.at(started, row[own[timed]], starts[timed])
    np.maximum.at(completed, row[own[timed]], ends[timed])
    none = unknown | (completed == MISSING)
    return np.where(none, MISSING, started), np.where(none, MISSING, completed)
