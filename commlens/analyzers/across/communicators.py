"""Which rows of which ranks belong to the same process group, or to the same direction between two ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns, small
from commlens.analyzers.held import each
from commlens.analyzers.identity import shared
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.calibration import INTER, INTRA
from commlens.trace.schema import MISSING, POINT_TO_POINT


@dataclass(frozen=True)
class Communicator:
    """One process group, or the messages from one rank to another in it.

    Attributes:
        name: torch's name of the group.
        desc: its description.
        members: global ranks, ascending; those that were recorded where the trace does not name them.
        size: ranks in the group; 2 of messages.
        point_to_point: messages from `members[0]` to `members[1]`, which are in sending order.
        present: positions (among the ranks analysed) of the members that were recorded, shape (p,).
        scope: INTRA where all recorded members share a host, INTER where not, None where hosts are not known.
    """

    name: str
    desc: str
    members: tuple[int, ...]
    size: int
    point_to_point: bool
    present: tuple[int, ...]
    scope: str | None

    @property
    def key(self) -> tuple[str, tuple[int, ...], bool]:
        """What tells it from others."""
        return self.name, self.members, self.point_to_point

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, members=shared(state["members"]))

    @property
    def complete(self) -> bool:
        """Every member was recorded."""
        return len(self.present) == self.size


_Key = tuple[str, tuple[int, ...], bool]  # name, members, point to point


@dataclass(frozen=True)
class _Head:
    """What one rank says of a communicator that it has rows in; `ends` are of messages, () of a group."""

    name: str
    ends: tuple[int, ...]
    desc: str
    size: int


def find_communicators(ranks: Sequence[RankFacts]) -> list[Communicator]:
    """The communicators of a run, those that could not be told (a peer is not known) left out.

    Args:
        ranks: stage one of each rank, ascending.
    """
    heads: defaultdict[_Key, dict[int, _Head]] = defaultdict(dict)
    for position, found in enumerate(each(_heads, ranks)):
        members = ranks[position].who.members
        for head in found:
            key = (head.name, head.ends, True) if head.ends else (head.name, _ascending(members, head.name), False)
            heads[key][position] = head
    communicators = [_communicator(key, heads[key], ranks) for key in sorted(heads)]
    # Several groups that share a name, and do not name their members, cannot be told apart.
    return [found for found in communicators if len(found.present) <= found.size]


def _ascending(members: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    return shared(tuple(sorted(members.get(name, ()))))


def _communicator(key: _Key, heads: dict[int, _Head], ranks: Sequence[RankFacts]) -> Communicator:
    name, members, direct = key
    present = tuple(sorted(heads))
    if direct:  # the sender first
        present = tuple(sorted(heads, key=lambda position: members.index(ranks[position].rank)))
    known = members or shared(tuple(ranks[position].rank for position in present))
    size = len(members) or heads[present[0]].size or len(known)
    machines = [ranks[position].who.machine for position in present]
    return Communicator(name, heads[min(heads)].desc, known, size, direct, present, _scope(machines))


def _scope(machines: Sequence[str]) -> str | None:
    if "" in machines:
        return None
    return INTRA if len(set(machines)) == 1 else INTER


def rows_of(facts: RankFacts, communicator: Communicator) -> Ints:
    """One rank's rows of a communicator, by issue."""
    columns, group = facts.columns, facts.columns.words["group"]
    own = group.equals(communicator.name) if communicator.name in group.words else group.codes == MISSING
    direct = _is_point_to_point(columns)
    if not communicator.point_to_point:
        return small(np.flatnonzero(own & ~direct))
    sender, receiver = communicator.members
    peer, sends = columns.collectives["peer"], columns.words["op"].equals("send")
    sent = sends & (peer == receiver) if facts.rank == sender else np.zeros(own.size, bool)
    received = ~sends & (peer == sender) if facts.rank == receiver else np.zeros(own.size, bool)
    return small(np.flatnonzero(own & direct & (sent | received)))


def _heads(facts: RankFacts) -> list[_Head]:
    """The communicators that one rank has rows in."""
    columns, found = facts.columns, []
    group, direct = columns.words["group"], _is_point_to_point(columns)
    for code, rows in split_by(group.codes):
        name = group.words[code] if code != MISSING else ""
        shared_rows = rows[~direct[rows]]
        if shared_rows.size:
            found.append(_head(facts, name, (), shared_rows))
        found += [_head(facts, name, ends, own) for ends, own in _directions(facts, rows[direct[rows]])]
    return found


def _head(facts: RankFacts, name: str, ends: tuple[int, ...], rows: Ints) -> _Head:
    """Size as the rows say, else that of the job; 0 where not known."""
    said = int(facts.columns.collectives["group_size"][rows[0]])
    return _Head(name, ends, _desc(facts.columns, rows), said if said != MISSING else facts.who.world_size or 0)


def _directions(facts: RankFacts, rows: Ints) -> list[tuple[tuple[int, int], Ints]]:
    """Sends and receives by (sender, receiver)."""
    peers, sends = facts.columns.collectives["peer"][rows], facts.columns.words["op"].equals("send")[rows]
    found = []
    for code, own in split_by(peers * 2 + sends):
        peer, is_send = divmod(code, 2)
        if peer >= 0:
            found.append(((facts.rank, peer) if is_send else (peer, facts.rank), rows[own]))
    return found


def _is_point_to_point(columns: Columns) -> NDArray[np.bool_]:
    op = columns.words["op"]
    return np.isin(op.codes, [code for code, word in enumerate(op.words) if word in POINT_TO_POINT])


def split_by(codes: Ints) -> list[tuple[int, Ints]]:
    """Positions of each distinct value, each list ascending."""
    if not codes.size:
        return []
    few = codes.min() >= -(1 << 15) and codes.max() < 1 << 15
    order = np.argsort(codes.astype(np.int16) if few else codes, kind="stable")  # numpy sorts 16 bits by radix
    starts = np.flatnonzero(np.diff(codes[order], prepend=codes[order[0]] - 1))
    return [(int(codes[part[0]]), part) for part in np.split(order, starts[1:])]


def _desc(columns: Columns, rows: Ints) -> str:
    column = columns.words["group_desc"]
    code = int(column.codes[rows[0]])
    return column.words[code] if code != MISSING else ""
