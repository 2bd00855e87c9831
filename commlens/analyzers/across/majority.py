"""What most of some points say, however far off the others are."""

from __future__ import annotations

import numpy as np

from commlens.analyzers.across.hulls import MAX_SLOPE, Floats, Line, Points

# Comes within a few percent of the scale of the exact line.
_ROUNDS = 20
# A bend is looked for in so many groups of so many points at least, of which so many weigh alike.
_GROUPS, _GROUP, _ALIKE = 6, 5, 4


def above(line: Line, points: Points) -> Floats:
    """How far points lie above a line, ns."""
    return np.asarray(points.values - line.intercept - line.slope * points.times)


def weighted_median(values: Floats, weights: Floats) -> float:
    """The least value that, with all smaller ones, has half of the weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def central_line(points: Points, scale: Floats) -> Line:
    """The line of least summed distance in units of `scale`, ns, shape of the points.

    Least squares with weights divided by the distances found before comes to the least sum of distances.
    """
    weights, line = 1 / scale**2, Line(0.0, 0.0)
    for _ in range(_ROUNDS):
        weights /= weights.sum()
        # Sums, no products of vectors: those wake all cores for very little.
        time, value = float((weights * points.times).sum()), float((weights * points.values).sum())
        moved = points.times - time
        spread = float((weights * moved**2).sum())
        slope = float((weights * moved * (points.values - value)).sum()) / spread if spread > 0 else 0.0
        slope = min(max(slope, -MAX_SLOPE), MAX_SLOPE)
        line = Line(value - slope * time, slope)
        weights = 1 / (scale * np.maximum(np.abs(above(line, points)), scale / 100))
    return line


def bends(off: Floats, scale: Floats, allowed: float) -> bool:
    """Whether points in order of time, `off` their central line, follow a bent one.

    Taken in groups, straight ones stray from the line by no more than `allowed` or chance.
    """
    if off.size < _GROUPS * _GROUP:
        return False
    groups = zip(np.array_split(off, _GROUPS), np.array_split(1 / scale, _GROUPS), strict=True)
    return any(_strays(values, weights, allowed) for values, weights in groups)


def _strays(values: Floats, weights: Floats, allowed: float) -> bool:
    alike = float(np.sum(weights) ** 2 / np.sum(weights**2))  # how many values of one weight would count as much
    if alike < _ALIKE:
        return False
    median = weighted_median(values, weights)
    spread = weighted_median(np.abs(values - median), weights)
    # The median of n values is uncertain by about 2 * spread / sqrt(n): beyond 2.5 times that it is no chance.
    return abs(median) > max(allowed, 5 * spread / float(np.sqrt(alike)))
