"""What the report does not answer, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.lateness import FEWEST_STEPS, STEP
from commlens.analyzers.held import each
from commlens.analyzers.path_lines import CriticalPath
from commlens.analyzers.ranks import RankFacts, failed_hook, unknown_ends
from commlens.analyzers.report import Abstention
from commlens.analyzers.steps import IN_WINDOWS, INFERRED, NONE
from commlens.analyzers.windows import NEVER, paused_spans, read_windows
from commlens.trace.windows import WRITTEN

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
    unknown = sum(n for n, r in zip(each(unknown_ends, ranks), ranks, strict=True) if r.budget is not None)
    total = sum(r.analysed.size for r in budgeted)
    if not unknown:
        return []
    reason = f"{unknown} of {total} collectives have no known end: exposed and hidden are lower bounds"
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
    reason = f"recording was paused: nothing is known of collectives in steps {words}"
    return [Abstention("paused", reason, "a recording without pauses")] if words else []


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


def _sampled_out(run: Run) -> list[Abstention]:
    out = run.sampled_out
    if not out:
        return []
    reason = f"{left_out_words(len(out), run.world_size, run.info.get('sampled_ranks'))}: nothing is known of them"
    return [Abstention("sampled-ranks", reason, "a recording of all ranks: without COMMLENS_RANKS")]


def left_out_words(count: int, world_size: int, choice: object) -> str:
    """ "63 of 64 ranks were left out on purpose (COMMLENS_RANKS=::64)"."""
    were = "was" if count == 1 else "were"
    return f"{count:,} of {world_size:,} ranks {were} left out on purpose (COMMLENS_RANKS={choice})"


def _where(who: Sequence[int], ranks: Sequence[RankFacts]) -> str:
    return "" if len(who) == len(ranks) else f" ({name_ranks(who)})"
