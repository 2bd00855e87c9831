"""What the report does not answer, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.lateness import FEWEST_STEPS, STEP
from commlens.analyzers.path_lines import CriticalPath
from commlens.analyzers.ranks import RankFacts, failed_hook
from commlens.analyzers.report import Abstention
from commlens.analyzers.steps import INFERRED, NONE

_LATER = "not part of this version yet"
_NOT_YET = (Abstention("links", _LATER, "network counters"),)
_JOIN = ("wait-transfer-split", "cost-model", "stragglers", "critical-path")


def find_abstentions(
    ranks: Sequence[RankFacts],
    infos: Mapping[int, Mapping[str, Any]],
    missing: Sequence[int],
    joined: Joined,
    path: CriticalPath | None,
) -> tuple[Abstention, ...]:
    """Everything the report leaves open, the most consequential first."""
    return (
        *_refusals(ranks),
        *_steps(ranks),
        *_unknown_ends(ranks),
        *_unseen(ranks, infos),
        *_forward(ranks, infos),
        *_missing(missing),
        *_joining(ranks, joined, path),
        *_NOT_YET,
    )


def _joining(ranks: Sequence[RankFacts], joined: Joined, path: CriticalPath | None) -> list[Abstention]:
    """What needs all ranks together."""
    needs = "every rank's folder, and collectives that join all hosts"
    if len(ranks) < 2:
        return [
            Abstention(each, "only one rank was recorded, there is nothing to compare it with", needs) for each in _JOIN
        ]
    refusal = joined.clocks.refusal
    if refusal:
        answered = set() if joined.clocks.contradiction else {"cost-model", "stragglers"}
        return [Abstention(each, refusal, needs) for each in _JOIN if each not in answered]
    found = []
    if path is None:
        reason = "not every rank has a time budget for the same steps"
        found.append(Abstention("critical-path", reason, "optimizer steps and known ends on every rank"))
    if joined.lateness is not None and joined.lateness.unit == STEP and joined.lateness.index.size < FEWEST_STEPS:
        reason = f"{joined.lateness.index.size} steps were analysed: too few to tell a habit from chance"
        found.append(Abstention("stragglers", reason, f"at least {FEWEST_STEPS} steps after the job's first two"))
    if joined.lateness is None:
        reason = "no collective that needs every rank has a known arrival on all of them"
        found.append(Abstention("stragglers", reason, "such collectives"))
    parts = [(own, r.budget) for own, r in zip(joined.exposed, ranks, strict=True) if r.budget is not None]
    unsplit = sum(int(own.unsplit.sum()) for own, _ in parts)
    exposed = sum(int(budget.exposed.sum()) for _, budget in parts)
    if unsplit > 0.01 * exposed:
        share = f"{100 * unsplit / exposed:.0f} %"
        reason = f"{share} of exposed time belongs to collectives that are not known on every rank"
        found.append(Abstention("wait-transfer-split", reason, "those collectives on every rank"))
    return found


def name_ranks(ranks: Iterable[int]) -> str:
    """Ranks in words: "rank 3", "ranks 0-3, 8"."""
    numbers = sorted(ranks)
    known = set(numbers)
    starts = [n for n in numbers if n - 1 not in known]
    ends = [n for n in numbers if n + 1 not in known]
    spans = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(spans)


def _refusals(ranks: Sequence[RankFacts]) -> list[Abstention]:
    """Ranks without a time budget, one abstention a reason."""
    if not ranks:
        return [Abstention("time-budget", "no rank of this run can be read", "at least one rank's folder")]
    reasons: dict[str, list[int]] = defaultdict(list)
    for rank in ranks:
        if rank.refusal:
            reasons[rank.refusal].append(rank.rank)
    needs = "collectives whose end is known on the host, and optimizer steps"
    return [Abstention("time-budget", f"{reason}{_where(who, ranks)}", needs) for reason, who in reasons.items()]


def _steps(ranks: Sequence[RankFacts]) -> list[Abstention]:
    """Ranks whose steps had to be guessed; a rank without any is refused a budget elsewhere."""
    none = [r.rank for r in ranks if r.steps.how == NONE and r.analysed.size]
    guessed = [r.rank for r in ranks if r.steps.how == INFERRED]
    found = []
    if none:
        reason = f"no optimizer step was seen and the collectives do not repeat{_where(none, ranks)}"
        found.append(Abstention("steps", reason, "a torch optimizer, or at least five like steps"))
    if guessed:
        reason = f"no optimizer step was seen: steps are {INFERRED}{_where(guessed, ranks)}"
        found.append(Abstention("step-boundaries", reason, "a torch optimizer"))
    return found


def _unknown_ends(ranks: Sequence[RankFacts]) -> list[Abstention]:
    """Rows of budgeted ranks that neither exposed nor hidden time could count."""
    budgeted = [r for r in ranks if r.budget is not None]
    unknown, total = sum(r.unknown_ends for r in budgeted), sum(r.analysed.size for r in budgeted)
    if not unknown:
        return []
    reason = f"{unknown} of {total} collectives have no known end: exposed and hidden are lower bounds"
    return [Abstention("unknown-ends", reason, "waits on those collectives, or a recorder that sees ends")]


def _unseen(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> list[Abstention]:
    reasons = sorted({r for rank in ranks if (r := failed_hook(infos.get(rank.rank, {}), "collectives"))})
    return [Abstention("unseen-collectives", reason, "a torch that has them") for reason in reasons]


def _forward(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> list[Abstention]:
    without = [r for r in ranks if r.budget is not None and r.lanes is None and "forward" not in r.columns.phases_seen]
    if not without:
        return []
    why = next((f" ({w})" for r in without if (w := failed_hook(infos.get(r.rank, {}), "forward"))), "")
    where = _where([r.rank for r in without], ranks)
    reason = f"no forward was seen, its time counts as other{why}{where}"
    return [Abstention("forward-phase", reason, "a module whose forward the recorder can watch")]


def _missing(missing: Sequence[int]) -> list[Abstention]:
    if not missing:
        return []
    reason = f"nothing is known of {name_ranks(missing)}"
    return [Abstention("missing-ranks", reason, "their folders: commlens report FOLDER FOLDER ...")]


def _where(who: Sequence[int], ranks: Sequence[RankFacts]) -> str:
    return "" if len(who) == len(ranks) else f" ({name_ranks(who)})"
