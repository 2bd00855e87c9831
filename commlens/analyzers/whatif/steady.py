"""The simulator: three steps of every rank, of which the third is the answer.

Many simulations at once: each has its own recorded step and its own draw of the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.model import FREE, PERFECT, Model, own_ns
from commlens.analyzers.whatif.nodes import USED_MAP, Link, Node
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


def node_cost_ns(node: Node, links: tuple[Link, ...], steps: Ints, draws: Ints) -> Floats:
    """Time of a collective alone on its link, ns, shape (n, batch).

    That of gradients is the cost model's. Others take what they took in the recorded step, scaled by what the cost
    model says of a change of their link (and by its draws); a change of a link without a cost model gives NaN.
    """
    rows = [
        _cost(node, links[link], line, measured[steps], draws)
        for link, line, measured in zip(node.links, node.lines, node.measured_ns, strict=True)
    ]
    return np.stack(rows)


def _cost(node: Node, link: Link, line: Line | str, measured_ns: Floats, draws: Ints) -> Floats:
    if isinstance(line, str):
        return np.full_like(measured_ns, np.nan) if link.changed or node.rescaled else measured_ns
    alpha = line.alpha_ns if link.alpha_ns is None else np.full_like(line.alpha_ns, link.alpha_ns)
    beta = line.beta if link.gb_s is None else np.full_like(line.beta, 1 / link.gb_s)
    time = node.messages * node.latency * alpha * link.latency + node.per_byte * beta / link.speed * node.bytes
    now = node.messages * line.alpha_ns[0] + line.beta[0] * node.bytes
    known = not node.reduces and now > 0 and bool(np.isfinite(measured_ns).all())
    return time[draws] * measured_ns / now if known else np.asarray(time[draws])


def _simulate(model: Model, batch: Batch) -> Floats:
    size, nodes = batch.steps.size, len(model.nodes)
    costs: list[Floats] = []
    free = model.overlap in (PERFECT, FREE)
    queues = Queues(model.links, batch.draws, LAPS * nodes)
    now, begun = np.zeros((2, model.step_ns.shape[0], size))
    for lap in range(LAPS):
        steps = batch.steps - (LAPS - 1 - lap)
        own = own_ns(model, steps, batch.warp)
        costs = [node_cost_ns(node, model.links, steps, batch.draws) for node in model.nodes]
        begun, before = now, 0.0
        for place, point in enumerate(model.points):
            now, before = now + (own[place] - before), own[place]
            node, slot = model.nodes[point.node], point.node + (lap - point.lag) * nodes
            if point.waits:
                if slot >= 0:
                    now = np.maximum(now, queues.ends_ns(slot, node.links)[node.member])
            else:
                cost = costs[point.node]
                queues.take(slot, node.links, _last(now, node), np.zeros_like(cost) if free else cost)
        now = now + (own[-1] - before)
    step = np.asarray((now - begun).mean(axis=0))
    return np.maximum(step, _least(model, costs, batch.draws)) if model.overlap == PERFECT else step


def _last(now: Floats, node: Node) -> Floats:
    """When the last rank of each link has come, shape (n, batch)."""
    if node.links.size == 1:
        return np.asarray(now.max(axis=0, keepdims=True))
    latest = np.full((node.links.size, now.shape[1]), -np.inf)
    np.maximum.at(latest, node.member, now)
    return latest


def _least(model: Model, costs: list[Floats], draws: Ints) -> Floats:
    """What the busiest link needs for the step's bytes, ns, shape (batch,): no overlap hides more."""
    issued = {point.node for point in model.points if not point.waits}
    work = np.zeros((len(model.links), draws.size))
    for place in issued:
        work[model.nodes[place].links] += costs[place]
    at_once = [_at_once(link)[draws] for link in model.links]
    return np.asarray((work / np.stack(at_once)).max(axis=0)) if at_once else np.zeros(draws.size)


def _at_once(link: Link) -> Floats:
    """How many collectives' worth a link does at a time."""
    factor = link.sharing.factor if link.workers == 2 else np.zeros_like(link.sharing.factor)
    return np.asarray(link.workers / (1 + factor))
