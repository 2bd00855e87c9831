"""Lines of overlap that are alike: one for all groups of a kind, the operation and the gradient bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from commlens.analyzers.at_scale.groups import Kind, kinds
from commlens.analyzers.budget import overlap
from commlens.analyzers.overlap_lines import OverlapLine
from commlens.analyzers.report import Report


@dataclass(frozen=True)
class OverlapKind:
    """The lines of one kind of groups, operation and bucket.

    Attributes:
        kind: of the groups.
        mean: means over the groups; its `group` is the kind's name, its overlap that of the means.
        lines: of each group, the longest exposed first.
    """

    kind: Kind
    mean: OverlapLine
    lines: tuple[OverlapLine, ...]

    @property
    def key(self) -> str:
        """Its name in addresses."""
        return f"{self.kind.key}~{self.mean.op}~{'' if self.mean.bucket is None else self.mean.bucket}"


def overlap_kinds(report: Report) -> tuple[OverlapKind, ...]:
    """Kinds, the longest exposed first."""
    of_group = kinds(report)
    found: defaultdict[tuple[Kind, str, int | None], list[OverlapLine]] = defaultdict(list)
    for line in report.overlaps:
        found[of_group.get(line.group) or Kind("", None), line.op, line.bucket].append(line)
    together = [_kind(kind, lines) for (kind, _, _), lines in found.items()]
    return tuple(sorted(together, key=lambda each: -each.mean.exposed_ms_per_step))


def _kind(kind: Kind, lines: Sequence[OverlapLine]) -> OverlapKind:
    def mean(value: Callable[[OverlapLine], float | None]) -> float | None:
        known = [each for line in lines if (each := value(line)) is not None]
        return sum(known) / len(known) if known else None

    exposed = mean(lambda line: line.exposed_ms_per_step) or 0.0
    hidden = mean(lambda line: line.hidden_ms_per_step) or 0.0
    waited, size = mean(lambda line: line.exposed_wait_ms_per_step), mean(lambda line: line.bytes)
    share = overlap(round(hidden * 1e6), round(exposed * 1e6))
    told = replace(
        lines[0],
        group=kind.name,
        bytes=None if size is None else int(size),
        count_per_step=round(mean(lambda line: line.count_per_step) or 0.0, 4),
        exposed_ms_per_step=round(exposed, 6),
        exposed_wait_ms_per_step=None if waited is None else round(waited, 6),
        hidden_ms_per_step=round(hidden, 6),
        overlap=None if share is None else round(share, 6),
    )
    return OverlapKind(kind, told, tuple(sorted(lines, key=lambda line: -line.exposed_ms_per_step)))
