"""How sure a statistic of a run's steps is: drawn again in blocks, because a slow step is often followed by another."""

from __future__ import annotations

from functools import cache
from math import atan, cos, pi, sin, sqrt
from statistics import NormalDist

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints

_MOST_CORRELATED = 0.97  # neighbours that are more alike than this are a drift
_FEWEST_BLOCKS = 4
_LEAST_KEPT = 0.4  # of the variance: where less is kept, the correction is a guess
_NORMAL = 200  # degrees of freedom from which on Student's t is the normal distribution


def block_length(steps: Floats) -> int:
    """Steps that are drawn together (Künsch 1989): n^(1/3), more where neighbours are alike.

    The factor is that of the best length for noise in which each value keeps a share of the one before (Carlstein
    1986). The share is estimated from ranks, which outliers do not move, and corrected for few steps (Kendall 1954).

    Args:
        steps: in their order, shape (n,).
    """
    shared = _likeness(steps)
    factor = max(1.0, float(np.cbrt(2 * shared / (1 - shared**2)) ** 2))
    wanted = round(float(np.cbrt(steps.size)) * factor)
    return max(1, min(wanted, int(steps.size) // _FEWEST_BLOCKS))


def widening(steps: Floats, block: int) -> float:
    """By how much the error of a statistic is larger than what scatters between draws of blocks.

    What two blocks share is lost where they meet: of noise in which each value keeps a share s of the one before,
    2 s / ((1 - s^2) block) of the variance. And the few blocks of few steps are too much alike.

    Args:
        steps: in their order, shape (n,).
        block: steps that are drawn together, fewer than n.
    """
    shared = _likeness(steps)
    kept = max(1 - 2 * shared / ((1 - shared**2) * block), _LEAST_KEPT)
    return sqrt(steps.size / (steps.size - block) / kept)


def _likeness(steps: Floats) -> float:
    """How much of a step's rank its neighbour shares, 0..1."""
    if steps.size < 3:
        return 0.0
    ranks = np.argsort(np.argsort(steps, kind="stable"), kind="stable") - (steps.size - 1) / 2
    found = float((ranks[1:] * ranks[:-1]).sum() / (ranks**2).sum())
    return min(max(found + (1 + 3 * found) / steps.size, 0.0), _MOST_CORRELATED)


def block_places(count: int, block: int, draws: int, random: np.random.Generator) -> Ints:
    """Steps of each draw in blocks that may begin anywhere and go round the end, shape (draws, count)."""
    starts = random.integers(count, size=(draws, -(-count // block), 1))
    return np.asarray((starts + np.arange(block)).reshape(draws, -1)[:, :count] % count)


def times_drawn(places: Ints, count: int) -> Ints:
    """How often each draw has each of `count` steps, shape (draws, count)."""
    draws = places.shape[0]
    keys = (places + np.arange(draws)[:, None] * count).reshape(-1)
    return np.bincount(keys, minlength=draws * count).reshape(draws, count)


def drawn_medians(values: Floats, drawn: Ints) -> Floats:
    """Median of each draw, shape (draws,); NaN where it has none of the values.

    Args:
        values: shape (n,).
        drawn: how often each is in each draw, shape (draws, n).
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(drawn[:, order], axis=1)
    half = below[:, -1:] / 2
    last = values.size - 1
    low, high = (np.minimum(mask.sum(axis=1), last) for mask in (below < half, below <= half))
    ordered = values[order]
    return np.asarray(np.where(half[:, 0] > 0, (ordered[low] + ordered[high]) / 2, np.nan))


def drawn_means(values: Floats, drawn: Ints) -> Floats:
    """Mean of each draw, shape (draws,); NaN where it has none of the values."""
    total = drawn.sum(axis=1)
    return np.asarray(np.divide(drawn @ values, total, out=np.full(total.size, np.nan), where=total > 0))


@cache
def student(share: float, freedom: int) -> float:
    """Quantile of Student's t: below it lies `share` (0.5..1) of the distribution.

    Args:
        share: which quantile.
        freedom: degrees of freedom, at least 1.
    """
    if freedom > _NORMAL:
        return NormalDist().inv_cdf(share)
    low, high = 0.0, 1.0
    while _below(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _below(middle, freedom) < share else (low, middle)
    return high


def _below(t: float, freedom: int) -> float:
    """Share of Student's t below `t` (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    inner = sin(angle) * total
    return (1 + (2 * (angle + inner) / pi if odd else inner)) / 2
