"""How a number is spread over many: the worst and whose it is, the median, the best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_EXTREMES = (0.1, 0.9)


@dataclass(frozen=True)
class Spread:
    """One number over many ranks, groups, hosts or links; those of which it is not known do not count.

    Attributes:
        worst: the largest, or the smallest where less is worse.
        whose: the name of the one that it is of; the first of equals.
        bad: nine in ten are as good or better; linear between neighbours, as numpy's.
        median: likewise.
        good: one in ten is as good or better.
        best: the other end.
        count: how many it is known of.
    """

    worst: float
    whose: str
    bad: float
    median: float
    good: float
    best: float
    count: int


def spread(values: Iterable[tuple[str, float | None]], more_is_worse: bool = True) -> Spread | None:
    """The spread of named values; None where none is known."""
    known = [(name, value) for name, value in values if value is not None]
    if not known:
        return None
    numbers = np.array([value for _, value in known])
    place = int(numbers.argmax() if more_is_worse else numbers.argmin())
    low, median, high = (float(each) for each in np.quantile(numbers, [_EXTREMES[0], 0.5, _EXTREMES[1]]))
    return Spread(
        worst=float(numbers[place]),
        whose=known[place][0],
        bad=high if more_is_worse else low,
        median=median,
        good=low if more_is_worse else high,
        best=float(numbers.min() if more_is_worse else numbers.max()),
        count=len(known),
    )
