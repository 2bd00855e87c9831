"""Findings slow-link and slow-group: a group's messages take longer than the like elsewhere, or than calibrated."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from commlens.analyzers.across.like import Slow, Usual, common_place, slow_groups
from commlens.analyzers.across.peaks import efficiency, peak_time_ns
from commlens.analyzers.findings.build import advice, severity
from commlens.analyzers.findings.command import launch_line
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.naming import name_group, size
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Abstention, Action, Evidence, Finding
from commlens.analyzers.whatif.sharing import beside
from commlens.trace.calibration import INTER
from commlens.trace.schema import MISSING

_SHARED = 0.2  # of the transfers' time, in which others of the group run too
_NAMED = 3  # groups
_LOOK_BETWEEN = "measure the link by itself, then look at its cable, port, speed and errors, and at who else uses it"
_LOOK_WITHIN = (
    "measure the groups by themselves, then look at how their ranks are bound to cores, memory and devices, which path"
    " joins those, and who else uses the host"
)
_FAR_FROM_PEAK = 0.7  # efficiency below which a link is called slow


def find_slow_links(context: Context) -> list[Finding]:
    """Groups slower than their like; where there is nothing to compare with, than their calibration."""
    usual = context.usual
    slow = [each for each in slow_groups(usual) if each.lost_ms > 0]
    if slow and context.matters(sum(each.lost_ms for each in slow) / _sharing(slow)):
        return [_slow(context, slow, usual)]
    return _below_calibration(context, usual)


def _sharing(slow: Sequence[Slow]) -> int:
    """Slow groups without a common member lose their time at once, not one after the other."""
    members = [set(each.usual.communicator.members) for each in slow]
    return 1 if set.intersection(*members) else len(slow)


def _slow(context: Context, slow: Sequence[Slow], usual: Sequence[Usual]) -> Finding:
    worst = slow[0]
    communicator = worst.usual.communicator
    hosts = {facts.rank: facts.who.host or facts.who.machine for facts in context.ranks}
    numbers = {facts.rank: f"rank {facts.rank}" for facts in context.ranks}
    between = communicator.scope == INTER
    place = common_place(slow, usual, hosts if between else numbers)
    members = communicator.members
    if place is not None:
        ranks = tuple(rank for rank in sorted(hosts) if (hosts[rank] if between else numbers[rank]) == place)
        what = f"the link of {'host ' if between else ''}{place}"
    else:
        ranks = tuple(sorted({rank for each in slow[:1] for rank in each.usual.communicator.members}))
        apart = sorted({hosts[rank] for rank in members if rank in hosts})
        what = f"the link between hosts {' and '.join(apart)}" if between else name_group(communicator)
        if between and len(apart) > 2:
            what = f"{name_group(communicator)}, between {len(apart)} hosts,"
    times = worst.usual.ms / worst.like_ms
    message = f"{worst.usual.op} of {size(worst.usual.bytes)}"
    evidence = [
        Evidence(
            f"{message} in {name_group(communicator)}, transfer of the {worst.usual.measure}",
            round(worst.usual.ms, 3),
            "ms",
        ),
        Evidence(f"the same in {worst.peers} groups like it, median", round(worst.like_ms, 3), "ms"),
        Evidence(
            "three quarters of these take longer, three quarters of the like less", round(worst.usual.low_ms, 3), "ms"
        ),
        Evidence("transfers", float(worst.usual.samples), ""),
        *(
            Evidence(f"also slow: {name_group(each.usual.communicator)}", round(each.usual.ms, 3), "ms")
            for each in slow[1:6]
        ),
    ]
    lost = sum(each.lost_ms for each in slow) / _sharing(slow)
    return Finding(
        id="slow-link" if between else "slow-group",
        title=f"{what} is slow: {message} takes {plain(times)} times as long as in the groups like it",
        layer="network",
        severity=severity(context, lost),
        confidence="high" if worst.peers >= 2 else "medium",
        ranks=ranks,
        group=communicator.name,
        steps=(),
        evidence=tuple(evidence),
        ceiling_ms=round(float(lost), 3),
        actions=(_confirm(context, members, between),),
        could_be_wrong_if=(
            "the groups are not meant to be alike: other hardware, other paths, other traffic at the same time",
            *(
                ("there is only one group to compare with: it may be that one that is unusually fast",)
                * (worst.peers < 2)
            ),
            *context.caveats,
        ),
    )


def _confirm(context: Context, members: Sequence[int], between: bool) -> Action:
    by_host = {facts.who.host: facts.rank for facts in context.ranks if facts.rank in members and facts.who.host}
    hosts = list(by_host)
    job = launch_line(context.run, context.infos)
    command = f"commlens calibrate {shlex.quote(context.source)} -- {job}"
    if between and len(hosts) >= 2:
        command += (
            f"; or by hand: iperf3 -s on {hosts[0]} and iperf3 -c {hosts[0]} on {hosts[1]} (ib_write_bw for InfiniBand)"
        )
    return advice(
        _LOOK_BETWEEN if between else _LOOK_WITHIN,
        risk=f"the measurement loads the {'network' if between else 'host'} for some seconds",
        verify=command,
    )


def _beside_others(context: Context, each: Usual) -> bool:
    """Whether its group's transfers share the link with one another, which a calibration's do not."""
    own = next(of for of in context.transfers if of.timed.matched.communicator == each.communicator)
    begun = own.timed.time_ns[own.which]
    if (begun == MISSING).any():
        return False
    order = np.argsort(begun, kind="stable")
    together = beside(begun[order], begun[order] + own.ns[order])
    return bool(together.sum() > _SHARED * own.ns.sum())


def not_held_against_calibration(context: Context) -> tuple[Abstention, ...]:
    """Groups with a calibration that their transfers cannot be compared with; nothing where all can be."""
    if context.calibration is None:
        return ()
    usual = context.usual
    left = sorted(
        {
            name_group(each.communicator)
            for each in usual
            if _peak_ns(context, each) is not None and _beside_others(context, each)
        }
    )
    if not left:
        return ()
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    reason = (
        f"transfers of {', '.join(left[:_NAMED])}{more} run beside each other, and share the link: a calibration,"
        " whose transfers run alone, does not tell what each should take"
    )
    return (Abstention("calibrated-links", reason, "transfers that run one at a time, or a like group"),)


def _peak_ns(context: Context, each: Usual) -> float | None:
    """What the calibration says that it takes; None where it says nothing of such a group."""
    if context.calibration is None:
        return None
    members = each.communicator.members
    return peak_time_ns(context.calibration, each.op, members, len(members), each.communicator.scope, each.bytes)


def _below_calibration(context: Context, usual: Sequence[Usual]) -> list[Finding]:
    """All links slower than they once were measured."""
    if context.calibration is None:
        return []
    judged: list[tuple[Usual, float]] = []
    for each in usual:
        if _beside_others(context, each):
            continue
        reached = efficiency(_peak_ns(context, each), each.ms * 1e6)
        if reached is not None and each.exposed_ms > 0:
            judged.append((each, reached))
    total = sum(each.exposed_ms for each, _ in judged)
    if not total:
        return []
    reached = sum(each.exposed_ms * share for each, share in judged) / total
    ranks = len(context.ranks)
    lost = sum(each.exposed_ms * (1 - share) * len(each.communicator.present) / ranks for each, share in judged)
    if reached > _FAR_FROM_PEAK or not context.matters(lost):
        return []
    slow = [(each, share) for each, share in judged if share <= _FAR_FROM_PEAK]
    named = sorted({name_group(each.communicator) for each, _ in slow})
    everything = len(slow) == len(judged)
    who = "all groups run" if everything else f"{', '.join(named[:3])} run"
    worst = sorted(slow, key=lambda item: -item[0].exposed_ms)
    first = worst[0][0].communicator
    finding = Finding(
        id="slow-link",
        title=f"{who} at {100 * reached:.0f} % of their calibrated speed",
        layer="network",
        severity=severity(context, lost),
        confidence="medium",
        ranks=() if everything else tuple(sorted({r for each, _ in slow for r in each.communicator.members})),
        group=None if everything else first.name,
        steps=(),
        evidence=tuple(
            Evidence(
                f"{each.op} of {size(each.bytes)} in {name_group(each.communicator)}, of its calibrated speed",
                round(100 * share, 1),
                "%",
            )
            for each, share in worst[:6]
        ),
        ceiling_ms=round(float(lost), 3),
        actions=(_confirm(context, first.members, first.scope == INTER),),
        could_be_wrong_if=(
            "the calibration was made on other hosts, or on idle ones while this job computes beside its transfers",
            *context.caveats,
        ),
    )
    return [finding]
