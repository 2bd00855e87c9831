"""Device times on the host's clock: every reading bounds the difference of the two clocks.

A device time that the host read at t happened before t; a kernel that the host launched at t began after t. So the
offset (host - device) is at most t - device time of a reading, and at least t - device time of a launch. A bound
holds for other times as well, weaker by what the clocks can drift apart until then.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The most that two clocks drift apart: crystals are good for 50 parts in a million, time servers may add as much.
MOST_DRIFT: Final = 100e-6

Times = NDArray[np.int64]


class Mapped(NamedTuple):
    """Host times and what they may be wrong by.

    Attributes:
        time_ns: host times; where there is no lower bound the latest they can be; meaningless where not `known`.
        error_ns: half the room between the bounds, -1 where there is no lower bound.
        known: False where the bounds contradict each other, or there is none from above.
    """

    time_ns: Times
    error_ns: Times
    known: NDArray[np.bool_]


class Evidence(NamedTuple):
    """What bounds the offset: device times, and the most and the least it was then (masked by `has_`)."""

    device_ns: Times
    most_ns: Times
    has_most: NDArray[np.bool_]
    least_ns: Times
    has_least: NDArray[np.bool_]


def on_host(evidence: Evidence, device_ns: Times) -> Mapped:
    """Device times of one device on the host's clock.

    Args:
        evidence: of the same device.
        device_ns: any of its times.
    """
    upper, lower = evidence.most_ns[evidence.has_most], evidence.least_ns[evidence.has_least]
    # Both clocks count from anywhere: of such numbers a float has no room for nanoseconds, of differences it has.
    base = int(upper[0]) if upper.size else 0
    tick = resolution(np.concatenate((evidence.device_ns, device_ns)))
    most = _bound(evidence.device_ns[evidence.has_most], upper - base, device_ns)
    # A device time is cut off to whole ticks, so the event may be a little later than it says.
    least = -_bound(evidence.device_ns[evidence.has_least], base - lower + (tick - 1), device_ns)
    two_sided = np.isfinite(least)
    known = np.isfinite(most) & (~two_sided | (least <= most))
    with np.errstate(invalid="ignore"):
        offset = np.where(two_sided, (most + least) / 2, most)
        error = np.where(two_sided & known, np.ceil((most - least) / 2), -1)
    whole = np.where(known, offset, 0).round().astype(np.int64) + base
    return Mapped(device_ns + whole, error.astype(np.int64), known)


def resolution(device_ns: Times) -> int:
    """The largest step that all of a device's times can be multiples of, ns; 1 where there are too few to tell."""
    different = np.unique(device_ns)
    return int(np.gcd.reduce(np.diff(different))) if different.size > 8 else 1


def _bound(at: Times, most: Times, wanted: Times) -> NDArray[np.float64]:
    """The least upper bound at the times `wanted`, of bounds known at `at`; infinite where there is none."""
    if not at.size:
        return np.full(wanted.shape, np.inf)
    order = np.argsort(at, kind="stable")
    first = at[order[0]]
    times = (at[order] - first).astype(np.float64)
    values = most[order].astype(np.float64)
    drift = MOST_DRIFT * times
    from_before = np.minimum.accumulate(values - drift) + drift
    from_after = np.minimum.accumulate((values + drift)[::-1])[::-1] - drift
    envelope = np.minimum(from_before, from_after)
    asked = (wanted - first).astype(np.float64)
    place = np.searchsorted(times, asked)
    nearest = [np.clip(place - 1, 0, None), np.minimum(place, times.size - 1)]
    before, after = (envelope[each] + MOST_DRIFT * np.abs(asked - times[each]) for each in nearest)
    return np.asarray(np.minimum(before, after), np.float64)
