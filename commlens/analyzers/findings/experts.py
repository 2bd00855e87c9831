"""Finding expert-imbalance: an all_to_all whose ranks get very different amounts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.findings.build import advice, severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.naming import name_group
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.numerals import plain
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.schema import MISSING

_UNEVEN = 1.3  # most bytes of a rank over the mean


def find_expert_imbalance(context: Context, stragglers: Sequence[Finding]) -> list[Finding]:
    """Groups whose ranks get very different amounts.

    Args:
        context: the run.
        stragglers: ranks that are waited for; where they are those that get most, that is why.
    """
    found = []
    for matched, exchanges in zip(context.joined.matched, each(_exchanges, context.joined.matched), strict=True):
        if not exchanges:
            continue
        received = _received(context.ranks, matched)
        if received is None or not received.any() or received.max() < _UNEVEN * received.mean():
            continue
        moving = _exposed_transfer_ms(context, matched) * (1 - float(received.mean() / received.max()))
        heavy = _heavy(context, matched, received)
        late = [each for each in stragglers if set(each.ranks) <= set(heavy)]
        if context.matters(moving + _evened_ms(late, matched)):
            found.append(_imbalance(context, matched, received, moving, late))
    return found


def _exchanges(matched: Matched) -> bool:
    """Whether any of its collectives is an all_to_all."""
    return bool(matched.is_op("all_to_all").any())


def _evened_ms(late: Sequence[Finding], matched: Matched) -> float:
    """What an even split saves of the time that these ranks come later than the others, ms per step.

    It takes nothing away, it moves work. Where h of n ranks work for e longer than the others, who are alike, all work
    for h / n * e longer than those once it is evened out: of e, 1 - h / n is saved.
    """
    members = len(matched.communicator.members)
    return sum((each.ceiling_ms or 0.0) * (1 - len(each.ranks) / members) for each in late)


def _heavy(context: Context, matched: Matched, received: Floats) -> tuple[int, ...]:
    """Ranks that get much more than the mean."""
    ranks = context.numbers(matched.communicator.present)
    return tuple(rank for rank, got in zip(ranks, received, strict=True) if got > _UNEVEN * received.mean())


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


def _exposed_transfer_ms(context: Context, matched: Matched) -> float:
    """Exposed transfer of a group's all_to_alls, ms per step, the most of any member."""
    costs = []
    exchange = matched.is_op("all_to_all")
    for line, position in enumerate(matched.communicator.present):
        rows = matched.rows[line, exchange]
        facts, own = context.ranks[position], context.joined.exposed[position]
        transfer = (facts.exposed_ns - own.row_wait - own.row_unsplit)[rows[rows != MISSING]]
        costs.append(float(transfer.sum()) / max(facts.steps.index.size, 1) / 1e6)
    return max(costs)


def _imbalance(context: Context, matched: Matched, received: Floats, moving: float, late: Sequence[Finding]) -> Finding:
    heavy, evened = _heavy(context, matched, received), _evened_ms(late, matched)
    saved, waiting = moving + evened, sum(each.ceiling_ms or 0.0 for each in late)
    get = "gets" if len(heavy) == 1 else "get"
    most, where = float(received.max()), name_group(matched.communicator)
    times = plain(most / float(received.mean()), 2)
    return Finding(
        id="expert-imbalance",
        title=f"{name_ranks(heavy)} {get} {times} times the mean of each all_to_all in {where}",
        layer="strategy",
        severity=severity(context, saved),
        confidence="medium",
        ranks=heavy,
        group=matched.communicator.name,
        steps=(),
        evidence=(
            Evidence("most bytes received by a rank, mean over the all_to_alls", round(most), "B"),
            Evidence("mean over the ranks", round(float(received.mean())), "B"),
            Evidence("exposed transfer per step beyond an even share, at most", round(moving, 3), "ms"),
            Evidence("others wait for these ranks, who have more to compute on, per step", round(waiting, 3), "ms"),
            Evidence("of that an even split saves, as the others then have more to do", round(evened, 3), "ms"),
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
