"""Links that are alike: one line for a device of the same name, kind and peak on all hosts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from commlens.analyzers.at_scale.spread import Spread, spread
from commlens.analyzers.counted.link_lines import LinkLine


@dataclass(frozen=True)
class LinkKind:
    """Links of one name, kind and peak.

    Attributes:
        device: as samplers name it.
        kind: one of `LINK_KINDS`.
        peak_gb_s: each way, None where not known.
        lines: of each host, the worst first: errors, then the largest share of the peak, then most carried.
        used_gb_s: the median while transfers were exposed, where it is not known the mean.
        share_of_peak: 0..1.
        moved_gb: of the busier direction.
        errors: damaged or lost bits of all of them.
        with_errors: links that have some.
        states: how many are in each state.
    """

    device: str
    kind: str
    peak_gb_s: float | None
    lines: tuple[LinkLine, ...]
    used_gb_s: Spread | None
    share_of_peak: Spread | None
    moved_gb: Spread | None
    errors: int
    with_errors: int
    states: dict[str, int]


def link_kinds(lines: Iterable[LinkLine]) -> tuple[LinkKind, ...]:
    """Kinds, that of the worst link first."""
    found: defaultdict[tuple[str, str, float | None], list[LinkLine]] = defaultdict(list)
    for line in lines:
        found[line.device, line.kind, line.peak_gb_s].append(line)
    return tuple(sorted((_kind(*key, own) for key, own in found.items()), key=lambda each: _badness(each.lines[0])))


def worst_links(lines: Iterable[LinkLine]) -> list[LinkLine]:
    """Links, the worst first as in `LinkKind.lines`."""
    return sorted(lines, key=_badness)


def used_gb_s(line: LinkLine) -> float | None:
    """The median while transfers were exposed, where it is not known the mean."""
    return line.used_gb_s_p50 if line.used_gb_s_p50 is not None else line.used_gb_s_mean


def moved_gb(line: LinkLine) -> float:
    """Of the busier direction, 0 where nothing is known."""
    return max(line.tx_gb or 0.0, line.rx_gb or 0.0)


def _kind(device: str, kind: str, peak: float | None, lines: Sequence[LinkLine]) -> LinkKind:
    return LinkKind(
        device=device,
        kind=kind,
        peak_gb_s=peak,
        lines=tuple(worst_links(lines)),
        used_gb_s=spread((line.host, used_gb_s(line)) for line in lines),
        share_of_peak=spread((line.host, line.share_of_peak) for line in lines),
        moved_gb=spread((line.host, moved_gb(line)) for line in lines if line.tx_gb is not None),
        errors=sum(line.errors for line in lines),
        with_errors=sum(line.errors > 0 for line in lines),
        states=dict(Counter(line.state for line in lines)),
    )


def _badness(line: LinkLine) -> tuple[float, float, float]:
    return -line.errors, -(line.share_of_peak or 0.0), -moved_gb(line)
