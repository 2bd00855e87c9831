"""Transfers by message size: each size's median and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints, distinct

MANY = 20  # samples from which a size's own scatter is trusted
MEDIAN = 1.2533  # standard error of a median over that of a mean, of a normal distribution
MAD = 1.4826  # standard deviation over median absolute deviation, likewise
_MOST = 64  # distinct sizes; where there are more, near ones share a median
_PER_OCTAVE = 4
_PRIOR = 4
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
        return np.asarray(MEDIAN * np.sqrt(self._variance / self.count))

    @property
    def freedom(self) -> Ints:
        """Degrees of freedom with which each `noise` is known, shape (s,)."""
        return self.count - 1 + _PRIOR

    @cached_property
    def _variance(self) -> Floats:
        """Relative variance of a sample of each size about its median, shape (s,).

        Of few samples the variance is drawn to that of the sizes' middle, as if that were _PRIOR samples more:
        sizes scatter differently, but two or three samples cannot tell how much.
        """
        own, free = np.array([_variance(ratio) for ratio in _ratios(self.kept)]), self.count - 1
        known = free > 0
        if not known.any():
            return np.zeros_like(own)
        middle = np.median(own[known] / (1 - 2 / (9 * free[known])) ** 3)  # of chi square, by Wilson and Hilferty
        return np.asarray(np.where(self.count >= MANY, own, (own * free + middle * _PRIOR) / (free + _PRIOR)))


def _ratios(groups: Sequence[Floats]) -> list[Floats]:
    return [each / np.median(each) for each in groups]


def _variance(ratio: Floats) -> float:
    """About 1; robust where there are samples enough."""
    if ratio.size >= MANY:
        return float((MAD * np.median(np.abs(ratio - 1))) ** 2)
    return float(((ratio - 1) ** 2).sum() / max(ratio.size - 1, 1))


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
    keys = size if distinct(size).size <= _MOST else np.floor(_PER_OCTAVE * np.log2(size))
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
        int(distinct(used_size).size),
        np.array([np.median(part) for part, _ in timed]),
        _without_outliers([np.sort(times) for _, times in timed]),
    )


def _without_outliers(groups: list[Floats]) -> tuple[Floats, ...]:
    """Each group without the samples that are slow beyond its scatter, or beyond all groups' where it is small.

    Only the slow side is cut: interference adds time, nothing takes it away. The cut lies where a log-normal
    scatter hardly reaches, so that the median of clean samples stays what it is.
    """
    ratios = _ratios(groups)
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
