"""One of the runs that are compared: what of it is asked for, without its rows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from commlens.analyzers.comparison.difference import Known
from commlens.analyzers.comparison.noise import PARTS, Noise, noise_of, noise_of_report
from commlens.analyzers.report import Report
from commlens.analyzers.stages import Examined

OF_RANKS = ("step_ms", "compute_ms", "exposed_ms", "wait_ms", "caused_wait_ms")


@dataclass(frozen=True)
class Side:
    """A run to compare.

    Attributes:
        report: of the run.
        noise: how far its quantities may be off.
        infos: rank.json of each rank; empty where only the report is known.
        values: what is compared, ms, by the names of `Noise.errors`.
    """

    report: Report
    noise: Noise
    infos: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    values: Mapping[Hashable, float | None] = field(default_factory=dict)

    def known(self, name: Hashable) -> Known:
        """A quantity and how sure it is."""
        return Known(self.values.get(name), self.noise.errors.get(name), self.noise.freedom)


def side(of: Report | Examined | Side) -> Side:
    """What a comparison needs of a run, small: the run itself may then be let go of."""
    if isinstance(of, Side):
        return of
    if isinstance(of, Report):
        return Side(of, noise_of_report(of), values=_values(of))
    infos = {number: rank.info for number, rank in of.run.ranks.items()}
    return Side(of.report, noise_of(of), infos, _values(of.report))


def _values(report: Report) -> dict[Hashable, float | None]:
    found: dict[Hashable, float | None] = {part: getattr(report.time_budget, part) for part in PARTS}
    for budget in report.time_budget.per_rank:
        for part in ("step_ms", "compute_ms", "exposed_ms"):
            found["rank", budget.rank, part] = getattr(budget, part)
    for line in report.ranks:
        found["rank", line.rank, "wait_ms"] = _plain(line.wait_ms_per_step)
        found["rank", line.rank, "caused_wait_ms"] = _plain(line.caused_wait_ms_per_step)
    for each in report.collectives:
        name = "line", each.group, each.op, each.bytes
        found[(*name, "exposed_ms")] = _plain(each.exposed_ms_per_step)
        found[(*name, "transfer_ms")] = _plain(each.transfer_ms_p50)
        if each.exposed_ms_per_step is not None:
            sum_ms = (found.get(("group", each.group)) or 0) + float(each.exposed_ms_per_step)
            found["group", each.group] = round(sum_ms, 6)
    return found


def _plain(value: float | None) -> float | None:
    """Without numpy's type."""
    return None if value is None else float(value)
