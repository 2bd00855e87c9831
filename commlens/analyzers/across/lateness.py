"""Who is waited for: each rank's waiting in collectives that need every rank, step by step.

The rank that waits least is the one the others wait for: all leave such a collective together, so
whoever came last waited for nobody. Where the hosts' clocks are too unsure for that, waiting is what a
rank's part took longer than the shortest one, which no clock can change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.clocks import Clocks
from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.matching import EVERYONE, Matched
from commlens.analyzers.across.waits import Waits
from commlens.analyzers.grouped import Floats, sums
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints, common
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_NEGLIGIBLE = 0.005  # of a step
STEP, COLLECTIVE = "step", "collective"
FEWEST_STEPS = 5  # fewer cannot tell a habit from chance


@dataclass(frozen=True)
class Lateness:
    """Waiting of every rank in every sample.

    Attributes:
        unit: what a sample is: a STEP, or a COLLECTIVE where steps are not known.
        index: number of the step in the job, or of the collective, shape (samples,).
        wait_ns: waiting, shape (ranks, samples).
        exposed: the waiting is standstill of the rank; all waiting where False.
        clock_free: it is from durations alone.
        sample_ns: median length of a step; of the trace over the samples where they are no steps.
        per_step: samples in a step, None where steps are not known.
    """

    unit: str
    index: Ints
    wait_ns: Floats
    exposed: bool
    clock_free: bool
    sample_ns: float
    per_step: float | None

    @property
    def excess_ns(self) -> Floats:
        """Waiting beyond that of the rank that waits least, mean over ranks, shape (samples,)."""
        return np.asarray(self.wait_ns.mean(axis=0) - self.wait_ns.min(axis=0))


def find_lateness(
    ranks: Sequence[RankFacts],
    waits: Sequence[Waits],
    exposed: Sequence[Exposed],
    matched: Sequence[Matched],
    clocks: Clocks,
) -> Lateness | None:
    """Waiting by step, else by collective; None where fewer than two ranks or no collective can tell."""
    if len(ranks) < 2:
        return None
    by_step = _by_step(ranks, waits, exposed, clocks)
    # A profiler's window is short, and cannot be made longer afterwards: then collectives must do.
    short = by_step is None or (by_step.index.size < FEWEST_STEPS and all(facts.who.imported for facts in ranks))
    by_collective = _by_collective(ranks, waits, exposed, matched, clocks) if short else None
    return by_collective or by_step


def _by_step(
    ranks: Sequence[RankFacts], waits: Sequence[Waits], exposed: Sequence[Exposed], clocks: Clocks
) -> Lateness | None:
    index = common(*(facts.steps.index for facts in ranks))
    if not index.size or not _any_known(ranks, waits):
        return None
    still = all(facts.budgeted for facts in ranks)
    free = _too_unsure(ranks, clocks)
    table = each(partial(_by_its_steps, index=index, still=still, free=free), ranks, waits, exposed)
    lengths = [_length_ns(facts)[np.searchsorted(facts.steps.index, index)] for facts in ranks]
    return Lateness(STEP, index, np.array(table), still, free, float(np.median(lengths)), 1.0)


def _by_its_steps(facts: RankFacts, own: Waits, split: Exposed, index: Ints, still: bool, free: bool) -> Floats:
    """Waiting of one rank in the steps `index`."""
    per_row = np.where(_needs_others(facts), _waiting(facts, own, split, still, free), 0)
    return _per_step(facts, per_row)[np.searchsorted(facts.steps.index, index)]


def _length_ns(facts: RankFacts) -> Ints:
    return facts.steps.end_ns - facts.steps.start_ns


def _any_known(ranks: Sequence[RankFacts], waits: Sequence[Waits]) -> bool:
    """Whether any collective of an analysed step needs every rank of its group and could be timed."""
    return any(each(_some_known, ranks, waits))


def _some_known(facts: RankFacts, own: Waits) -> bool:
    timed = (own.wait_ns != MISSING) | (own.shortest_ns != MISSING)
    return bool(np.any(timed & _needs_everyone(facts) & (facts.analysed > 0)))


def _everyones(facts: RankFacts) -> int:
    """Collectives of analysed steps that need everyone."""
    return int((facts.analysed * _needs_everyone(facts)).sum())


def _too_unsure(ranks: Sequence[RankFacts], clocks: Clocks) -> bool:
    """Whether an error of the clocks, made anew in every collective of a step, could make up a finding."""
    if clocks.refusal:
        return True
    steps = sum(facts.steps.index.size for facts in ranks)
    length = np.median(np.concatenate([_length_ns(facts) for facts in ranks]))
    per_step = sum(each(_everyones, ranks)) / steps
    return bool(clocks.uncertainty_ns * per_step > _NEGLIGIBLE * length)


def _waiting(facts: RankFacts, own: Waits, split: Exposed, still: bool, free: bool) -> Ints:
    """Waiting of each row in an analysed step, ns: of the standstill if that is known, of the whole if not."""
    if not free:
        return split.row_wait if still else np.maximum(own.wait_ns, 0) * facts.analysed
    rows = facts.columns.collectives
    known = own.shortest_ns != MISSING
    duration = np.where(known, rows["completed_ns"] - rows["started_ns"], 0)
    stalled = np.minimum(duration, facts.exposed_ns) if still else duration * facts.analysed
    return np.where(known, np.maximum(stalled - own.shortest_ns, 0), 0)


def _per_step(facts: RankFacts, values: Ints) -> Floats:
    """Sum of a row's values in the step it was issued in, shape (steps,)."""
    step = np.searchsorted(facts.steps.start_ns, facts.columns.collectives["issued_ns"], side="right") - 1
    return sums(values, np.maximum(step, 0), facts.steps.index.size)


def _needs_everyone(facts: RankFacts) -> NDArray[np.bool_]:
    return _is_op(facts, EVERYONE)


def _needs_others(facts: RankFacts) -> NDArray[np.bool_]:
    """Also messages to come: a stage of a pipeline stands still in them when another stage is late."""
    return _is_op(facts, (*EVERYONE, "recv"))


def _is_op(facts: RankFacts, words: Sequence[str]) -> NDArray[np.bool_]:
    op = facts.columns.words["op"]
    return np.isin(op.codes, [code for code, word in enumerate(op.words) if word in words])


def _by_collective(
    ranks: Sequence[RankFacts],
    waits: Sequence[Waits],
    exposed: Sequence[Exposed],
    matched: Sequence[Matched],
    clocks: Clocks,
) -> Lateness | None:
    """Waiting in each collective that all ranks take part in; where steps are known, in theirs only."""
    steps = min(facts.steps.index.size for facts in ranks)
    free = clocks.refusal is not None
    still = all(facts.budgeted for facts in ranks) and not free
    values = [
        _beyond_shortest(facts, own) if free else split.row_wait if still else own.wait_ns
        for facts, own, split in zip(ranks, waits, exposed, strict=True)
    ]
    tables, times = [], []
    for one in matched:
        if one.communicator.present != tuple(range(len(ranks))):
            continue
        chosen = one.rows[:, one.is_op(*EVERYONE) & one.whole]
        told = [own.shortest_ns if free else own.wait_ns for own in waits]
        known = np.all([own[rows] != MISSING for own, rows in zip(told, chosen, strict=True)], axis=0)
        if steps:
            known &= np.any([facts.analysed[rows] > 0 for facts, rows in zip(ranks, chosen, strict=True)], axis=0)
        tables.append(np.array([own[rows] for own, rows in zip(values, chosen, strict=True)])[:, known])
        times.append(ranks[0].columns.collectives["issued_ns"][chosen[0, known]])
    if not tables or not sum(table.shape[1] for table in tables):
        return None
    when = np.concatenate(times)
    table = np.concatenate(tables, axis=1)[:, np.argsort(when, kind="stable")].astype(np.float64)
    span = float(np.ptp(when)) / max(when.size - 1, 1)
    per_step = when.size / steps if steps else None
    if per_step:
        span = float(np.median(ranks[0].steps.end_ns - ranks[0].steps.start_ns)) / per_step
    return Lateness(COLLECTIVE, np.arange(when.size), table, still, free, span, per_step)


def _beyond_shortest(facts: RankFacts, own: Waits) -> Ints:
    """What each row took longer than the shortest part of its collective, ns."""
    rows = facts.columns.collectives
    return np.where(own.shortest_ns == MISSING, 0, rows["completed_ns"] - rows["started_ns"] - own.shortest_ns)
