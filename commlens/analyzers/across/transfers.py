"""The transfer times that bandwidths and costs rest on, and the cost of each group's messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.clocks import Clocks
from commlens.analyzers.across.costs import Cost, fit_cost
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.waits import Timed
from commlens.analyzers.held import each, keep
from commlens.analyzers.intervals import Ints, distinct
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

ALIGNED, CLOCK_FREE = "transfer, on one clock", "transfer, smallest duration over the ranks"
BLURRED = 0.1  # clocks less sure than this share of a transfer are not used to measure it


@dataclass(frozen=True)
class Transfers:
    """The measured transfers of one communicator, analysed steps only, shape (n,) each.

    Attributes:
        timed: whose they are.
        which: positions among its collectives.
        ns: how long each took.
        basis: ALIGNED, or CLOCK_FREE where clocks are not joined or too unsure.
    """

    timed: Timed
    which: Ints
    ns: Ints
    basis: str

    @property
    def every_ns(self) -> Ints:
        """By the same measure, of all its collectives, those of other steps among them; MISSING where not known."""
        return self.timed.transfer_ns if self.basis == ALIGNED else self.timed.shortest_ns


@dataclass(frozen=True)
class CostLine(Cost):
    """Cost of messages of one group and operation: transfer = alpha + bytes / bandwidth.

    Attributes:
        group: torch's name of the group.
        op: torch's spelling.
        scope: "intra-node", "inter-node", or None where hosts are not known.
        ranks: members, global; sender and receiver of messages.
        basis: how transfers were measured.
    """

    group: str
    op: str
    scope: str | None
    ranks: tuple[int, ...]
    basis: str


def measured(ranks: Sequence[RankFacts], joined: Joined) -> Sequence[Transfers]:
    """The transfers of each communicator, by the measure that its clocks allow."""
    any_steps = any(facts.steps.index.size for facts in ranks)
    return keep(partial(_measured, ranks=ranks, clocks=joined.clocks, any_steps=any_steps), joined.timed)


def _measured(timed: Timed, ranks: Sequence[RankFacts], clocks: Clocks, any_steps: bool) -> Transfers:
    ns, basis = _best(timed, clocks)
    which = np.flatnonzero((ns != MISSING) & (_analysed(ranks, timed) if any_steps else True))
    return Transfers(timed, which, ns[which], basis)


def _best(timed: Timed, clocks: Clocks) -> tuple[Ints, str]:
    known = timed.shortest_ns[timed.shortest_ns != MISSING]
    unsure = bool(known.size) and clocks.uncertainty_ns > BLURRED * float(np.median(known))
    if clocks.refusal or unsure:
        return timed.shortest_ns, CLOCK_FREE
    return timed.transfer_ns, ALIGNED


def _analysed(ranks: Sequence[RankFacts], timed: Timed) -> NDArray[np.bool_]:
    """Collectives that the first member issued in one of its analysed steps."""
    rows = timed.matched.rows[0]
    analysed = ranks[timed.matched.communicator.present[0]].analysed
    return np.asarray((rows != MISSING) & (analysed[rows] > 0))


def cost_lines(transfers: Sequence[Transfers]) -> tuple[CostLine, ...]:
    """The cost of every group and operation whose transfers were measured."""
    return tuple(line for found in each(_costs, transfers) for line in found)


def _costs(transfers: Transfers) -> list[CostLine]:
    """Of one communicator."""
    matched, which, lines = transfers.timed.matched, transfers.which, []
    for code in distinct(matched.op[which]):
        own = matched.op[which] == code
        cost = fit_cost(matched.bytes[which][own], transfers.ns[own])
        if cost is not None:
            lines.append(_line(transfers, matched.ops[code], cost))
    return lines


def _line(transfers: Transfers, op: str, cost: Cost) -> CostLine:
    communicator = transfers.timed.matched.communicator
    numbers: dict[str, Any] = {
        name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in vars(cost).items()
    }
    return CostLine(
        **numbers,
        group=communicator.name,
        op=op,
        scope=communicator.scope,
        ranks=communicator.members,
        basis=transfers.basis,
    )
