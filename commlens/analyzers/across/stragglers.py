"""Whether the same ranks are always waited for, others in turn, or some now and then: pure statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from commlens.analyzers.across.lateness import FEWEST_STEPS, STEP, Lateness
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints

_PERSISTENT = 0.8  # share of the waiting that must be for a straggler
_MOSTLY = 0.67  # share of the steps in which a rank must be last that is late in most of them, though not always
_CHANCE = 0.05  # such a streak must be less likely than this if any ranks could be last
_SPIKE_STEPS = 0.2  # a stall is longer than this share of a step, and than _SPIKE_MEDIANS usual samples
_SPIKE_MEDIANS = 5
_COSTLY = 0.1  # of a trace without steps only collectives with this share of the longest waiting count
_FEWEST_COLLECTIVES = 3
_MOST_TIERS = 3
_APART = 0.25  # of the gap between late ranks and the others, that parts a tier among them from the rest of them
_OTHERS = 2  # times as many ranks as a later tier must be left to compare it with


@dataclass(frozen=True)
class Late:
    """Ranks that are waited for.

    Attributes:
        positions: which ranks.
        cost_ns: what each other rank waits for them, per sample.
        saved_ns: what all would save if those came with the next ones, per sample: never more than `cost_ns`.
        share: share of the samples (of those named in `samples`) in which they are the last: one of them waits
            less than every other rank. Of ranks that wait equally little none is known to be.
        chance: probability of such a streak if any ranks could be last, 0..1.
        samples: positions of the samples it rests on, shape (n,).
        each_ns: what would be saved in each of those, shape (n,).
        foremost: of ranks that take turns the one whose `share` it is, None of others.
    """

    positions: tuple[int, ...]
    cost_ns: float
    saved_ns: float
    share: float
    chance: float
    samples: Ints
    each_ns: Floats
    foremost: int | None = None


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
    """The ranks that all the others wait for again and again, None where there are none."""
    samples = samples if lateness.unit == STEP else _costly(lateness, samples)
    late = _apart(lateness, samples)
    return _judged(lateness, samples, late) if late is not None else None


def find_mostly(lateness: Lateness, samples: Ints) -> Late | None:
    """The ranks that are last in most steps, however long the others are in the rest; None where there are none."""
    late = _apart(lateness, samples) if lateness.unit == STEP else None
    if late is None:
        return None
    found = _late(lateness, samples, late)
    by_chance = found.chance * lateness.wait_ns.shape[0]  # it is the one of all that is last most often
    return found if found.share >= _MOSTLY and by_chance <= _CHANCE and found.saved_ns > 0 else None


def _apart(lateness: Lateness, samples: Ints) -> Ints | None:
    """Positions of those that are waited for, if any are; None where there are too few samples.

    Ranks are ordered by their usual waiting; the widest gap among the lower half parts those who are
    waited for from the others.
    """
    if samples.size < (FEWEST_STEPS if lateness.unit == STEP else _FEWEST_COLLECTIVES):
        return None
    usual = _typical(lateness)(lateness.wait_ns[:, samples], axis=1)
    order = np.argsort(usual, kind="stable")
    gaps = np.diff(usual[order])[: max(1, usual.size // 2)]
    return np.sort(order[: int(np.argmax(gaps)) + 1])


def _typical(lateness: Lateness) -> Callable[..., Floats]:
    """What stands for many samples: most collectives of a trace cost nothing."""
    return np.median if lateness.unit == STEP else np.mean


def find_tiers(lateness: Lateness, samples: Ints) -> list[Late]:
    """Ranks that are always waited for, the latest first: behind a straggler may stand a slow host.

    Of the ranks that `find_persistent` names, those that the rest of them wait for are a tier of their own; so are
    those that the ranks left wait for, where they are few among these. Each tier is compared with the ranks in none:
    what it costs and saves is as if no other tier were there.
    """
    first = find_persistent(lateness, samples)
    if first is None or lateness.unit != STEP:
        return [first] if first is not None else []
    tiers: list[Ints] = []
    left = np.arange(lateness.wait_ns.shape[0])
    while len(tiers) < _MOST_TIERS and left.size > 1:
        tier = left[_latest(_only(lateness, left), samples)]
        few = tier.size * (1 + _OTHERS) <= left.size or np.isin(tier, first.positions).all()
        if not tier.size or not few:
            break
        tiers.append(tier)
        left = np.setdiff1d(left, tier)
    others = np.setdiff1d(left, first.positions)
    judged = (_judged_among(lateness, samples, tier, np.concatenate([tier, others])) for tier in tiers)
    return [late for late in judged if late is not None]


def _latest(lateness: Lateness, samples: Ints) -> Ints:
    """The latest of the ranks that the others wait for; none where nobody is waited for."""
    found = find_persistent(lateness, samples)
    if found is None:
        return np.zeros(0, np.int64)
    late, usual = np.array(found.positions), np.median(lateness.wait_ns[:, samples], axis=1)
    apart = _gap(usual, late)
    while late.size > 1:
        inner = find_persistent(_only(lateness, late), samples)
        if inner is None or _gap(usual[late], np.array(inner.positions)) < _APART * apart:
            break
        late = late[list(inner.positions)]
    return late


def _gap(usual: Floats, late: Ints) -> float:
    """Between the usual waiting of some ranks and that of the others."""
    return float(np.delete(usual, late).min() - usual[late].max())


def _judged_among(lateness: Lateness, samples: Ints, late: Ints, among: Ints) -> Late | None:
    """As if there were no ranks but some."""
    among = np.sort(among)
    found = _judged(_only(lateness, among), samples, np.searchsorted(among, late))
    return replace(found, positions=tuple(int(p) for p in late)) if found is not None else None


def _only(lateness: Lateness, positions: Ints) -> Lateness:
    return replace(lateness, wait_ns=lateness.wait_ns[positions])


def _judged(lateness: Lateness, samples: Ints, late: Ints) -> Late | None:
    """What some ranks cost the others; None where they are not late often enough, or may be so by chance."""
    found = _late(lateness, samples, late)
    share = float(found.each_ns.clip(0).sum() / max(np.abs(found.each_ns).sum(), 1.0))
    return None if share < _PERSISTENT or found.chance > _CHANCE else found


def _late(lateness: Lateness, samples: Ints, late: Ints) -> Late:
    """What some ranks cost the others, be they late or not."""
    typical, table = _typical(lateness), lateness.wait_ns[:, samples]
    others = np.delete(table, late, axis=0)
    saved = others.min(axis=0) - table[late].min(axis=0)
    wins = int((saved > 0).sum())
    part = samples.size / lateness.index.size if lateness.unit != STEP else 1.0
    return Late(
        positions=tuple(int(p) for p in late),
        cost_ns=part * max(float(typical(others.mean(axis=0) - table[late].min(axis=0))), 0.0),
        saved_ns=part * max(float(typical(saved)), 0.0),
        share=wins / samples.size,
        chance=_by_chance(wins, samples.size, late.size / len(table)),
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
    least = lateness.wait_ns[:, samples] == lateness.wait_ns[:, samples].min(axis=0)
    often = np.mean(least & (least.sum(axis=0) == 1), axis=1)  # who waits as little as another may not be last
    who = tuple(int(p) for p in np.flatnonzero(often >= 0.5 / often.size))
    cost = float(np.median(excess))
    return Late(who, cost, cost, float(often.max()), 1.0, samples, excess, foremost=int(often.argmax()))


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
