"""Stage two of aggregates: the sums of all ranks side by side.

All members leave a collective that needs everyone together. So over a stretch of steps in which each saw the same
collectives, the differences of their mean durations are those of their mean arrivals: the member with the shortest mean
is the one that came last, on the whole. What it took is at least the transfer, and what another took beyond it at most
what that one waited: who comes last differs from one collective to the next, which sums do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.matching import EVERYONE
from commlens.analyzers.aggregated.rank_sums import NUMBERS, Kind, RankSums
from commlens.analyzers.grouped import Floats
from commlens.analyzers.identity import Identity
from commlens.analyzers.intervals import Ints
from commlens.trace.aggregates import WARM_UP
from commlens.trace.schema import MISSING, POINT_TO_POINT

_AT: Final = {name: place for place, name in enumerate(NUMBERS)}


class Key(NamedTuple):
    """Collectives that are compared with one another: of the same members, operation, data type and sizes.

    `members` are global ranks, () where they are not told; sender and receiver of messages.
    """

    group: str
    members: tuple[int, ...]
    op: str
    dtype: str
    in_bytes: int
    out_bytes: int


@dataclass(frozen=True)
class JoinedSums:
    """The rows of all ranks: what each tells of one line of `keys` in one stretch.

    Attributes:
        ranks: positions (among the ranks analysed) of those that have aggregates, ascending.
        keys: the lines.
        line: of each row, shape (rows,); rows are ascending by line, then stretch.
        position: of each row's rank, likewise.
        from_step: of each row's stretch, likewise; `to_step` too.
        numbers: `rank_sums.NUMBERS` of each row, shape (rows, 15).
        compared: rows of stretches that all recorded members of a line have alike, of collectives that need everyone,
            shape (rows,).
        mean_ns: mean duration of each row, of the execution where that is known of all, NaN where no end is.
        least_ns: the shortest mean of any member in each row's stretch, NaN where it is not compared.
        last: the row is that of the member with it.
        of_kinds: the line of each kind of each of `ranks`, shape (kinds,) each.
    """

    ranks: tuple[int, ...]
    keys: tuple[Key, ...]
    line: Ints
    position: Ints
    from_step: Ints
    to_step: Ints
    numbers: Ints
    compared: NDArray[np.bool_]
    mean_ns: Floats
    least_ns: Floats
    last: NDArray[np.bool_]
    of_kinds: tuple[Ints, ...]

    def column(self, name: str) -> Ints:
        """One of `rank_sums.NUMBERS`, shape (rows,)."""
        return np.asarray(self.numbers[:, _AT[name]])

    @property
    def wait_ns(self) -> Floats:
        """What each row's rank waited at least, the sum over its collectives; 0 where it is not compared."""
        wait = np.where(self.compared, self.mean_ns - self.least_ns, 0.0) * self.column("count")
        return np.asarray(wait)

    @property
    def standstill_ns(self) -> Floats:
        """What each row's rank stood still at least for late ranks, the sum over its collectives.

        No more than it waited, nor than its thread stood still beyond the member whose thread did so least: of waiting
        that is hidden behind work nothing counts. Where some standstill was not seen, as in DDP's reducer, all waiting.
        """
        if not self.line.size:
            return self.wait_ns
        starts, group = _stretches(self.line, self.from_step)
        seen = np.logical_and.reduceat(self.column("waits") == self.column("count"), starts)[group]
        blocked = self.column("blocked_ns").astype(np.float64)
        beyond = blocked - np.minimum.reduceat(blocked, starts)[group]
        return np.where(seen, np.minimum(self.wait_ns, beyond), self.wait_ns)

    @property
    def message_wait_ns(self) -> Floats:
        """How long each row's rank stood still for messages to come; 0 of all but recv.

        Without the transfers, which are as long as the shortest of any such message of the size.
        """
        sizes = np.array([key.out_bytes if key.op == "recv" else MISSING for key in self.keys], np.int64)[self.line]
        rows = np.flatnonzero(sizes != MISSING)
        found = np.zeros(self.line.size)
        if rows.size:
            _, size = np.unique(sizes[rows], return_inverse=True)
            shortest = np.full(size.max() + 1, np.iinfo(np.int64).max)
            np.minimum.at(shortest, size, np.maximum(self.column("shortest_ns")[rows], 0))
            moved = self.column("waits")[rows] * shortest[size].astype(np.float64)
            found[rows] = np.maximum(self.column("blocked_ns")[rows] - moved, 0)
        return found


def join_sums(who: Sequence[Identity], sums: Sequence[RankSums | None]) -> JoinedSums:
    """Sets the aggregates of ranks side by side.

    Args:
        who: the ranks, ascending.
        sums: what each one's aggregates tell.
    """
    held = [(position, each) for position, each in enumerate(sums) if each is not None]
    numbered: dict[tuple[object, ...], int] = {}
    keys: list[Key] = []
    of_kinds: list[Ints] = []
    lines, positions, stretches, numbers = [], [], [], [np.zeros((0, len(NUMBERS)), np.int64)]
    for position, each in held:
        places = np.array([_number(who[position], kind, numbered, keys) for kind in each.kinds], np.int64)
        of_kinds.append(places)
        lines.append(places[each.kind])
        positions.append(np.full(each.kind.size, position))
        stretches.append(np.stack([each.from_steps, each.to_steps], axis=1))
        numbers.append(each.numbers)
    line, position_of, numbers_of = _joined(lines), _joined(positions), np.concatenate(numbers)
    bounds = np.concatenate([np.zeros((0, 2), np.int64), *stretches])
    order = np.lexsort((position_of, bounds[:, 0], line))
    line, position_of, bounds, numbers_of = line[order], position_of[order], bounds[order], numbers_of[order]
    compared, mean, least, last = _compare(keys, line, position_of, bounds[:, 0], numbers_of)
    return JoinedSums(
        ranks=tuple(position for position, _ in held),
        keys=tuple(keys),
        line=line,
        position=position_of,
        from_step=bounds[:, 0],
        to_step=bounds[:, 1],
        numbers=numbers_of,
        compared=compared,
        mean_ns=mean,
        least_ns=least,
        last=last,
        of_kinds=tuple(of_kinds),
    )


def _joined(parts: Sequence[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _number(who: Identity, kind: Kind, seen: dict[tuple[object, ...], int], keys: list[Key]) -> int:
    """Place of a rank's kind among the lines; tuples of members are shared, so that their identity tells them apart."""
    group, op, dtype, in_bytes, out_bytes, peer = kind
    members = who.members.get(group, ())
    which: object = id(members)
    if op in POINT_TO_POINT:
        members = (who.rank, peer) if op == "send" else (peer, who.rank)
        which = members
    key = (group, which, op, dtype, in_bytes, out_bytes)
    if key not in seen:
        seen[key] = len(keys)
        keys.append(Key(group, members, op, dtype, in_bytes, out_bytes))
    return seen[key]


def _compare(
    keys: Sequence[Key], line: Ints, position: Ints, from_step: Ints, numbers: Ints
) -> tuple[NDArray[np.bool_], Floats, Floats, NDArray[np.bool_]]:
    """Which rows are compared, the mean of each, the least of its stretch, and whether it is that."""
    columns = {name: numbers[:, place] for name, place in _AT.items()}
    starts, group = _stretches(line, from_step)
    executed = _everywhere(line, columns["started"] == columns["ended"], len(keys))[line]
    sums = np.where(executed, columns["executed_ns"], columns["duration_ns"])
    counts = np.where(executed, columns["started"], columns["ended"])
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    if not starts.size:
        return np.zeros(0, bool), mean, mean, np.zeros(0, bool)
    members = _members(line, position, len(keys))
    needed = np.array([key.op in EVERYONE for key in keys], bool)
    alike = np.bincount(group) == members[line[starts]]
    alike &= needed[line[starts]] & (members[line[starts]] > 1) & (from_step[starts] >= WARM_UP)
    for name in ("count", "first_seq", "last_seq"):
        alike &= np.minimum.reduceat(columns[name], starts) == np.maximum.reduceat(columns[name], starts)
    whole = (columns["ended"] == columns["count"]) & (columns["bounds"] == 0) & (columns["count"] > 0)
    alike &= np.logical_and.reduceat(whole, starts)
    compared = alike[group]
    least = np.where(compared, np.minimum.reduceat(np.where(compared, mean, np.inf), starts)[group], np.nan)
    return compared, mean, least, compared & (mean == least)


def _stretches(line: Ints, from_step: Ints) -> tuple[Ints, Ints]:
    """First row of each stretch of each line, and for each row the number of its own."""
    new = np.ones(line.size, bool)
    new[1:] = (np.diff(line) != 0) | (np.diff(from_step) != 0)
    return np.flatnonzero(new), np.cumsum(new) - 1


def _everywhere(line: Ints, holds: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Whether it holds in all rows of each line."""
    return np.asarray(np.bincount(line, weights=~holds, minlength=count) == 0)


def _members(line: Ints, position: Ints, count: int) -> Ints:
    """Ranks that have rows of each line."""
    pairs = np.unique(line * (int(position.max(initial=0)) + 1) + position)
    return np.bincount(pairs // (int(position.max(initial=0)) + 1), minlength=count)
