"""The run step by step, means over the ranks: what a chart of it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts

MOST: Final = 500  # lines; longer runs are told in stretches of equally many steps
_PARTS = ("step", "compute", "exposed_transfer", "exposed_wait", "exposed_unsplit", "other", "hidden")


@dataclass(frozen=True)
class StepLine:
    """One step, or several in a row, ms per step: means over the ranks that have a budget, and over the steps.

    compute + exposed transfer, wait and unsplit + other = step. The three parts of the exposed time are None where
    ranks are not joined; `exposed_ms` is all of them.

    Attributes:
        step: its number in the job, 0 the first; the first of several.
        steps: how many.
        slowest: the rank whose own time (compute and other) was the longest; None with one rank.
    """

    step: int
    steps: int
    step_ms: float
    compute_ms: float
    exposed_ms: float
    exposed_transfer_ms: float | None
    exposed_wait_ms: float | None
    exposed_unsplit_ms: float | None
    other_ms: float
    hidden_ms: float
    slowest: int | None


def step_lines(ranks: Sequence[RankFacts], joined: Joined) -> tuple[StepLine, ...]:
    """Lines of all analysed steps, ascending; none where no rank has a budget."""
    known = [facts for facts in ranks if facts.budgeted]
    if not known:
        return ()
    index = np.unique(np.concatenate([facts.steps.index for facts in known]))
    # Sums over the ranks of each part, shape (parts, steps); ranks may lack steps.
    sums, count = np.zeros((len(_PARTS), index.size)), np.zeros(index.size)
    longest, slowest = np.full(index.size, -np.inf), np.full(index.size, -1)
    for facts, parts in zip(ranks, each(_parts, ranks, joined.exposed), strict=True):
        if parts is None:
            continue
        place = np.searchsorted(index, facts.steps.index)
        sums[:, place] += parts
        count[place] += 1
        own = np.full(index.size, -np.inf)
        own[place] = parts[_PARTS.index("compute")] + parts[_PARTS.index("other")]
        slowest[own > longest] = facts.rank
        longest = np.maximum(longest, own)
    split = joined.clocks.refusal is None and len(ranks) > 1
    return _lines(index, sums / count / 1e6, slowest if len(known) > 1 else None, split)


def _parts(facts: RankFacts, exposed: Exposed) -> Ints | None:
    """Each part of each step of a rank, ns, shape (parts, steps)."""
    budget = facts.budget
    if budget is None:
        return None
    parts = (budget.step, budget.compute, exposed.transfer, exposed.wait, exposed.unsplit)
    return np.stack([*parts, budget.other, budget.hidden])


def _lines(index: Ints, means: Floats, slowest: Ints | None, split: bool) -> tuple[StepLine, ...]:
    width = -(-index.size // MOST)
    found = []
    for begin in range(0, index.size, width):
        part = slice(begin, min(begin + width, index.size))
        ms = {name: round(float(value), 6) for name, value in zip(_PARTS, means[:, part].mean(axis=1), strict=True)}
        found.append(
            StepLine(
                step=int(index[begin]),
                steps=part.stop - begin,
                step_ms=ms["step"],
                compute_ms=ms["compute"],
                exposed_ms=round(ms["exposed_transfer"] + ms["exposed_wait"] + ms["exposed_unsplit"], 6),
                exposed_transfer_ms=ms["exposed_transfer"] if split else None,
                exposed_wait_ms=ms["exposed_wait"] if split else None,
                exposed_unsplit_ms=ms["exposed_unsplit"] if split else None,
                other_ms=ms["other"],
                hidden_ms=ms["hidden"],
                slowest=None if slowest is None else int(np.bincount(slowest[part]).argmax()),
            )
        )
    return tuple(found)
