"""The repeating signature of a sequence: where each repetition starts."""

from __future__ import annotations

import numpy as np

from commlens.analyzers.intervals import Ints, distinct

REPETITIONS = 3  # fewer could be chance
_CANDIDATES = 2000  # periods tried: bounds the cost on a sequence that never repeats
_TAIL = 16384  # tokens looked at to find the period


def repetition_starts(tokens: Ints) -> Ints:
    """Index of each repetition's first token, then of the first token after the last one.

    The period is the smallest one whose unbroken stretch is (nearly) the longest, so three equal
    layers inside a step are not taken for three steps. What comes before and after the stretch
    need not repeat. Empty where nothing repeats at least `REPETITIONS` times.

    Args:
        tokens: shape (n,).
    """
    period = _period(tokens[-_TAIL:])
    if period == 0:
        return np.zeros(0, np.int64)
    start, stop = _longest(tokens, period)
    bounds = np.arange(start, stop + 1, period)
    return bounds[bounds < tokens.size]


def _period(tokens: Ints) -> int:
    """Smallest period of the longest repeating stretch, 0 where there is none."""
    found: list[tuple[int, int]] = []
    for period in _candidates(tokens):
        start, stop = _longest(tokens, period)
        if stop - start >= REPETITIONS * period:
            found.append((stop - start, period))
        if stop - start >= 0.9 * tokens.size:
            break
    longest = max(found, default=(0, 0))[0]
    if not found or longest < tokens.size / 2:
        return 0
    return next(period for covered, period in found if covered >= 0.9 * longest)


def _candidates(tokens: Ints) -> list[int]:
    """Distances from the middle token to its equals, ascending.

    A stretch of more than half the tokens has the middle one in it.
    """
    if tokens.size < REPETITIONS:
        return []
    middle = tokens.size // 2
    distances = distinct(np.abs(np.flatnonzero(tokens == tokens[middle]) - middle))
    return [int(d) for d in distances if 0 < d <= tokens.size // REPETITIONS][:_CANDIDATES]


def _longest(tokens: Ints, period: int) -> tuple[int, int]:
    """Longest stretch [start, stop) of tokens that repeats every `period`."""
    breaks = np.flatnonzero(tokens[period:] != tokens[:-period])
    edges = np.concatenate([[-1], breaks, [tokens.size - period]])
    runs = np.diff(edges) - 1
    best = int(np.argmax(runs))
    start = int(edges[best]) + 1
    return start, start + int(runs[best]) + period
