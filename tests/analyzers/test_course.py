"""Steps taken in chains and many at once, against a simulator that goes from point to point, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from commlens.analyzers.whatif.coefficients import DRAWS, Line
from commlens.analyzers.whatif.course import Chain, find_course, issued
from commlens.analyzers.whatif.model import FREE, Model, Point
from commlens.analyzers.whatif.node_costs import NodeCosts
from commlens.analyzers.whatif.nodes import Link, Node
from commlens.analyzers.whatif.queue import Queues
from commlens.analyzers.whatif.sharing import Sharing
from commlens.analyzers.whatif.steady import LAPS, Batch, simulate

RANKS, STEPS = 4, 5
# Links a collective may run on, and which of them each rank takes part on: all together, pairs, other pairs, 1 and 3.
TEAMS = [([0], [0, 0, 0, 0]), ([1, 2], [0, 0, 1, 1]), ([3, 4], [0, 1, 0, 1]), ([1, 5], [0, 1, 1, 1])]


def plainly(model: Model, batch: Batch) -> list[float]:
    return [
        _plainly(model, int(s), int(d), float(w)) for s, d, w in zip(batch.steps, batch.draws, batch.warp, strict=True)
    ]


def _plainly(model: Model, step: int, draw: int, warp: float) -> float:
    queues = Queues(model.links, np.array([draw]), LAPS * len(model.nodes))
    now = begun = np.zeros(RANKS)
    for lap in range(LAPS):
        here = step - (LAPS - 1 - lap)
        low, high = model.low_ns[:, :, here], model.high_ns[:, :, here]
        own = np.maximum.accumulate(low + (high - low) * np.where(model.share > 0, model.share**warp, 0.0))
        begun, before = now, np.zeros(RANKS)
        for place, point in enumerate(model.points):
            now, before = now + own[place] - before, own[place]
            node, slot = model.nodes[point.node], point.node + (lap - point.lag) * len(model.nodes)
            if not point.waits:
                last = np.array([[now[node.member == n].max()] for n in range(node.links.size)])
                cost = _cost(model, node, here, draw) * (model.overlap != FREE)
                queues.take(slot, node.links, last, cost[:, None])
            elif slot >= 0:
                now = np.maximum(now, queues.ends_ns(slot, node.links)[node.member, 0])
        now = now + own[-1] - before
    return float((now - begun).mean())


def _cost(model: Model, node: Node, step: int, draw: int) -> np.ndarray:
    found = []
    for number, line, taken in zip(node.links, node.lines, node.measured_ns[:, step], strict=True):
        link = model.links[number]
        if isinstance(line, str):
            found.append(taken)
            continue
        time = line.alpha_ns[draw] * link.latency + line.beta[draw] / link.speed * node.bytes
        usual = line.alpha_ns[0] + line.beta[0] * node.bytes
        found.append(time if node.reduces else time * taken / usual)
    return np.array(found)


def any_model(seed: int) -> Model:
    random = np.random.default_rng(seed)
    workers = random.integers(1, 3, 6)
    shared = [Sharing(random.uniform(0, 1, 1 + DRAWS) * (random.random() < 0.5), measured=True) for _ in workers]
    links = tuple(Link(str(n), int(each), shared[n]) for n, each in enumerate(workers))
    nodes = tuple(_node(random) for _ in range(14))
    points = _points(random, len(nodes))
    worked = random.exponential(20, (len(points) + 1, RANKS, STEPS)).round()
    # A thread that waits at once has done little since, or nothing.
    at_once = [now == Point(before.node, waits=True) for before, now in pairwise(points)]
    worked[1:-1][at_once] *= random.choice([0.0, 0.0, 0.2, 0.5])
    low = np.cumsum(worked, axis=0)
    moves = (random.random((low.shape[0], 1)) < 0.08) & ~np.array([*(point.waits for point in points), True])[:, None]
    share = np.where(moves, random.uniform(0, 1, low.shape[:2]), 0.0)
    high = np.where(moves[:, :, None], low + random.exponential(30, low.shape), low)
    return Model(np.ones((RANKS, STEPS)), tuple(points), low, high, share, nodes, links)


def _node(random: np.random.Generator) -> Node:
    numbers, member = TEAMS[random.choice(4, p=[0.08, 0.8, 0.08, 0.04])]
    draws = random.uniform(0.8, 1.2, 1 + DRAWS)
    line = "one size" if random.random() < 0.3 else Line(10 * draws, 0.5 * draws, 0, np.inf)
    taken = random.uniform(20, 60, (len(numbers), STEPS))
    reduces = not isinstance(line, str) and random.random() < 0.3
    lines: Sequence[Line | str] = [line] * len(numbers)
    return Node("all_reduce", "float32", 40.0, np.array(numbers), np.array(member), taken, tuple(lines), reduces)


def _points(random: np.random.Generator, count: int) -> list[Point]:
    """Every collective is issued in turn, and most are waited for at once; others later, in the next step, or never."""
    points: list[Point] = []
    late: list[int] = []
    for node in range(count):
        points += [Point(each, waits=True) for each in late]
        points.append(Point(node, waits=False))
        how = random.choice(["at once", "later", "next step", "never"], p=[0.85, 0.09, 0.04, 0.02])
        late = [node] if how == "later" else []
        if how == "at once":
            points.append(Point(node, waits=True))
        if how == "next step":
            points.insert(int(random.integers(0, len(points))), Point(node, waits=True, lag=1))
    return points


def some(model: Model, seed: int) -> Batch:
    random = np.random.default_rng(seed)
    draws = random.integers(0, 1 + DRAWS, 6)
    return Batch(random.integers(LAPS - 1, model.steps, 6), draws, np.exp(0.3 * random.standard_normal(6)))


@pytest.mark.parametrize("overlap", ["as is", FREE])
def test_chains_end_when_their_points_do(overlap: str) -> None:
    chained = 0
    for seed in range(60):
        model, batch = replace(any_model(seed), overlap=overlap), some(any_model(seed), seed)
        assert simulate(model, batch) == pytest.approx(plainly(model, batch), abs=1e-6), seed
        numbers = issued(model)
        least = np.zeros(len(numbers)) if overlap == FREE else NodeCosts(model, numbers, batch.draws).least_ns()
        course, _ = find_course(model, numbers, least, float(batch.warp.min()))
        chained += sum(
            isinstance(each, Chain) and each.rows[1] - each.rows[0] > each.team.links.size for each in course
        )
    assert chained >= 10  # chains of several collectives
