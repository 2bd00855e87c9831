"""From a run to its report: per rank, then the ranks joined, then per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from commlens.analyzers.abstentions import find_abstentions, find_sampled_steps
from commlens.analyzers.across.critical_path import Path, find_path
from commlens.analyzers.across.joined import Joined, join
from commlens.analyzers.across.rank_lines import rank_lines
from commlens.analyzers.across.transfers import cost_lines, measured
from commlens.analyzers.advisor.advise import advise
from commlens.analyzers.aggregated.stage import with_sums
from commlens.analyzers.by_step import step_lines
from commlens.analyzers.collectives import collective_lines
from commlens.analyzers.contention import find_contention
from commlens.analyzers.counted.gpus import gpu_lines
from commlens.analyzers.counted.link_lines import link_lines
from commlens.analyzers.counted.read_nodes import read_nodes
from commlens.analyzers.counted.traffic import find_traffic
from commlens.analyzers.counted.unread import NEEDS, why_unread
from commlens.analyzers.coverage import find_coverage
from commlens.analyzers.findings.command import launch_line
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.find import find_findings
from commlens.analyzers.findings.hangs import find_hangs
from commlens.analyzers.findings.links import not_held_against_calibration
from commlens.analyzers.held import HERE, Engine
from commlens.analyzers.lane_lines import lane_lines
from commlens.analyzers.nccl_lines import nccl_replays, nccl_waits
from commlens.analyzers.overhead import find_overhead
from commlens.analyzers.overlap_lines import overlap_lines
from commlens.analyzers.path_lines import path_lines
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.read_ranks import read_ranks
from commlens.analyzers.report import Abstention, Report, RunFacts, StepFacts
from commlens.analyzers.sizes import size_histogram
from commlens.analyzers.steps import NONE
from commlens.analyzers.summary import time_budget
from commlens.analyzers.whatif.asked import Simulator, find_simulator, gradient_tables
from commlens.trace.memory import give_back
from commlens.trace.schema import IMPORTED, SOURCES

if TYPE_CHECKING:
    from commlens.trace import Run


@dataclass(frozen=True)
class Examined:
    """A run, looked at once: its report, and what views of single collectives need.

    Attributes:
        run: what was examined.
        ranks: stage one, ascending by rank.
        joined: stage two, of the same ranks in the same order.
        path: the critical path, None where it cannot be told.
        report: stage three.
        simulator: makes that of the run, once.
    """

    run: Run
    ranks: Sequence[RankFacts]
    joined: Joined
    path: Path | None
    report: Report
    simulator: Callable[[], Simulator]


def analyze(run: Run, engine: Engine = HERE) -> Report:
    """Analyse a run: where each step's time went, and what is not known.

    Missing ranks, damaged tables and absent steps become abstentions, never errors.

    report = commlens.analyze(commlens.open_run("commlens-runs/..."))
    """
    return examine(run, engine).report


def join_ranks(run: Run, engine: Engine = HERE) -> tuple[Sequence[RankFacts], Joined]:
    """Stages one and two of a run, for what needs no report."""
    ranks = read_ranks(run, engine)
    return ranks, join(ranks)


def examine(run: Run, engine: Engine = HERE) -> Examined:
    """Analyse a run, and keep what its report was made of.

    Args:
        run: what to look at. A rank that turns out not to be readable is taken out of it, and noted.
        engine: where functions of single ranks and communicators run.
    """
    engine = engine.apart()
    ranks, joined = join_ranks(run, engine)
    infos = {number: rank.info for number, rank in run.ranks.items()}
    transfers = measured(ranks, joined)
    costs = cost_lines(transfers)
    lines = collective_lines(ranks, joined, costs, run.calibration)
    contention = find_contention(ranks)
    traffic = find_traffic(ranks, joined, read_nodes(ranks, run.ranks), run.info.get("backend"))
    links, gpus = link_lines(traffic), gpu_lines(traffic, infos)
    context = Context(
        ranks,
        joined,
        transfers,
        lines,
        contention,
        run.calibration,
        run.absent,
        infos=infos,
        run=run.info,
        source=run.source,
        traffic=traffic,
        gpus=gpus,
    )
    unread = [Abstention("links", why, NEEDS) for why in why_unread(ranks, infos, traffic, links)]
    unheld = not_held_against_calibration(context)
    hangs, progress, unsure = find_hangs(ranks, joined.matched, infos, launch_line(run.info, infos))
    path = find_path(ranks, joined.waits, joined.clocks) if len(ranks) > 1 else None
    give_back()
    told = path_lines(path, ranks)
    report = Report(
        run=_run_facts(run, ranks),
        coverage=find_coverage(run, ranks, joined),
        time_budget=time_budget(ranks, joined),
        by_step=step_lines(ranks, joined),
        overlaps=overlap_lines(ranks, joined),
        collectives=lines,
        sizes=size_histogram(lines),
        cost_model=costs,
        ranks=rank_lines(ranks, joined),
        critical_path=told,
        device_lanes=lane_lines(ranks),
        contention=contention,
        links=links,
        gpus=gpus,
        nccl_waits=nccl_waits(ranks),
        nccl_replays=nccl_replays(ranks),
        overhead=find_overhead(ranks, infos),
        progress=progress,
        findings=(*hangs, *find_findings(context)),
        abstentions=(*unsure, *find_abstentions(ranks, infos, run, joined, told), *unread, *unheld),
    )

    @cache
    def simulator() -> Simulator:
        tables = partial(gradient_tables, run, engine)
        return find_simulator(ranks, joined, transfers, infos, run.absent, tables, run.calibration)

    advised = with_sums(advise(report, context, simulator), ranks, context.caveats)
    give_back()
    return Examined(run, ranks, joined, path, advised, simulator)


def _run_facts(run: Run, ranks: Sequence[RankFacts]) -> RunFacts:
    command = run.info.get("command") or []
    return RunFacts(
        path=run.source,
        run_id=run.run_id,
        command=tuple(str(part) for part in command),
        world_size=run.world_size,
        ranks_present=tuple(sorted(run.ranks)),
        ranks_missing=tuple(run.missing),
        ranks_sampled_out=tuple(run.sampled_out),
        sampled_ranks=str(run.info["sampled_ranks"]) if run.sampled_out else None,
        hosts=tuple(sorted({r.who.host for r in ranks if r.who.host})),
        backend=run.info.get("backend"),
        torch=run.info.get("torch"),
        sources=_sources(ranks),
        imported=run.info["imported"] if run.info.get("imported") in IMPORTED else None,
        fix=_applied(run),
        steps=_step_facts(run, ranks),
    )


def _applied(run: Run) -> tuple[str, ...]:
    """Changes of COMMLENS_FIX that every rank says it made, in its order."""
    said = [rank.info.get("fix") for rank in run.ranks.values()]
    lists = [each.get("applied") or [] if isinstance(each, dict) else [] for each in said]
    return tuple(str(each) for each in lists[0] if all(each in other for other in lists)) if lists else ()


def _sources(ranks: Sequence[RankFacts]) -> tuple[str, ...]:
    return tuple(source for source in SOURCES if any(source in facts.sources for facts in ranks))


def _step_facts(run: Run, ranks: Sequence[RankFacts]) -> StepFacts:
    counted = [r.steps for r in ranks if r.steps.index.size]
    how = Counter(steps.how for steps in counted).most_common(1)
    sampled = find_sampled_steps(ranks, {number: rank.info for number, rank in run.ranks.items()})
    return StepFacts(
        count=max((r.steps.count for r in ranks), default=0),
        analyzed=min((steps.index.size for steps in counted), default=0),
        how=how[0][0] if how else NONE,
        sampled_out=sampled.left_out if sampled is not None else 0,
        sampled_steps=sampled.said if sampled is not None else None,
    )
