"""COMMLENS_STEPS: which collectives are written where some steps were chosen; on the flush thread.

Those of the chosen steps are, and of deep windows. Of the others a collective is written where something rests on it:

- It was under way when a chosen step began: the thread may stand still for it there. So that ranks agree, the last
  ones of each group in the step before are written in any case.
- It stands for half a minute, or nothing follows it for as long. A hang is told from these, and they are few: of
  each group the last ones, and of messages those of each direction and peer.
- It is the last of its group when the recording ends.

Their times are true, and their steps are not analysed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.profiler.slots import ENQUEUE_ONLY, ROW, Mask, Rows
from commlens.trace.sampling import Choice, chosen, is_chosen
from commlens.trace.schema import OPS

STANDS_NS: Final = 30_000_000_000
TAIL: Final = 32  # rows of a group that tell where it stands
LEAD: Final = 8  # rows of a group before a chosen step
_BEGUN: Final = 1024  # chosen steps whose beginnings are remembered
_NEVER: Final = 2**62
_SENDS: Final = OPS.index("send"), OPS.index("recv")

Begun = list[tuple[int, int]]


class ChosenSteps:
    """What is written of some steps, and of all where none were chosen.

    Args:
        choice: the steps, None for all.
        windows: steps of deep windows, from one up to, not including, another, which are recorded beside them.

    Attributes:
        begun: recorded steps and when they began, ns, ascending; replaced by the thread that trains, never changed.
    """

    def __init__(self, choice: Choice | None, windows: Callable[[], Iterable[tuple[int, int]]]) -> None:
        self.begun: Begun = []
        self._choice = choice
        self._windows = windows
        self._held: Rows = np.zeros(0, ROW)  # ascending by event: what is under way, and the last of each group
        self._told: Mask = np.zeros(0, bool)  # which of those were written

    def include(self, step: int) -> bool:
        """Whether the collectives of a step are written."""
        if self._choice is None or is_chosen(self._choice, step):
            return True
        return any(first <= step < end for first, end in self._windows())

    def begin(self, step: int, at_ns: int) -> None:
        """A step that is recorded begins."""
        if self._choice is not None:
            self.begun = [*self.begun[1 - _BEGUN :], (step, at_ns)]

    def written(self, rows: Rows, begun: Begun, now_ns: int, ended: bool = False) -> Rows:
        """Those of the drained rows, and of earlier ones, that are to be written now.

        Args:
            rows: as drained.
            begun: what `begun` was before.
            now_ns: now.
            ended: no others will come.
        """
        if self._choice is None:
            return rows
        kept = self._of(self._choice, rows["step"]) | np.isin(rows["event"], self._held["event"][self._told])
        every, told = _newest(np.concatenate([self._held, rows]), np.concatenate([self._told, kept]))
        group = np.unique(_keys(every), return_inverse=True)[1]
        places = _from_end(group)
        due = _stand(every, group, places, now_ns) | (ended & (places == 0))
        if begun:
            due |= _lead(every, group, begun) | _reach(every, begun)
        due &= ~told
        stay = _is_open(every) | (places < TAIL)
        self._held, self._told = every[stay], (told | due)[stay]
        return np.concatenate([rows[kept], every[due]])

    def _of(self, choice: Choice, steps: NDArray[np.integer[Any]]) -> Mask:
        """Which steps are recorded, of their shape."""
        kept = chosen(choice, steps)
        for first, end in self._windows():
            kept |= (steps >= first) & (steps < end)
        return kept


def _newest(rows: Rows, told: Mask) -> tuple[Rows, Mask]:
    """The newest row of each event, ascending, and whether it was told."""
    newest = len(rows) - 1 - np.unique(rows["event"][::-1], return_index=True)[1]
    return rows[newest], told[newest]


def _keys(rows: Rows) -> NDArray[np.int64]:
    """What has a sequence of its own: a group, and its messages of each direction and peer."""
    group, peer = rows["group"].astype(np.int64), rows["peer"].astype(np.int64)
    message = np.where(np.isin(rows["op"], _SENDS), 1 + 2 * (peer + 1) + (rows["op"] == _SENDS[0]), 0)
    return np.asarray((group << 40) + message)


def _from_end(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row how many later ones have its label."""
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(places, kind="stable")
    later = np.empty(labels.size, np.int64)
    later[order] = (np.cumsum(counts) - 1)[places[order]] - np.arange(labels.size)
    return later


def _stand(rows: Rows, group: NDArray[np.int64], places: NDArray[np.int64], now_ns: int) -> Mask:
    """Which rows tell where their group stands, if it does."""
    last = places == 0
    issued, ended = np.zeros(last.sum(), np.int64), np.full(last.sum(), -1, np.int64)
    issued[group[last]] = rows["issued_ns"][last]
    over = np.flatnonzero(_ends(rows) < _NEVER)
    np.maximum.at(ended, group[over], rows["event"][over])
    quiet = (now_ns - issued >= STANDS_NS)[group] & (places < TAIL)
    stands = _is_open(rows) & (rows["event"] > ended[group]) & (now_ns - rows["issued_ns"] >= STANDS_NS)
    return np.asarray(quiet | stands)


def _lead(rows: Rows, group: NDArray[np.int64], begun: Begun) -> Mask:
    """The last rows of each group in the step before a recorded one."""
    before = np.isin(rows["step"], [step - 1 for step, _ in begun]) & _shows_end(rows)
    return np.asarray(before & (_from_end((group << 32) + rows["step"]) < LEAD))


def _reach(rows: Rows, begun: Begun) -> Mask:
    """Which rows of earlier steps were under way when a recorded step began."""
    steps, times = np.array(begun, np.int64).T
    following = np.searchsorted(steps, rows["step"], side="right")
    return np.asarray((_ends(rows) > np.append(times, _NEVER)[following]) & _shows_end(rows))


def _ends(rows: Rows) -> NDArray[np.int64]:
    """When nothing was left of each to come, as far as is known, ns; `_NEVER` where it is under way."""
    waited = np.where(rows["waited_ns"] >= 0, rows["waited_ns"] + rows["blocked_ns"], -1)
    ends = np.maximum(rows["completed_ns"], waited)
    return np.where(ends < 0, _NEVER, ends)


def _shows_end(rows: Rows) -> Mask:
    """Whose ends the host sees: of a device it only sees that streams are ordered."""
    return np.asarray(rows["timing"] != ENQUEUE_ONLY)


def _is_open(rows: Rows) -> Mask:
    """Which are under way, as far as ends are seen."""
    return np.asarray((_ends(rows) == _NEVER) & _shows_end(rows))
