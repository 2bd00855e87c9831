"""The offset between the clocks of two hosts, estimated from the collectives both took part in (see `clock_bounds`).

The estimate is the line with the most room between the proven bounds. The ends are asked only where the bounds
leave much open, and where one straight line does not fit, the run is divided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.clock_bounds import Bounds, Contradiction, Span
from commlens.analyzers.across.hulls import Lines
from commlens.analyzers.intervals import Ints

__all__ = ["Bounds", "Contradiction", "Offset", "fit_offset"]

# Bounds alone will do where they leave no more than this many transfers open: they cannot leave much less than one.
_WIDE = 4
# By how many transfers the ends may differ, tried in turn, and the share of them that must agree.
_FACTORS = (1, 2, 4, 8)
_AGREE = 0.75
# Fewest rows of a piece, and fewest whose majority is asked for the ends.
_PIECE, _MAJORITY = 8, 8
# Rows that no clock satisfies even alone are left out up to this share; above it nothing is believed.
_IMPOSSIBLE = 0.005


@dataclass(frozen=True)
class Piece:
    """One line of an offset, from `start_ns` on: base + fraction + slope * (time - start), ns."""

    start_ns: int
    base_ns: int
    fraction_ns: float
    slope: float
    half_width_ns: float
    method: str


@dataclass(frozen=True)
class Offset:
    """What to add to times of B's clock to read A's.

    Attributes:
        method: "bounds", which are proven, or "bounds and ends" where the softer ends were needed too.
        uncertainty_ns: no clock that drifts in a line (or in as many as there are pieces) and keeps to what was used
            is farther than this from `at`, anywhere between the first and the last collective.
        drift_ppm: mean slope of x over that time; negative where B's clock gains on A's.
        constraints: collectives used.
        dropped: collectives left out, because one host completed them before it had issued them.
        pieces: more than one where one line did not fit.
    """

    method: str
    uncertainty_ns: int
    drift_ppm: float
    constraints: int
    dropped: int
    pieces: tuple[Piece, ...]

    def at(self, time_ns: Ints) -> Ints:
        """x at times of B's clock, ns, any shape; beyond the collectives the nearest line goes on."""
        times = np.asarray(time_ns, np.int64)
        starts = np.array([piece.start_ns for piece in self.pieces])
        chosen = np.searchsorted(starts[1:], times, side="right")
        # Near 1.7e18 only integers keep nanoseconds: floats begin at the piece.
        since = (times - starts[chosen]).astype(np.float64)
        slopes = np.array([piece.slope for piece in self.pieces])[chosen]
        fractions = np.array([piece.fraction_ns for piece in self.pieces])[chosen]
        bases = np.array([piece.base_ns for piece in self.pieces])[chosen]
        return np.asarray(bases + np.rint(fractions + slopes * since).astype(np.int64))


def fit_offset(bounds: Bounds) -> Offset | Contradiction | None:
    """The line, or lines where the drift changes, with the most room to all bounds; None without collectives."""
    if not bounds.time_ns.size:
        return None
    crossed = bounds.lower_ns - bounds.upper_ns
    # A host that completes before it has issued, on its own clock, bounds nothing.
    early = np.maximum(bounds.lower_ns - bounds.ends_ns, bounds.ends_ns - bounds.upper_ns)
    wrong = (crossed > 0) | (early > 0)
    if (crossed > 0).sum() > _IMPOSSIBLE * wrong.size or wrong.all():
        worst = crossed.max() if crossed.max() > 0 else early.max()
        return Contradiction(int(wrong.sum()), int(worst))
    rows = bounds.rows(~wrong).in_order()
    pieces = _pieces(rows, int(rows.time_ns[-1]))
    return pieces if isinstance(pieces, Contradiction) else _offset(rows, pieces, int(wrong.sum()))


def _offset(rows: Bounds, pieces: list[Piece], dropped: int) -> Offset:
    borders = [piece.start_ns for piece in pieces] + [int(rows.time_ns[-1])]
    lengths = np.diff(borders) if borders[-1] > borders[0] else None
    return Offset(
        method="bounds" if all(piece.method == "bounds" for piece in pieces) else "bounds and ends",
        # One nanosecond for rounding x, one for each clock read in whole ones.
        uncertainty_ns=math.ceil(max(piece.half_width_ns for piece in pieces)) + 3,
        drift_ppm=float(np.average([piece.slope for piece in pieces], weights=lengths)) * 1e6,
        constraints=int(rows.time_ns.size),
        dropped=dropped,
        pieces=tuple(pieces),
    )


def _pieces(rows: Bounds, until: int) -> list[Piece] | Contradiction:
    """Lines for rows in order of time; the last of them holds up to `until`, ns."""
    span, size = Span(rows), rows.time_ns.size
    lines = span.lines()
    # A line that squeezes through with less room than the true one has explains less than two lines would.
    if size >= 2 * _PIECE and (lines.room < span.room or span.bent):
        return _divided(rows, until)
    if lines.room < 0:
        return Contradiction(span.fewest_wrong(), math.ceil(-2 * lines.room))
    proven = _piece(span, lines, until, "bounds")
    if proven.half_width_ns <= _WIDE * span.typical or size < _MAJORITY:
        return [proven]
    asked = (span.lines_near_ends(factor, _AGREE) for factor in _FACTORS)
    return [next((_piece(span, each, until, "bounds and ends") for each in asked if each is not None), proven)]


def _divided(rows: Bounds, until: int) -> list[Piece] | Contradiction:
    middle = rows.time_ns.size // 2
    first = _pieces(rows.rows(slice(middle)), int(rows.time_ns[middle]))
    second = _pieces(rows.rows(slice(middle, None)), until)
    if isinstance(first, Contradiction):
        return first.and_also(second)
    return second if isinstance(second, Contradiction) else first + second


def _piece(span: Span, lines: Lines, until: int, method: str) -> Piece:
    # A convex polygon's highest (lowest) line is convex (concave) in time, so the widest place is an end.
    half_width = max(lines.half_width(0.0), lines.half_width(float(until - span.start_ns)))
    return Piece(span.start_ns, span.base_ns, lines.best.intercept, lines.best.slope, half_width, method)
