"""From a run to its report: per rank, then per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from commlens.analyzers.abstentions import find_abstentions
from commlens.analyzers.collectives import collective_lines
from commlens.analyzers.coverage import find_coverage
from commlens.analyzers.overhead import find_overhead
from commlens.analyzers.ranks import RankFacts, rank_facts
from commlens.analyzers.report import Report, RunFacts, StepFacts
from commlens.analyzers.steps import NONE
from commlens.analyzers.summary import time_budget
from commlens.trace.schema import SOURCES

if TYPE_CHECKING:
    from commlens.trace import Run


def analyze(run: Run) -> Report:
    """Analyse a run: where each step's time went, and what is not known.

    Missing ranks, damaged tables and absent steps become abstentions, never errors.

    report = commlens.analyze(commlens.open_run("commlens-runs/..."))
    """
    ranks = [rank_facts(run.ranks[number]) for number in sorted(run.ranks)]
    infos = {number: rank.info for number, rank in run.ranks.items()}
    return Report(
        run=_run_facts(run, ranks),
        coverage=find_coverage(run, ranks),
        time_budget=time_budget(ranks),
        collectives=collective_lines(ranks),
        overhead=find_overhead(ranks, infos),
        findings=(),
        abstentions=find_abstentions(ranks, infos, run.missing),
    )


def _run_facts(run: Run, ranks: Sequence[RankFacts]) -> RunFacts:
    command = run.info.get("command") or []
    return RunFacts(
        path=str(run.path),
        run_id=run.run_id,
        command=tuple(str(part) for part in command),
        world_size=run.world_size,
        ranks_present=tuple(sorted(run.ranks)),
        ranks_missing=tuple(run.missing),
        hosts=tuple(sorted({r.host for r in ranks if r.host})),
        backend=run.info.get("backend"),
        torch=run.info.get("torch"),
        sources=_sources(ranks),
        steps=_step_facts(ranks),
    )


def _sources(ranks: Sequence[RankFacts]) -> tuple[str, ...]:
    return tuple(s for s in SOURCES if any(r.columns.words["source"].equals(s).any() for r in ranks))


def _step_facts(ranks: Sequence[RankFacts]) -> StepFacts:
    counted = [r.steps for r in ranks if r.steps.index.size]
    how = Counter(steps.how for steps in counted).most_common(1)
    return StepFacts(
        count=max((r.steps.count for r in ranks), default=0),
        analyzed=min((steps.index.size for steps in counted), default=0),
        how=how[0][0] if how else NONE,
    )
