"""What the report does not answer, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.lateness import FEWEST_STEPS, STEP
from commlens.analyzers.held import each
from commlens.analyzers.numerals import counted
from commlens.analyzers.path_lines import CriticalPath
from commlens.analyzers.ranks import RankFacts, failed_hook
from commlens.analyzers.report import Abstention
from commlens.analyzers.steps import FROM_OPTIMIZER, IN_WINDOWS, INFERRED, NONE
from commlens.analyzers.windows import NEVER, Unfit, paused_spans, read_windows, unfit_steps
from commlens.trace.windows import WRITTEN, entries

if TYPE_CHECKING:
    from commlens.trace import Run

_MOST_SPANS = 32  # of ranks in a row: 64 ranks have no more
_FIRST_SPANS = 12
_JOIN = ("wait-transfer-split", "cost-model", "stragglers", "critical-path")


def find_abstentions(
    ranks: Sequence[RankFacts],
    infos: Mapping[int, Mapping[str, Any]],
    run: Run,
    joined: Joined,
    path: CriticalPath | None,
) -> tuple[Abstention, ...]:
    """Everything the report leaves open, the most consequential first."""
    return (
        *_refusals(ranks),
        *_steps(ranks),
        *_unknown_ends(ranks),
        *_unseen(ranks, infos),
        *_outside_windows(ranks),
        *_in_graphs(ranks, infos),
        *_paused(infos),
        *_forward(ranks, infos),
        *_missing(run.missing),
        *_sampled_out(run),
        *_steps_left_out(ranks, infos),
        *_joining(ranks, joined, path),
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
        were = "was" if joined.lateness.index.size == 1 else "were"
        reason = f"{counted(joined.lateness.index.size, 'step')} {were} analysed: too few to tell a habit from chance"
        found.append(Abstention("stragglers", reason, f"at least {FEWEST_STEPS} steps after the job's first two"))
    if joined.lateness is None:
        reason = "no collective that needs every rank has a known arrival on all of them"
        found.append(Abstention("stragglers", reason, "such collectives"))
    unsplit, exposed = (sum(parts) for parts in zip(*each(_unsplit, ranks, joined.exposed), strict=True))
    if unsplit > 0.01 * exposed:
        share = f"{100 * unsplit / exposed:.0f} %"
        reason = f"{share} of exposed time belongs to collectives that are not known on every rank"
        found.append(Abstention("wait-transfer-split", reason, "those collectives on every rank"))
    return found


def _unsplit(facts: RankFacts, own: Exposed) -> tuple[int, int]:
    """Exposed time that is not split, and all of it, ns; of a rank with a budget."""
    return (int(own.unsplit.sum()), int(facts.budget.exposed.sum())) if facts.budget is not None else (0, 0)


def name_ranks(ranks: Iterable[int]) -> str:
    """Ranks in words: "rank 3", "ranks 0-3, 8"; of more than `_MOST_SPANS` stretches the first, and how many in all."""
    numbers = sorted(ranks)
    known = set(numbers)
    starts = [n for n in numbers if n - 1 not in known]
    ends = [n for n in numbers if n + 1 not in known]
    spans = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    if len(spans) > _MOST_SPANS:
        return f"ranks {_first_spans(numbers, spans)} ({len(numbers):,} ranks)"
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(spans)


def _first_spans(numbers: Sequence[int], spans: Sequence[str]) -> str:
    """ "0, 8, 16, ..., 1992, one in 8", or the first stretches of ranks that lie anyhow."""
    apart = {b - a for a, b in pairwise(numbers)}
    if len(apart) == 1:
        return f"{', '.join(spans[:3])}, ..., {spans[-1]}, one in {apart.pop()}"
    return f"{', '.join(spans[:_FIRST_SPANS])}, ..."


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
    none = [r.rank for r in ranks if r.steps.how == NONE and r.rows]
    guessed = [r.rank for r in ranks if r.steps.how == INFERRED]
    found = []
    if none:
        reason = f"no optimizer step was seen and the collectives do not repeat{_where(none, ranks)}"
        found.append(Abstention("steps", reason, "a torch optimizer, or at least five like steps"))
    if guessed:
        reason = f"no optimizer step was seen: steps are {INFERRED}, one may be several iterations"
        reason += _where(guessed, ranks)
        found.append(Abstention("step-boundaries", reason, "a torch optimizer"))
    return found


def _unknown_ends(ranks: Sequence[RankFacts]) -> list[Abstention]:
    """Rows of budgeted ranks that neither exposed nor hidden time could count."""
    budgeted = [r for r in ranks if r.budgeted]
    unknown, total = sum(r.unknown_ends for r in budgeted), sum(r.rows for r in budgeted)
    if not unknown:
        return []
    have = "has" if unknown == 1 else "have"
    reason = f"{unknown} of {counted(total, 'collective')} {have} no known end: exposed and hidden are lower bounds"
    return [Abstention("unknown-ends", reason, "waits on those collectives, or a recorder that sees ends")]


def _unseen(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> list[Abstention]:
    reasons = sorted({r for rank in ranks if (r := failed_hook(infos.get(rank.rank, {}), "collectives"))})
    return [Abstention("unseen-collectives", reason, "a torch that has them") for reason in reasons]


def _outside_windows(ranks: Sequence[RankFacts]) -> list[Abstention]:
    """Steps whose collectives are known by their issue alone."""
    some = [r for r in ranks if r.steps.how == IN_WINDOWS and r.steps.index.size < r.steps.count]
    if not some:
        return []
    steps = max(some, key=lambda r: r.steps.count).steps
    reason = (
        f"{steps.index.size} of {steps.count} steps are inside deep windows: when collectives ran on the device in the"
        " others is not known"
    )
    return [Abstention("outside-windows", reason, "more deep windows: COMMLENS_WINDOW=steps=3,every=500")]


def _in_graphs(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> list[Abstention]:
    """Collectives of replayed CUDA graphs pass no hook."""
    graphs = {rank: info["cuda_graphs"] for rank, info in infos.items() if isinstance(info.get("cuda_graphs"), dict)}
    held = {rank: each for rank, each in graphs.items() if each.get("replays") and each.get("collectives_captured")}
    by_plugin = {r.rank: r.operations.graph for r in ranks if r.operations is not None and r.operations.graph}
    if not held and not by_plugin:
        return []
    most = max((int(each["collectives_captured"]) for each in held.values()), default=0)
    captured = f"collectives ({most} at most)" if most else "collectives"
    reason = (
        f"{captured} were captured into CUDA graphs that are replayed: {_replays_seen(by_plugin)}"
        f" ({name_ranks(held or by_plugin)}){_seen_in_windows(infos, held)}"
    )
    return [Abstention("graph-replays", reason, "deep windows, which see the kernels of replays, or an eager step")]


def _replays_seen(by_plugin: Mapping[int, int]) -> str:
    """Whether anybody saw the replays."""
    if not by_plugin:
        return "their replays were not seen"
    count = f"{sum(by_plugin.values()):,}"
    return f"NCCL's plugin saw {count} operations of their replays, which belong to no recorded collective"


def _seen_in_windows(infos: Mapping[int, Mapping[str, Any]], ranks: Iterable[int]) -> str:
    held = list(ranks)
    seen = bool(held) and all(any(each.state in WRITTEN for each in read_windows(infos[rank])) for rank in held)
    return "; inside deep windows their kernels were" if seen else ""


def _paused(infos: Mapping[int, Mapping[str, Any]]) -> list[Abstention]:
    spans = sorted({span for info in infos.values() for span in paused_spans(info)})
    if not spans:
        return []
    words = ", ".join(f"{first}-{end - 1}" if end < NEVER else f"{first} on" for first, end in spans if end > first)
    many = any(each.get("pauses") for info in infos.values() for each in entries(info, "paused"))
    known = "so often that the oldest pauses count as one: nothing is used" if many else "nothing is known"
    reason = f"recording was paused{' ' if many else ': '}{known} of collectives in steps {words}"
    return [Abstention("paused", reason, "a recording without pauses")] if words else []


def _forward(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> list[Abstention]:
    without = [r for r in ranks if r.budgeted and r.lanes is None and "forward" not in r.phases_seen]
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


def _sampled_out(run: Run) -> list[Abstention]:
    out = run.sampled_out
    if not out:
        return []
    reason = f"{left_out_words(len(out), run.world_size, run.info.get('sampled_ranks'))}: nothing is known of them"
    return [Abstention("sampled-ranks", reason, "a recording of all ranks: without COMMLENS_RANKS")]


def _steps_left_out(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> list[Abstention]:
    sampled = find_sampled_steps(ranks, infos)
    if sampled is None or not (sampled.left_out or sampled.unnumbered):
        return []
    choice = f"COMMLENS_STEPS={sampled.said}"
    if sampled.unnumbered:
        reason = f"no optimizer step was seen, so all that the job did was taken for step 0 of {choice}"
    else:
        were = "was" if sampled.left_out == 1 else "were"
        reason = (
            f"{sampled.left_out:,} of {sampled.count:,} steps {were} left out on purpose ({choice}): nothing is known"
            " of their collectives, of what the job does only in them, or of a hang in them shorter than half a minute"
        )
    return [Abstention("sampled-steps", reason, "a recording of all steps: without COMMLENS_STEPS")]


@dataclass(frozen=True)
class SampledSteps:
    """What COMMLENS_STEPS left out.

    Attributes:
        said: what it said, on all ranks together.
        count: whole steps of the rank that saw most.
        left_out: those of them that some rank did not record on purpose.
        unnumbered: no optimizer told steps apart, and there are not sums instead of steps.
    """

    said: str
    count: int
    left_out: int
    unnumbered: bool


def find_sampled_steps(ranks: Sequence[RankFacts], infos: Mapping[int, Mapping[str, Any]]) -> SampledSteps | None:
    """What COMMLENS_STEPS left out, None where it chose nothing."""
    sampled = unfit_steps(infos.values()).sampled
    if not sampled:
        return None
    numbered = [r.steps for r in ranks if r.steps.how in (FROM_OPTIMIZER, IN_WINDOWS)]
    count = max((steps.count for steps in numbered), default=0)
    left_out = int(Unfit(sampled=sampled).is_absent(np.arange(count)).sum())
    unnumbered = not numbered and all(r.sums is None for r in ranks)
    return SampledSteps("; ".join(dict.fromkeys(each.said for each in sampled)), count, left_out, unnumbered)


def left_out_words(count: int, world_size: int, choice: object) -> str:
    """ "63 of 64 ranks were left out on purpose (COMMLENS_RANKS=::64)"."""
    were = "was" if count == 1 else "were"
    return f"{count:,} of {world_size:,} ranks {were} left out on purpose (COMMLENS_RANKS={choice})"


def _where(who: Sequence[int], ranks: Sequence[RankFacts]) -> str:
    return "" if len(who) == len(ranks) else f" ({name_ranks(who)})"
