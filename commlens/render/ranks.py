"""Each rank beside the others: its step, what it waits, and what the others wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.across.rank_lines import RankLine
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.at_scale.rank_sets import MEASURES, Ranked, all_ranks, worst_ranks
from commlens.analyzers.summary import RankBudget
from commlens.render.at_scale.ranks import hosts_table, spread_table
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.words import NOT_KNOWN, milliseconds, percent

TOP_RANKS = 12
_HOST = 12
_LAST = "last: share of the collectives that need every rank in which it arrived last. "
_CAUSED = "caused: what each other rank waits for it"


def ranks_title(report: Report) -> str:
    """The section's title, with its unit and what is not shown."""
    count = len(report.time_budget.per_rank)
    which = "cause, work or wait most" if is_many(report) else "cause or wait most"
    few = f": {TOP_RANKS} of {count:,}, those that {which}" if count > TOP_RANKS else ""
    more = "; all with --by host, group or quantile, single ones with --ranks" if is_many(report) else ""
    return f"Each rank ({per_step(report)}){few}{more}"


def per_step(report: Report) -> str:
    """What times of ranks are of."""
    if not report.run.steps.analyzed:
        return "ms over the whole trace"
    budgets = any(budget.exposed_ms is not None for budget in report.time_budget.per_rank)
    return "ms per step, medians" if budgets else "ms per step, means"


def ranks_section(report: Report, console: Console) -> RenderableType | None:
    """One line a rank; of many the worst, how all are spread, and the worst hosts. None where nothing is known."""
    ranks = all_ranks(report)
    table = rank_table(report, worst_ranks(ranks, TOP_RANKS), console)
    if table is None or not is_many(report):
        return table
    hosts = ["", hosts_table(report, console)] if len(report.run.hosts) > 1 else []
    return Group(table, "", spread_table(ranks, console), *hosts)


def rank_table(report: Report, shown: Sequence[Ranked], console: Console) -> RenderableType | None:
    """One line for each of some ranks; None where nothing is known of any."""
    if not any(_known(budget, line) for budget, line in shown):
        return None
    table = fitted(console, _columns(report, shown, console))
    if all(line.caused_wait_ms_per_step is None for _, line in shown):
        return table
    last = "" if all(line.arrives_last_share is None for _, line in shown) else _LAST
    mean = ", a mean over steps." if report.run.steps.analyzed else "."
    return Group(table, note(last + _CAUSED + mean))


def _known(budget: RankBudget, line: RankLine) -> bool:
    return budget.exposed_ms is not None or line.wait_ms_per_step is not None


def _columns(report: Report, shown: Sequence[Ranked], console: Console) -> list[Column]:
    def column(head: str, value: Callable[[RankBudget], float | None], drop: int) -> Column:
        return Column(head, [milliseconds(value(budget)) for budget, _ in shown], drop=drop)

    split = any(budget.exposed_wait_ms is not None for budget, _ in shown)
    unsplit = any(budget.exposed_unsplit_ms for budget, _ in shown)
    short = short_hosts(report.run.hosts)
    hosts = [clipped(console, short.get(line.host or "", NOT_KNOWN), _HOST, front=True) for _, line in shown]
    return [
        Column("rank", [str(budget.rank) for budget, _ in shown]),
        *([Column("host", hosts, right=False, drop=1)] if len(report.run.hosts) > 1 else []),
        column("step", lambda budget: budget.step_ms, drop=1),
        column("compute", lambda budget: budget.compute_ms, drop=1),
        *([] if split else [column("exposed", lambda budget: budget.exposed_ms, drop=1)]),
        Column("wait", [milliseconds(MEASURES["wait"](*rank)) for rank in shown], drop=1),
        column("transfer", lambda budget: budget.exposed_transfer_ms, drop=1),
        *([column("unsplit", lambda budget: budget.exposed_unsplit_ms, drop=2)] if unsplit else []),
        column("other", lambda budget: budget.other_ms, drop=3),
        column("hidden", lambda budget: budget.hidden_ms, drop=4),
        Column("overlap", [percent(budget.overlap) for budget, _ in shown], drop=5),
        Column("last", [percent(line.arrives_last_share) for _, line in shown], drop=1),
        Column("caused", [milliseconds(line.caused_wait_ms_per_step) for _, line in shown], drop=1),
    ]


def short_hosts(hosts: Sequence[str]) -> dict[str, str]:
    """Names without the domain, where that tells the hosts apart."""
    short = {host: host.split(".")[0] for host in hosts}
    return short if len(set(short.values())) == len(short) else {host: host for host in hosts}
