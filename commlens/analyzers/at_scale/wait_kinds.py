"""What NCCL's proxies waited for, together for process groups of one kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from commlens.analyzers.at_scale.groups import Kind, kinds
from commlens.analyzers.at_scale.spread import Spread, spread
from commlens.analyzers.device_operations import WAITS
from commlens.analyzers.nccl_lines import NcclWaits
from commlens.analyzers.report import Report


@dataclass(frozen=True)
class WaitKind:
    """The lines of one kind of groups.

    Attributes:
        kind: of the groups.
        groups: how many.
        ranks: how many.
        waits_ms: by name of `WAITS`, over ranks and groups; None where none tells it.
    """

    kind: Kind
    groups: int
    ranks: int
    waits_ms: dict[str, Spread | None]


def wait_kinds(report: Report) -> tuple[WaitKind, ...]:
    """Kinds, in the order of the report's lines."""
    of_group = kinds(report)
    found: defaultdict[Kind, list[NcclWaits]] = defaultdict(list)
    for line in report.nccl_waits:
        found[of_group.get(line.group) or Kind("", None)].append(line)
    return tuple(_kind(kind, lines) for kind, lines in found.items())


def _kind(kind: Kind, lines: Sequence[NcclWaits]) -> WaitKind:
    waits = {
        name: spread((f"rank {line.rank}, group {line.group}", getattr(line, f"{name}_ms")) for line in lines)
        for name in WAITS
    }
    return WaitKind(kind, len({line.group for line in lines}), len({line.rank for line in lines}), waits)
