"""Operations of one communicator given to the calls of one group, from the last to the first.

An operation is enqueued within the call that asks for it, or, where calls are coalesced, after the last of them. So
it belongs to the latest call before it that asks for such an operation and has none yet: going backwards in time, a
recording that was paused, or lost some, shifts nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.trace.nccl.parts import Message, Part
from commlens.trace.schema import MISSING

_COALESCED: Final = 256  # calls between an operation and the one it belongs to: NCCL sorts a group's by size
_MOST_PARTS: Final = 4096
_BARRIER_BYTES: Final = 8


class Call(NamedTuple):
    """What a group was asked for: what it may be as collectives of NCCL, and as messages."""

    row: int
    issued_ns: int
    parts: list[Part]
    messages: list[Message]


class Own(NamedTuple):
    """The operations of one communicator in order; lists, which loops read faster than arrays."""

    places: NDArray[np.int64]
    times: list[int]
    ops: list[str]
    bytes: list[int]
    peers: list[int]


def aligned(own: Own, calls: Sequence[Call]) -> list[tuple[int, int]]:
    """Pairs of an operation's place and a call's row."""
    messages = {"send", "recv"}
    collectives = [each for each in range(len(own.ops)) if own.ops[each] not in messages]
    pairs = _backwards(own, collectives, [(call.row, call.issued_ns, call.parts) for call in calls if call.parts])
    wanted: defaultdict[tuple[str, int], list[tuple[int, int, list[Part]]]] = defaultdict(list)
    for call in calls:
        for message in call.messages:
            wanted[message.op, message.peer].append((call.row, call.issued_ns, [Part(message.op, message.bytes)]))
    found: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for each, op in enumerate(own.ops):
        if op in messages:
            found[op, own.peers[each]].append(each)
    for key in found.keys() & wanted.keys():
        pairs += _backwards(own, found[key], wanted[key], one=True)
    return [(int(own.places[each]), row) for each, row in pairs]


def _backwards(
    own: Own, places: Sequence[int], calls: Sequence[tuple[int, int, list[Part]]], one: bool = False
) -> list[tuple[int, int]]:
    """Pairs of one of `places` and a call's row, the last first; with `one` an operation is a whole part."""
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []  # calls that were passed over, the latest first: of coalesced ones the order may be another
    later, at = len(calls), len(places) - 1
    while at >= 0 and (later or waiting):
        time = own.times[places[at]]
        while later and calls[later - 1][1] > time:
            later -= 1
        waiting = [each for each in waiting if calls[each][1] <= time]
        call = later - 1  # nearly always
        count = _size(own, places, at, calls[call], one) if later and not waiting else 0
        if not count:
            nearest = chain(waiting, range(later - 1, max(later - _COALESCED, 0) - 1, -1))
            wanted = ((_size(own, places, at, calls[each], one), each) for each in nearest)
            count, call = next((found for found in wanted if found[0]), (1, MISSING))
        if call != MISSING:
            pairs += [(place, calls[call][0]) for place in places[at - count + 1 : at + 1]]
            if call in waiting:
                waiting.remove(call)
            else:
                waiting += range(later - 1, call, -1)
                later = call
        at -= count
    return pairs


def _size(own: Own, places: Sequence[int], at: int, call: tuple[int, int, list[Part]], one: bool) -> int:
    """How many operations up to the one at `at` are the call; 0 where they are not."""
    for part in call[2]:
        if part.op == own.ops[places[at]] and (count := _block(own, places, at, part, call[1], one)):
            return count
    return 0


def _block(own: Own, places: Sequence[int], at: int, part: Part, issued_ns: int, one: bool) -> int:
    """How many operations up to the one at `at` are the part; 0 where they are not."""
    if part.bytes is None:
        return int(part.op != "all_reduce" or own.bytes[places[at]] <= _BARRIER_BYTES)
    moved = 0
    for count in range(1, 2 if one else min(at + 1, _MOST_PARTS) + 1):
        here = places[at - count + 1]
        if own.ops[here] != part.op or own.times[here] < issued_ns:
            return 0
        moved += own.bytes[here]
        if moved >= part.bytes:
            return count if moved == part.bytes and moved else 0
    return 0
