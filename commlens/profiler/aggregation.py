"""From full rows to aggregates, once a rank has written as much as COMMLENS_QUOTA allows; on the flush thread.

The full rows end with a step: what a row of the next step tells is added to sums, and nothing is in both. Where no step
ends for half a minute they end with the newest collective.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from commlens.profiler.counters.readings import Rows as Readings
from commlens.profiler.phases import Phase
from commlens.profiler.slots import SEEN_ENDED, SEEN_WAITED, Mask, Rows
from commlens.trace.aggregates import WORDS, Sums
from commlens.trace.schema import MISSING, PHASES, STEP_MARK, TIMINGS

PATIENCE_NS: Final = 30_000_000_000  # for the step under way to end
SOONEST_NS: Final = 10_000_000_000  # between two times that sums are written
IDLE_NS: Final = 30_000_000_000  # without any collective: a job that hangs may be killed
_PER_E_FOLD: Final = 1 << 18  # bytes while the aggregated time grows to 2.7 times itself
_IDLE_SHARE: Final = 256  # of the aggregated time must lie between two of those
_NEVER: Final = 2**62
_WAIT: Final = TIMINGS.index("wait")
_OPTIMIZER, _STEP = PHASES.index("optimizer"), WORDS.index(STEP_MARK)


class Aggregation:
    """What is kept in full, and what as sums.

    Args:
        quota_bytes: after which only sums are kept, 0 from the start, None never.

    Attributes:
        sums: what was added and not taken yet.
        from_step: the first step of which there are only sums, None as long as that is not known.
        begun: rows go into the sums by now.
    """

    def __init__(self, quota_bytes: int | None) -> None:
        self.sums = Sums()
        self.from_step: int | None = 0 if quota_bytes == 0 else None
        self.begun = quota_bytes == 0
        self._quota = quota_bytes
        self._first_step = 0 if quota_bytes == 0 else _NEVER  # a row of an earlier step, or of an
        self._first_event = 0  # earlier event, is kept in full
        self._newest = MISSING
        self._asked_ns = self._since_ns = self._taken_ns = self._seen_ns = MISSING
        self._pause_ns = SOONEST_NS
        self._optimizer: tuple[int, int, int] | None = None  # name, end and step of the newest
        self._readings: dict[int, tuple[int, int]] = {}

    def split(self, rows: Rows, now_ns: int) -> Rows:
        """The rows that are kept in full; what the others tell is added to the sums."""
        if len(rows):
            self._seen_ns = now_ns
            self._newest = max(self._newest, int(rows["event"].max()))
        if not self._is_asked:
            return rows
        full: Mask = (rows["step"] < self._first_step) | (rows["event"] < self._first_event)
        if not full.all():
            self._begin(now_ns)
            self._add(rows[~full])
        return rows[full]

    @property
    def _is_asked(self) -> bool:
        return self.from_step is not None

    def _begin(self, now_ns: int) -> None:
        self.begun = True
        if self._since_ns == MISSING:
            self._since_ns = self._taken_ns = now_ns

    def _add(self, rows: Rows) -> None:
        seen = rows["due_ns"]
        self.sums.add_collectives(
            rows,  # type: ignore[arg-type]  # a structured array has its columns by name
            issued=seen == 0,
            ended=(rows["completed_ns"] >= 0) & (seen & SEEN_ENDED == 0),
            waited=(rows["waited_ns"] >= 0) & (seen & SEEN_WAITED == 0),
            bounds=rows["timing"] == _WAIT,
        )

    def phases(self, finished: Sequence[Phase]) -> list[Phase]:
        """The phases that are kept in full; the others, and how long steps took, are added to the sums."""
        first = self.from_step if self.from_step is not None else _NEVER
        spans = [(each.phase, each.start_ns, each.end_ns, each.step) for each in finished if each.step >= first]
        spans += [each for each in map(self._step, finished) if each is not None and each[3] >= first]
        if spans:
            self.sums.add_phases(*np.array(spans, np.int64).T)
        return [each for each in finished if each.step < first]

    def _step(self, phase: Phase) -> tuple[int, int, int, int] | None:
        """The whole step that the end of an optimizer ends, None where none does."""
        if phase.phase != _OPTIMIZER:
            return None
        before = self._optimizer
        if before is not None and before[0] != phase.name:
            return None
        self._optimizer = phase.name, phase.end_ns, phase.step
        if before is None or phase.step != before[2] + 1:
            return None
        return _STEP, before[1], phase.end_ns, phase.step

    def look(self, written_bytes: int, step: int, now_ns: int) -> bool:
        """Whether the quota is reached, or the full rows end, since the last look.

        Args:
            written_bytes: by this rank, in all.
            step: under way; no row drained so far is of a later one.
            now_ns: now.
        """
        if self._quota is None or self.begun:
            return False
        if self.from_step is None:
            if written_bytes < self._quota:
                return False
            self._asked_ns, self.from_step = now_ns, step + 1
            self._first_step = self.from_step
            return True
        if step >= self.from_step:
            self._begin(now_ns)
            return True
        if now_ns - self._asked_ns < PATIENCE_NS:
            return False
        self.from_step, self._first_step, self._first_event = step, 0, self._newest + 1
        self._begin(now_ns)
        return True

    def due(self, now_ns: int) -> bool:
        """Whether the sums are to be written: ever more seldom, and when the job stands still."""
        if not len(self.sums):
            return False
        self._begin(now_ns)
        if now_ns - self._taken_ns >= self._pause_ns:
            return True
        idle = now_ns - self._seen_ns >= IDLE_NS
        return idle and now_ns - self._taken_ns >= max(SOONEST_NS, (now_ns - self._since_ns) // _IDLE_SHARE)

    def written(self, num_bytes: int, now_ns: int) -> None:
        """So many bytes of sums were written: when the next are due follows from it."""
        self._taken_ns = now_ns
        self._pause_ns = max(SOONEST_NS, (now_ns - self._since_ns) * num_bytes // _PER_E_FOLD)

    def readings(self, rows: Readings, write: bool) -> Readings:
        """Readings of counters: all, and from the quota on the newest of each, when sums are written."""
        if not self.begun:
            return rows
        for at_ns, code, value in zip(*rows, strict=True):
            self._readings[code] = at_ns, value
        if not write:
            return Readings([], [], [])
        held, self._readings = self._readings, {}
        return Readings([at_ns for at_ns, _ in held.values()], list(held), [value for _, value in held.values()])

    def described(self) -> dict[str, Any] | None:
        """The entry of rank.json; None without a quota."""
        if self._quota is None:
            return None
        return {"quota_bytes": self._quota, "from_step": self.from_step}
