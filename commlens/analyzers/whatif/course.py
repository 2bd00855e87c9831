"""What the simulator goes through in a step: places where ranks meet collectives, and chains of these.

A collective that all its ranks issue and at once wait for leaves them all at the same moment, its end, if it takes
longer than what a rank does meanwhile. Where one such follows another on the same links,

    end of the next = end of the last + longest own work between them on any rank + its transfer

so that a chain of them is one sum, however many they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.model import Model, Point
from commlens.analyzers.whatif.nodes import Link, Node


@dataclass(frozen=True)
class Team:
    """The links of a collective, and the ranks on each.

    Attributes:
        links: ascending, shape (n,).
        member: which of them each rank takes part on, shape (ranks,).
        order: ranks by link, shape (ranks,).
        first: where the ranks of each link begin there, shape (n,).
        even: whether each link has equally many.
    """

    links: Ints
    member: Ints
    order: Ints
    first: Ints
    even: bool

    def last(self, times: Floats) -> Floats:
        """The latest of each link's ranks, shape (n, ...).

        Args:
            times: shape (ranks, ...).
        """
        if self.links.size == 1:
            return np.asarray(times.max(axis=0, keepdims=True))
        times = times[self.order]
        if self.even:  # numpy's reduceat takes six times as long
            return np.asarray(times.reshape(self.links.size, -1, times.shape[1]).max(axis=1))
        return np.asarray(np.maximum.reduceat(times, self.first, axis=0))


class Own(NamedTuple):
    """Own time of the ranks at one place, ns: the latest of what is the same in all draws, and what each draw shifts.

    Attributes:
        still: the former, shape (ranks, steps).
        moving: places of the latter that may be later than that.
    """

    still: Floats
    moving: tuple[int, ...]


@dataclass(frozen=True)
class Stop:
    """One point.

    Attributes:
        point: of the model.
        own: at it.
        team: of its collective.
        row: where the costs of what it issues begin; 0 where it waits.
    """

    point: Point
    own: Own
    team: Team
    row: int


@dataclass(frozen=True)
class Chain:
    """Collectives on the same links, each waited for at once.

    Attributes:
        team: of all of them.
        first: own time where the first is issued.
        last: own time where the last is waited for.
        rows: of the first among the costs, and behind the last.
        work_ns: longest own time of each link's ranks between them, all together, shape (n, steps).
    """

    team: Team
    first: Own
    last: Own
    rows: tuple[int, int]
    work_ns: Floats


Course: TypeAlias = list[Stop | Chain]


def issued(model: Model) -> list[int]:
    """Numbers of the collectives in the order in which they are first issued."""
    return list(dict.fromkeys(point.node for point in model.points if not point.waits))


def find_course(model: Model, numbers: Sequence[int], least_ns: Floats, least_warp: float) -> tuple[Course, Own]:
    """What is gone through in a step, and the own time at its end.

    Args:
        model: of the step.
        numbers: its collectives in the order of `issued`.
        least_ns: what each of these takes at least, NaN where that is not known.
        least_warp: least of the draws', see `Model`; launches are the later for it.
    """
    return _Finder(model, numbers, least_ns, least_warp).found()


class _Finder:
    """Goes through the points once."""

    def __init__(self, model: Model, numbers: Sequence[int], least_ns: Floats, least_warp: float) -> None:
        self._model, self._points = model, model.points
        self._row = dict(
            zip(numbers, np.cumsum([0, *(model.nodes[n].links.size for n in numbers)]).tolist(), strict=False)
        )
        self._least = dict(zip(numbers, least_ns.tolist(), strict=True))
        self._moves = np.any(model.share > 0, axis=1)
        self._least_warp, self._launched = least_warp, dict[int, Floats]()
        self._own = Own(np.full(model.step_ns.shape, -np.inf), ())
        self._teams: dict[tuple[bytes, bytes], Team] = {}
        self._pending = _Pending(model)
        self._times = np.bincount([point.node for point in model.points], minlength=len(model.nodes)).tolist()
        self._course: Course = []

    def found(self) -> tuple[Course, Own]:
        place = 0
        while place < len(self._points):
            if not self._pair(place):
                self._stop(place)
                place += 1
            else:
                place += 2
        return self._course, self._at(len(self._points), self._own)

    def _at(self, place: int, before: Own) -> Own:
        """Own time at a place, which never falls along them."""
        if self._moves[place]:
            return Own(before.still, (*before.moving, place))
        low = self._model.low_ns[place]
        if before.moving and not (low > before.still).any():
            return before
        still = np.maximum(before.still, low)
        return Own(still, tuple(each for each in before.moving if (self._latest(each) > still).any()))

    def _latest(self, place: int) -> Floats:
        """The latest that any draw moves a launch to, shape (ranks, steps)."""
        if place not in self._launched:
            low, high, share = (each[place] for each in (self._model.low_ns, self._model.high_ns, self._model.share))
            self._launched[place] = np.maximum(low, low + (high - low) * (share**self._least_warp)[:, None])
        return self._launched[place]

    def _stop(self, place: int) -> None:
        point = self._points[place]
        self._own = self._at(place, self._own)
        self._course.append(Stop(point, self._own, self._team(point.node), self._row.get(point.node, 0)))
        self._pending.go(point)

    def _pair(self, place: int) -> bool:
        """Whether this point and the next are a collective that all wait for at once: then they are gone through."""
        node = self._points[place].node
        if not _waits_next(self._points, place) or self._times[node] != 2:
            return False
        if not self._pending.free(self._model.nodes[node]):
            return False
        begun = self._at(place, self._own)
        waited = self._at(place + 1, begun)
        if waited.moving or not self._least[node] >= float((waited.still - begun.still).max()):
            return False
        self._join(node, begun, waited)
        self._own = waited
        return True

    def _join(self, node: int, begun: Own, waited: Own) -> None:
        """Add a collective to the chain before it, or begin one."""
        team, row = self._team(node), self._row[node]
        last = self._course[-1] if self._course else None
        end = row + team.links.size
        if not isinstance(last, Chain) or last.team is not team or begun.moving or last.rows[1] != row:
            self._course.append(
                Chain(team, begun, waited, (row, end), np.zeros((team.links.size, waited.still.shape[1])))
            )
            return
        work = last.work_ns + team.last(begun.still - last.last.still)
        self._course[-1] = Chain(team, last.first, waited, (last.rows[0], end), work)

    def _team(self, number: int) -> Team:
        node = self._model.nodes[number]
        key = node.links.tobytes(), node.member.tobytes()
        if key not in self._teams:
            self._teams[key] = _team(node)
        return self._teams[key]


def _team(node: Node) -> Team:
    order = np.argsort(node.member, kind="stable")
    first = np.searchsorted(node.member[order], np.arange(node.links.size))
    sizes = np.diff(np.append(first, order.size))
    return Team(node.links, node.member, order, first, bool((sizes == sizes[0]).all()))


class _Pending:
    """Collectives that were issued and not yet waited for, by link: in any step but the first."""

    def __init__(self, model: Model) -> None:
        self._nodes, self._links = model.nodes, model.links
        self._open: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for place, point in enumerate(model.points):
            if not _waits_next(model.points, place):
                self.go(point)
        # What is left then was issued in the step before.
        for link, left in self._open.items():
            self._open[link] = [(node, 1) for node, _ in left]

    def free(self, node: Node) -> bool:
        """Whether nothing is under way on its links."""
        return not any(self._open[link] for link in node.links.tolist())

    def go(self, point: Point) -> None:
        """Past a point."""
        for link in self._nodes[point.node].links.tolist():
            if not point.waits:
                self._open[link].append((point.node, 0))
            elif (point.node, point.lag) in self._open[link]:
                self._ended(link, self._open[link].index((point.node, point.lag)))

    def _ended(self, link: int, place: int) -> None:
        """One collective; on a link that runs one at a time, those before it too."""
        del self._open[link][0 if _serial(self._links[link]) else place : place + 1]


def _waits_next(points: Sequence[Point], place: int) -> bool:
    """Whether what is issued at a place is waited for at the next."""
    point = points[place]
    return not point.waits and place + 1 < len(points) and points[place + 1] == Point(point.node, waits=True)


def _serial(link: Link) -> bool:
    return link.workers == 1
