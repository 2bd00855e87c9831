"""Who holds up a job that stands: the chain from those that wait to what they wait for in the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from commlens.analyzers.across.stands import Stand

# A rank that waits for nobody; a member that was not recorded; a collective that everyone issued; a circle.
ABSENT, UNRECORDED, TRANSFER, CIRCLE = "absent", "unrecorded", "transfer", "circle"


@dataclass(frozen=True)
class Root:
    """What holds up the ranks that wait.

    Attributes:
        kind: ABSENT, UNRECORDED, TRANSFER or CIRCLE.
        ranks: who it is: the absent rank, the members not recorded, those in the circle; none for TRANSFER.
        chain: stands from one that lasts too long to the one that the root holds up; of a CIRCLE the circle.
        waiting: every rank that waits for it, directly or through others.
    """

    kind: str
    ranks: tuple[int, ...]
    chain: tuple[Stand, ...]
    waiting: tuple[int, ...]

    @property
    def stand(self) -> Stand:
        """The collective that the root itself holds up."""
        return self.chain[-1]


_Key = tuple[str, tuple[int, ...], int]  # kind, ranks, position of the stand where only that tells roots apart
_Chain = tuple[int, ...]  # positions of stands


def find_roots(stands: Sequence[Stand], explained: Callable[[Stand], bool]) -> list[Root]:
    """What holds up the stands that last too long, each thing once.

    Args:
        stands: every collective under way.
        explained: whether another finding says why this one does not end; who waits for it has no other root.
    """
    of_rank: defaultdict[int, list[int]] = defaultdict(list)
    for position, stand in enumerate(stands):
        for rank in stand.ranks:
            of_rank[rank].append(position)
    chains: dict[_Key, _Chain] = {}
    waiting: defaultdict[_Key, set[int]] = defaultdict(set)
    longest_first = sorted(range(len(stands)), key=lambda position: -stands[position].waits[0].stood_s)
    for first in longest_first:
        if stands[first].too_long:
            for key, chain in _roots_of(stands, of_rank, first, explained):
                chains.setdefault(key, chain)
                waiting[key] |= {rank for position in (first, *chain) for rank in stands[position].ranks}
    return [
        Root(key[0], key[1], tuple(stands[position] for position in chain), tuple(sorted(waiting[key])))
        for key, chain in chains.items()
    ]


def _roots_of(
    stands: Sequence[Stand],
    of_rank: Mapping[int, Sequence[int]],
    first: int,
    explained: Callable[[Stand], bool],
) -> list[tuple[_Key, _Chain]]:
    chains = _reachable(stands, of_rank, first)
    ends = [(key, chains[position]) for position in chains for key in _ends(stands, of_rank, position)]
    if ends:
        return [(key, chain) for key, chain in ends if not explained(stands[chain[-1]])]
    circle = _circle(stands, of_rank, first)
    if any(explained(stands[position]) for position in circle):
        return []
    return [((CIRCLE, tuple(sorted({rank for p in circle for rank in stands[p].ranks})), 0), circle)]


def _reachable(stands: Sequence[Stand], of_rank: Mapping[int, Sequence[int]], first: int) -> dict[int, _Chain]:
    """Each stand that `first` waits for, and the shortest chain to it."""
    paths: dict[int, _Chain] = {first: (first,)}
    queue = [first]
    for position in queue:  # grows while it is walked
        for rank in stands[position].absent:
            for following in of_rank.get(rank, ()):
                if following not in paths:
                    paths[following] = (*paths[position], following)
                    queue.append(following)
    return paths


def _ends(stands: Sequence[Stand], of_rank: Mapping[int, Sequence[int]], position: int) -> list[_Key]:
    """What holds up this stand and waits for nothing itself."""
    stand = stands[position]
    if stand.absent:
        return [(ABSENT, (rank,), 0) for rank in stand.absent if rank not in of_rank]
    if stand.unrecorded:
        return [(UNRECORDED, stand.unrecorded, 0)]
    return [(TRANSFER, (), position)]


def _circle(stands: Sequence[Stand], of_rank: Mapping[int, Sequence[int]], first: int) -> _Chain:
    """The stands that one comes back to when everyone waits for someone who waits."""
    path = [first]
    while True:
        following = of_rank[stands[path[-1]].absent[0]][0]
        if following in path:
            return tuple(path[path.index(following) :])
        path.append(following)
