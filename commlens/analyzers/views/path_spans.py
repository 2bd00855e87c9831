"""The critical path as spans, each with what was done in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.critical_path import OTHER, TRANSFER, UNMATCHED, UNSPLIT, Path
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.intervals import Intervals, Ints, intersect, merge, subtract
from commlens.analyzers.own_work import IDLE, own_work
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class PathSpans:
    """What the path did, ascending, no two at once, shape (spans,) each, int64.

    Attributes:
        start_ns: on the common clock.
        end_ns: likewise.
        position: the rank it was on.
        row: the collective whose transfer it was, MISSING where the rank worked.
        code: place in `kinds`.
        kinds: (kind, name) as in `Path.parts`; the name of communication is "".
    """

    start_ns: Ints
    end_ns: Ints
    position: Ints
    row: Ints
    code: Ints
    kinds: list[tuple[str, str]]


def path_spans(ranks: Sequence[RankFacts], joined: Joined, path: Path) -> PathSpans:
    """The stretches of a path by what was done in them; together they are as long as its parts."""
    kinds: dict[tuple[str, str], int] = {}
    pieces = [np.zeros((0, 5), np.int64)]
    for position, facts in enumerate(ranks):
        own = path.stretches[path.stretches[:, 2] == position]
        worked = own[:, 3] == MISSING
        pieces.append(_carried(joined, position, own[~worked], kinds))
        pieces += _worked(facts, joined, position, own[worked], kinds)
    found = np.concatenate(pieces)
    found = found[np.argsort(found[:, 0], kind="stable")]
    columns = [np.ascontiguousarray(found[:, column]) for column in range(5)]
    return PathSpans(columns[0], columns[1], columns[2], columns[3], columns[4], list(kinds))


def _carried(joined: Joined, position: int, own: Ints, kinds: dict[tuple[str, str], int]) -> Ints:
    """Transfers on a rank, shape (stretches, 5)."""
    waits, rows = joined.waits[position], own[:, 3]
    codes = [kinds.setdefault((kind, ""), len(kinds)) for kind in (TRANSFER, UNSPLIT, UNMATCHED)]
    code = np.where(waits.whole[rows] == 1, codes[0], codes[1])
    code = np.where(waits.need_ns[rows] == MISSING, codes[2], code)
    return np.column_stack([own, code])


def _worked(
    facts: RankFacts, joined: Joined, position: int, own: Ints, kinds: dict[tuple[str, str], int]
) -> list[Ints]:
    """A rank's own work by kind, the rest OTHER; where kinds overlap the first counts, as in the path's parts."""
    left, found = merge(own[:, 0], own[:, 1]), []
    for name, times in own_work(facts).items():
        part = intersect(left, merge(*(joined.clocks.aligned(position, each) for each in times)))
        left = subtract(left, part)
        found.append(_spans(part, position, kinds.setdefault((name if name in IDLE else "compute", name), len(kinds))))
    found.append(_spans(left, position, kinds.setdefault((OTHER, ""), len(kinds))))
    return found


def _spans(times: Intervals, position: int, code: int) -> Ints:
    count = times.starts.size
    return np.column_stack([*times, *(np.full(count, each) for each in (position, MISSING, code))])
