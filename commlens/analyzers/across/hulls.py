"""All lines between two sets of points: below every point of one and above every point of the other.

A line is `value = intercept + slope * time`. For one slope, the intercepts that keep it between the points
are an interval [floor, ceiling]; floor is convex in the slope and ceiling concave, both made of the points'
hulls, so all allowed lines are a convex polygon whose corners lie at the slopes of the hulls' edges. Its
corners answer every question exactly (two unknowns need no solver of linear programmes).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.intervals import distinct

Floats: TypeAlias = NDArray[np.float64]

# Physics: crystals are off by less than 100 ppm, NTP slews by 500 ppm at most.
MAX_SLOPE = 500e-6
# Clocks are read in whole ns, so a point is right to this.
ROUNDING_NS = 1.0


class Points(NamedTuple):
    """Times and values, float64 ns from a near reference, shape (n,) each."""

    times: Floats
    values: Floats


class Line(NamedTuple):
    """`intercept` in ns at time 0, `slope` in ns per ns."""

    intercept: float
    slope: float


class Lines(NamedTuple):
    """The polygon of allowed lines, shape (corners,) each: slopes, and the intercepts allowed at each.

    Attributes:
        best: the line with the most room.
        room: its smallest vertical distance to any point, ns; negative where no line is allowed, and then
            the others are empty.
    """

    slopes: Floats
    floors: Floats
    ceilings: Floats
    best: Line
    room: float

    def half_width(self, time: float) -> float:
        """How far any allowed line is from the best one at `time`, ns."""
        at = self.best.intercept + self.best.slope * time
        shift = self.slopes * time
        return float(max(at - np.min(self.floors + shift), np.max(self.ceilings + shift) - at))


def lines_between(below: Points, above: Points) -> Lines:
    """Lines no steeper than MAX_SLOPE that pass above every point of `below` and below every one of `above`."""
    top, bottom = _upper_hull(below), _upper_hull(_mirrored(above))
    slopes = np.concatenate([_edges(top), -_edges(bottom), [-MAX_SLOPE, MAX_SLOPE]])
    slopes = distinct(slopes[np.abs(slopes) <= MAX_SLOPE])

    floors, ceilings = _support(top, slopes), -_support(bottom, -slopes)
    widths = ceilings - floors
    # Width is concave in the slope: its highest stretch is one interval, and the middle is the fairest of it.
    highest = slopes[widths >= widths.max() - ROUNDING_NS]
    slope = (highest[:1] + highest[-1:]) / 2
    floor, ceiling = _support(top, slope), -_support(bottom, -slope)
    best, room = Line(float(floor[0] + ceiling[0]) / 2, float(slope[0])), float(ceiling[0] - floor[0]) / 2
    if room < -ROUNDING_NS:
        return Lines(slopes[:0], floors[:0], ceilings[:0], best, room)

    allowed = widths >= 0
    slopes = np.concatenate([_crossings(slopes, widths), slopes[allowed], slope])
    return Lines(slopes, _support(top, slopes), -_support(bottom, -slopes), best, max(room, 0.0))


def _crossings(slopes: Floats, widths: Floats) -> Floats:
    """Slopes between the given ones at which the width is zero: the polygon's first and last corner."""
    enters = np.flatnonzero((widths[:-1] < 0) != (widths[1:] < 0))
    share = widths[enters] / (widths[enters] - widths[enters + 1])
    return slopes[enters] + share * (slopes[enters + 1] - slopes[enters])


def _support(hull: Points, slopes: Floats) -> Floats:
    """The least intercept of each slope whose line passes above the hull, shape of `slopes`."""
    # Edges get less steep to the right: a line touches where edges steeper than it end.
    touched = np.searchsorted(-_edges(hull), -slopes)
    return np.asarray(hull.values[touched] - slopes * hull.times[touched])


def _edges(hull: Points) -> Floats:
    """Slopes of the hull's edges, strictly falling, shape (points - 1,)."""
    return np.asarray(np.diff(hull.values) / np.diff(hull.times))


def _mirrored(points: Points) -> Points:
    return Points(points.times, -points.values)


def _upper_hull(points: Points) -> Points:
    """Corners of the upper convex hull in the order of time."""
    order = np.lexsort((points.values, points.times))
    times, values = points.times[order], points.values[order]
    highest = np.append(times[1:] > times[:-1], True)
    times, values = times[highest], values[highest]
    # A point not above the chord of its neighbours is no corner, whatever becomes of the neighbours: drop all such
    # at once, while that shrinks the rows well, and leave the few that remain to the loop.
    size = 2 * times.size
    while 2 < times.size < 0.9 * size:
        size = times.size
        rise = (values[2:] - values[:-2]) / (times[2:] - times[:-2])
        corner = np.ones(size, bool)
        corner[1:-1] = values[1:-1] > values[:-2] + rise * (times[1:-1] - times[:-2])
        times, values = times[corner], values[corner]
    return _chain(times, values)


def _chain(times: Floats, values: Floats) -> Points:
    """Andrew's monotone chain over points with rising times."""
    corners: list[tuple[float, float]] = []
    edges: list[float] = []
    for time, value in zip(times.tolist(), values.tolist(), strict=True):
        while corners:
            edge = (value - corners[-1][1]) / (time - corners[-1][0])
            if not edges or edge < edges[-1]:
                edges.append(edge)
                break
            corners.pop()
            edges.pop()
        corners.append((time, value))
    hull = np.array(corners)
    return Points(hull[:, 0], hull[:, 1])
