"""What collectives say of the offset between two hosts' clocks, and how far they agree with each other.

Where everyone needs everyone, no rank completes before every rank has issued its part. With the earliest
completion `e` and the latest issue `i` of a host's ranks, each on its own clock, and x(t) what to add to a time t
of B's clock to read A's:

    e_A >= i_B + x(i_B)   =>   x(i_B) <= upper = e_A - i_B
    e_B + x(e_B) >= i_A   =>   x(e_B) >= lower = i_A - e_B

Both always hold. Where one host is always last, one of them is loose by that host's lag and cannot tell its late
ranks from its late clock. Then the ends help, which differ by no more than the transfer:
|e_A - e_B - x(e_B)| <= slack. That is usual, not proven, so no row's end is believed against the others'.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.hulls import MAX_SLOPE, ROUNDING_NS, Floats, Lines, Points, lines_between
from commlens.analyzers.across.majority import above, bends, central_line, weighted_median
from commlens.analyzers.intervals import Ints

# Ends of one collective may lie a network's latency apart, also where the last rank need not wait for the network.
_LATENCY_NS = 50_000


@dataclass(frozen=True)
class Bounds:
    """One row a collective, int64 ns, shape (collectives,) each, in any order.

    Attributes:
        time_ns: e_B, on B's clock.
        lower_ns: i_A - e_B.
        upper_ns: e_A - i_B.
        ends_ns: e_A - e_B.
        slack_ns: the shortest time any rank spent in it, which needs no common clock: about its transfer.
    """

    time_ns: Ints
    lower_ns: Ints
    upper_ns: Ints
    ends_ns: Ints
    slack_ns: Ints

    def rows(self, chosen: Ints | NDArray[np.bool_] | slice) -> Bounds:
        """The chosen rows, in the order chosen."""
        return Bounds(*(getattr(self, each.name)[chosen] for each in fields(self)))

    def in_order(self) -> Bounds:
        """Rows by time; ties by content, so that nothing depends on the order given."""
        return self.rows(np.lexsort([getattr(self, each.name) for each in reversed(fields(self))]))


@dataclass(frozen=True)
class Contradiction:
    """Constraints that no clock satisfies.

    Attributes:
        count: collectives to leave out before one does.
        worst_ns: by how much they miss each other.
    """

    count: int
    worst_ns: int

    @property
    def reason(self) -> str:
        """One line for the report."""
        return (
            f"no clock fits {self.count} of the collectives, by up to {self.worst_ns / 1000:.0f} us: "
            "they were matched wrongly, or a host's clock was set during the run"
        )

    def and_also(self, other: object) -> Contradiction:
        """Both, where the other is one."""
        if not isinstance(other, Contradiction):
            return self
        return Contradiction(self.count + other.count, max(self.worst_ns, other.worst_ns))


class Span:
    """Rows in order of time, as points near zero: times from `start_ns`, offsets from `base_ns`.

    Attributes:
        below: what x must not be under, at e_B.
        above: what x must not be over, at i_B.
        ends: what x is near to, at e_B.
        slack: how near, ns, shape (rows,).
        typical: slack of the collectives that tell most, ns.
        room: what the true clock surely leaves to every bound, ns.
    """

    def __init__(self, rows: Bounds) -> None:
        self.start_ns, self.base_ns = int(rows.time_ns[0]), int(rows.upper_ns.min())
        ended = rows.time_ns - self.start_ns
        issued = ended - (rows.upper_ns - rows.ends_ns)
        self.below = self._points(ended, rows.lower_ns)
        self.above = self._points(issued, rows.upper_ns)
        self.ends = self._points(ended, rows.ends_ns)
        self.slack = np.maximum(rows.slack_ns, _LATENCY_NS).astype(np.float64)
        self.typical = weighted_median(self.slack, 1 / self.slack)
        # The true clock leaves each bound the time from the last issue to the first completion. The last rank's own
        # time, so slack too, is at most about twice that; and both bounds together leave at least twice that.
        self.room = min(float(rows.slack_ns.min()) / 2, float((rows.upper_ns - rows.lower_ns).min()) / 4)

    def _points(self, times: Ints, values: Ints) -> Points:
        return Points(times.astype(np.float64), (values - self.base_ns).astype(np.float64))

    def lines(self) -> Lines:
        """What the bounds allow: proven."""
        return lines_between(self.below, self.above)

    def lines_near_ends(self, factor: float, share: float) -> Lines | None:
        """What the bounds and ends allow, if the ends differ by `factor` transfers at most.

        None where less than `share` of the ends agree on a line, or where it does not fit the bounds well.
        """
        agree = np.abs(self._off_ends) <= factor * self.slack
        if agree.mean() < share:
            return None
        # Believed is what agrees with the majority, but the majority itself may be wrong by a transfer.
        near = factor * (self.slack[agree] + self.typical)
        times, ends = self.ends.times[agree], self.ends.values[agree]
        lines = lines_between(_joined(self.below, times, ends - near), _joined(self.above, times, ends + near))
        return lines if lines.room >= (self.room + factor * self.typical) / 2 else None

    @property
    def bent(self) -> bool:
        """Whether the drift changes: seen in the ends, also where a loose bound lets a straight line pass."""
        return bends(self._off_ends, self.slack, self.typical / 2)

    @cached_property
    def _off_ends(self) -> Floats:
        """How far each end lies above the line that a majority of them follows, ns."""
        return above(central_line(self.ends, self.slack), self.ends)

    def fewest_wrong(self) -> int:
        """The least number of rows to leave out before any line fits. Only for few rows: n^4 steps."""
        times, values = (np.concatenate(both) for both in zip(self.below, self.above, strict=True))
        # The line that fits most rows can be moved until it touches two points; if nothing stops it, it may be level.
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = (values[:, None] - values) / (times[:, None] - times)
        slopes = np.append(slopes[np.abs(slopes) <= MAX_SLOPE], 0.0)[:, None]
        floors = self.below.values - slopes * self.below.times
        ceilings = self.above.values - slopes * self.above.times
        lines = floors[:, :, None]
        fits = (floors[:, None] <= lines + ROUNDING_NS) & (ceilings[:, None] >= lines - ROUNDING_NS)
        return max(1, int(self.slack.size - fits.sum(axis=2).max()))


def _joined(points: Points, times: Floats, values: Floats) -> Points:
    return Points(np.concatenate([points.times, times]), np.concatenate([points.values, values]))
