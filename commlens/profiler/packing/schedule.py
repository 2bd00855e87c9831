"""When the next pack of a node is due, while its job runs."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 300.0
LONGEST_S: Final = 3600.0
GROWTH: Final = 1.25  # all packs of a run together are then at most 1.25 / 0.25 = 5 times the last
_SPREAD: Final = 0.2  # of an interval: nodes do not pack at once


class Schedule:
    """Intervals that double up to an hour, and a pack only of what has grown by a quarter; or a fixed interval.

    Args:
        every_s: the fixed interval, seconds; None for growing ones.
        phase: of this node, from 0 up to 1: by so much of a fifth of an interval it is early.
    """

    def __init__(self, every_s: float | None, phase: float) -> None:
        self._every_s = every_s
        self._interval_s = FIRST_S if every_s is None else every_s
        self._phase = phase
        self._next_s = self._interval_s * (1 - _SPREAD * phase)
        self._packed_bytes = 0

    def is_time(self, since_start_s: float) -> bool:
        """Whether an interval is over."""
        return since_start_s >= self._next_s

    def has_grown(self, size: int) -> bool:
        """Whether a node-local folder of `size` bytes is worth another pack."""
        return size > self._packed_bytes * (GROWTH if self._every_s is None else 1)

    def packed(self, size: int) -> None:
        """A pack of a folder of `size` bytes was written."""
        self._packed_bytes = size

    def go_on(self, since_start_s: float) -> None:
        """The next interval begins."""
        if self._every_s is None:
            self._interval_s = min(2 * self._interval_s, LONGEST_S)
        self._next_s = since_start_s + self._interval_s
