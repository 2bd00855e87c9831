"""Transfers by message size: each size's median and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints

MANY = 20  # samples from which a size's own scatter is trusted
MEDIAN = 1.2533  # standard error of a median over that of a mean, of a normal distribution
MAD = 1.4826  # standard deviation over median absolute deviation, likewise
_MOST = 64  # distinct sizes; where there are more, near ones share a median
_PER_OCTAVE = 4
_OUTLIER = 4.0  # standard deviations of the logarithm


@dataclass(frozen=True)
class Sizes:
    """Samples grouped by size, without slow outliers where it says so.

    Attributes:
        bytes: size of each sample, ascending, shape (n,).
        transfer_ns: its transfer, shape (n,).
        distinct: number of distinct sizes.
        size: bytes of each group (the median where it holds several sizes), ascending, shape (s,).
        kept: sorted transfers of each group, outliers left out; s arrays of at least one.
    """

    bytes: Floats
    transfer_ns: Floats
    distinct: int
    size: Floats
    kept: tuple[Floats, ...]

    @cached_property
    def median_ns(self) -> Floats:
        """Median of each group's `kept`, shape (s,)."""
        return np.array([np.median(each) for each in self.kept])

    @cached_property
    def count(self) -> Ints:
        """Number of each group's `kept`, shape (s,)."""
        return np.array([each.size for each in self.kept])

    @cached_property
    def noise(self) -> Floats:
        """Relative standard error of each median, shape (s,); 0 where no size has two samples."""
        own = [MAD * np.median(np.abs(ratio - 1)) for ratio in self._ratios]
        scatter = np.where(self.count >= MANY, own, self.shared_scatter)
        return np.asarray(MEDIAN * scatter / np.sqrt(self.count))

    @cached_property
    def freedom(self) -> int:
        """Degrees of freedom of `shared_scatter`."""
        return int(sum(each.size - 1 for each in self._few))

    @cached_property
    def shared_scatter(self) -> float:
        """Relative standard deviation of samples about their median, of the sizes that have few, taken together."""
        square = sum(float(((each - 1) ** 2).sum()) for each in self._few)
        return float(np.sqrt(square / self.freedom)) if self.freedom else 0.0

    @property
    def _ratios(self) -> list[Floats]:
        return [kept / middle for kept, middle in zip(self.kept, self.median_ns, strict=True)]

    @property
    def _few(self) -> list[Floats]:
        return [ratio for ratio in self._ratios if ratio.size < MANY]


def by_size(bytes: Ints, transfer_ns: Ints) -> Sizes | None:
    """Group transfers by size; None where none of them can be used.

    Args:
        bytes: shape (n,); rows with none, or with a negative (unknown) transfer, are left out.
        transfer_ns: shape (n,).
    """
    usable = (bytes > 0) & (transfer_ns >= 0)
    size, time = bytes[usable].astype(np.float64), transfer_ns[usable].astype(np.float64)
    order = np.lexsort((time, size))
    size, time = size[order], time[order]
    keys = size if np.unique(size).size <= _MOST else np.floor(_PER_OCTAVE * np.log2(size))
    starts = np.flatnonzero(np.diff(keys, prepend=-1.0))[1:]
    parts = zip(np.split(size, starts), np.split(time, starts), strict=True)
    # A median of zero lies below what the clock resolves, and has no relative error.
    timed = [(part, times) for part, times in parts if times.size and np.median(times) > 0]
    if not timed:
        return None
    used_size, used_time = (np.concatenate(each) for each in zip(*timed, strict=True))
    return Sizes(
        used_size,
        used_time,
        int(np.unique(used_size).size),
        np.array([np.median(part) for part, _ in timed]),
        _without_outliers([np.sort(times) for _, times in timed]),
    )


def _without_outliers(groups: list[Floats]) -> tuple[Floats, ...]:
    """Each group without the samples that are slow beyond its scatter, or beyond all groups' where it is small.

    Only the slow side is cut: interference adds time, nothing takes it away. The cut lies where a log-normal
    scatter hardly reaches, so that the median of clean samples stays what it is.
    """
    ratios = [each / np.median(each) for each in groups]
    together = np.concatenate(ratios)
    return tuple(
        each[_not_slow(ratio, ratio if ratio.size >= MANY else together)]
        for each, ratio in zip(groups, ratios, strict=True)
    )


def _not_slow(ratios: Floats, judge: Floats) -> NDArray[np.bool_]:
    """Which ratios to a median lie within the scatter of `judge`, or below it."""
    log, judged = (np.log(np.maximum(each, 1e-9)) for each in (ratios, judge))
    away = np.abs(judged[judged != 0])  # a median's distance from itself tells nothing
    return np.asarray(log <= _OUTLIER * max(MAD * float(np.median(away)) if away.size else 0.0, 0.01))
