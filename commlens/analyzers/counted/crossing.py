"""The bytes that collectives must move between a host and the others: the least, and what a ring moves.

A host has k of a group's n ranks, a message S bytes (nccl-tests' size). Least is what no algorithm can do without, even
where the network reduces or multiplies what passes. Most is a ring in the order of the ranks, which leaves the host
`edges` times (Patarasuk and Yuan, 2009), or messages that each go to one rank:

                       sent, least   most                    received, least   most
    all_reduce             S         2 (n-1)/n S edges           S             the same
    all_gather           k/n S         (n-1)/n S edges       (n-k)/n S         the same
    reduce_scatter    (n-k)/n S        (n-1)/n S edges         k/n S           the same
    all_to_all      k (n-k)/n S      the same                as sent           as sent
    broadcast, from here   S         (n-k) S                     0             (k-1) S
    broadcast, elsewhere   0         (n-k) S                     S               k S

gather and scatter move one part a rank; reduce is a broadcast the other way round. Over Gloo a reduce_scatter is an
all_reduce (see docs/design.md), and moves twice as much. NCCL may reduce in two trees at once, each of half of the
message: a host that sends up in both and down to two hosts in one of them sends 2 S, which is then the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.matching import Matched
from commlens.analyzers.intervals import Intervals, Ints, length_within
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_GLOO_TWICE = 2.0


class Crossing(NamedTuple):
    """Bytes between a host and the others, or factors that make them of a message's size."""

    tx_low: float
    tx_high: float
    rx_low: float
    rx_high: float

    @property
    def low(self) -> float:
        """The least of the busier direction."""
        return max(self.tx_low, self.rx_low)

    @property
    def high(self) -> float:
        """The most of the busier direction."""
        return max(self.tx_high, self.rx_high)


NOTHING = Crossing(0.0, 0.0, 0.0, 0.0)


class Share(NamedTuple):
    """A host's part of a group: its ranks, all ranks, and how often a ring in their order leaves the host."""

    here: int
    ranks: int
    edges: int


def share(members: Sequence[str], machine: str) -> Share:
    """The part of `machine` of a group whose ranks lie on these machines, in the order of the ranks."""
    after = [*members[1:], *members[:1]]
    edges = sum(own == machine and other != machine for own, other in zip(members, after, strict=True))
    return Share(sum(own == machine for own in members), len(members), edges)


def factors(op: str, part: Share, *, root_here: bool | None = None, even: bool = True, gloo: bool = False) -> Crossing:
    """What to multiply a message's size by, for one collective.

    Args:
        op: one of `schema.OPS`.
        part: of this host.
        root_here: whether the root, or the sender of a message, is a rank of this host; None where not known.
        even: an all_to_all in which every rank gets as much as it sends.
        gloo: it runs over Gloo.
    """
    here, ranks, edges = part
    if here == ranks or not here:
        return NOTHING
    ring, away = edges * (ranks - 1) / ranks, ranks - here
    if op == "all_reduce":
        most = 2 * ring if gloo else 2.0 * edges
        return Crossing(1.0, most, 1.0, most)
    if op == "all_gather":
        return Crossing(here / ranks, ring, away / ranks, ring)
    if op == "reduce_scatter":
        ring *= _GLOO_TWICE if gloo else 1.0
        return Crossing(away / ranks, ring, here / ranks, ring)
    if op == "all_to_all":
        both = here * away / ranks
        return Crossing(both, both, both, both) if even else Crossing(0.0, float(here), 0.0, float(here))
    if op in ("send", "recv"):
        return Crossing(1.0, 1.0, 0.0, 0.0) if root_here else Crossing(0.0, 0.0, 1.0, 1.0)
    return _rooted(op, part, root_here)


def _rooted(op: str, part: Share, root_here: bool | None) -> Crossing:
    here, ranks, edges = part
    away = ranks - here
    if root_here is None:
        most = float(max(here, away, edges + 1))
        return Crossing(0.0, most, 0.0, most) if op != "barrier" else NOTHING
    if op == "broadcast":
        return Crossing(1.0, away, 0.0, here - 1) if root_here else Crossing(0.0, away, 1.0, here)
    if op == "reduce":
        most = edges + 1.0
        return Crossing(0.0, most, 1.0, max(most, away)) if root_here else Crossing(1.0, max(most, here), 0.0, most)
    own, others = here / ranks, away / ranks
    if op == "gather":
        return Crossing(0.0, 0.0, others, others) if root_here else Crossing(own, own, 0.0, 0.0)
    if op == "scatter":
        return Crossing(others, others, 0.0, 0.0) if root_here else Crossing(0.0, 0.0, own, own)
    return NOTHING


def groups_by_machine(ranks: Sequence[RankFacts], matched: Sequence[Matched]) -> dict[str, list[Matched]]:
    """For every machine the groups with a recorded rank there that are not wholly known to be there."""
    found: dict[str, list[Matched]] = {}
    for each in matched:
        machines = {ranks[position].who.machine for position in each.communicator.present}
        if len(machines) > 1 or not each.communicator.complete:
            for machine in machines:
                found.setdefault(machine, []).append(each)
    return found


def crossing(
    ranks: Sequence[RankFacts],
    matched: Sequence[Matched],
    machine: str,
    window: Intervals,
    shift_ns: Ints,
    gloo: bool,
) -> Crossing | str:
    """What the collectives issued in a window moved between a host and the others; or why that is not known.

    Args:
        ranks: stage one of each rank.
        matched: the collectives of the groups with a rank on this host.
        machine: the host.
        window: merged, on the host's clock.
        shift_ns: added to each rank's times to be on that clock, shape (ranks,).
        gloo: collectives run over Gloo.
    """
    machines = {facts.rank: facts.who.machine for facts in ranks}
    total = np.zeros(4)
    for each in matched:
        communicator = each.communicator
        if not communicator.complete or any(rank not in machines for rank in communicator.members):
            return f"not every rank of group {communicator.name} was recorded"
        if any(not machines[rank] for rank in communicator.members):
            return "it is not known which ranks share a host"
        part = share([machines[rank] for rank in communicator.members], machine)
        if not 0 < part.here < part.ranks:
            continue
        sender = machines[communicator.members[0]] == machine if communicator.point_to_point else None
        for line, position in enumerate(communicator.present):
            if machines[ranks[position].rank] == machine:
                rows = each.rows[line][each.rows[line] != MISSING]
                issued = ranks[position].columns.collectives["issued_ns"][rows] + shift_ns[position]
                rows = rows[length_within(window, issued, issued + 1) > 0]
                if (ranks[position].columns.collectives["bytes"][rows] == MISSING).any():
                    return f"sizes of collectives of group {communicator.name} are not known"
                own = 1 if communicator.point_to_point else part.here  # a host's bytes, shared among its ranks' rows
                total += _of_rows(ranks[position], rows, part, machines, machine, sender, gloo) / own
    return Crossing(*(float(value) for value in total))


def _of_rows(
    facts: RankFacts,
    rows: Ints,
    part: Share,
    machines: dict[int, str],
    machine: str,
    sender: bool | None,
    gloo: bool,
) -> NDArray[np.float64]:
    """Sum over rows of the bytes of the whole host, shape (4,)."""
    columns, op = facts.columns.collectives, facts.columns.words["op"]
    peers = columns["peer"][rows]
    known = {int(peer): machines.get(int(peer)) == machine for peer in set(peers.tolist()) if int(peer) in machines}
    here = np.array([known.get(int(peer), -1) for peer in peers], np.int64) if known else np.full(rows.size, -1)
    even = columns["in_bytes"][rows] == columns["out_bytes"][rows]
    total = np.zeros(4)
    for code, word in enumerate(op.words):
        for root in (-1, 0, 1):
            for alike in (False, True):
                chosen = rows[(op.codes[rows] == code) & (here == root) & (even == alike)]
                if chosen.size:
                    root_here = sender if sender is not None else None if root < 0 else bool(root)
                    each = factors(word, part, root_here=root_here, even=alike, gloo=gloo)
                    total += np.array(each) * float(columns["bytes"][chosen].clip(0).sum())
    return total
