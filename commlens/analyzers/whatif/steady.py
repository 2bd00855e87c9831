"""The simulator: three steps of every rank, of which the third is the answer.

Many simulations at once: each has its own recorded step and its own draw of the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.course import Chain, Own, Stop, find_course, issued
from commlens.analyzers.whatif.model import FREE, PERFECT, Model
from commlens.analyzers.whatif.node_costs import NodeCosts
from commlens.analyzers.whatif.nodes import USED_MAP, Link
from commlens.analyzers.whatif.queue import Queues

LAPS = 3


@dataclass(frozen=True)
class Batch:
    """Simulations to be run at once, shape (batch,) each.

    Attributes:
        steps: the recorded step, from LAPS - 1 on: those before it run first.
        draws: entry of the coefficients, 0 for what is most likely.
        warp: see `Model`.
    """

    steps: Ints
    draws: Ints
    warp: Floats


def simulate(model: Model, batch: Batch) -> Floats:
    """Length of the step, mean over the ranks, ns, shape (batch,)."""
    if model.sync_every == 1:
        return _simulate(model, batch)
    without = _simulate(unsynchronised(model), batch)
    return without + (_simulate(replace(model, sync_every=1), batch) - without) / model.sync_every


def unsynchronised(model: Model) -> Model:
    """The step without its gradients' collectives."""
    silent = {number for number, node in enumerate(model.nodes) if node.reduces or node.part == USED_MAP}
    kept = [place for place, point in enumerate(model.points) if point.node not in silent]
    rows = [*kept, len(model.points)]
    return replace(
        model,
        points=tuple(model.points[place] for place in kept),
        low_ns=model.low_ns[rows],
        high_ns=model.high_ns[rows],
        share=model.share[rows],
        sync_every=1,
    )


def _simulate(model: Model, batch: Batch) -> Floats:
    numbers = issued(model)
    costs, free = NodeCosts(model, numbers, batch.draws), model.overlap in (PERFECT, FREE)
    least = np.zeros(len(numbers)) if free else costs.least_ns()
    course, end = find_course(model, numbers, least, float(batch.warp.min(initial=1.0)))
    own = _OwnTimes(model, batch)
    ranks = _Ranks(model, own, Queues(model.links, batch.draws, LAPS * len(model.nodes)))
    cost_ns, begun = np.zeros((0, batch.steps.size)), ranks.now_ns
    for lap in range(LAPS):
        steps = batch.steps - (LAPS - 1 - lap)
        cost_ns = costs.at(steps)
        begun = ranks.now_ns
        own.begin(steps)
        ranks.begin(lap, np.zeros_like(cost_ns) if free else cost_ns)
        for each in course:
            ranks.go(each)
        ranks.end(end)
    step = np.asarray((ranks.now_ns - begun).mean(axis=0))
    return np.maximum(step, _least(model, numbers, cost_ns, batch.draws)) if model.overlap == PERFECT else step


class _OwnTimes:
    """Own time between places of the step that each simulation is in."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self._model, self._warp = model, batch.warp
        self._steps = batch.steps
        self._shares: dict[int, Floats] = {}
        self._moved: dict[int, Floats] = {}
        self._last: dict[int, Floats] = {}

    def begin(self, steps: Ints) -> None:
        """In these recorded steps, shape (batch,)."""
        self._steps = steps
        self._moved.clear()
        self._last.clear()

    def between(self, before: Own | None, own: Own) -> Floats:
        """What ranks work from one place (the step's start) to another, ns, shape (ranks, batch)."""
        if before is None:
            return self._at(own)
        if not before.moving and not own.moving:
            return np.asarray((own.still - before.still)[:, self._steps])
        self._last = {id(each): self._known(each) for each in (before, own)}
        return self._last[id(own)] - self._last[id(before)]

    def _known(self, own: Own) -> Floats:
        """Own time at a place: often one that was just asked for."""
        found = self._last.get(id(own))
        return self._at(own) if found is None else found

    def among(self, work_ns: Floats) -> Floats:
        """Of the steps' own times those of each simulation, shape (n, batch)."""
        return np.asarray(work_ns[:, self._steps])

    def _at(self, own: Own) -> Floats:
        found = own.still[:, self._steps]
        for place in own.moving:
            found = np.maximum(found, self._at_launch(place))
        return found

    def _at_launch(self, place: int) -> Floats:
        """Own time at a launch that the draws move, shape (ranks, batch)."""
        if place not in self._shares:
            self._shares[place] = self._model.share[place][:, None] ** self._warp
        if place not in self._moved:
            low, high = (each[place][:, self._steps] for each in (self._model.low_ns, self._model.high_ns))
            self._moved[place] = low + (high - low) * self._shares[place]
        return self._moved[place]


class _Ranks:
    """The ranks as they go through steps, many simulations at once.

    Attributes:
        now_ns: when each came from the stop that it last stood still at, shape (ranks, batch).
    """

    def __init__(self, model: Model, own: _OwnTimes, queues: Queues) -> None:
        self._model, self._own, self._queues = model, own, queues
        self.now_ns = np.zeros((model.step_ns.shape[0], queues.batch))
        self._since: Own | None = None
        self._lap, self._cost_ns = 0, np.zeros((0, queues.batch))

    def begin(self, lap: int, cost_ns: Floats) -> None:
        """The next step; costs as `NodeCosts.at` has them."""
        self._lap, self._cost_ns = lap, cost_ns

    def go(self, each: Stop | Chain) -> None:
        """Past what comes next."""
        if isinstance(each, Chain):
            self._through(each)
        elif each.point.waits:
            self._wait(each)
        else:
            cost = self._cost_ns[each.row : each.row + each.team.links.size]
            slot = each.point.node + self._lap * len(self._model.nodes)
            self._queues.take(slot, each.team.links, each.team.last(self._come(each.own)), cost)

    def end(self, own: Own) -> None:
        """To the end of the step."""
        self.now_ns, self._since = self._come(own), None

    def _come(self, own: Own) -> Floats:
        """When ranks come to a place, shape (ranks, batch)."""
        return self.now_ns + self._own.between(self._since, own)

    def _wait(self, stop: Stop) -> None:
        slot = stop.point.node + (self._lap - stop.point.lag) * len(self._model.nodes)
        now = self._come(stop.own)
        if slot >= 0:
            now = np.maximum(now, self._queues.ends_ns(slot, stop.team.links)[stop.team.member])
        self.now_ns, self._since = now, stop.own

    def _through(self, chain: Chain) -> None:
        first, end = chain.rows
        cost = self._cost_ns[first:end].reshape(-1, chain.team.links.size, self.now_ns.shape[1]).sum(axis=0)
        ended = chain.team.last(self._come(chain.first)) + self._own.among(chain.work_ns) + cost
        self.now_ns, self._since = ended[chain.team.member], chain.last


def _least(model: Model, numbers: list[int], cost_ns: Floats, draws: Ints) -> Floats:
    """What the busiest link needs for the step's bytes, ns, shape (batch,): no overlap hides more."""
    links = np.concatenate([np.zeros(0, np.int64), *(model.nodes[number].links for number in numbers)])
    work = np.zeros((len(model.links), draws.size))
    for link, cost in zip(links, cost_ns, strict=True):
        work[link] += cost
    at_once = [_at_once(link)[draws] for link in model.links]
    return np.asarray((work / np.stack(at_once)).max(axis=0)) if at_once else np.zeros(draws.size)


def _at_once(link: Link) -> Floats:
    """How many collectives' worth a link does at a time."""
    factor = link.sharing.factor if link.workers == 2 else np.zeros_like(link.sharing.factor)
    return np.asarray(link.workers / (1 + factor))
