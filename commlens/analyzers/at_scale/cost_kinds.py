"""Costs of messages that are alike: one line for all groups of a kind, the operation and where they run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from commlens.analyzers.across.transfers import CostLine
from commlens.analyzers.at_scale.groups import Kind, kinds
from commlens.analyzers.at_scale.spread import Spread, spread
from commlens.analyzers.report import Report
from commlens.trace.schema import POINT_TO_POINT


@dataclass(frozen=True)
class CostKind:
    """The costs of one kind of groups (of messages: of pairs of ranks), operation and scope.

    Attributes:
        kind: of the groups.
        op: torch's spelling.
        scope: "intra-node", "inter-node", or None where hosts are not known.
        lines: those in which alpha or the bandwidth is known, the worst first: the smallest bandwidth, else the largest
            alpha.
        typical: of the lines in which both are known the one of the median bandwidth; None where there is none.
        count: of all lines, those of which neither is known among them.
        alpha_us: over the groups of which it is known.
        bandwidth_gb_s: likewise; the smallest is the worst.
    """

    kind: Kind
    op: str
    scope: str | None
    lines: tuple[CostLine, ...]
    typical: CostLine | None
    count: int
    alpha_us: Spread | None
    bandwidth_gb_s: Spread | None


def cost_kinds(report: Report) -> tuple[CostKind, ...]:
    """Kinds of which something is known, those of most groups first."""
    of_group = kinds(report)
    found: defaultdict[tuple[Kind, str, str | None], list[CostLine]] = defaultdict(list)
    for line in report.cost_model:
        kind = of_group.get(line.group) or Kind("", len(line.ranks))
        found[kind, line.op, line.scope].append(line)
    together = [_kind(*key, lines) for key, lines in found.items()]
    return tuple(sorted((each for each in together if each.lines), key=lambda each: -len(each.lines)))


def cost_name(line: CostLine) -> str:
    """The group it is of; of messages the two ranks as well."""
    between = line.op in POINT_TO_POINT and len(line.ranks) == 2
    return f"{line.group}, {line.ranks[0]} to {line.ranks[1]}" if between else line.group


def _kind(kind: Kind, op: str, scope: str | None, lines: Sequence[CostLine]) -> CostKind:
    known = [line for line in lines if line.alpha_us is not None or line.bandwidth_gb_s is not None]
    return CostKind(
        kind=kind,
        op=op,
        scope=scope,
        lines=tuple(sorted(known, key=_worst)),
        typical=_typical(known),
        count=len(lines),
        alpha_us=spread((cost_name(line), line.alpha_us) for line in known),
        bandwidth_gb_s=spread(((cost_name(line), line.bandwidth_gb_s) for line in known), more_is_worse=False),
    )


def _typical(lines: Sequence[CostLine]) -> CostLine | None:
    whole = [line for line in lines if line.alpha_us is not None and line.bandwidth_gb_s is not None]
    return sorted(whole, key=_worst)[len(whole) // 2] if whole else None


def _worst(line: CostLine) -> tuple[float, float]:
    return line.bandwidth_gb_s or float("inf"), -(line.alpha_us or 0.0)
