"""Lines of collectives that are alike: one for all groups of a kind, the operation and the message size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from commlens.analyzers.at_scale.groups import Kind, kinds
from commlens.analyzers.at_scale.spread import Spread, spread
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.collectives import BASIS
from commlens.analyzers.report import Report


@dataclass(frozen=True)
class CollectiveKind:
    """The lines of one kind of groups, operation and message size (all sizes where ranks send different ones).

    Attributes:
        kind: of the groups.
        op: torch's spelling.
        bytes: nccl-tests' message size; the median over the groups where `bytes_vary`.
        bytes_vary: ranks send different sizes.
        lines: of each group, the worst first: the longest transfer, where it is not known the longest duration.
        count_per_step: median over the groups.
        transfer_ms: of the groups' medians; None where no transfer is known.
        duration_ms: likewise, which includes waiting for late ranks.
        wait_ms: of the groups' means.
        busbw_gb_s: of the groups whose transfer was measured; where it was of none, of all, and lower bounds. The
            smallest is the worst.
        algbw_gb_s: likewise.
        bound: these are lower bounds.
        exposed_ms_per_step: sum over the groups, each a mean over all ranks: what the kind costs.
    """

    kind: Kind
    op: str
    bytes: int | None
    bytes_vary: bool
    lines: tuple[CollectiveLine, ...]
    count_per_step: float | None
    transfer_ms: Spread | None
    duration_ms: Spread | None
    wait_ms: Spread | None
    busbw_gb_s: Spread | None
    algbw_gb_s: Spread | None
    bound: bool
    exposed_ms_per_step: float | None

    @property
    def apart(self) -> float | None:
        """How many times as long as in the median group the transfer takes in the worst; None where not known."""
        found = self.transfer_ms
        return found.worst / found.median if found is not None and found.count > 1 and found.median else None

    @property
    def key(self) -> str:
        """Its name in addresses."""
        return f"{self.kind.key}~{self.op}~{'' if self.bytes_vary else self.bytes}"


_Key = tuple[Kind, str, int | None, bool]


def collective_kinds(report: Report) -> tuple[CollectiveKind, ...]:
    """Kinds of collectives, what costs most exposed time first."""
    of_group = kinds(report)
    found: defaultdict[_Key, list[CollectiveLine]] = defaultdict(list)
    for line in report.collectives:
        found[of_group[line.group], line.op, None if line.bytes_vary else line.bytes, line.bytes_vary].append(line)
    together = [_kind(*key, lines) for key, lines in found.items()]
    return tuple(sorted(together, key=lambda each: -(each.exposed_ms_per_step or 0.0)))


def _kind(kind: Kind, op: str, count: int | None, vary: bool, lines: Sequence[CollectiveLine]) -> CollectiveKind:
    sizes = [line.bytes for line in lines if line.bytes is not None]
    often = [line.count_per_step for line in lines if line.count_per_step is not None]
    exposed = [line.exposed_ms_per_step for line in lines if line.exposed_ms_per_step is not None]

    measured = [line for line in lines if line.bandwidth_basis not in (None, BASIS)]

    def over(field: str) -> Spread | None:
        return spread((line.group, getattr(line, field)) for line in lines)

    def rate(field: str) -> Spread | None:
        return spread(((line.group, getattr(line, field)) for line in measured or lines), more_is_worse=False)

    return CollectiveKind(
        kind=kind,
        op=op,
        bytes=int(median(sizes)) if vary and sizes else count,
        bytes_vary=vary,
        lines=tuple(sorted(lines, key=_took, reverse=True)),
        count_per_step=median(often) if often else None,
        transfer_ms=over("transfer_ms_p50"),
        duration_ms=over("duration_ms_p50"),
        wait_ms=over("wait_ms_mean"),
        busbw_gb_s=rate("busbw_gb_s"),
        algbw_gb_s=rate("algbw_gb_s"),
        bound=not measured,
        exposed_ms_per_step=round(sum(exposed), 6) if exposed else None,
    )


def _took(line: CollectiveLine) -> tuple[bool, float]:
    """Groups whose transfer is known before those of which only the duration is."""
    known = line.transfer_ms_p50 is not None
    return known, (line.transfer_ms_p50 if known else line.duration_ms_p50) or 0.0
