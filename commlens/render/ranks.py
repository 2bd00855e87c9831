"""Each rank beside the others: its step, what it waits, and what the others wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.across.rank_lines import RankLine
from commlens.analyzers.summary import RankBudget
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.words import NOT_KNOWN, milliseconds, percent

TOP_RANKS = 12
_HOST = 12
_LAST = "last: share of the collectives that need every rank in which it arrived last. "
_CAUSED = "caused: what each other rank waits for it, a mean over steps."


def ranks_title(report: Report) -> str:
    """The section's title, with its unit and what is not shown."""
    count = len(report.time_budget.per_rank)
    few = f": {TOP_RANKS} of {count}, those that cause or wait most" if count > TOP_RANKS else ""
    return f"Each rank ({_per(report)}){few}"


def _per(report: Report) -> str:
    if not report.run.steps.analyzed:
        return "ms over the whole trace"
    budgets = any(budget.exposed_ms is not None for budget in report.time_budget.per_rank)
    return "ms per step, medians" if budgets else "ms per step, means"


def ranks_section(report: Report, console: Console) -> RenderableType | None:
    """One line a rank; None where nothing is known of any."""
    shown = _shown(report)
    if not any(_known(budget, line) for budget, line in shown):
        return None
    table = fitted(console, _columns(report, shown, console))
    if all(line.caused_wait_ms_per_step is None for _, line in shown):
        return table
    last = "" if all(line.arrives_last_share is None for _, line in shown) else _LAST
    return Group(table, note(last + _CAUSED))


_Rank = tuple[RankBudget, RankLine]


def _shown(report: Report) -> list[_Rank]:
    """All ranks, or those that cause most and those that wait most."""
    ranks = list(zip(report.time_budget.per_rank, report.ranks, strict=True))
    causing = sorted(ranks, key=lambda rank: -(rank[1].caused_wait_ms_per_step or 0))
    waiting = sorted(ranks, key=lambda rank: -(rank[0].exposed_ms or rank[1].wait_ms_per_step or 0))
    chosen: dict[int, _Rank] = {}
    for rank in [*causing[: TOP_RANKS // 2], *waiting]:
        if len(chosen) < TOP_RANKS:
            chosen.setdefault(rank[0].rank, rank)
    return [chosen[number] for number in sorted(chosen)]


def _known(budget: RankBudget, line: RankLine) -> bool:
    return budget.exposed_ms is not None or line.wait_ms_per_step is not None


def _columns(report: Report, shown: Sequence[_Rank], console: Console) -> list[Column]:
    def column(head: str, value: Callable[[RankBudget], float | None], drop: int) -> Column:
        return Column(head, [milliseconds(value(budget)) for budget, _ in shown], drop=drop)

    split = any(budget.exposed_wait_ms is not None for budget, _ in shown)
    unsplit = any(budget.exposed_unsplit_ms for budget, _ in shown)
    short = _short_hosts(report.run.hosts)
    hosts = [clipped(console, short.get(line.host or "", NOT_KNOWN), _HOST, front=True) for _, line in shown]
    return [
        Column("rank", [str(budget.rank) for budget, _ in shown]),
        *([Column("host", hosts, right=False, drop=1)] if len(report.run.hosts) > 1 else []),
        column("step", lambda budget: budget.step_ms, drop=1),
        column("compute", lambda budget: budget.compute_ms, drop=1),
        *([] if split else [column("exposed", lambda budget: budget.exposed_ms, drop=1)]),
        Column("wait", [milliseconds(_wait(*rank)) for rank in shown], drop=1),
        column("transfer", lambda budget: budget.exposed_transfer_ms, drop=1),
        *([column("unsplit", lambda budget: budget.exposed_unsplit_ms, drop=2)] if unsplit else []),
        column("other", lambda budget: budget.other_ms, drop=3),
        column("hidden", lambda budget: budget.hidden_ms, drop=4),
        Column("overlap", [percent(budget.overlap) for budget, _ in shown], drop=5),
        Column("last", [percent(line.arrives_last_share) for _, line in shown], drop=1),
        Column("caused", [milliseconds(line.caused_wait_ms_per_step) for _, line in shown], drop=1),
    ]


def _short_hosts(hosts: Sequence[str]) -> dict[str, str]:
    """Names without the domain, where that tells the hosts apart."""
    short = {host: host.split(".")[0] for host in hosts}
    return short if len(set(short.values())) == len(short) else {host: host for host in hosts}


def _wait(budget: RankBudget, line: RankLine) -> float | None:
    """Of the usual step; where budgets are not known the mean."""
    return line.wait_ms_per_step if budget.exposed_ms is None else budget.exposed_wait_ms
