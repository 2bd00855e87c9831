"""Ranks taken together: by host, by process group, by quantile; and how each number is spread over all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from commlens.analyzers.across.rank_lines import RankLine
from commlens.analyzers.at_scale.groups import members
from commlens.analyzers.at_scale.many import MANY
from commlens.analyzers.at_scale.spread import Spread, spread
from commlens.analyzers.report import Report
from commlens.analyzers.summary import RankBudget

HOST, GROUP, QUANTILE = WAYS = ("host", "group", "quantile")
UNKNOWN_HOST: Final = "host not known"
_BANDS: Final = 10
Ranked = tuple[RankBudget, RankLine]  # what a report says of one rank
Among = Collection[int] | None  # numbers of ranks
Measure = Callable[[RankBudget, RankLine], float | None]
MEASURES: Final[dict[str, Measure]] = {
    "step": lambda budget, line: budget.step_ms,
    "compute": lambda budget, line: budget.compute_ms,
    "exposed": lambda budget, line: budget.exposed_ms,
    "wait": lambda budget, line: line.wait_ms_per_step if budget.exposed_ms is None else budget.exposed_wait_ms,
    "transfer": lambda budget, line: budget.exposed_transfer_ms,
    "unsplit": lambda budget, line: budget.exposed_unsplit_ms,
    "other": lambda budget, line: budget.other_ms,
    "hidden": lambda budget, line: budget.hidden_ms,
    "last": lambda budget, line: line.arrives_last_share,
    "caused": lambda budget, line: line.caused_wait_ms_per_step,
    "extra": lambda budget, line: line.imbalance_ms_per_step,
}


@dataclass(frozen=True)
class RankSet:
    """Some ranks taken together.

    Attributes:
        name: of the host or group, or which share of the ranks it is.
        ranks: global, ascending.
        means: of each of `MEASURES` over those ranks of which it is known, ms per step (`last` is a share, 0..1); what
            is not known of any has none. A rank's own number is a median over its steps, `caused` a mean; `extra` is
            its own work beyond the mean of all ranks.
        worst: the one of them that causes most waiting; where none causes any the one that stands still longest; None
            where neither is known.
        worst_caused_ms: what each other rank waits for that one, ms per step.
    """

    name: str
    ranks: tuple[int, ...]
    means: dict[str, float]
    worst: int | None
    worst_caused_ms: float | None


def all_ranks(report: Report, among: Among = None) -> list[Ranked]:
    """What the report says of each rank, ascending; of those in `among` only, None for all."""
    ranks = zip(report.time_budget.per_rank, report.ranks, strict=True)
    return [rank for rank in ranks if among is None or rank[0].rank in among]


def by_host(report: Report, among: Among = None) -> tuple[RankSet, ...]:
    """The ranks of each host, the worst first: see `worst_sets`."""
    found: dict[str, list[Ranked]] = {}
    for rank in all_ranks(report, among):
        found.setdefault(rank[1].host or UNKNOWN_HOST, []).append(rank)
    sets = [rank_set(host, own) for host, own in found.items()]
    return tuple(worst_sets(sets, len(sets)))


def by_group(report: Report, among: Among = None) -> tuple[RankSet, ...]:
    """The ranks of each process group, those that cause most waiting on average first."""
    known = {rank[0].rank: rank for rank in all_ranks(report, among)}
    found = {group: [known[rank] for rank in ranks if rank in known] for group, ranks in members(report).items()}
    sets = (rank_set(group, own) for group, own in found.items() if own)
    return tuple(sorted(sets, key=lambda own: -own.means.get("caused", 0.0)))


def by_quantile(report: Report, among: Among = None) -> tuple[RankSet, ...]:
    """Ten bands of equally many ranks, those that stand still longest first (of equals the lower rank)."""
    ranks = sorted(all_ranks(report, among), key=lambda rank: -_still(rank))
    edges = [round(band * len(ranks) / _BANDS) for band in range(_BANDS + 1)]
    names = [f"{band * 100 // _BANDS}-{(band + 1) * 100 // _BANDS} %" for band in range(_BANDS)]
    bands = [ranks[start:end] for start, end in pairwise(edges)]
    return tuple(rank_set(name, own) for name, own in zip(names, bands, strict=True) if own)


BY: Final[dict[str, Callable[[Report, Among], tuple[RankSet, ...]]]] = {
    HOST: by_host,
    GROUP: by_group,
    QUANTILE: by_quantile,
}


def rank_set(name: str, ranks: Sequence[Ranked]) -> RankSet:
    """Those ranks as one."""
    known = {what: [v for rank in ranks if (v := measure(*rank)) is not None] for what, measure in MEASURES.items()}
    worst = max(ranks, key=_blame)
    told = any(rank[1].caused_wait_ms_per_step or _still(rank) for rank in ranks)
    return RankSet(
        name=name,
        ranks=tuple(sorted(budget.rank for budget, _ in ranks)),
        means={what: round(sum(values) / len(values), 6) for what, values in known.items() if values},
        worst=worst[0].rank if told else None,
        worst_caused_ms=worst[1].caused_wait_ms_per_step,
    )


def worst_ranks(ranks: Iterable[Ranked], most: int) -> list[Ranked]:
    """Those that cause most waiting and those that stand still longest, half of each; ascending by number.

    Above `MANY` ranks a third are those that work longest beyond the mean: one that is late behind another that is
    later causes no waiting yet.
    """
    ranks = list(ranks)
    causing = sorted(ranks, key=lambda rank: -(rank[1].caused_wait_ms_per_step or 0))
    working = sorted(ranks, key=lambda rank: -(rank[1].imbalance_ms_per_step or 0))
    still = sorted(ranks, key=lambda rank: -_still(rank))
    share = most // 2 if len(ranks) <= MANY else most // 3
    chosen: dict[int, Ranked] = {}
    for rank in [*causing[:share], *(working[:share] if len(ranks) > MANY else []), *still]:
        if len(chosen) < most:
            chosen.setdefault(rank[0].rank, rank)
    return [chosen[number] for number in sorted(chosen)]


def singled_out(ranks: Sequence[Ranked]) -> list[Ranked]:
    """The rank that causes most waiting, then the one that works longest beyond the mean; one where it is the same."""
    causing = [rank for rank in ranks if rank[1].caused_wait_ms_per_step]
    working = [rank for rank in ranks if (rank[1].imbalance_ms_per_step or 0) > 0]
    found = [max(causing, key=_blame)] if causing else []
    found += [max(working, key=lambda rank: rank[1].imbalance_ms_per_step or 0)] if working else []
    return list({rank[0].rank: rank for rank in found}.values())


def worst_sets(sets: Sequence[RankSet], most: int) -> list[RankSet]:
    """Those that cause most waiting, and those that work longest beyond the mean, in turns."""
    causing = sorted(sets, key=lambda own: -own.means.get("caused", 0.0) * len(own.ranks))
    working = sorted(sets, key=lambda own: -own.means.get("extra", 0.0))
    turns = (own for pair in zip(causing, working, strict=True) for own in pair)
    return list({own.name: own for own in turns}.values())[:most]


def spreads(ranks: Sequence[Ranked]) -> dict[str, Spread]:
    """How each of `MEASURES` is spread over ranks, without what is known of none; less is worse of `hidden` alone."""
    found = {
        what: spread(((f"rank {rank[0].rank}", measure(*rank)) for rank in ranks), more_is_worse=what != "hidden")
        for what, measure in MEASURES.items()
    }
    return {what: each for what, each in found.items() if each is not None}


def _still(rank: Ranked) -> float:
    """How long it stands still for communication, or waits where that alone is known."""
    return rank[0].exposed_ms or rank[1].wait_ms_per_step or 0.0


def _blame(rank: Ranked) -> tuple[float, float]:
    return rank[1].caused_wait_ms_per_step or 0.0, _still(rank)
