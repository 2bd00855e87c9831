"""Stage one: everything one rank can tell by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commlens.analyzers.aggregated.rank_sums import RankSums, read_sums
from commlens.analyzers.blocked import Blocked, find_blocked
from commlens.analyzers.budget import Budget, overlap_whole_trace, split_steps, unanswerable
from commlens.analyzers.columns import Columns, read_columns, tiny
from commlens.analyzers.contention import Slowed, find_slowed
from commlens.analyzers.device_operations import DeviceOperations, find_operations, read_operations
from commlens.analyzers.held import Lengthy
from commlens.analyzers.identity import Identity, identify
from commlens.analyzers.intervals import Ints, length_within
from commlens.analyzers.lanes import Lanes, find_lanes
from commlens.analyzers.steps import FROM_OPTIMIZER, IN_WINDOWS, WARM_UP, Steps, find_steps, no_steps
from commlens.analyzers.windows import Unfit, recorded_windows, unfit_steps
from commlens.trace.schema import MISSING, SOURCES

if TYPE_CHECKING:
    from commlens.trace import Rank

_NO_STEPS = "no whole step after the job's first two"
_NONE_RECORDED = f"{_NO_STEPS} was recorded"
_NO_PHASES = "neither backward nor optimizer step was seen"


@dataclass(frozen=True)
class RankFacts(Lengthy, long=("columns", "blocked", "budget", "exposed_ns", "analysed")):
    """One rank, analysed by itself.

    Attributes:
        who: its host, clock and groups.
        columns: its rows.
        steps: its steps.
        lanes: what its devices did, None where that was not recorded.
        blocked: its standstill.
        budget: its steps split into parts; None with `refusal` set.
        refusal: why there is no budget.
        overlap_whole_trace: share of communication that is hidden, over everything recorded, 0..1; None where
            there is none or it cannot be told.
        slowed: its compute kernels that ran longer beside communication.
        trace_bytes: size of its tables on disk.
        rows: how many collective rows it has.
        unknown_ends: collectives with neither a known end nor a wait that was seen; of analysed steps alone where these
            are inside deep windows.
        dropped: collectives that the recorder had no room for.
        sources: where rows come from, see `schema.SOURCES`.
        phases_seen: see `Columns`.
        exposed_ns: standstill in analysed steps of each collective row, shape (rows,).
        analysed: which collective rows were issued in analysed steps, shape (rows,).
        operations: what NCCL did, None where its plugin was not there.
        sums: what it kept as aggregates, None where it kept none.
    """

    who: Identity
    columns: Columns
    steps: Steps
    lanes: Lanes | None
    blocked: Blocked
    budget: Budget | None
    refusal: str | None
    overlap_whole_trace: float | None
    slowed: tuple[Slowed, ...]
    trace_bytes: int
    rows: int
    unknown_ends: int
    dropped: int
    sources: frozenset[str]
    phases_seen: frozenset[str]
    exposed_ns: Ints
    analysed: Ints
    operations: DeviceOperations | None = None
    sums: RankSums | None = None

    @property
    def rank(self) -> int:
        """Global rank."""
        return self.who.rank

    @property
    def budgeted(self) -> bool:
        """Whether it has a budget."""
        return self.refusal is None


def rank_facts(rank: Rank, unfit: Unfit | None = None) -> RankFacts:
    """Analyse one rank by itself. Its tables are read for that and let go of.

    Args:
        rank: the rank.
        unfit: steps that are not analysed; None: as its own rank.json says.
    """
    columns = read_columns(rank)
    windows = recorded_windows(rank.info, {trace.first_step for trace in rank.windows})
    operations = read_operations(rank)
    sums = read_sums(rank)
    rank.forget()
    who, lanes = identify(rank), find_lanes(columns, windows)
    steps = find_steps(columns, windows, unfit or unfit_steps([rank.info])) if who.timed else no_steps()
    blocked = find_blocked(columns, lanes, ddp_groups(rank.info))
    blind = failed_hook(rank.info, "waits") or unanswerable(columns, lanes, blocked, steps)
    blind = blind if who.timed else "the files tell how long collectives took, not when"
    refusal = blind or _refusal(rank.info, columns, lanes, steps)
    issued = columns.collectives["issued_ns"]
    analysed = tiny(length_within(steps.window, issued, issued + 1))  # 1 ns of each: 0 or 1
    unknown = (columns.collectives["completed_ns"] == MISSING) & ~blocked.known
    return RankFacts(
        who=who,
        columns=columns,
        steps=steps,
        lanes=lanes,
        blocked=blocked,
        budget=None if refusal else split_steps(columns, lanes, steps, blocked),
        refusal=refusal,
        overlap_whole_trace=None if blind or steps.how == IN_WINDOWS else overlap_whole_trace(columns, blocked),
        slowed=find_slowed(columns, lanes, steps),
        trace_bytes=rank.trace_bytes,
        rows=issued.size,
        unknown_ends=int((unknown & (analysed > 0) if steps.how == IN_WINDOWS else unknown).sum()),
        dropped=int(columns.overhead["dropped"].clip(0).sum()),
        sources=frozenset(each for each in SOURCES if columns.words["source"].equals(each).any()),
        phases_seen=columns.phases_seen,
        exposed_ns=blocked.per_row(length_within(steps.window, blocked.starts, blocked.ends)),
        analysed=analysed,
        operations=None if operations is None else find_operations(operations, columns, steps),
        sums=sums,
    )


def ddp_groups(info: Mapping[str, Any]) -> frozenset[str]:
    """Names of the groups in which this rank's DDP models reduce gradients."""
    models = info.get("models") or []
    return frozenset(m["group"] for m in models if m.get("kind") == "DDP" and m.get("group") is not None)


def failed_hook(info: Mapping[str, Any], hook: str) -> str | None:
    """Why a hook of the recorder did not work on this rank, or None."""
    state = (info.get("hooks") or {}).get(hook, "ok")
    return None if state == "ok" else f"the recorder could not watch {hook}: {state}"


def _refusal(info: Mapping[str, Any], columns: Columns, lanes: Lanes | None, steps: Steps) -> str | None:
    """What a time budget lacks though the standstill is known."""
    if lanes is None and not columns.phases_seen & {"backward", "optimizer"}:
        return failed_hook(info, "backward") or failed_hook(info, "optimizer") or _NO_PHASES
    if steps.index.size:
        return None
    return _NONE_RECORDED if steps.how == FROM_OPTIMIZER and steps.count > WARM_UP else _NO_STEPS
