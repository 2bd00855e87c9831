"""Findings straggler-rank, rotating-imbalance and host-stall: somebody is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.across.causes import LATE_FORWARD, SLOW_TRANSFERS, UNKNOWN, Cause, find_cause
from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.lateness import STEP, Lateness
from commlens.analyzers.across.selftime import BEFORE_FORWARD, ELSEWHERE
from commlens.analyzers.across.stragglers import (
    Late,
    find_mostly,
    find_persistent,
    find_rotating,
    find_stalls,
    find_tiers,
    split_spikes,
)
from commlens.analyzers.counted.gpus import held_down
from commlens.analyzers.findings.build import advice
from commlens.analyzers.findings.context import LEAST_SHARE, Context
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.numerals import plain
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.report import Evidence, Finding

_EVEN = 0.5  # a rank that is last in as many steps does not just take its turn
_LOOK = {
    "longer compute": "compare its work with the others': batch, sequence lengths, clock rate, heat, other jobs",
    LATE_FORWARD: "look at what it does before its forward: input (storage, DataLoader workers, decoding), other work",
    "late launch": "look at what its Python thread does (py-spy dump --pid PID): garbage collection, logging, a sync",
    UNKNOWN: "profile it beside another rank",
}


def find_stragglers(context: Context) -> list[Finding]:
    """Ranks that are waited for always, in turn, or now and then; none where that cannot be told."""
    lateness = context.joined.lateness
    if lateness is None:
        return []
    spikes, usual = split_spikes(lateness) if lateness.unit == STEP else (lateness.index[:0], lateness.index)
    found = []
    tiers = find_tiers(_but_for_slow_links(context, lateness), usual)
    for number, late in enumerate(tiers):
        straggler = _straggler(context, lateness, late, tiers[:number]) if _matters(lateness, late.saved_ns) else None
        if straggler is not None:
            found.append(straggler)
    if not lateness.exposed:  # waiting that may be hidden costs nothing that could be told
        return found
    if not tiers and find_persistent(lateness, usual) is None:
        found += _in_most_or_in_turn(context, lateness, usual)
    stalls = find_stalls(lateness, spikes)
    if stalls is not None and _matters(lateness, stalls.saved_ns):
        found += _stall(context, lateness, stalls)
    return found


def _in_most_or_in_turn(context: Context, lateness: Lateness, usual: Ints) -> list[Finding]:
    """Ranks that are late in most steps, else those that are late in turn."""
    mostly = find_mostly(_but_for_slow_links(context, lateness), usual)
    if mostly is not None and _matters(lateness, mostly.saved_ns):
        straggler = _straggler(context, lateness, mostly, (), often="late in most steps")
        if straggler is not None:
            return [replace(straggler, confidence="medium")]
    rotating = find_rotating(lateness, usual)
    return _rotating(context, lateness, rotating) if rotating and _matters(lateness, rotating.saved_ns) else []


def _matters(lateness: Lateness, ns: float) -> bool:
    return ns >= LEAST_SHARE * lateness.sample_ns


def _but_for_slow_links(context: Context, lateness: Lateness) -> Lateness:
    """Waiting as if no rank's transfers took longer than those of half the ranks.

    A rank whose link is slow waits less and transfers longer, but works no longer than the others. One whose
    transfers are shorter is left as it is: it may hide them better, and then nobody waits for what it does meanwhile.
    """
    if lateness.unit != STEP or not lateness.exposed:
        return lateness
    moved = np.array(each(partial(_transfer_ns, steps=lateness.index), context.ranks, context.joined.exposed))
    usual = np.partition(moved, len(moved) // 2, axis=0)[len(moved) // 2]  # of two ranks neither is the slow one
    return replace(lateness, wait_ns=lateness.wait_ns + (moved - usual).clip(0))


def _transfer_ns(facts: RankFacts, own: Exposed, steps: Ints) -> Ints:
    return np.asarray(own.transfer[np.searchsorted(facts.steps.index, steps)])


def _cause(context: Context, lateness: Lateness, late: Late) -> Cause:
    return find_cause(context.ranks, context.joined, lateness, late)


def _straggler(
    context: Context, lateness: Lateness, late: Late, later: Sequence[Late], often: str = "always late"
) -> Finding | None:
    """Ranks that are late as `often` says; `later` are those that are waited for even longer."""
    cause = _cause(context, lateness, late)
    if cause.kind == SLOW_TRANSFERS:  # it is late because its links are slow: that is another finding's
        return None
    if later and cause.kind == UNKNOWN:
        return None
    who, unit = context.numbers(late.positions), lateness.unit
    samples, per = (lateness.per_step, STEP) if lateness.per_step else (1.0, unit)
    more = f", {plain(cause.ms)} ms more than on the others" if cause.kind != UNKNOWN else ""
    is_are = "is" if len(who) == 1 or _named(context, late).startswith("host") else "are"
    where = f" in {cause.where}" if cause.where else ""
    slowed, gpu = _slowed_gpu(context, late, cause)
    before = name_ranks(context.numbers([p for tier in later for p in tier.positions])) if later else ""
    but = f" but for {before}" if later else ""
    evidence = [
        Evidence(f"other ranks wait for it{but}, per {per}", round(late.cost_ns * samples / 1e6, 3), "ms"),
        Evidence(f"{unit}s in which it is last (waits least){but}", round(100 * late.share, 1), "%"),
        Evidence("probability of that by chance", float(f"{late.chance:.2g}"), ""),
        *([Evidence(f"{cause.kind}{where}", cause.ms, "ms")] if more else []),
        *gpu,
        *_parts(cause, but=cause.where or cause.kind),
    ]
    return _finding(
        context,
        lateness,
        late,
        "straggler-rank",
        f"{_named(context, late)} {is_are} {often}: {cause.kind}{where}{more}{slowed}",
        evidence,
        cause,
        ranks=who,
        confidence="high" if late.chance < 1e-3 and cause.kind != UNKNOWN and not context.missing else "medium",
        wrong_if=(
            "the ranks are meant to do different work, as in a pipeline",
            *((f"not wrong, but gains nothing alone: it counts once no other waits for {before}",) if later else ()),
        ),
    )


def _slowed_gpu(context: Context, late: Late, cause: Cause) -> tuple[str, list[Evidence]]:
    """Words and evidence that a late rank's GPU was held down; nothing where counters do not show it."""
    ranks = context.numbers(late.positions) if cause.kind == "longer compute" else ()
    held = [found for rank in ranks if (found := held_down(context.gpus, rank)) is not None]
    if not held or len(held) < len(ranks):
        return "", []
    worst = max(held, key=lambda each: each.share)
    evidence = [
        Evidence(f"clock of its GPU ({worst.device}), mean", worst.mhz, "MHz"),
        Evidence("clock of the other ranks' GPUs, median", worst.others_mhz, "MHz"),
        Evidence(f"time in which {worst.reason} held its clock down", round(100 * worst.share, 1), "%"),
    ]
    return f"; its GPU is slowed down by {worst.reason}", evidence


def _rotating(context: Context, lateness: Lateness, late: Late) -> list[Finding]:
    cause = _cause(context, lateness, replace(late, positions=()))
    if cause.kind == SLOW_TRANSFERS:
        return []
    where = f" in {cause.where}" if cause.where else ""
    against = "the slowest rank of a step against the median rank"
    foremost = name_ranks(context.numbers((late.foremost or 0,)))
    evidence = [
        Evidence("a rank waits for the last one, per step, mean over ranks", round(late.cost_ns / 1e6, 3), "ms"),
        Evidence(
            f"steps in which {foremost} is last (waits least); none is more often", round(100 * late.share, 1), "%"
        ),
        *([Evidence(f"{cause.kind}{where}, {against}", cause.ms, "ms")] if cause.kind != UNKNOWN else []),
        *_parts(cause, but=cause.where or cause.kind, than="on the median rank"),
    ]
    turns = "every step another rank is late" if late.share < _EVEN else f"now {foremost} is late, now another"
    title = f"{turns} ({cause.kind}{where}): the work is unevenly shared"
    look = "share the work evenly in each step: sort or pack by sequence length, balance batches by cost"
    found = _finding(
        context,
        lateness,
        late,
        "rotating-imbalance",
        title,
        evidence,
        cause,
        ranks=context.numbers(late.positions),
        confidence="medium",
        wrong_if=("cores are oversubscribed, so that the operating system delays one rank after another",),
        look=look,
    )
    return [found]


def _stall(context: Context, lateness: Lateness, late: Late) -> list[Finding]:
    cause = _cause(context, lateness, late)
    if cause.kind == SLOW_TRANSFERS:
        return []
    each_ms = late.each_ns / 1e6
    where = f" in {cause.where}" if cause.where else ""
    evidence = [
        Evidence("pauses", float(late.samples.size), "steps"),
        Evidence("a rank waits in such a step, mean over ranks", round(float(each_ms.mean()), 3), "ms"),
        Evidence("the longest", round(float(each_ms.max()), 3), "ms"),
        Evidence("pauses that are these ranks'", round(100 * late.share, 1), "%"),
        *_parts(cause),
    ]
    often = f"{'once' if late.samples.size == 1 else f'{late.samples.size} times'}, {plain(float(each_ms.mean()))} ms"
    pauses = "pauses" if len(late.positions) == 1 else "pause"
    title = f"{_named(context, late)} {pauses} now and then ({often}): {cause.kind}{where}"
    look = "look for what happens in those steps: garbage collection, checkpoints, evaluation, logging, throttling"
    found = _finding(
        context,
        lateness,
        late,
        "host-stall",
        title,
        evidence,
        cause,
        ranks=context.numbers(late.positions),
        confidence="high" if late.samples.size >= 3 and late.share >= 0.9 else "medium",
        wrong_if=("the pauses are wanted, such as checkpoints",),
        look=look,
        steps=tuple(int(step) for step in lateness.index[late.samples][:50]),
    )
    return [found]


def _parts(cause: Cause, but: str = "", than: str = "on the others") -> list[Evidence]:
    """What else took longer, besides the cause itself."""
    said = {LATE_FORWARD: BEFORE_FORWARD, "late launch": ELSEWHERE}.get(but, but)
    return [
        Evidence(f"more {name} than {than}", ms, "ms") for name, ms in cause.parts_ms.items() if ms > 0 and name != said
    ]


def _named(context: Context, late: Late) -> str:
    """The ranks, and their host where they are all of one among several."""
    machines = {facts.who.machine for facts in context.ranks}
    own = {context.ranks[p].who.machine for p in late.positions}
    ranks = name_ranks(context.numbers(late.positions))
    if len(machines) > 1 and len(own) == 1:
        host = context.ranks[late.positions[0]].who.host
        whole = sum(facts.who.machine in own for facts in context.ranks) == len(late.positions)
        return f"host {host} ({ranks})" if whole else f"{ranks} (host {host})"
    return ranks


def _finding(
    context: Context,
    lateness: Lateness,
    late: Late,
    id: str,
    title: str,
    evidence: list[Evidence],
    cause: Cause,
    *,
    ranks: tuple[int, ...],
    confidence: str,
    wrong_if: tuple[str, ...],
    look: str | None = None,
    steps: tuple[int, ...] = (),
) -> Finding:
    priced = lateness.per_step is not None and lateness.exposed
    share = late.saved_ns / lateness.sample_ns
    compared = not lateness.clock_free and any(context.joined.clocks.offsets)
    uncertain = ("the hosts' clocks do not run evenly",) if compared else ()
    return Finding(
        id=id,
        title=title,
        layer="host",
        severity="high" if share >= 0.1 else "medium",
        confidence=confidence,
        ranks=ranks,
        group=None,
        steps=steps,
        evidence=tuple(evidence),
        ceiling_ms=round(late.saved_ns * (lateness.per_step or 0) / 1e6, 3) if priced else None,
        actions=(
            advice(
                look or _LOOK[cause.kind],
                verify="record again and compare this finding's evidence",
            ),
        ),
        could_be_wrong_if=(*wrong_if, *uncertain, *context.caveats),
    )
