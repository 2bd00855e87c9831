"""CUDA graphs: a collective that was captured into one runs at every replay, and passes no hook of ours then."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from commlens.profiler.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable

    from commlens.profiler.slots import Rows

_graphs: Graphs | None = None


class Graphs:
    """What is known of the graphs of this process.

    Attributes:
        captured: graphs whose capture began.
        replays: of all of them.
        collectives_captured: collectives that were issued while a capture was under way.
    """

    def __init__(self) -> None:
        self.captured = self.replays = self.collectives_captured = 0
        self._captures: list[list[int]] = []  # begin and end of each; an end far off while it is open
        self._seen: set[int] = set()
        self._told = (0, False, 0)

    def begin(self) -> None:
        """A capture begins."""
        self.captured += 1
        self._captures.append([now(), sys.maxsize])

    def end(self) -> None:
        """A capture ends."""
        if self._captures:
            self._captures[-1][1] = now()

    def replay(self) -> None:
        """A graph runs."""
        self.replays += 1

    def see(self, rows: Rows) -> bool:
        """Counts collectives that were issued within a capture.

        Args:
            rows: what was flushed of `slots.ROW`.

        Returns:
            Whether rank.json should tell something new; not for every replay.
        """
        if self._captures and len(rows):
            issued, bounds = rows["issued_ns"], np.array(self._captures, np.int64)
            inside = ((issued[:, None] >= bounds[:, 0]) & (issued[:, None] <= bounds[:, 1])).any(axis=1)
            self._seen.update(rows["event"][inside].tolist())
            self.collectives_captured = len(self._seen)
        told = (self.captured, self.replays > 0, self.collectives_captured)
        is_new, self._told = told != self._told, told
        return is_new

    def described(self) -> dict[str, int] | None:
        """The entry of rank.json, None where there are no graphs."""
        if not (self.captured or self.replays):
            return None
        return {
            "captured": self.captured,
            "replays": self.replays,
            "collectives_captured": self.collectives_captured,
        }


def watch() -> Graphs:
    """Counts captures and replays from now on, once per process; counts nothing where torch has no CUDA graphs."""
    global _graphs
    if _graphs is None:
        _graphs = Graphs()
        import torch

        graph = getattr(getattr(torch, "cuda", None), "CUDAGraph", None)
        told = (("capture_begin", _graphs.begin), ("capture_end", _graphs.end), ("replay", _graphs.replay))
        for name, tell in told:
            original = getattr(graph, name, None)
            if callable(original):
                setattr(graph, name, _telling(original, tell))
    return _graphs


def _telling(original: Callable[..., Any], tell: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        tell()
        return original(*args, **kwargs)

    return call


def is_capturing() -> bool:
    """Whether the current stream is being captured into a graph."""
    import torch

    asked = getattr(getattr(torch, "cuda", None), "is_current_stream_capturing", None)
    return bool(torch.cuda.is_initialized() and asked()) if asked is not None else False
