"""Stage one of all ranks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from commlens.analyzers.held import Engine
from commlens.analyzers.ranks import RankFacts, rank_facts
from commlens.analyzers.windows import Unfit, unfit_steps
from commlens.errors import TraceError

if TYPE_CHECKING:
    from commlens.trace import Rank, Run
    from commlens.trace.nccl.recorded import DeviceTimes


@dataclass(frozen=True)
class _Seen:
    """What became known of a rank's files while they were read, wherever that was; see `Rank`."""

    truncated: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    device_times: DeviceTimes | None = None
    unreadable: TraceError | None = None


def read_ranks(run: Run, engine: Engine) -> Sequence[RankFacts]:
    """Stage one of every rank that can be read, ascending; the others are taken out of the run and noted.

    Raises:
        TraceError: no rank can be read.
    """
    unfit = unfit_steps(rank.info for rank in run.ranks.values())
    while True:
        facts, seen = engine.keep_parts(2, partial(_read, unfit=unfit), [run.ranks[n] for n in sorted(run.ranks)])
        lost = {
            number: each.unreadable for number, each in zip(sorted(run.ranks), seen, strict=True) if each.unreadable
        }
        if lost and len(lost) == len(run.ranks):
            raise next(iter(lost.values()))
        if not lost:
            break
        for number, why in lost.items():
            del run.ranks[number]
            run.notes.append(f"rank {number} is left out: {why}")
        run.damaged = sorted({*run.damaged, *lost})
    for rank, each_seen in zip((run.ranks[number] for number in sorted(run.ranks)), seen, strict=True):
        rank.truncated |= each_seen.truncated
        rank.notes[:] = each_seen.notes
        rank.device_times = each_seen.device_times
    return facts


def _read(rank: Rank, unfit: Unfit) -> tuple[RankFacts | None, _Seen]:
    try:
        facts = rank_facts(rank, unfit)
    except TraceError as error:
        return None, _Seen(unreadable=error)
    return facts, _Seen(frozenset(rank.truncated), tuple(rank.notes), rank.device_times)
