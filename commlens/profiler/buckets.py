"""Which bucket of DDP's an all_reduce carries, told from its place in the backward and its size."""

from __future__ import annotations

from collections import defaultdict

from commlens.trace.schema import MISSING


class Buckets:
    """The position among the buckets of each DDP model, in the backward under way.

    Attributes:
        layouts: Bytes of the buckets in the order of their issue, a list a model, by group.
    """

    def __init__(self) -> None:
        self.layouts: dict[str, list[list[int]]] = {}
        self._next: defaultdict[str, list[int]] = defaultdict(list)
        self._in_backward = False

    def begin(self) -> None:
        """A backward begins."""
        self._in_backward = True
        self._next.clear()

    def end(self) -> None:
        """The backward has ended."""
        self._in_backward = False

    def lay_out(self, layouts: dict[str, list[list[int]]]) -> None:
        """Takes the buckets of all models anew."""
        self.layouts = layouts

    def of(self, group: str, op: str, num_bytes: int) -> int:
        """DDP bucket that this collective carries, MISSING if it is none.

        DDP issues the buckets of one backward in order, so a collective of
        exactly the next bucket's size is that bucket, unless it may be another model's.
        """
        if not self._in_backward or op != "all_reduce" or group not in self.layouts:
            return MISSING
        layouts = self.layouts[group]
        positions = self._next[group] or [0] * len(layouts)
        self._next[group] = positions
        fits = [layout[at : at + 1] == [num_bytes] for layout, at in zip(layouts, positions, strict=False)]
        if sum(fits) != 1:
            return MISSING
        model = fits.index(True)
        positions[model] += 1
        return positions[model] - 1
