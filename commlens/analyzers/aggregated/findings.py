"""Findings straggler-rank and slow-group from sums: with less confidence, and no price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.lateness import Lateness
from commlens.analyzers.across.stragglers import Late
from commlens.analyzers.aggregated.late import SlowSums
from commlens.analyzers.findings.build import advice
from commlens.analyzers.findings.context import LEAST_SHARE
from commlens.analyzers.findings.naming import size
from commlens.analyzers.identity import Identity
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Evidence, Finding

_VERIFY: Final = "record again without COMMLENS_QUOTA, a few hundred steps are enough"
_UNSURE: Final = "it is from sums over stretches of steps: single collectives were not kept"
_IN_TURN: Final = "its members are late in turn, which sums do not tell from slow transfers"
_HIGH: Final = 0.1  # of a step
_NAMED: Final = 5


def straggler(
    who: Sequence[Identity], ranks: Sequence[int], lateness: Lateness, late: Late, caveats: Sequence[str]
) -> Finding | None:
    """Ranks that all wait for; None where it costs too little.

    Args:
        who: the ranks analysed, ascending.
        ranks: positions of those that have aggregates.
        lateness: what each waited.
        late: who is waited for, as places in `ranks`.
        caveats: what could make any comparison of ranks wrong.
    """
    if late.saved_ns < LEAST_SHARE * lateness.sample_ns or not lateness.sample_ns:
        return None
    own = [who[ranks[place]] for place in late.positions]
    evidence = (
        Evidence("other ranks wait for it, per step, by sums", round(late.cost_ns / 1e6, 3), "ms"),
        Evidence("stretches of steps in which it waits least", round(100 * late.share, 1), "%"),
        Evidence("stretches", float(late.samples.size), ""),
        Evidence("probability of that by chance", float(f"{late.chance:.2g}"), ""),
    )
    named = _named(who, own)
    is_are = "is" if len(own) == 1 or named.startswith("host") else "are"
    waits = f"the others wait about {plain(late.cost_ns / 1e6)} ms of a step"
    return Finding(
        id="straggler-rank",
        title=f"{named} {is_are} always late, by sums of collectives: {waits}",
        layer="host",
        severity="high" if late.saved_ns >= _HIGH * lateness.sample_ns else "medium",
        confidence="low" if caveats else "medium",
        ranks=tuple(each.rank for each in own),
        group=None,
        steps=(),
        evidence=evidence,
        ceiling_ms=None,
        actions=(advice("compare its work with the others', and look at its host", verify=_VERIFY),),
        could_be_wrong_if=("the ranks are meant to do different work, as in a pipeline", _UNSURE, *caveats),
    )


def _named(who: Sequence[Identity], own: Sequence[Identity]) -> str:
    """The ranks, and their host where they are all of one among several."""
    machines, here = {each.machine for each in who}, {each.machine for each in own}
    ranks = name_ranks(each.rank for each in own)
    if len(machines) < 2 or len(here) > 1 or not own[0].host:
        return ranks
    whole = sum(each.machine in here for each in who) == len(own)
    return f"host {own[0].host} ({ranks})" if whole else f"{ranks} (host {own[0].host})"


def slow_group(slow: Sequence[SlowSums], steps: float, step_ns: float, caveats: Sequence[str]) -> Finding | None:
    """Groups whose collectives take longer than in those like them; None where it costs too little.

    Args:
        slow: those that lose most first.
        steps: that the sums are of.
        step_ns: mean length of one.
        caveats: as of `straggler`.
    """
    if not slow or not steps or not step_ns or slow[0].lost_ns / steps < LEAST_SHARE * step_ns:
        return None
    worst = slow[0]
    message = f"{worst.key.op} of {size(max(worst.key.in_bytes, worst.key.out_bytes))}"
    lost_ms = worst.lost_ns / steps / 1e6
    return Finding(
        id="slow-group",
        title=f"group {worst.key.group} is slow, by sums of collectives: {message} takes"
        f" {plain(worst.ms / worst.like_ms)} times as long as in the groups like it",
        layer="network",
        severity="high" if lost_ms * 1e6 >= _HIGH * step_ns else "medium",
        confidence="low" if caveats else "medium",
        ranks=worst.key.members,
        group=worst.key.group,
        steps=(),
        evidence=(
            Evidence(
                f"{message} in group {worst.key.group}, the member with the shortest mean", round(worst.ms, 3), "ms"
            ),
            Evidence(f"the same in {worst.peers} groups like it, median", round(worst.like_ms, 3), "ms"),
            Evidence("lost, per step, if its time is not hidden", round(lost_ms, 3), "ms"),
            *(Evidence(f"also slow: group {each.key.group}", round(each.ms, 3), "ms") for each in slow[1:_NAMED]),
        ),
        ceiling_ms=None,
        actions=(
            advice(
                "measure the group by itself (commlens calibrate), then look at its links and hosts", verify=_VERIFY
            ),
        ),
        could_be_wrong_if=(
            "its members are late in turn, which sums do not tell from slow transfers",
            _UNSURE,
            *caveats,
        ),
    )
