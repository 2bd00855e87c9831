"""What a user asks of the running job: looked for once a second on the flush thread, by one `stat` of one file.

Recording pauses and goes on at step numbers. While it is paused everything is counted as before, so that sequence
numbers stay the same on all ranks, and phases are written, six small rows a step; the collectives are not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.control import CAPTURE, CONTROL_FILE, PAUSE, Request, read_requests

if TYPE_CHECKING:
    from commlens.profiler.gradients import Ready
    from commlens.profiler.windows import Windows

_KEPT: Final = 64  # answers, and spans
_Seen = tuple[int, int, int]


class Pauses:
    """The steps whose collectives are not written: from one up to, not including, another; None: still paused."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int | None]] = []

    @property
    def is_on(self) -> bool:
        """Whether the last one has no end yet."""
        return bool(self.spans) and self.spans[-1][1] is None

    def begin(self, step: int) -> None:
        if not self.is_on:
            self.spans.append((step, None))

    def end(self, step: int) -> None:
        if self.is_on:
            first = self.spans[-1][0]
            self.spans[-1] = first, max(step, first)

    def include(self, step: int) -> bool:
        """Whether the collectives of a step are written."""
        return not any(first <= step and (end is None or step < end) for first, end in self.spans)

    def written(self, steps: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which rows of these steps are written, shape (rows,)."""
        kept = np.ones(steps.shape, bool)
        for first, end in self.spans:
            kept &= (steps < first) | (False if end is None else steps >= end)
        return kept

    def only(self, samples: list[Ready]) -> list[Ready]:
        """Those samples of gradients that are written."""
        kept = self.written(np.array([each.step for each in samples], np.int64))
        return [each for each, is_kept in zip(samples, kept, strict=True) if is_kept]

    def described(self) -> list[dict[str, int | None]]:
        """The entry of rank.json; of more than `_KEPT` the oldest are one, which covers what lay between them."""
        spans, merged = self.spans, len(self.spans) - _KEPT + 1
        if merged > 1:
            spans = [(spans[0][0], spans[merged - 1][1]), *spans[merged:]]
        told: list[dict[str, int | None]] = [{"from_step": first, "to_step": end} for first, end in spans]
        if merged > 1:
            told[0]["pauses"] = merged
        return told


class Control:
    """Takes requests and answers them.

    Args:
        windows: where a capture is asked for.
        step: the step that the rank is in.
        on_change: told when there is an answer for rank.json.
    """

    def __init__(self, windows: Windows, step: Callable[[], int], on_change: Callable[[], None]) -> None:
        self.pauses = Pauses()
        self.answers: list[dict[str, Any]] = []
        self._windows = windows
        self._step = step
        self._on_change = on_change
        self._seen: _Seen | None = None
        self._last = 0

    def look(self, folder: Path) -> None:
        """Takes what is new in the control file of a run folder."""
        seen = _seen(folder / CONTROL_FILE)
        if seen is None or seen == self._seen:
            return
        self._seen = seen
        for request in read_requests(folder):
            if request.number > self._last:
                self._last = request.number
                self._take(request)

    def _take(self, request: Request) -> None:
        now_in = self._step()
        late = now_in >= request.step
        if request.kind == CAPTURE:
            late = not self._windows.ask(request.step, max(request.steps, 1))
            took: int | None = None if late else request.step
        else:
            # Rows of the step under way may have been written already.
            took = max(request.step, now_in + 1)
            (self.pauses.begin if request.kind == PAUSE else self.pauses.end)(took)
        self.answers = [
            *self.answers[-_KEPT:],
            {"number": request.number, "kind": request.kind, "late": late, "in_step": now_in, "from_step": took},
        ]
        self._on_change()


def _seen(path: Path) -> _Seen | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
