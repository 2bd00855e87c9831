"""Which rows of which ranks belong to the same process group, or to the same direction between two ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns, small
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
        rows: rows of each of those, by issue.
        scope: INTRA where all recorded members share a host, INTER where not, None where hosts are not known.
    """

    name: str
    desc: str
    members: tuple[int, ...]
    size: int
    point_to_point: bool
    present: tuple[int, ...]
    rows: tuple[Ints, ...]
    scope: str | None

    @property
    def complete(self) -> bool:
        """Every member was recorded."""
        return len(self.present) == self.size


_Key = tuple[str, tuple[int, ...], bool]  # name, members, point to point


def find_communicators(ranks: Sequence[RankFacts]) -> list[Communicator]:
    """The communicators of a run, those that could not be told (a peer is not known) left out.

    Args:
        ranks: stage one of each rank, ascending.
    """
    parts: defaultdict[_Key, dict[int, Ints]] = defaultdict(dict)
    descs: dict[_Key, str] = {}
    for position, facts in enumerate(ranks):
        for key, rows in _parts(facts).items():
            parts[key][position] = rows
            descs.setdefault(key, _desc(facts.columns, rows))
    found = [_communicator(key, descs[key], parts[key], ranks) for key in sorted(parts)]
    # Several groups that share a name, and do not name their members, cannot be told apart.
    return [each for each in found if len(each.present) <= each.size]


def _communicator(key: _Key, desc: str, parts: dict[int, Ints], ranks: Sequence[RankFacts]) -> Communicator:
    name, members, direct = key
    present = tuple(sorted(parts))
    if direct:  # the sender first
        present = tuple(sorted(parts, key=lambda position: members.index(ranks[position].rank)))
    known = members or tuple(ranks[position].rank for position in present)
    rows = tuple(parts[position] for position in present)
    size = len(members) or _said_size(ranks[present[0]], rows[0]) or len(known)
    machines = [ranks[position].who.machine for position in present]
    return Communicator(name, desc, known, size, direct, present, rows, _scope(machines))


def _said_size(facts: RankFacts, rows: Ints) -> int:
    """Size of a group whose members are not known: as its rows say, else that of the job; 0 where not known."""
    said = int(facts.columns.collectives["group_size"][rows[0]])
    return said if said != MISSING else facts.who.world_size or 0


def _scope(machines: Sequence[str]) -> str | None:
    if "" in machines:
        return None
    return INTRA if len(set(machines)) == 1 else INTER


def _parts(facts: RankFacts) -> dict[_Key, Ints]:
    """Rows of one rank by communicator."""
    columns, found = facts.columns, {}
    group, direct = columns.words["group"], _is_point_to_point(columns)
    for code, rows in split_by(group.codes):
        name = group.words[code] if code != MISSING else ""
        members = tuple(sorted(facts.who.members.get(name, ())))
        shared = rows[~direct[rows]]
        if shared.size:
            found[name, members, False] = small(shared)
        found |= {(name, ends, True): small(each) for ends, each in _directions(facts, rows[direct[rows]])}
    return found


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
