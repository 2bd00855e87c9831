"""Statistics of many small groups of rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.intervals import Ints

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


def percentiles(values: Ints, keys: Ints, count: int, q: float) -> Floats:
    """Percentile of each of `count` keys, linear between neighbours (numpy's default); NaN where empty.

    Args:
        values: shape (rows,).
        keys: 0..count-1, shape (rows,).
        count: number of keys.
        q: 0..1.
    """
    if not values.size:
        return np.full(count, np.nan)
    ordered = values[np.lexsort((values, keys))]
    number = np.bincount(keys, minlength=count)
    start = np.cumsum(number) - number
    position = q * np.maximum(number - 1, 0)
    low, last = position.astype(np.int64), np.maximum(number - 1, 0)
    below = ordered[np.minimum(start + low, values.size - 1)]
    above = ordered[np.minimum(start + np.minimum(low + 1, last), values.size - 1)]
    return np.where(number > 0, below + (above - below) * (position - low), np.nan)


def most_common(codes: Ints, keys: Ints, count: int, words: list[str]) -> list[str]:
    """The word of each key, "mixed" where it has several."""
    table = np.bincount(keys * len(words) + codes, minlength=count * len(words)).reshape(count, len(words))
    several = (table > 0).sum(axis=1) > 1
    return ["mixed" if mixed else words[best] for mixed, best in zip(several, table.argmax(axis=1), strict=True)]
