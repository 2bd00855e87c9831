"""The links of a model: communicators, what their messages cost, and the collectives of a step on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.columns import small
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import keep
from commlens.analyzers.intervals import Ints
from commlens.analyzers.rank_info import machine_of
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.message_costs import latency_lines, lines_of, without_sharing
from commlens.analyzers.whatif.nodes import Link, Node
from commlens.trace.calibration import Calibration
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Road:
    """What is known of one communicator.

    Attributes:
        link: as the model has it.
        lines: by operation, with those of messages that are latency alone.
        taken_ns: transfer of each of its collectives, MISSING where not measured.
        solo_ns: the same without what sharing added.
    """

    link: Link
    lines: dict[str, Line | str]
    taken_ns: Ints
    solo_ns: Ints


def find_roads(
    joined: Joined,
    transfers: Sequence[Transfers],
    infos: Mapping[int, Mapping[str, Any]],
    calibration: Calibration | None,
) -> Sequence[Road]:
    """Links and costs of every communicator, in the order of `Joined.matched`."""
    workers, machines = _workers(infos), {rank: machine_of(info) for rank, info in infos.items()}
    return keep(partial(_road, workers=workers, machines=machines, calibration=calibration), joined.matched, transfers)


def _road(
    matched: Matched,
    measured: Transfers,
    workers: Mapping[str, int],
    machines: Mapping[int, str],
    calibration: Calibration | None,
) -> Road:
    at_once, members = workers.get(matched.communicator.name, 1), matched.communicator.members
    taken = np.full(matched.seq.size, MISSING, np.int64)
    taken[measured.which] = measured.ns
    sharing, solo = without_sharing(matched, measured, taken, at_once)
    found = lines_of(measured, solo, calibration)
    hosts = _hosts(members, machines)
    link = Link(matched.communicator.name, at_once, sharing, members=members, hosts=hosts, lines=found)
    return Road(link, {**found, **latency_lines(measured, solo, found)}, taken, solo)


@dataclass(frozen=True)
class Placed:
    """Where the rows of one rank belong, shape (rows,) each.

    Attributes:
        link: the communicator of each, MISSING where it has no counterpart.
        column: which of its collectives each is, likewise.
    """

    link: Ints
    column: Ints


def placed(rows: int, places: Sequence[tuple[int, int]], matched: Sequence[Matched]) -> Placed:
    """Where the rows of a rank belong.

    Args:
        rows: how many it has.
        places: see `waits.find_places`.
        matched: every communicator.
    """
    link, column = (small(np.full(rows, MISSING)) for _ in range(2))
    for number, line in places:
        own = matched[number].rows[line]
        seen = np.flatnonzero(own != MISSING)
        link[own[seen]], column[own[seen]] = number, seen
    return Placed(link, column)


def ends_ns(
    where: Placed, places: Sequence[tuple[int, int]], roads: Sequence[Road], need_ns: Ints, completed_ns: Ints
) -> Ints:
    """When each collective of a rank ended for all, on the rank's clock; where that is not known, for itself.

    A rank that sees the end later than the others has begun to work later: that is its own time.

    Args:
        where: its rows belong.
        places: see `waits.find_places`.
        roads: of every communicator.
        need_ns: last arrival that each row depended on.
        completed_ns: end of the rank's part.
    """
    taken = np.full(need_ns.size, MISSING, np.int64)
    for number in dict.fromkeys(number for number, _ in places):
        rows = np.flatnonzero(where.link == number)
        taken[rows] = roads[number].taken_ns[where.column[rows]]
    return np.where((taken != MISSING) & (need_ns != MISSING), need_ns + taken, completed_ns)


def _hosts(members: Sequence[int], machines: Mapping[int, str]) -> tuple[int, ...]:
    """How many members each machine has; () where machines are not known."""
    known = [machines.get(rank, "") for rank in members]
    return tuple(Counter(known).values()) if all(known) else ()


def _workers(infos: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    """How many collectives each group runs at once, by its name; a group that does not say runs one."""
    groups = [group for info in infos.values() for group in info.get("groups") or [] if isinstance(group, dict)]
    return {str(g.get("name")): g["workers"] for g in groups if isinstance(g.get("workers"), int) and g["workers"] > 0}


def find_node(roads: Sequence[Road], joined: Joined, link: Ints, column: Ints, dtype: str, reduces: bool) -> Node | str:
    """One collective of the step, as one node of all ranks; or why it cannot be one.

    Args:
        link: its communicator in each step, see `Placed`, shape (ranks, steps).
        column: which of that's collectives it is, likewise.
    """
    if (link == MISSING).any() or (link != link[:, :1]).any():
        return "a collective of the usual step has no counterpart on every rank"
    which, first, member = np.unique(link[:, 0].astype(np.int64), return_index=True, return_inverse=True)
    matched = [joined.matched[number] for number in which]
    if not all(each.communicator.complete for each in matched):
        return "not every member of a group was recorded"
    if any(each.communicator.point_to_point for each in matched):
        return "the step sends messages between single ranks, which are not simulated yet"
    columns = column[first]
    if (column != columns[member]).any():
        return "ranks do not issue their collectives in the same order"
    op = matched[0].ops[matched[0].op[columns[0][0]]]
    # Gradients may go in other messages: for those a line must tell of all sizes.
    known = [roads[number].link.lines if reduces else roads[number].lines for number in which]
    lines = [each.get(op, "no transfer was measured") for each in known]
    measured = np.stack([_known(roads[number].solo_ns[own]) for number, own in zip(which, columns, strict=True)])
    size = max(int(matched[0].bytes[columns[0][0]]), 0)
    return Node(op, dtype, size, which, member, measured, tuple(lines), reduces)


def _known(values: Ints) -> Floats:
    """Values, those that are not known being as usual; NaN where none is known."""
    known = values != MISSING
    return np.where(known, values, np.median(values[known]) if known.any() else np.nan)
