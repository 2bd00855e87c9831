"""Findings `hang`, `desync`, `exception`: why a job does not get on, and which rank to look at first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from commlens.analyzers.across.disagreements import Disagreement, find_disagreements
from commlens.analyzers.across.fates import LEFT, Fate, find_fate
from commlens.analyzers.across.issued import issued_at_least, lines
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.progress import Progress, find_progress
from commlens.analyzers.across.roots import ABSENT, CIRCLE, TRANSFER, Root, find_roots
from commlens.analyzers.across.stands import Stand, find_stands
from commlens.analyzers.findings.broken_off import broken_off
from commlens.analyzers.findings.desyncs import desync_finding
from commlens.analyzers.findings.exceptions import exception_finding
from commlens.analyzers.findings.hang_actions import hang_action, hang_doubts
from commlens.analyzers.findings.hang_words import hang_title
from commlens.analyzers.findings.naming import step_of
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Abstention, Evidence, Finding
from commlens.trace.schema import MISSING

Infos = Mapping[int, Mapping[str, Any]]


def find_hangs(
    ranks: Sequence[RankFacts], matched: Sequence[Matched], infos: Infos, launch: str = "torchrun ..."
) -> tuple[tuple[Finding, ...], tuple[Progress, ...], tuple[Abstention, ...]]:
    """Why the job stands still, if it does; else which exception ended it, if one did.

    A hang is reported only where a rank's own recording shows it in one collective for much longer than ever
    before; ranks that were just killed leave collectives under way too.

    Args:
        ranks: stage one of each rank, ascending.
        matched: their collectives, matched.
        infos: rank.json of each.
        launch: the command that started the job, for what is to be run again.

    Returns:
        Findings, how far each rank got, and abstentions about a run that broke off without a hang.
    """
    disagreements = find_disagreements(ranks, matched)
    stands = find_stands(ranks, matched, infos)
    roots = find_roots(stands, lambda stand: _is_explained(ranks, stand, disagreements))
    findings = [desync_finding(ranks, each, launch) for each in disagreements]
    for root, fates in _with_fates(ranks, roots, infos):
        findings.append(_finding(ranks, root, fates, infos, launch))
    if not findings:
        findings += exception_finding(ranks, stands, infos, launch)
    abstentions = () if findings else broken_off(ranks, stands, infos)
    return tuple(findings), find_progress(ranks, matched), abstentions


def _is_explained(ranks: Sequence[RankFacts], stand: Stand, disagreements: Sequence[Disagreement]) -> bool:
    """Whether the ranks disagreed in this communicator, here or before, and never went on together since."""
    return any(
        each.matched.communicator.key == stand.matched.communicator.key
        and each.seq <= stand.seq
        and (each.shift is not None or not _went_on(ranks, each, stand))
        for each in disagreements
    )


def _went_on(ranks: Sequence[RankFacts], disagreement: Disagreement, stand: Stand) -> bool:
    """Whether all members saw the end of a collective between the two."""
    together = np.ones(max(stand.column - disagreement.column - 1, 0), bool)
    for position, line in lines(stand.matched):
        between = line[disagreement.column + 1 : stand.column]
        together &= (between != MISSING) & ranks[position].columns.over[between]
    return bool(together.any())


def _with_fates(ranks: Sequence[RankFacts], roots: Sequence[Root], infos: Infos) -> list[tuple[Root, tuple[Fate, ...]]]:
    """Each root with what became of its ranks; absent ranks of the same fate are one root."""
    together: defaultdict[str, list[tuple[Root, Fate]]] = defaultdict(list)
    for root in roots:
        if root.kind == ABSENT:
            fate = find_fate(ranks, root.ranks[0], root.stand, infos)
            together[fate.kind].append((root, fate))
    found = [_merged(each) for each in together.values()]
    return found + [(root, ()) for root in roots if root.kind != ABSENT]


def _merged(parts: Sequence[tuple[Root, Fate]]) -> tuple[Root, tuple[Fate, ...]]:
    first = max((root for root, _ in parts), key=lambda root: root.chain[0].waits[0].stood_s)
    who = tuple(sorted({rank for root, _ in parts for rank in root.ranks}))
    waiting = tuple(sorted({rank for root, _ in parts for rank in root.waiting}))
    fates = tuple(sorted((fate for _, fate in parts), key=lambda fate: fate.rank))
    return Root(ABSENT, who, first.chain, waiting), fates


def _finding(ranks: Sequence[RankFacts], root: Root, fates: Sequence[Fate], infos: Infos, launch: str) -> Finding:
    facts = {each.rank: each for each in ranks}
    longest = root.stand.waits[0]
    step = step_of(facts[longest.rank], longest.row)
    return Finding(
        id="hang",
        title=hang_title(facts, root, fates),
        layer="host",
        severity="critical",
        confidence=_confidence(root, fates),
        ranks=root.ranks,
        group=root.stand.matched.communicator.name,
        steps=() if step is None else (step,),
        evidence=tuple(_evidence(ranks, root, fates, step)),
        ceiling_ms=None,
        actions=(hang_action(facts, root, fates, infos, launch),),
        could_be_wrong_if=hang_doubts(root, fates),
    )


def _confidence(root: Root, fates: Sequence[Fate]) -> str:
    if root.kind == CIRCLE or (fates and all(fate.kind == LEFT for fate in fates)):
        return "high"
    return "medium" if root.kind in (ABSENT, TRANSFER) else "low"


def _evidence(ranks: Sequence[RankFacts], root: Root, fates: Sequence[Fate], step: int | None) -> list[Evidence]:
    evidence = [Evidence("sequence number", root.stand.seq, "")]
    evidence += [Evidence("step", step, "")] if step is not None else []
    evidence.append(Evidence("ranks that wait", len(root.waiting), ""))
    for wait in {stand.waits[0].rank: stand.waits[0] for stand in root.chain}.values():
        if not wait.dumped:
            evidence.append(Evidence(f"rank {wait.rank} stood in it for", round(wait.stood_s, 3), "s"))
        if wait.normal_s is not None:
            evidence.append(Evidence(f"the longest before on rank {wait.rank}", round(wait.normal_s, 3), "s"))
    known = issued_at_least(ranks, root.stand.matched)
    for fate in fates:
        if known.get(fate.rank, MISSING) != MISSING:
            evidence.append(Evidence(f"number that rank {fate.rank} had issued at least", known[fate.rank], ""))
        if fate.earlier_s is not None:
            evidence.append(Evidence(f"recording of rank {fate.rank} stops earlier by", round(fate.earlier_s, 3), "s"))
    return evidence
