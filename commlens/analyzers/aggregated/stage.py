"""Stage three of aggregates: what sums add to the report, and what they leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.lateness import FEWEST_STEPS, Lateness
from commlens.analyzers.aggregated.findings import slow_group, straggler
from commlens.analyzers.aggregated.joined_sums import JoinedSums, join_sums
from commlens.analyzers.aggregated.late import but_for, find_late, slow_groups, waiting
from commlens.analyzers.aggregated.lines import Aggregates
from commlens.analyzers.aggregated.rank_sums import RankSums
from commlens.analyzers.aggregated.summarise import summarise
from commlens.analyzers.held import each
from commlens.analyzers.identity import Identity
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Abstention, Finding, Report

_NEEDS: Final = "single collectives: a larger COMMLENS_QUOTA, or none"
_STOPPED: Final = ("hang", "desync")
# What is not told of steps that are sums only.
_OPEN: Final = ("time-budget", "wait-transfer-split", "critical-path", "cost-model")


def with_sums(report: Report, ranks: Sequence[RankFacts], caveats: Sequence[str]) -> Report:
    """The report with what aggregates tell; as it is where no rank kept any.

    Args:
        report: of what was recorded in full.
        ranks: stage one of each rank, ascending.
        caveats: what could make any comparison of ranks wrong.
    """
    held = each(_sums, ranks)
    if all(one is None for one in held):
        return report
    who = each(_who, ranks)
    only = not report.coverage.collectives_seen and not report.collectives
    joined = join_sums(who, held)
    aggregates = summarise(who, held, joined, _described(each(_descriptions, ranks)), only)
    step_ns = (aggregates.step_ms_mean or 0.0) * 1e6
    lateness = waiting(joined, step_ns)
    found = _findings(who, joined, lateness, aggregates, caveats)
    new = [one for one in found if not any((one.id, one.ranks) == (old.id, old.ranks) for old in report.findings)]
    return replace(
        report,
        aggregates=aggregates,
        findings=(*(old for old in report.findings if old.id not in _STOPPED), *new),
        progress=(),
        abstentions=_abstentions(report, aggregates, lateness, who, held),
    )


def _sums(facts: RankFacts) -> RankSums | None:
    return facts.sums


def _who(facts: RankFacts) -> Identity:
    return facts.who


def _descriptions(facts: RankFacts) -> Mapping[str, str]:
    return facts.sums.descriptions if facts.sums is not None else {}


def _described(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    told: dict[str, str] = {}
    for one in found:
        told.update(one)
    return told


def _findings(
    who: Sequence[Identity],
    joined: JoinedSums,
    lateness: Lateness | None,
    aggregates: Aggregates,
    caveats: Sequence[str],
) -> list[Finding]:
    slow = slow_groups(who, joined)
    steps, step_ns = float(aggregates.steps), (aggregates.step_ms_mean or 0.0) * 1e6
    found = [slow_group(slow, steps, step_ns, caveats)]
    if lateness is not None:
        numbers = [who[position].rank for position in joined.ranks]
        cleared = but_for(lateness, slow, numbers, steps)
        found += [straggler(who, joined.ranks, cleared, late, caveats) for late in find_late(cleared)]
    known = [one for one in found if one is not None]
    return sorted(known, key=lambda one: one.id != "straggler-rank")


def _abstentions(
    report: Report,
    aggregates: Aggregates,
    lateness: Lateness | None,
    who: Sequence[Identity],
    held: Sequence[RankSums | None],
) -> tuple[Abstention, ...]:
    if not aggregates.only:
        reason = f"{_since(aggregates)} only sums were recorded (COMMLENS_QUOTA): all but them is of the steps before"
        return (*_hang(who), Abstention("aggregated-steps", reason, _NEEDS), *report.abstentions)
    some = [one.rank for one, sums in zip(who, held, strict=True) if sums is not None]
    which = "" if len(some) == len(who) else f" ({name_ranks(some)})"
    reason = f"{_since(aggregates)} only sums were recorded (COMMLENS_QUOTA){which}"
    told = [*(Abstention(name, reason, _NEEDS) for name in _OPEN), *_hang(who)]
    told += _unsure(aggregates, lateness)
    # Their reasons are this one's consequences.
    kept = (one for one in report.abstentions if one.analysis not in {*_OPEN, "stragglers", "steps", "step-boundaries"})
    return (*told, *kept)


def _hang(who: Sequence[Identity]) -> list[Abstention]:
    """Ranks whose recording ended by itself do not hang."""
    if all(one.ended is not None for one in who):
        return []
    reason = "the newest collectives were recorded as sums only: where the ranks stand is not known"
    return [Abstention("hang", reason, _NEEDS)]


def _since(aggregates: Aggregates) -> str:
    if aggregates.only:
        return "of all steps"
    return "of later steps" if aggregates.from_step is None else f"from step {aggregates.from_step} on"


def _unsure(aggregates: Aggregates, lateness: Lateness | None) -> list[Abstention]:
    """Why nobody is called late, or healthy, from the sums."""
    count = 0 if lateness is None else lateness.index.size
    if aggregates.stepless:
        reason = "no whole step after the job's first two is in the sums: there are no stretches of steps to compare"
    elif lateness is None:
        reason = "no stretch of steps has the same collectives on every recorded rank: sums cannot be compared"
    elif count < FEWEST_STEPS:
        stretches = f"{count} stretch{'es' * (count != 1)}"
        reason = f"sums of {stretches} of steps can be compared: too few to tell a habit from chance"
    else:
        return []
    return [Abstention("stragglers", reason, f"{_NEEDS}; or {FEWEST_STEPS} stretches, which some hundred steps are")]
