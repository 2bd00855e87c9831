"""Whether the same ranks are always waited for, others in turn, or some now and then: pure statistics."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from commlens.analyzers.across.lateness import FEWEST_STEPS, STEP, Lateness
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints

_PERSISTENT = 0.8  # share of the waiting that must be for a straggler
_CHANCE = 0.05  # such a streak must be less likely than this if any ranks could be last
_SPIKE_STEPS = 0.2  # a stall is longer than this share of a step, and than _SPIKE_MEDIANS usual samples
_SPIKE_MEDIANS = 5
_COSTLY = 0.1  # of a trace without steps only collectives with this share of the longest waiting count
_FEWEST_COLLECTIVES = 3


@dataclass(frozen=True)
class Late:
    """Ranks that are waited for.

    Attributes:
        positions: which ranks.
        cost_ns: what each other rank waits for them, per sample.
        saved_ns: what all would save if those came with the next ones, per sample: never more than `cost_ns`.
        share: share of the samples (of those named in `samples`) in which they are the last.
        chance: probability of such a streak if any ranks could be last, 0..1.
        samples: positions of the samples it rests on, shape (n,).
        each_ns: what would be saved in each of those, shape (n,).
    """

    positions: tuple[int, ...]
    cost_ns: float
    saved_ns: float
    share: float
    chance: float
    samples: Ints
    each_ns: Floats


def split_spikes(lateness: Lateness) -> tuple[Ints, Ints]:
    """Samples in which somebody paused for unusually long, and the others."""
    excess = lateness.excess_ns
    floor = np.median(excess)
    spread = np.median(np.abs(excess - floor))
    usual = floor + _SPIKE_MEDIANS * max(float(spread), float(floor))
    limit = max(usual, _SPIKE_STEPS * lateness.sample_ns)
    spike = excess > limit
    if spike.mean() > 0.4:  # then it is no exception
        spike[:] = False
    return np.flatnonzero(spike), np.flatnonzero(~spike)


def find_persistent(lateness: Lateness, samples: Ints) -> Late | None:
    """The ranks that all the others wait for again and again, None where there are none.

    Ranks are ordered by their usual waiting; the widest gap among the lower half parts those who are
    waited for from the others.
    """
    typical = np.median if lateness.unit == STEP else np.mean  # most collectives of a trace cost nothing
    samples = samples if lateness.unit == STEP else _costly(lateness, samples)
    if samples.size < (FEWEST_STEPS if lateness.unit == STEP else _FEWEST_COLLECTIVES):
        return None
    table = lateness.wait_ns[:, samples]
    usual = typical(table, axis=1)
    order = np.argsort(usual, kind="stable")
    gaps = np.diff(usual[order])[: max(1, usual.size // 2)]
    late = np.sort(order[: int(np.argmax(gaps)) + 1])
    others = np.delete(table, late, axis=0)
    saved = others.min(axis=0) - table[late].min(axis=0)
    share, wins = float(saved.clip(0).sum() / max(np.abs(saved).sum(), 1.0)), int((saved > 0).sum())
    if share < _PERSISTENT or _by_chance(wins, samples.size, late.size / usual.size) > _CHANCE:
        return None
    part = samples.size / lateness.index.size if lateness.unit != STEP else 1.0
    return Late(
        positions=tuple(int(p) for p in late),
        cost_ns=part * max(float(typical(others.mean(axis=0) - table[late].min(axis=0))), 0.0),
        saved_ns=part * max(float(typical(saved)), 0.0),
        share=wins / samples.size,
        chance=_by_chance(wins, samples.size, late.size / usual.size),
        samples=samples,
        each_ns=saved,
    )


def _costly(lateness: Lateness, samples: Ints) -> Ints:
    longest = lateness.wait_ns[:, samples].max(axis=0)
    kept: Ints = samples[longest >= _COSTLY * longest.max(initial=0)]
    return kept


def _by_chance(wins: int, samples: int, each: float) -> float:
    """Probability of at least so many wins where each has the probability `each` (binomial tail)."""
    n = min(samples, 200)
    k = round(wins * n / samples)
    return float(sum(comb(n, i) * each**i * (1 - each) ** (n - i) for i in range(k, n + 1)))


def find_rotating(lateness: Lateness, samples: Ints) -> Late | None:
    """Ranks that are waited for in turn: what balanced work would save, and who is the last how often."""
    if lateness.unit != STEP or samples.size < FEWEST_STEPS:
        return None
    excess = lateness.excess_ns[samples]
    last = np.argmin(lateness.wait_ns[:, samples], axis=0)
    often = np.bincount(last, minlength=lateness.wait_ns.shape[0]) / samples.size
    who = tuple(int(p) for p in np.flatnonzero(often >= 0.5 / often.size))
    cost = float(np.median(excess))
    return Late(who, cost, cost, float(often.max()), 1.0, samples, excess)


def find_stalls(lateness: Lateness, spikes: Ints) -> Late | None:
    """Ranks that pause now and then, by what the others wait for each of them."""
    if lateness.unit != STEP or not spikes.size:
        return None
    excess = lateness.excess_ns[spikes]
    last = np.argmin(lateness.wait_ns[:, spikes], axis=0)
    cost = np.bincount(last, weights=excess, minlength=lateness.wait_ns.shape[0])
    who = np.flatnonzero(cost >= 0.25 * cost.sum())
    mine = float(np.isin(last, who).mean())
    total = float(excess.sum()) / lateness.index.size
    return Late(tuple(int(p) for p in who), total, total, mine, 1.0, spikes, excess)
