"""The model of a recorded run: its usual step, put together from all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.stragglers import find_persistent, split_spikes
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.whatif.links import Traffic, find_node, find_traffic
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import BUFFERS as BUFFERS_PART
from commlens.analyzers.whatif.nodes import Node
from commlens.analyzers.whatif.points import issued, waited
from commlens.analyzers.whatif.ready import GradientTimes
from commlens.analyzers.whatif.reduced import find_gradients
from commlens.analyzers.whatif.sharded import find_units
from commlens.analyzers.whatif.thread import BUFFERS, REDUCER, Thread, read_thread, usual_steps
from commlens.trace.calibration import Calibration
from commlens.trace.schema import MISSING

FEWEST_STEPS = 5
MOST_CELLS = 2048  # ranks times steps that are simulated; of more steps some are left out, evenly


def recorded_model(
    ranks: Sequence[RankFacts],
    joined: Joined,
    transfers: Sequence[Transfers],
    infos: Mapping[int, Mapping[str, Any]],
    gradients: Mapping[int, GradientTimes] | None = None,
    calibration: Calibration | None = None,
) -> Model | str:
    """The model of a run, or why there is none.

    Args:
        ranks: stage one of each rank, ascending.
        joined: stage two of the same.
        transfers: see `transfers.measured`.
        infos: rank.json of each rank.
        gradients: the table of gradients of each rank that has some.
        calibration: where the job's own transfers do not tell latency from bandwidth.
    """
    traffic = find_traffic(joined, transfers, infos, calibration)
    threads = [
        read_thread(facts, traffic.ends_ns(place, waits.need_ns, facts.columns.collectives["completed_ns"]))
        for place, (facts, waits) in enumerate(zip(ranks, joined.waits, strict=True))
    ]
    if isinstance(rows := usual_steps(threads), str):
        return rows
    if rows[0].shape[1] < FEWEST_STEPS:
        return f"{rows[0].shape[1]} steps are alike on all ranks; it takes {FEWEST_STEPS} to simulate one"
    rows = [own[:, _chosen(own.shape[1], len(ranks))] for own in rows]
    nodes: list[Node] = []
    link, column = traffic.placed(rows)
    for place in range(rows[0].shape[0]):
        first = rows[0][place, 0]
        dtype, reduces = _word(ranks[0], "dtype", first), bool(threads[0].waiter[first] == REDUCER)
        node = find_node(traffic, joined, link[:, place], column[:, place], dtype, reduces)
        if isinstance(node, str):
            return node
        nodes.append(replace(node, part=BUFFERS_PART) if threads[0].waiter[first] == BUFFERS else node)
    model = _assembled(threads, rows, nodes, traffic)
    if isinstance(model, str):
        return model
    model = replace(model, late=_late(joined))
    model = find_units(model, threads, rows, infos)
    return find_gradients(model, threads, rows, infos, gradients or {})


def _word(facts: RankFacts, column: str, row: int) -> str:
    words = facts.columns.words[column]
    return words.words[words.codes[row]] if words.codes[row] != MISSING else ""


def _chosen(steps: int, ranks: int) -> Ints:
    """Steps to be simulated, all in order where there are not too many."""
    most = max(FEWEST_STEPS + 2, min(steps, MOST_CELLS // ranks))
    return np.unique(np.linspace(0, steps - 1, min(most, steps)).astype(np.int64))


def _late(joined: Joined) -> tuple[int, ...]:
    """Positions of the ranks that are always waited for."""
    if joined.lateness is None or not joined.lateness.index.size:
        return ()
    _, usual = split_spikes(joined.lateness)
    late = find_persistent(joined.lateness, usual)
    return late.positions if late is not None else ()


def _assembled(threads: Sequence[Thread], rows: Sequence[Ints], nodes: list[Node], traffic: Traffic) -> Model | str:
    """Points by when the first rank's thread usually meets them."""
    calls, waits = issued(threads, rows), waited(threads, rows)
    if isinstance(waits, str):
        return waits
    points = [*calls.points, *waits.points]
    wall = np.concatenate([calls.wall_ns, waits.wall_ns])
    order = np.lexsort(([point.node for point in points], [point.waits for point in points], wall.tolist()))
    steps = [thread.step[own_rows[0]] for thread, own_rows in zip(threads, rows, strict=True)]
    whole = np.stack(
        [t.own_ns(t.facts.steps.end_ns[s], s) for t, s in zip(threads, steps, strict=True)],
    )
    length = np.stack(
        [t.facts.steps.end_ns[s] - t.facts.steps.start_ns[s] for t, s in zip(threads, steps, strict=True)]
    )
    low = np.concatenate([calls.own_ns, waits.own_ns])[order]
    low = np.concatenate([low, whole[None]])
    return Model(
        step_ns=length.astype(np.float64),
        points=tuple(points[place] for place in order),
        low_ns=low,
        high_ns=low,
        share=np.zeros(low.shape[:2]),
        nodes=tuple(nodes),
        links=traffic.links,
    )
