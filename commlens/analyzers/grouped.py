"""Statistics of many small groups of rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.intervals import Ints
from commlens.trace.schema import MISSING

Floats = NDArray[np.float64]


def group_keys(columns: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Number the distinct combinations of values.

    Returns:
        The key of each row, shape (rows,), and the first row of each key, shape (keys,).
    """
    keys = np.zeros(columns[0].size, np.int64)
    for column in columns:
        _, codes = np.unique(column, return_inverse=True)
        _, keys = np.unique(keys * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    _, first = np.unique(keys, return_index=True)
    return keys.astype(np.int64), first.astype(np.int64)


def sums(values: NDArray[np.generic], keys: Ints, count: int) -> Floats:
    """Sum of `values` for each of `count` keys."""
    return np.bincount(keys, weights=values, minlength=count).astype(np.float64)


def by_key(keys: Ints, count: int) -> tuple[Ints, Ints]:
    """Rows by key, and where each of `count` keys begins among them (with the end), for `percentiles`."""
    small = keys.astype(np.uint16) if count < 2**16 else keys  # numpy sorts 16 bits by radix
    bounds = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))])
    return np.argsort(small, kind="stable"), bounds.astype(np.int64)


def percentiles(values: Ints, order: tuple[Ints, Ints], *shares: float) -> list[Floats]:
    """Percentiles of each key, linear between neighbours (numpy's default); NaN where empty.

    Args:
        values: shape (rows,); MISSING is left out.
        order: of the rows' keys, as `by_key` gives it.
        shares: which percentiles, 0..1.
    """
    rows, bounds = order
    ordered = values[rows]
    found = np.full((len(shares), bounds.size - 1), np.nan)
    for key, (start, end) in enumerate(pairwise(bounds)):
        own = ordered[start:end]
        own = own[own != MISSING]
        if own.size:
            found[:, key] = _quantiles(own, shares)
    return list(found)


def medians(values: Ints, keys: Ints, count: int) -> Floats:
    """Median of each of `count` keys, NaN where empty; for keys of few values each."""
    ordered = values[np.lexsort((values, keys))]
    sizes = np.bincount(keys, minlength=count)
    first, has = np.cumsum(sizes) - sizes, sizes > 0
    found = np.full(count, np.nan)
    low, high = first[has] + (sizes[has] - 1) // 2, first[has] + sizes[has] // 2
    found[has] = (ordered[low] + ordered[high]) / 2
    return found


def _quantiles(values: Ints, shares: Sequence[float]) -> list[float]:
    """As np.quantile's, which takes ten times as long for few values."""
    places = [share * (values.size - 1) for share in shares]
    needed = sorted({int(place) for place in places} | {min(int(place) + 1, values.size - 1) for place in places})
    values = np.partition(values, needed)
    below = [(int(values[int(place)]), int(values[min(int(place) + 1, values.size - 1)])) for place in places]
    return [low + (place - int(place)) * (high - low) for place, (low, high) in zip(places, below, strict=True)]
