"""The collectives of a run, one line per (group, operation, message size)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.communicators import Communicator
from commlens.analyzers.across.costs import regime
from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.peaks import efficiency, peak_time_ns
from commlens.analyzers.across.transfers import ALIGNED, BLURRED, CLOCK_FREE, CostLine
from commlens.analyzers.across.waits import Waits
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.grouped import Floats, sums
from commlens.analyzers.held import each, engine_of
from commlens.analyzers.intervals import Ints, distinct
from commlens.analyzers.nccl_lines import nccl_choices
from commlens.analyzers.pooled import Pool
from commlens.analyzers.ranks import RankFacts
from commlens.trace.ops import busbw_factor
from commlens.trace.schema import MISSING

if TYPE_CHECKING:
    from commlens.trace.calibration import Calibration

_SHARES = {"p50": 0.5, "p95": 0.95}
BASIS = "duration including wait"


def collective_lines(
    ranks: Sequence[RankFacts],
    joined: Joined,
    costs: Sequence[CostLine] = (),
    calibration: Calibration | None = None,
) -> tuple[CollectiveLine, ...]:
    """Lines of the collectives table, the costliest first.

    Args:
        ranks: stage one of each rank, ascending.
        joined: stage two of the same ranks.
        costs: the cost model, which tells the regime.
        calibration: measured peaks, which tell the efficiency.
    """
    groups: dict[str, list[int]] = {}
    for position, names in enumerate(each(_groups, ranks)):
        for name in names:
            groups.setdefault(name, []).append(position)
    communicators = {m.communicator.name: m.communicator for m in joined.matched}
    own_costs: dict[str, list[CostLine]] = {}
    for cost in costs:
        own_costs.setdefault(cost.group, []).append(cost)
    of_group = partial(
        _group_lines,
        ranks=ranks,
        joined=joined,
        calibration=calibration,
        whole=_Whole.of(ranks),
        uncertainty_ns=joined.clocks.uncertainty_ns,
    )
    found = engine_of(ranks).each(
        of_group,
        list(groups),
        list(groups.values()),
        [communicators.get(name) for name in groups],
        [own_costs.get(name, []) for name in groups],
    )
    lines = [line for own in found for line in own]
    return tuple(line for line, total in sorted(lines, key=lambda own: (-(own[0].exposed_ms_per_step or 0), -own[1])))


@dataclass(frozen=True)
class _Whole:
    """What a line's numbers are divided by.

    Attributes:
        any_steps: some rank has analysed steps.
        budgets: ranks that have a budget.
        steps: analysed steps of those together.
    """

    any_steps: bool
    budgets: int
    steps: int

    @classmethod
    def of(cls, ranks: Sequence[RankFacts]) -> _Whole:
        budgeted = [facts.steps.index.size for facts in ranks if facts.budgeted]
        return cls(any(facts.steps.index.size for facts in ranks), len(budgeted), sum(budgeted))


def _groups(facts: RankFacts) -> list[str]:
    """Names of the groups that a rank has rows of, or replays of."""
    group = facts.columns.words["group"]
    replayed = [each.group for each in facts.operations.replayed] if facts.operations else []
    return list(dict.fromkeys([*group.words, *([""] if (group.codes == MISSING).any() else []), *replayed]))


def _group_lines(
    name: str,
    positions: Sequence[int],
    communicator: Communicator | None,
    costs: Sequence[CostLine],
    ranks: Sequence[RankFacts],
    joined: Joined,
    calibration: Calibration | None,
    whole: _Whole,
    uncertainty_ns: int,
) -> list[tuple[CollectiveLine, float]]:
    """Lines of one group, and the duration of all rows of each."""
    model = _Model(communicator, {line.op: line for line in costs}, calibration, uncertainty_ns)
    waits, exposed = [joined.waits[p] for p in positions], [joined.exposed[p] for p in positions]
    table = _Table(Pool([ranks[p] for p in positions], name, whole.any_steps), waits, exposed, whole, model)
    total = table.pool.sums(table.duration)
    return [(_line(table, kind), float(total[kind])) for kind in range(table.pool.count)]


@dataclass(frozen=True)
class _Model:
    """What tells a line's regime and efficiency: of one group."""

    communicator: Communicator | None
    costs: Mapping[str, CostLine]
    calibration: Calibration | None
    uncertainty_ns: int

    def blurs(self, transfer_ns: float) -> bool:
        """Whether the clocks are too unsure to measure such a transfer."""
        return self.uncertainty_ns > BLURRED * transfer_ns

    def regime(self, op: str, size: int | None) -> str | None:
        line = self.costs.get(op)
        return None if line is None or size is None else regime(line, size)

    def efficiency(self, op: str, size: int | None, transfer_ns: float | None) -> float | None:
        if self.communicator is None or not size or transfer_ns is None:
            return None
        members = self.communicator.members
        peak = peak_time_ns(self.calibration, op, members, len(members), self.communicator.scope, size)
        return efficiency(peak, transfer_ns)


class _Table:
    """What lines of a group are made of: the rows by kind, and each kind's statistics, shape (kinds,)."""

    def __init__(
        self, pool: Pool, waits: Sequence[Waits], exposed: Sequence[Exposed], whole: _Whole, model: _Model
    ) -> None:
        self.pool, self.ranks, self.waits, self.model = pool, pool.ranks, waits, model
        self.dtype, self.timing = self.pool.word("dtype"), self.pool.word("timing")
        self.duration_ns = self.pool.percentiles(self.duration, *_SHARES.values())
        self.transfer_ns = self.pool.percentiles(self.transfer, *_SHARES.values())
        self.wait_ns = self.pool.percentiles(self.wait, *_SHARES.values())
        self.shortest_ns = self.pool.percentiles(lambda p: waits[p].shortest_ns, *_SHARES.values())
        self.mean_wait_ns = _over(self.pool.sums(self.wait), self.pool.known(self.wait))
        self.nccl = nccl_choices(self.pool)
        self.rows_per_step = self._rows_per_step()
        self.exposed_ms = self._exposed_ms(whole.budgets)
        exposed_wait = self.pool.sums(lambda p: exposed[p].row_wait)
        self.exposed_wait_ms = _over(exposed_wait / 1e6, np.full(self.pool.count, whole.steps))

    def duration(self, position: int) -> Ints:
        """Started to completed of each row, MISSING where either is not known."""
        rows = self.ranks[position].columns.collectives
        known = (rows["started_ns"] != MISSING) & (rows["completed_ns"] >= rows["started_ns"])
        return np.where(known, rows["completed_ns"] - rows["started_ns"], MISSING)

    def transfer(self, position: int) -> Ints:
        """Transfer of each row, MISSING where it is not known or only an upper bound."""
        return moved_ns(self.waits[position])

    def wait(self, position: int) -> Ints:
        """Wait of each row."""
        return self.waits[position].wait_ns

    def number(self, column: str, kind: int) -> int | None:
        """The number in the first row of a kind, None where not known."""
        position, row = self.pool.first[kind]
        value = int(self.ranks[position].columns.collectives[column][row])
        return None if value == MISSING else value

    def basis(self, kind: int) -> tuple[str | None, float]:
        """The best measure of the time that moving bytes took, and its median in ns."""
        choices = ((ALIGNED, self.transfer_ns), (CLOCK_FREE, self.shortest_ns), (BASIS, self.duration_ns))
        for basis, (p50, _) in choices:
            if p50[kind] > 0 and not (basis == ALIGNED and self.model.blurs(self.shortest_ns[0][kind])):
                return basis, float(p50[kind])
        return None, float("nan")

    def _rows_per_step(self) -> Floats:
        """Rows of each kind a step, mean over the ranks that have some."""
        rows, steps = np.zeros(self.pool.count), np.zeros(self.pool.count)
        for facts, chosen, keys in zip(self.ranks, self.pool.chosen, self.pool.keys, strict=True):
            rows += sums(facts.analysed[chosen], keys, self.pool.count)
            steps[distinct(keys)] += facts.steps.index.size
        return _over(rows, steps)

    def _exposed_ms(self, budgets: int) -> Floats:
        """Standstill of each kind a step, by the statistic of the time budget: median over steps, mean over ranks."""
        medians = [
            np.median(self.pool.sums_by_step(position, facts.exposed_ns), axis=1)
            for position, facts in enumerate(self.ranks)
            if facts.budget is not None
        ]
        total = np.add.reduce(medians, axis=0) if medians else np.zeros(self.pool.count)  # ranks without rows add none
        return np.asarray(total / budgets / 1e6) if budgets else np.full(self.pool.count, np.nan)


def moved_ns(own: Waits) -> Ints:
    """Transfer of each row of a rank, MISSING where it is not known or only an upper bound."""
    return np.where(own.shortest_ns == MISSING, MISSING, own.transfer_ns)


def _over(total: Floats, number: NDArray[Any]) -> Floats:
    """Quotient, NaN where there is nothing to divide by."""
    result: Floats = np.divide(total, number, out=np.full(total.size, np.nan), where=number > 0)
    return result


def _line(table: _Table, kind: int) -> CollectiveLine:
    like = table.pool.likes[kind]
    size = None if like.bytes == MISSING else like.bytes
    members = table.number("group_size", kind)
    even = None if like.uneven else size
    basis, moving_ns = table.basis(kind)
    algbw, busbw = _bandwidth(like.op, even, members, moving_ns)
    known_transfer = moving_ns if basis != BASIS else None
    return CollectiveLine(
        group=like.group,
        group_desc=_desc(table, kind),
        op=like.op,
        bytes=size,
        bytes_vary=like.uneven,
        dtype=table.dtype[kind],
        group_size=members,
        count=int(table.pool.counts[kind]),
        count_per_step=_known(table.rows_per_step[kind]),
        duration_ms_p50=_ms(table.duration_ns[0][kind]),
        duration_ms_p95=_ms(table.duration_ns[1][kind]),
        transfer_ms_p50=_ms(table.transfer_ns[0][kind]),
        transfer_ms_p95=_ms(table.transfer_ns[1][kind]),
        wait_ms_p50=_ms(table.wait_ns[0][kind]),
        wait_ms_p95=_ms(table.wait_ns[1][kind]),
        wait_ms_mean=_ms(table.mean_wait_ns[kind]),
        algbw_gb_s=algbw,
        busbw_gb_s=busbw,
        bandwidth_basis=basis if algbw is not None else None,
        regime=table.model.regime(like.op, size),
        efficiency=_optional(table.model.efficiency(like.op, even, known_transfer)),
        exposed_ms_per_step=_known(table.exposed_ms[kind]),
        exposed_wait_ms_per_step=_known(table.exposed_wait_ms[kind]),
        timing=table.timing[kind],
        nccl=table.nccl[kind],
    )


def _desc(table: _Table, kind: int) -> str:
    position, row = table.pool.first[kind]
    column = table.ranks[position].columns.words["group_desc"]
    code = int(column.codes[row])
    return column.words[code] if code != MISSING else ""


def _ms(ns: float) -> float | None:
    return _known(ns / 1e6)


def _bandwidth(op: str, size: int | None, members: int | None, ns: float) -> tuple[float | None, float | None]:
    """algbw and busbw in GB/s (bytes per ns), None where the size, end or factor is not known."""
    if not size or not members or not ns > 0:
        return None, None
    factor = busbw_factor(op, members)
    algbw = size / ns
    return _known(algbw), None if factor is None else _known(algbw * factor)


def _optional(value: float | None) -> float | None:
    return None if value is None else _known(value)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
