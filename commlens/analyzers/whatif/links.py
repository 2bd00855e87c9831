"""The links of a model: communicators, what their messages cost, and the collectives of a step on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.transfers import Transfers
from commlens.analyzers.columns import small
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.message_costs import latency_lines, lines_of, without_sharing
from commlens.analyzers.whatif.nodes import Link, Node
from commlens.trace.calibration import Calibration
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Traffic:
    """What is known of every communicator, in the order of `Joined.matched`.

    Attributes:
        links: one each.
        lines: by operation, for each, with those of messages that are latency alone.
        taken_ns: transfer of each of its collectives, MISSING where not measured.
        solo_ns: the same without what sharing added.
        link: the communicator of each row, for each rank, MISSING where it has no counterpart.
        column: which of its collectives each row is, likewise.
    """

    links: tuple[Link, ...]
    lines: tuple[dict[str, Line | str], ...]
    taken_ns: tuple[Ints, ...]
    solo_ns: tuple[Ints, ...]
    link: tuple[Ints, ...]
    column: tuple[Ints, ...]

    def ends_ns(self, position: int, need_ns: Ints, completed_ns: Ints) -> Ints:
        """When each collective of a rank ended for all, on the rank's clock; where that is not known, for itself.

        A rank that sees the end later than the others has begun to work later: that is its own time.

        Args:
            position: of the rank.
            need_ns: last arrival that each depended on.
            completed_ns: end of the rank's part.
        """
        taken = np.full(need_ns.size, MISSING, np.int64)
        for number, known in enumerate(self.taken_ns):
            rows = np.flatnonzero(self.link[position] == number)
            taken[rows] = known[self.column[position][rows]]
        return np.where((taken != MISSING) & (need_ns != MISSING), need_ns + taken, completed_ns)

    def placed(self, rows: Sequence[Ints]) -> tuple[Ints, Ints]:
        """`link` and `column` of some rows of every rank, shape (ranks, ...) with each rank's rows' shape."""
        links = [link[own] for link, own in zip(self.link, rows, strict=True)]
        return np.stack(links), np.stack([column[own] for column, own in zip(self.column, rows, strict=True)])


def find_traffic(
    joined: Joined,
    transfers: Sequence[Transfers],
    infos: Mapping[int, Mapping[str, Any]],
    calibration: Calibration | None,
) -> Traffic:
    """Links, costs, and where each row belongs."""
    workers = _workers(infos)
    links, lines, takens, solos = [], [], [], []
    link = tuple(small(np.full(waits.need_ns.size, MISSING)) for waits in joined.waits)
    column = tuple(each.copy() for each in link)
    for number, (matched, measured) in enumerate(zip(joined.matched, transfers, strict=True)):
        at_once = workers.get(matched.communicator.name, 1)
        taken = np.full(matched.seq.size, MISSING, np.int64)
        taken[measured.which] = measured.ns
        sharing, solo = without_sharing(matched, measured, taken, at_once)
        found = lines_of(measured, solo, calibration)
        members = matched.communicator.members
        links.append(
            Link(
                matched.communicator.name, at_once, sharing, members=members, hosts=_hosts(members, infos), lines=found
            )
        )
        lines.append({**found, **latency_lines(measured, solo, found)})
        takens.append(taken)
        solos.append(solo)
        for place, position in enumerate(matched.communicator.present):
            seen = np.flatnonzero(matched.rows[place] != MISSING)
            link[position][matched.rows[place, seen]] = number
            column[position][matched.rows[place, seen]] = seen
    return Traffic(tuple(links), tuple(lines), tuple(takens), tuple(solos), link, column)


def _hosts(members: Sequence[int], infos: Mapping[int, Mapping[str, Any]]) -> tuple[int, ...]:
    """How many members each machine has; () where machines are not known."""
    known = [infos.get(rank, {}) for rank in members]
    machines = [str(info.get("boot_id") or info.get("host") or "") for info in known]
    return tuple(Counter(machines).values()) if all(machines) else ()


def _workers(infos: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    """How many collectives each group runs at once, by its name; a group that does not say runs one."""
    groups = [group for info in infos.values() for group in info.get("groups") or [] if isinstance(group, dict)]
    return {str(g.get("name")): g["workers"] for g in groups if isinstance(g.get("workers"), int) and g["workers"] > 0}


def find_node(traffic: Traffic, joined: Joined, link: Ints, column: Ints, dtype: str, reduces: bool) -> Node | str:
    """One collective of the step, as one node of all ranks; or why it cannot be one.

    Args:
        link: its communicator in each step, see `Traffic`, shape (ranks, steps).
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
    known = [traffic.links[number].lines if reduces else traffic.lines[number] for number in which]
    lines = [each.get(op, "no transfer was measured") for each in known]
    measured = np.stack([_known(traffic.solo_ns[number][own]) for number, own in zip(which, columns, strict=True)])
    size = max(int(matched[0].bytes[columns[0][0]]), 0)
    return Node(op, dtype, size, which, member, measured, tuple(lines), reduces)


def _known(values: Ints) -> Floats:
    """Values, those that are not known being as usual; NaN where none is known."""
    known = values != MISSING
    return np.where(known, values, np.median(values[known]) if known.any() else np.nan)
