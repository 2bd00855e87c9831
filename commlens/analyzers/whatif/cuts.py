"""The best buckets on one serial link, by dynamic programming over gradients in the order in which they are ready.

The first i gradients are sent by

    sent(i) = min over j < i of  max(sent(j), ready(i)) + alpha + beta * bytes(j..i)

which is exact there; MG-WFBP (Shi et al., 2019) merges greedily for the same end.
"""

from __future__ import annotations

import numpy as np

from commlens.analyzers.grouped import Floats


def cuts(ready_ns: Floats, sizes: Floats, alpha_ns: float, beta: float) -> list[int]:
    """Where buckets end (the last at the end) so that a serial link is done first; of equals the fewest.

    Args:
        ready_ns: of each gradient in the order of sending, shape (n,).
        sizes: bytes, shape (n,).
        alpha_ns: latency of a message.
        beta: ns per byte.
    """
    ready, sent = np.maximum.accumulate(ready_ns), np.concatenate([[0.0], np.cumsum(sizes)])
    done, count = np.zeros(ready.size + 1), np.zeros(ready.size + 1, np.int64)
    before = np.zeros(ready.size + 1, np.int64)
    for i in range(1, ready.size + 1):
        ends = np.maximum(done[:i], ready[i - 1]) + alpha_ns + beta * (sent[i] - sent[:i])
        equal = np.flatnonzero(ends <= ends.min() * (1 + 1e-12))
        j = int(equal[np.argmin(count[equal])])
        done[i], count[i], before[i] = ends[j], count[j] + 1, j
    ends_at, i = [], ready.size
    while i > 0:
        ends_at.append(i)
        i = int(before[i])
    return ends_at[::-1]
