"""Communicators as queues: in the order of issue, one collective a worker, and those at once share the link."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.nodes import Link

_SHARED = 2  # workers whose collectives slow each other down; of more, none do


class Queues:
    """The links of a model while it is simulated, many simulations at once.

    A collective begins when its last rank has issued it and a worker is free. Two at once run at 1 / (1 + sharing)
    each (processor sharing), so a later one also moves the end of the one before.

    Args:
        links: the communicators.
        draws: which entry of their coefficients each simulation uses, shape (batch,).
        slots: collectives that will be taken.
    """

    def __init__(self, links: Sequence[Link], draws: Ints, slots: int) -> None:
        workers = max((link.workers for link in links), default=1)
        self.batch = batch = draws.size
        self.busy_ns = np.full((len(links), workers, batch), np.inf)
        for busy, link in zip(self.busy_ns, links, strict=True):
            busy[: link.workers] = 0.0
        self._sharing = np.stack([_factor(link)[draws] for link in links]) if links else np.zeros((0, batch))
        self._shares = bool(self._sharing.any())
        self._owner = np.full((len(links), workers, batch), -1, np.int64)
        self._ends = np.zeros((slots, len(links), batch))

    def take(self, slot: int, links: Ints, launched_ns: Floats, cost_ns: Floats) -> None:
        """Run one collective on each of `links`.

        Args:
            slot: where its end is kept.
            links: shape (n,).
            launched_ns: when its last rank issued it, shape (n, batch).
            cost_ns: its time alone, shape (n, batch).
        """
        busy = self.busy_ns[links]
        begun = np.maximum(launched_ns, busy[:, 0])
        ends = begun + cost_ns
        if self._shares and busy.shape[1] >= _SHARED:
            other = busy[:, 1]
            left = np.where(np.isfinite(other), np.maximum(other - begun, 0), 0)
            more = self._sharing[links] * np.minimum(left, cost_ns)
            ends = ends + more
            self._delay(links, more)
            busy[:, 1] = other + more
        self._ends[slot, links] = ends
        busy[:, 0] = ends
        self._keep(slot, links, busy)

    def ends_ns(self, slot: int, links: Ints) -> Floats:
        """When the collective of a slot ends, as far as is known by now, shape (n, batch)."""
        return np.asarray(self._ends[slot, links])

    def _keep(self, slot: int, links: Ints, busy: Floats) -> None:
        """Workers by when they get free."""
        if busy.shape[1] == 1:
            self.busy_ns[links] = busy
            return
        self._owner[links, 0] = slot
        order = np.argsort(busy, axis=1, kind="stable")
        self.busy_ns[links] = np.take_along_axis(busy, order, axis=1)
        self._owner[links] = np.take_along_axis(self._owner[links], order, axis=1)

    def _delay(self, links: Ints, more: Floats) -> None:
        """The collectives that still ran end later."""
        late = np.nonzero((more > 0) & (self._owner[links, 1] >= 0))
        whose = links[late[0]]
        self._ends[self._owner[whose, 1, late[1]], whose, late[1]] += more[late]


def _factor(link: Link) -> Floats:
    return link.sharing.factor if link.workers == _SHARED else np.zeros_like(link.sharing.factor)
