"""How much longer compute kernels run beside communication than alone: what overlap costs compute."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commlens.analyzers.columns import Columns
from commlens.analyzers.grouped import by_key, group_keys, percentiles, sums
from commlens.analyzers.intervals import length_within
from commlens.analyzers.lanes import Lanes
from commlens.analyzers.steps import Steps
from commlens.trace.schema import COMPUTE, MISSING

if TYPE_CHECKING:
    from commlens.analyzers.ranks import RankFacts

_BESIDE, _ALONE = 0.9, 0.01  # share of a kernel's time with communication under way
_FEWEST = 3  # of each, to compare medians
_LEAST = 0.02  # longer: less is the timers' noise


@dataclass(frozen=True)
class Slowed:
    """A compute kernel (same name, same grid) on one rank; counts, medians in ns, loss in ns over all steps."""

    name: str
    blocks: int
    alone: int
    beside: int
    alone_ns: float
    beside_ns: float
    lost_ns: float


@dataclass(frozen=True)
class Contention:
    """A compute kernel that runs longer beside communication.

    Attributes:
        name: of the kernel.
        blocks: size of its grid, None where not known.
        ranks: on how many ranks it was seen both ways.
        alone, beside: how often it ran without and with communication under way, all ranks.
        alone_ms, beside_ms: median over ranks of the median duration.
        slowdown: beside_ms / alone_ms.
        lost_ms_per_step: what it ran longer, mean over ranks; over the whole trace where there are no steps.
    """

    name: str
    blocks: int | None
    ranks: int
    alone: int
    beside: int
    alone_ms: float
    beside_ms: float
    slowdown: float
    lost_ms_per_step: float


def find_slowed(columns: Columns, lanes: Lanes | None, steps: Steps) -> tuple[Slowed, ...]:
    """Kernels of a rank that ran both ways, and clearly longer beside communication.

    Clearly: the quicker quarter of those beside took longer than the slower quarter of those alone. Kernels of
    one name and grid may still differ in what they compute.
    """
    rows = columns.kernels
    chosen = np.flatnonzero(columns.kernel_words["kind"].equals(COMPUTE) & (rows["end_ns"] > rows["start_ns"]))
    if lanes is None or not lanes.communication.starts.size or not chosen.size:
        return ()
    starts, ends = rows["start_ns"][chosen], rows["end_ns"][chosen]
    durations = ends - starts
    share = length_within(lanes.communication, starts, ends) / durations
    beside, alone = share >= _BESIDE, share <= _ALONE
    if not beside.any() or not alone.any():
        return ()
    names = columns.kernel_words["name"]
    keys, first = group_keys([names.codes[chosen], rows["blocks"][chosen]])
    order = by_key(keys, first.size)
    usual, slow = percentiles(np.where(alone, durations, MISSING), order, 0.5, 0.75)
    longer, quick = percentiles(np.where(beside, durations, MISSING), order, 0.5, 0.25)
    counts = [sums(each, keys, first.size).astype(int) for each in (alone, beside)]
    clear = (np.minimum(*counts) >= _FEWEST) & (quick > slow) & (longer > (1 + _LEAST) * usual)
    counted = beside & (length_within(steps.window, starts, starts + 1) > 0) if steps.index.size else beside
    lost = sums(np.where(counted, durations - np.nan_to_num(usual)[keys], 0), keys, first.size)
    return tuple(
        Slowed(
            name=names.words[names.codes[chosen[first[key]]]],
            blocks=int(rows["blocks"][chosen[first[key]]]),
            alone=int(counts[0][key]),
            beside=int(counts[1][key]),
            alone_ns=float(usual[key]),
            beside_ns=float(longer[key]),
            lost_ns=float(lost[key]),
        )
        for key in np.flatnonzero(clear)
    )


def find_contention(ranks: Sequence[RankFacts]) -> tuple[Contention, ...]:
    """The kernels of all ranks together, the most time lost first."""
    found: defaultdict[tuple[str, int], list[tuple[Slowed, int]]] = defaultdict(list)
    for facts in ranks:
        for each in facts.slowed:
            found[each.name, each.blocks].append((each, max(facts.steps.index.size, 1)))
    lines = [_line(own, len(ranks)) for own in found.values()]
    lines = [line for line in lines if line.lost_ms_per_step > 0]
    return tuple(sorted(lines, key=lambda line: (-line.lost_ms_per_step, line.name)))


def _line(own: Sequence[tuple[Slowed, int]], ranks: int) -> Contention:
    first = own[0][0]
    alone = float(np.median([each.alone_ns for each, _ in own])) / 1e6
    beside = float(np.median([each.beside_ns for each, _ in own])) / 1e6
    return Contention(
        name=first.name,
        blocks=None if first.blocks == MISSING else first.blocks,
        ranks=len(own),
        alone=sum(each.alone for each, _ in own),
        beside=sum(each.beside for each, _ in own),
        alone_ms=round(alone, 6),
        beside_ms=round(beside, 6),
        slowdown=round(beside / alone, 4),
        lost_ms_per_step=round(sum(each.lost_ns / steps for each, steps in own) / ranks / 1e6, 6),
    )
