"""A link that two collectives at once share: each then runs at half its speed, as on one network card."""

from __future__ import annotations

import threading
from collections.abc import Callable


class SharedLink:
    """Planned ends of one group's collectives, in the order of issue, on two servers.

    The end of one moves when the next begins before it, so whoever sleeps until an end asks again when awake.

    Args:
        first: sequence number of the first collective that costs anything.
        look: tells when the last rank issued a collective and what it costs alone, both ns; None as long as a rank
            has not issued it.
    """

    def __init__(self, first: int, look: Callable[[int], tuple[int, int] | None]) -> None:
        self._next = first
        self._look = look
        self._lock = threading.Lock()
        self._busy: list[tuple[int, int]] = []  # end and sequence number, at most two
        self._ends: dict[int, int] = {}

    def end_ns(self, seq: int) -> int | None:
        """Planned end of a collective as far as is known by now; None where not everybody has come."""
        with self._lock:
            while (seen := self._look(self._next)) is not None:
                self._take(self._next, *seen)
                self._next += 1
            return self._ends.get(seq)

    def _take(self, seq: int, arrived_ns: int, cost_ns: int) -> None:
        begin = arrived_ns
        if len(self._busy) == 2:
            free = min(self._busy)
            self._busy.remove(free)
            begin = max(begin, free[0])
        more = 0
        if self._busy:
            until, other = self._busy.pop()
            more = min(max(until - begin, 0), cost_ns)
            self._ends[other] = until + more
            self._busy.append((until + more, other))
        self._ends[seq] = begin + cost_ns + more
        self._busy.append((self._ends[seq], seq))
