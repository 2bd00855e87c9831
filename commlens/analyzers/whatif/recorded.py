"""The model of a recorded run: its usual step, put together from all ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.stragglers import find_mostly, find_persistent, split_spikes
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.across.waits import Waits, find_places
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each, keep, keep_parts
from commlens.analyzers.intervals import Ints
from commlens.analyzers.numerals import counted
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.whatif.links import Placed, Road, ends_ns, find_node, find_roads, placed
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import BUFFERS as BUFFERS_PART
from commlens.analyzers.whatif.nodes import Link, Node
from commlens.analyzers.whatif.points import issued, waited
from commlens.analyzers.whatif.ready import GradientTimes
from commlens.analyzers.whatif.reduced import find_gradients
from commlens.analyzers.whatif.sharded import find_units
from commlens.analyzers.whatif.thread import BUFFERS, REDUCER, Thread, read_thread, rows_by_step, usual_steps
from commlens.trace.calibration import Calibration
from commlens.trace.schema import MISSING

FEWEST_STEPS = 5
_AT_ONCE = 1 << 20  # ranks times steps times collectives whose places are here together: bounds the memory
MOST_CELLS = 2048  # ranks times steps that are simulated; of more steps some are left out, evenly


def recorded_model(
    ranks: Sequence[RankFacts],
    joined: Joined,
    transfers: Sequence[Transfers],
    infos: Mapping[int, Mapping[str, Any]],
    gradients: Sequence[GradientTimes] | None = None,
    calibration: Calibration | None = None,
) -> Model | str:
    """The model of a run, or why there is none.

    Args:
        ranks: stage one of each rank, ascending.
        joined: stage two of the same.
        transfers: see `transfers.measured`.
        infos: rank.json of each rank.
        gradients: the table of gradients of each rank.
        calibration: where the job's own transfers do not tell latency from bandwidth.
    """
    roads = find_roads(joined, transfers, infos, calibration)
    places = find_places([matched.communicator for matched in joined.matched], len(ranks))
    of_rank = partial(_thread, matched=joined.matched, roads=roads)
    threads, placed_rows = keep_parts(2, of_rank, ranks, joined.waits, places)
    if isinstance(index := usual_steps(threads), str):
        return index
    if index.size < FEWEST_STEPS:
        are = "is" if index.size == 1 else "are"
        return f"{counted(index.size, 'step')} {are} alike on all ranks; it takes {FEWEST_STEPS} to simulate one"
    rows = keep(partial(rows_by_step, index=index[_chosen(index.size, len(ranks))]), threads)
    nodes: list[Node] = []
    first, waiter = rows[0][:, 0], threads[0].waiter
    dtypes = [_word(ranks[0], "dtype", row) for row in first]
    for place, (link, column) in enumerate(_taken(placed_rows, rows)):
        node = find_node(roads, joined, link, column, dtypes[place], bool(waiter[first[place]] == REDUCER))
        if isinstance(node, str):
            return node
        nodes.append(replace(node, part=BUFFERS_PART) if waiter[first[place]] == BUFFERS else node)
    model = _assembled(threads, rows, nodes, tuple(road.link for road in roads))
    if isinstance(model, str):
        return model
    model = replace(model, late=_late(joined))
    model = find_units(model, threads, rows, infos)
    return find_gradients(model, threads, rows, infos, gradients)


def _thread(
    facts: RankFacts,
    waits: Waits,
    places: Sequence[tuple[int, int]],
    matched: Sequence[Matched],
    roads: Sequence[Road],
) -> tuple[Thread, Placed]:
    where = placed(facts.exposed_ns.size, places, matched)
    ends = ends_ns(where, places, roads, waits.need_ns, facts.columns.collectives["completed_ns"])
    return read_thread(facts, ends), where


def _taken(placed_rows: Sequence[Placed], rows: Sequence[Ints]) -> Iterator[tuple[Ints, Ints]]:
    """Link and column of each collective of the step, shape (ranks, steps), of some collectives at a time."""
    places, steps = rows[0].shape
    width = max(1, _AT_ONCE // (len(rows) * steps))
    for start in range(0, places, width):
        found = each(partial(_taken_here, part=slice(start, start + width)), placed_rows, rows)
        link, column = (np.stack(one, axis=1) for one in zip(*found, strict=True))
        yield from zip(link, column, strict=True)


def _taken_here(where: Placed, rows: Ints, part: slice) -> tuple[Ints, Ints]:
    return where.link[rows[part]], where.column[rows[part]]


def _word(facts: RankFacts, column: str, row: int) -> str:
    words = facts.columns.words[column]
    return words.words[words.codes[row]] if words.codes[row] != MISSING else ""


def _chosen(steps: int, ranks: int) -> Ints:
    """Steps to be simulated, all in order where there are not too many."""
    most = max(FEWEST_STEPS + 2, min(steps, MOST_CELLS // ranks))
    return np.unique(np.linspace(0, steps - 1, min(most, steps)).astype(np.int64))


def _late(joined: Joined) -> tuple[int, ...]:
    """Positions of the ranks that are waited for always, or in most steps."""
    if joined.lateness is None or not joined.lateness.index.size:
        return ()
    _, usual = split_spikes(joined.lateness)
    late = find_persistent(joined.lateness, usual) or find_mostly(joined.lateness, usual)
    return late.positions if late is not None else ()


def _assembled(
    threads: Sequence[Thread], rows: Sequence[Ints], nodes: list[Node], links: tuple[Link, ...]
) -> Model | str:
    """Points by when the first rank's thread usually meets them."""
    calls, waits = issued(threads, rows), waited(threads, rows)
    if isinstance(waits, str):
        return waits
    points = [*calls.points, *waits.points]
    wall = np.concatenate([calls.wall_ns, waits.wall_ns])
    order = np.lexsort(([point.node for point in points], [point.waits for point in points], wall.tolist()))
    whole, length = (np.stack(found) for found in zip(*each(_whole, threads, rows), strict=True))
    low = np.concatenate([calls.own_ns, waits.own_ns])[order]
    low = np.concatenate([low, whole[None]])
    return Model(
        step_ns=length.astype(np.float64),
        points=tuple(points[place] for place in order),
        low_ns=low,
        high_ns=low,
        share=np.zeros(low.shape[:2]),
        nodes=tuple(nodes),
        links=links,
    )


def _whole(thread: Thread, rows: Ints) -> tuple[Floats, Ints]:
    """Own time and length of the steps that some rows are in, ns."""
    steps, which = thread.facts.steps, thread.step[rows[0]]
    return thread.own_ns(steps.end_ns[which], which), steps.end_ns[which] - steps.start_ns[which]
