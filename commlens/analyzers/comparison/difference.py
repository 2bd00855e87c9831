"""One quantity in two runs: what it changed by, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import hypot, sqrt
from statistics import stdev
from typing import Any, Final

from commlens.analyzers.resampled import student

LEVEL: Final = 0.95  # of the intervals: an unchanged job is called longer in 2.5 % of comparisons, shorter likewise
LONGER, SHORTER, NOT_TOLD = VERDICTS = ("longer", "shorter", "not told apart")


@dataclass(frozen=True)
class Known:
    """A quantity of one run.

    Attributes:
        value_ms: None where the run does not know it.
        error_ms: its standard error, from the run's steps; None where they do not tell.
        freedom: degrees of freedom of that.
    """

    value_ms: float | None
    error_ms: float | None = None
    freedom: int = 1


ABSENT: Final = Known(None)


@dataclass(frozen=True)
class Difference:
    """A quantity before and after, ms; None where a run does not know it.

    Attributes:
        before_ms: in the first run, as its report says.
        after_ms: in the second.
        low_ms: lower end of the change's interval; None where steps do not tell one.
        high_ms: its upper end.
        verdict: one of `VERDICTS`; None without an interval.
    """

    before_ms: float | None
    after_ms: float | None
    low_ms: float | None = None
    high_ms: float | None = None
    verdict: str | None = None

    @property
    def change_ms(self) -> float | None:
        """How much longer it became."""
        if self.before_ms is None or self.after_ms is None:
            return None
        return round(self.after_ms - self.before_ms, 6)

    @property
    def change_percent(self) -> float | None:
        """The same in percent of before."""
        change = self.change_ms
        return round(100 * change / self.before_ms, 3) if change is not None and self.before_ms else None

    @property
    def told(self) -> bool:
        """Whether it surely changed."""
        return self.verdict in (LONGER, SHORTER)

    def to_dict(self) -> dict[str, Any]:
        """Both sides, the change, its interval and the verdict."""
        own = asdict(self)
        verdict = own.pop("verdict")
        return {**own, "change_ms": self.change_ms, "change_percent": self.change_percent, "verdict": verdict}


def difference(before: Known, after: Known, level: float, alike: Sequence[float] | None = None) -> Difference:
    """Set a quantity of two runs side by side.

    The interval is Student's t with Welch's degrees of freedom.

    Args:
        before: of the first run.
        after: of the second.
        level: of the interval, 0..1.
        alike: the quantity in runs of one job, before's own first: what they differ by counts as chance; None where
            no such runs were given.
    """
    bare = Difference(before.value_ms, after.value_ms)
    change, half = bare.change_ms, _half(before, after, level)
    if alike is not None and half is not None:
        half = max(half, _between(alike, level)) if len(alike) > 1 else None
    if change is None or half is None:
        return bare
    low, high = round(change - half, 6), round(change + half, 6)
    verdict = LONGER if low > 0 else SHORTER if high < 0 else NOT_TOLD
    return Difference(before.value_ms, after.value_ms, low, high, verdict)


def _half(before: Known, after: Known, level: float) -> float | None:
    """Half of the interval's width by the steps of both runs."""
    if before.error_ms is None or after.error_ms is None:
        return None
    one, other = before.error_ms**2, after.error_ms**2
    if not one + other:
        return 0.0
    freedom = (one + other) ** 2 / (one**2 / before.freedom + other**2 / after.freedom)
    return student((1 + level) / 2, max(1, int(freedom))) * hypot(before.error_ms, after.error_ms)


def _between(alike: Sequence[float], level: float) -> float:
    """The same by what runs of one job differ by."""
    return student((1 + level) / 2, len(alike) - 1) * sqrt(2) * stdev(alike)
