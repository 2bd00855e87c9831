"""What a run does now, from the newest rows of each rank, and which steps are still to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from commlens.analyzers.across.joined import join
from commlens.analyzers.across.rank_lines import rank_lines
from commlens.analyzers.across.signs import end_ns, last_sign_ns
from commlens.analyzers.counted.link_lines import LinkLine, link_lines
from commlens.analyzers.counted.read_nodes import read_nodes
from commlens.analyzers.counted.traffic import find_traffic
from commlens.analyzers.ranks import RankFacts, rank_facts
from commlens.analyzers.windows import (
    NEVER,
    Unfit,
    WindowLine,
    paused_spans,
    read_sampled,
    summed_spans,
    unfit_steps,
    window_lines,
)
from commlens.trace.schema import MISSING

if TYPE_CHECKING:
    from commlens.trace import Rank, Run

RATE_NS: Final = 10_000_000_000  # over which collectives are counted
LAST: Final = 50  # steps that are looked at
SILENT_S: Final = 10.0  # a rank at work is flushed each second
RUNNING, SILENT, ENDED = "running", "silent", "ended"


@dataclass(frozen=True)
class RecentLine:
    """One rank now.

    Attributes:
        rank: global rank.
        host: name of its host.
        state: RUNNING, SILENT (no sign of life for `SILENT_S`) or ENDED.
        steps_ended: optimizer steps it has ended; None where none was seen.
        step_ms: median of its last steps.
        steps: how many those are.
        standstill: share of them in which it stood still for collectives, 0..1; None where it cannot be told.
        wait_ms: exposed waiting a step, mean; None where ranks cannot be joined.
        caused_wait_ms: the others' waiting for it a step, mean over them.
        per_second: collectives issued a second, over the 10 s before now, or before its end.
        silent_s: since its last sign of life.
        dropped: collectives that it had no room for, in the rows that were looked at.
        paused: whether its collectives are not being written.
        summed: whether only sums of its collectives are.
        sampled: what COMMLENS_STEPS says, where its collectives are written of some steps only.
    """

    rank: int
    host: str | None
    state: str
    steps_ended: int | None
    step_ms: float | None
    steps: int
    standstill: float | None
    wait_ms: float | None
    caused_wait_ms: float | None
    per_second: float
    silent_s: float
    dropped: int
    paused: bool
    summed: bool
    sampled: str | None = None


@dataclass(frozen=True)
class Recent:
    """A run now.

    Attributes:
        ranks: one line each.
        missing: ranks of the job of which nothing can be read.
        windows: deep windows so far.
        links: what links carried; none where they are not read.
        ended: whether every rank has ended.
    """

    ranks: tuple[RecentLine, ...]
    missing: tuple[int, ...]
    windows: tuple[WindowLine, ...]
    links: tuple[LinkLine, ...]

    @property
    def ended(self) -> bool:
        return bool(self.ranks) and all(line.state == ENDED for line in self.ranks)


def recent(run: Run, now_ns: int) -> Recent:
    """What a run does now.

    Args:
        run: its newest rows.
        now_ns: the wall clock; hosts whose clocks differ from it seem silent for so much longer or shorter.
    """
    infos = {number: rank.info for number, rank in run.ranks.items()}
    facts = [_newest(rank) for rank in run.ranks.values()]
    joined = join(facts)
    waits = {line.rank: line for line in rank_lines(facts, joined)}
    traffic = find_traffic(facts, joined, read_nodes(facts, run.ranks), run.info.get("backend"))
    lines = []
    for each in facts:
        info, line = infos[each.rank], waits[each.rank]
        lines.append(_line(each, info, now_ns, line.wait_ms_per_step, line.caused_wait_ms_per_step))
    return Recent(tuple(lines), tuple(run.missing), window_lines(infos), link_lines(traffic))


def _newest(rank: Rank) -> RankFacts:
    """The rank's last steps, as far back as collectives were read."""
    read = rank.columns("collectives", ["step"])["step"].astype(np.int64)
    ended = rank.columns("phases", ["step"])["step"].astype(np.int64)
    oldest = int(read[read != MISSING].min()) if (read != MISSING).any() else 0
    unfit = unfit_steps([rank.info])
    recorded = np.unique(ended[~unfit.is_absent(ended)])
    begin = max(oldest, int(recorded[-LAST - 1]) if recorded.size > LAST else 0)
    return rank_facts(rank, Unfit((), (*unfit.absent, (0, begin + 1)) if begin > 0 else unfit.absent, unfit.sampled))


def _line(
    facts: RankFacts, info: Mapping[str, Any], now_ns: int, wait_ms: float | None, caused_ms: float | None
) -> RecentLine:
    last, ended = last_sign_ns(facts, info), end_ns(info)
    silent_s = max(0.0, (now_ns - last) / 1e9) if last != MISSING else float("inf")
    steps = facts.steps.end_ns - facts.steps.start_ns
    return RecentLine(
        rank=facts.rank,
        host=facts.who.host,
        state=ENDED if ended is not None else RUNNING if silent_s < SILENT_S else SILENT,
        steps_ended=_steps_ended(facts),
        step_ms=float(np.median(steps)) / 1e6 if steps.size else None,
        steps=int(steps.size),
        standstill=_standstill(facts),
        wait_ms=wait_ms if steps.size else None,
        caused_wait_ms=caused_ms if steps.size else None,
        per_second=_per_second(facts, ended if ended is not None else now_ns),
        silent_s=silent_s,
        dropped=int(facts.columns.overhead["dropped"].clip(0).sum()),
        paused=any(end == NEVER for _, end in paused_spans(info)),
        summed=bool(summed_spans(info)),
        sampled=sampled.said if (sampled := read_sampled(info)) is not None else None,
    )


def _steps_ended(facts: RankFacts) -> int | None:
    """As the recorder counts them: the last optimizer step's number, and one."""
    ended = facts.columns.phases["step"][facts.columns.during("optimizer")]
    return int(ended.max()) + 1 if ended.size else None


def _standstill(facts: RankFacts) -> float | None:
    if facts.budget is None or not facts.budget.step.sum():
        return None
    return float(facts.budget.exposed.sum() / facts.budget.step.sum())


def _per_second(facts: RankFacts, at_ns: int) -> float:
    """As the recorder counts them, for not all need be written."""
    noted, events = facts.columns.overhead["time_ns"], facts.columns.overhead["events"].clip(0)
    return float(events[(noted > at_ns - RATE_NS) & (noted <= at_ns)].sum() / (RATE_NS / 1e9))


def step_to_come(run: Run, within_s: float, ahead: int) -> int | None:
    """A step that no rank will have reached within some time, at the pace of the fastest; None where none ended one.

    Args:
        run: its newest rows.
        within_s: how long to allow for.
        ahead: further steps to leave between.
    """
    facts = [_newest(rank) for rank in run.ranks.values()]
    reached = [ended for each in facts if (ended := _steps_ended(each)) is not None]
    if not reached:
        return None
    return max(reached) + int(np.ceil(within_s / _fastest_s(facts))) + ahead


def _fastest_s(facts: Sequence[RankFacts]) -> float:
    """The shortest of the ranks' tenth-shortest steps, seconds; a millisecond where none is known."""
    steps = [each.steps.end_ns - each.steps.start_ns for each in facts if each.steps.index.size]
    return max(1e-3, min((float(np.quantile(own, 0.1)) for own in steps), default=1e6) / 1e9)
