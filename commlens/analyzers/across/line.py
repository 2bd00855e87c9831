"""The straight line time = alpha + beta * bytes through the medians of sizes, and how sure it is.

Real links bend: protocols change with the size, buffers and token buckets swallow the first bytes. The largest
messages lie on the line best, so where the medians do not fit any line the larger ones weigh more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.by_size import MAD, MANY, Sizes
from commlens.analyzers.grouped import Floats

_ROUNDS = 30
_HUBER = 1.345  # standard deviations; 95 % efficient on normal errors (Huber 1981)
LEAST_MISFIT = 0.01  # relative; no link is a straight line to better than this
_LEAN = 0.5  # misfit variance falls with this power of the time
_REPLICATES = 1000
_SEED = 20240601


@dataclass(frozen=True)
class Line:
    """A fitted line.

    Attributes:
        alpha_ns: intercept, >= 0.
        beta: slope, ns per byte, >= 0.
        weights: what each size's median weighs, shape (s,).
        misfit: how far each median lies off the line beyond its noise, relative, shape (s,).
    """

    alpha_ns: float
    beta: float
    weights: Floats
    misfit: Floats

    def at(self, bytes: Floats) -> Floats:
        """Time on the line, ns."""
        return self.alpha_ns + self.beta * bytes


def fit_line(sizes: Sizes) -> Line:
    """The line of least relative error through the medians, those far off it weighing less (Huber).

    Relative, so that an 8-byte message counts as much as one of 64 MB. A median weighs by its noise and by
    how badly the medians fit a line.
    """
    size, median, time = sizes.size, sizes.median_ns, sizes.median_ns
    sure, extra, robust = sizes.noise**2 + LEAST_MISFIT**2, np.zeros_like(size), np.ones_like(size)
    for _ in range(_ROUNDS):
        weights = robust / (time**2 * (sure + extra))
        (alpha,), (beta,) = _solve(size, median[None, :], weights)
        time = alpha + beta * size
        off = median / time - 1
        extra = _extra(off, sure, time)
        robust = np.minimum(1.0, _HUBER * np.sqrt(sure + extra) / np.maximum(np.abs(off), 1e-12))
    free = np.maximum(1 - _leverages(size, weights), 0.1)
    misfit = np.sqrt(np.maximum(off**2 / free - sizes.noise**2, 0) + LEAST_MISFIT**2)
    return Line(float(alpha), float(beta), weights, misfit)


def resampled_lines(sizes: Sizes, line: Line) -> tuple[Floats, Floats]:
    """Lines through medians as other samples might have given them (bootstrap), the seed always the same.

    Sizes are resampled by themselves, those with few samples by Student's t with their scatter. On top each
    median moves by its own distance from the line (wild bootstrap: Wu 1986, Mammen 1993), so that a parameter
    is as uncertain as the sizes that decide it are off.

    Returns:
        alpha, ns, and beta, ns per byte, shape (replicates,) each.
    """
    random = np.random.default_rng(_SEED)
    ratios = 1 + sizes.noise * random.standard_t(sizes.freedom, (_REPLICATES, sizes.size.size))
    for column in np.flatnonzero(sizes.count >= MANY):
        ratios[:, column] = _medians(random, sizes.kept[column]) / sizes.median_ns[column]
    ratios *= 1 + line.misfit * random.standard_normal(ratios.shape)
    moved = line.at(sizes.size) * ratios
    return _solve(sizes.size, np.maximum(moved, 0), line.weights)


def _medians(random: np.random.Generator, ordered: Floats) -> Floats:
    """Medians of bootstrap samples of sorted values, without drawing the samples.

    The median of n uniform draws follows Beta((n+1)/2, (n+1)/2), and a draw u of the ranks is the value at u.
    """
    half = (ordered.size + 1) / 2
    ranks = random.beta(half, half, _REPLICATES)
    return ordered[np.minimum((ranks * ordered.size).astype(np.int64), ordered.size - 1)]


def _extra(off: Floats, sure: Floats, time: Floats) -> Floats:
    """Relative variance about the line that is not known otherwise, shape (s,), falling towards the longest time."""
    free = off.size - 2
    if free < 1:
        return np.zeros_like(off)
    lean = (time.max() / time) ** _LEAN
    square = off**2 / lean
    common = MAD**2 * np.median(square) if free >= 3 else square.mean()
    return np.asarray(max(common * off.size / free - np.median(sure / lean), 0.0) * lean)


def _sums(size: Floats, weights: Floats) -> tuple[float, float, float]:
    return float(weights.sum()), float((weights * size).sum()), float((weights * size**2).sum())


def _leverages(size: Floats, weights: Floats) -> Floats:
    """How much each median pulls the line to itself, 0..1, shape (s,)."""
    w, wx, wxx = _sums(size, weights)
    return np.asarray(weights * (wxx - 2 * size * wx + size**2 * w) / (w * wxx - wx**2))


def _solve(size: Floats, medians: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares with alpha, beta >= 0, one line a row of `medians`, shape (rows, s)."""
    w, wx, wxx = _sums(size, weights)
    wy, wxy = medians @ weights, medians @ (weights * size)
    determinant = w * wxx - wx**2
    alpha, beta = (wxx * wy - wx * wxy) / determinant, (w * wxy - wx * wy) / determinant
    flat, through_zero = beta < 0, alpha < 0
    return (
        np.where(through_zero, 0.0, np.where(flat, wy / w, alpha)),
        np.where(flat, 0.0, np.where(through_zero, wxy / wxx, beta)),
    )
