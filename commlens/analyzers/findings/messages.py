"""Findings small-collectives and expert-imbalance: what the messages themselves are like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.like import Usual, usual_transfers
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.findings.build import advice, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.naming import name_group, size
from commlens.analyzers.grouped import Floats
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.schema import MISSING, POINT_TO_POINT

_MANY = 10  # a step
_POOR = 0.1  # of the best bandwidth of the run: messages below it pay mostly latency
_UNEVEN = 1.3  # most bytes of a rank over the mean


def find_small_collectives(context: Context) -> list[Finding]:
    """Many collectives that pay latency rather than bandwidth."""
    usual = usual_transfers(context.ranks, context.joined.exposed, context.transfers)
    steps = max((facts.steps.index.size for facts in context.ranks), default=0)
    shared = [each for each in usual if each.op not in POINT_TO_POINT]
    if not shared or not steps:
        return []
    best = max(each.bytes / each.ms for each in usual)
    small = [each for each in shared if _latency_bound(context, each, best)]
    # Per rank: groups of the same kind lie beside one another.
    share = [len(each.communicator.present) / len(context.ranks) for each in small]
    count = sum(each.samples * part for each, part in zip(small, share, strict=True)) / steps
    exposed = sum(each.exposed_ms * part for each, part in zip(small, share, strict=True))
    # One call with all their bytes would still pay one latency, and move the bytes.
    saved = (1 - 1 / max(count, 1.0)) * sum(
        each.exposed_ms * part * max(0.0, 1 - each.bytes / best / each.ms)
        for each, part in zip(small, share, strict=True)
    )
    if count < _MANY or not context.matters(saved):
        return []
    moved = sum(each.bytes * each.samples * part for each, part in zip(small, share, strict=True)) / steps
    worst = max(small, key=lambda each: each.exposed_ms)
    mean = size(round(moved / count))
    return [
        Finding(
            id="small-collectives",
            title=f"{count:.0f} collectives a step are so small ({mean} on average) that they pay only latency",
            layer="strategy",
            severity=severity(context, saved),
            confidence="high" if worst.bytes / worst.ms < _POOR * best / 3 else "medium",
            ranks=(),
            group=worst.communicator.name,
            steps=(),
            evidence=(
                Evidence("such collectives per step", round(count, 1), ""),
                Evidence("their exposed transfer per step, mean over ranks", round(exposed, 3), "ms"),
                Evidence("bytes they move per step", float(round(moved)), "B"),
                Evidence(
                    f"{worst.op} of {size(worst.bytes)} in {name_group(worst.communicator)}, median transfer",
                    round(worst.ms, 4),
                    "ms",
                ),
                Evidence(
                    "its share of the best algorithm bandwidth in this run",
                    round(100 * worst.bytes / worst.ms / best, 2),
                    "%",
                ),
            ),
            ceiling_ms=round(saved, 3),
            actions=(
                advice(
                    "send them together: flatten tensors, or use a coalescing manager, DDP buckets, FSDP units",
                    change="with torch.distributed._coalescing_manager(): ...",
                    risk="the coalesced tensors need room, and the first result comes as late as the last",
                    verify="record again and compare",
                ),
            ),
            could_be_wrong_if=("each collective needs the result of the one before", *context.caveats),
        )
    ]


def _latency_bound(context: Context, each: Usual, best: float) -> bool:
    """By the cost model where it can tell, else by the best bandwidth seen in the run."""
    regimes = {
        line.regime
        for line in context.lines
        if line.group == each.communicator.name and line.op == each.op and line.bytes == each.bytes
    }
    if regimes & {"latency-bound", "bandwidth-bound"}:
        return "latency-bound" in regimes
    return each.bytes / each.ms < _POOR * best


def find_expert_imbalance(context: Context) -> list[Finding]:
    """An all_to_all whose ranks get very different amounts."""
    found = []
    for matched in context.joined.matched:
        if not matched.is_op("all_to_all").any():
            continue
        received = _received(context.ranks, matched)
        if received is None or received.max() < _UNEVEN * received.mean():
            continue
        cost = _exposed_ms(context, matched)
        saved = cost * (1 - float(received.mean() / received.max()))
        if context.matters(saved):
            found.append(_imbalance(context, matched, received, cost, saved))
    return found


def _received(ranks: Sequence[RankFacts], matched: Matched) -> Floats | None:
    """Bytes that each recorded member gets in all_to_alls, mean, shape (members,)."""
    exchange = matched.is_op("all_to_all") & matched.whole
    if not exchange.any():
        return None
    table = np.array(
        [
            ranks[position].columns.collectives["out_bytes"][matched.rows[line, exchange]]
            for line, position in enumerate(matched.communicator.present)
        ]
    )
    return None if (table == MISSING).any() else np.asarray(table.mean(axis=1))


def _exposed_ms(context: Context, matched: Matched) -> float:
    """Exposed time of a group's all_to_alls, ms per step, the most of any member."""
    costs = []
    exchange = matched.is_op("all_to_all")
    for line, position in enumerate(matched.communicator.present):
        rows = matched.rows[line, exchange]
        facts = context.ranks[position]
        costs.append(float(facts.exposed_ns[rows[rows != MISSING]].sum()) / max(facts.steps.index.size, 1) / 1e6)
    return max(costs)


def _imbalance(context: Context, matched: Matched, received: Floats, cost: float, saved: float) -> Finding:
    present = [context.ranks[position].rank for position in matched.communicator.present]
    heavy = tuple(rank for rank, got in zip(present, received, strict=True) if got > _UNEVEN * received.mean())
    most, where = float(received.max()), name_group(matched.communicator)
    return Finding(
        id="expert-imbalance",
        title=f"{name_ranks(heavy)} gets {most / received.mean():.2g} times the mean of each all_to_all in {where}",
        layer="strategy",
        severity=severity(context, saved),
        confidence="medium",
        ranks=heavy,
        group=matched.communicator.name,
        steps=(),
        evidence=(
            Evidence("most bytes received by a rank, mean over the all_to_alls", round(most), "B"),
            Evidence("mean over the ranks", round(float(received.mean())), "B"),
            Evidence("exposed time of the all_to_alls on the rank that has most", round(cost, 3), "ms"),
        ),
        ceiling_ms=round(saved, 3),
        actions=(
            advice(
                "balance the experts: an auxiliary loss or bias, a capacity limit, popular experts on several ranks",
                risk="routing other tokens changes training",
                verify="record again and compare bytes per rank",
            ),
        ),
        could_be_wrong_if=("the ranks are not meant to hold equal shares", *context.caveats),
    )
