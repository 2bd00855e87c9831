"""Spans beside each other where they overlap."""

from __future__ import annotations

import heapq

import numpy as np

from commlens.analyzers.intervals import Ints


def side_by_side(starts: Ints, ends: Ints) -> Ints:
    """The track of each span, 0 and up, so that those of one track do not overlap; as few tracks as can be.

    Args:
        starts: ns, shape (n,), in any order.
        ends: ns, shape (n,); one that does not end after its start takes 1 ns.
    """
    order = np.argsort(starts, kind="stable")
    begin, end = starts[order], np.maximum(ends[order], starts[order] + 1)
    track = np.zeros(starts.size, np.int64)
    if (begin[1:] < end[:-1]).any():
        track[order] = _first_free(begin.tolist(), end.tolist())
    return track


def _first_free(begins: list[int], ends: list[int]) -> list[int]:
    """Greedy, which needs no more tracks than spans are ever open at once; `begins` ascend."""
    busy: list[tuple[int, int]] = []  # until when, which track
    free: list[int] = []
    found = []
    for begin, end in zip(begins, ends, strict=True):
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        track = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, track))
        found.append(track)
    return found
