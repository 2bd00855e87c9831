"""The entries of a Flight Recorder dump as rows of the trace format."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from commlens.trace.importers.flight_recorder_entries import COMPLETED, Entry
from commlens.trace.importers.flight_recorder_groups import DEFAULT
from commlens.trace.importers.imported import Column
from commlens.trace.schema import MISSING, POINT_TO_POINT

_SOURCE, _TIMING = "flight_recorder", "enqueue_only"

Group = tuple[str, int]  # torch's name, and which object
Names = Mapping[Group, str]
Members = Mapping[str, Sequence[int]]  # global ranks by torch's name, in the group's own order


def group_names(entries: Sequence[Entry]) -> dict[Group, str]:
    """Name of each group object, "0#2" for the second that torch called "0"."""
    found: dict[Group, str] = {}
    times: Counter[str] = Counter()
    for entry in entries:
        if (entry.group, entry.pg_id) not in found:
            times[entry.group] += 1
            count = times[entry.group]
            found[entry.group, entry.pg_id] = entry.group if count == 1 else f"{entry.group}#{count}"
    return found


def columns(entries: Sequence[Entry], seqs: Sequence[int], names: Names, members: Members) -> dict[str, Column]:
    """The table `collectives`, a row an entry.

    Args:
        entries: operations, in the order of issue.
        seqs: their sequence numbers.
        names: of the group objects.
        members: of the groups, as far as known.
    """
    sizes = {name: len(ranks) for name, ranks in members.items()}
    descs = {(entry.group, entry.pg_id): entry.desc for entry in reversed(entries)}
    numbers = {
        "event": range(len(entries)),
        "seq": seqs,
        "in_bytes": [entry.in_bytes for entry in entries],
        "out_bytes": [entry.out_bytes for entry in entries],
        "group_size": [sizes.get(entry.group, MISSING) for entry in entries],
        "peer": [_global(entry, entry.peer, members) for entry in entries],
        "issued_ns": [entry.created_ns for entry in entries],
    }
    words: dict[str, Sequence[str | None]] = {
        "group": [names[entry.group, entry.pg_id] for entry in entries],
        "group_desc": [descs[entry.group, entry.pg_id] for entry in entries],
        "op": [entry.op for entry in entries],
        "dtype": [entry.dtype for entry in entries],
        "source": [_SOURCE] * len(entries),
        "timing": [_TIMING] * len(entries),
    }
    table: dict[str, Column] = {name: np.array(values, np.int64) for name, values in numbers.items()}
    return table | {name: _coded(values) for name, values in words.items()}


def sequence(entries: Sequence[Entry], whole: Mapping[Group, bool]) -> list[int]:
    """Sequence number of each entry: torch's own of collectives, which begins with 1; messages are counted.

    Args:
        entries: operations, in the order of issue.
        whole: groups (name, object) that lack none of their operations. Messages of the others cannot be counted,
            torch has a number per group only: MISSING.
    """
    counts: Counter[object] = Counter()
    seqs = []
    for entry in entries:
        if entry.op not in POINT_TO_POINT:
            seqs.append(entry.seq)
            continue
        direction = entry.group, entry.pg_id, entry.op, entry.peer
        seqs.append(counts[direction] if whole[entry.group, entry.pg_id] else MISSING)
        counts[direction] += 1
    return seqs


def whole_groups(entries: Sequence[Entry]) -> dict[Group, bool]:
    """Whether every operation of a group object is in the dump: they are numbered from 1."""
    seen: defaultdict[Group, set[int]] = defaultdict(set)
    for entry in entries:
        seen[entry.group, entry.pg_id].add(entry.op_id)
    return {group: min(ids) == 1 and max(ids) == len(ids) for group, ids in seen.items()}


def own_rank(entries: Sequence[Entry], members: Members) -> int | None:
    """Whose dump this is, as its messages tell; None where there are none, or they disagree."""
    told = {_global(entry, entry.own, members) for entry in entries} - {MISSING}
    return told.pop() if len(told) == 1 else None


def states(settled: Sequence[tuple[Entry, str]]) -> dict[str, list[int]]:
    """Events of each state but `COMPLETED`."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for event, (_, state) in enumerate(settled):
        if state != COMPLETED:
            found[state].append(event)
    return dict(found)


def _global(entry: Entry, number: int, members: Members) -> int:
    """Global rank of a member of the entry's group, MISSING where not known."""
    ranks = members.get(entry.group)
    if number == MISSING or ranks is None:
        return number if entry.desc == DEFAULT else MISSING
    return ranks[number] if number < len(ranks) else MISSING


def _coded(values: Sequence[str | None]) -> tuple[Any, list[str]]:
    vocabulary = sorted({value for value in values if value is not None})
    codes = {word: code for code, word in enumerate(vocabulary)}
    return np.array([MISSING if value is None else codes[value] for value in values], np.int64), vocabulary
