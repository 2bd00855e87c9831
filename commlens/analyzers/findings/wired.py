"""Hosts whose links can be judged: their counters agree with what collectives had to move, and that cost time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from commlens.analyzers.counted.crossing import Crossing
from commlens.analyzers.counted.nodes import Device
from commlens.analyzers.counted.traffic import Rate, Traffic
from commlens.analyzers.findings.build import severity
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.spent import exposed_ms, exposed_of_each
from commlens.analyzers.report import Action, Evidence, Finding

_HEADERS = 1.1  # bytes on a link over bytes of payload, at most: headers, acknowledgements, the job's own small talk
_SEEN = 0.5  # of what had to move at least: below it the bytes went another way
_GIGA = 1e9


@dataclass(frozen=True)
class Wired:
    """A host between which and others the job moved bytes.

    Attributes:
        traffic: its counters beside its collectives.
        expected: what the collectives had to move.
        carrier: the network device that carried most.
    """

    traffic: Traffic
    expected: Crossing
    carrier: Device

    @property
    def host(self) -> str:
        """Its name."""
        return self.traffic.name

    @cached_property
    def seen(self) -> float:
        """Bytes on the carrier in its busier direction, over the analysed steps."""
        return self.traffic.most(self.carrier)

    @cached_property
    def rate(self) -> Rate:
        """How fast the carrier moved bytes while that cost time."""
        return self.traffic.rate(self.carrier)

    @cached_property
    def share(self) -> float | None:
        """Of the carrier's peak, 0..1; None where the peak or the rate is not known."""
        peak, used = self.carrier.peak, self.rate.usual
        return used / peak if peak is not None and used is not None else None

    @cached_property
    def foreign(self) -> float:
        """Bytes on the carrier and its like that the collectives do not explain, in the direction with most of them."""
        (sent, received), own = self.together, self.expected
        return max(0.0, sent - _HEADERS * own.tx_high, received - _HEADERS * own.rx_high)

    @cached_property
    def together(self) -> tuple[float, float]:
        """Bytes sent and received on the carrier and its like."""
        like = [each for each in self.traffic.carriers if each.kind == self.carrier.kind and not each.virtual]
        moved = [self.traffic.moved(each) for each in like or [self.carrier]]
        return sum(each[0] for each in moved), sum(each[1] for each in moved)

    def room(self, peak: float | None) -> float:
        """Share of the time that moving bytes takes which a link would spare that reached `peak`, 0..1."""
        used = self.rate.usual or self.carrier.peak
        return max(0.0, 1 - used / peak) if peak is not None and used is not None else 1.0

    @property
    def per_step(self) -> float:
        """Bytes on the carrier in its busier direction, a step."""
        return self.seen / max(self.traffic.steps, 1)


def wired(context: Context) -> list[Wired]:
    """Hosts with enough readings, whose bytes are seen where they are thought to be."""
    found = []
    for each in context.traffic:
        expected = each.expected
        if expected is None or not expected.low or not each.enough or not each.carriers:
            continue
        host = Wired(each, expected, _carrier(each))
        if max(host.together) >= _SEEN * expected.low:
            found.append(host)
    return found


def _carrier(traffic: Traffic) -> Device:
    """What carried most; of several that carried the same bytes, the one that is not made of software."""
    first = traffic.carriers[0]
    alike = [each for each in traffic.carriers if traffic.most(each) >= 0.9 * traffic.most(first)]
    return next((each for each in alike if not each.virtual), first)


def exposed_between(context: Context, ranks: Sequence[int] | None = None) -> float:
    """Exposed transfer of collectives between hosts, ms a step, mean over ranks (all, or these only)."""
    if ranks is None:
        return exposed_ms(context, context.between_hosts)
    lost = exposed_of_each(context, context.between_hosts)
    chosen = [ms if facts.rank in ranks else 0.0 for facts, ms in zip(context.ranks, lost, strict=True)]
    return float(np.mean(chosen)) * len(chosen) / max(len(ranks), 1)


def ranks_of(hosts: Sequence[Wired]) -> tuple[int, ...]:
    """Global ranks on these hosts."""
    return tuple(sorted(rank for each in hosts for rank in each.traffic.ranks))


def on_link(
    context: Context,
    id: str,
    title: str,
    hosts: Sequence[Wired],
    *,
    gains_ms: float,
    costs_ms: float | None,
    confidence: str,
    evidence: Sequence[Evidence],
    action: Action,
    wrong_if: Sequence[str],
) -> Finding:
    """A finding about links of these hosts.

    Args:
        context: the run.
        id: one of the catalogue.
        title: what is wrong, in a line.
        hosts: whose links.
        gains_ms: the most that mending it could gain a step.
        costs_ms: exposed transfer between hosts a step; None where it is not known, and then there is no ceiling.
        confidence: high, medium or low.
        evidence: what shows it, but for the exposed transfer.
        action: what to do.
        wrong_if: when not to believe it, beside what holds for the whole run.
    """
    cost = [] if costs_ms is None else [_exposed_evidence(costs_ms)]
    return Finding(
        id=id,
        title=title,
        layer="network",
        severity=severity(context, gains_ms),
        confidence=confidence,
        ranks=ranks_of(hosts),
        group=None,
        steps=(),
        evidence=(*evidence, *cost),
        ceiling_ms=None if costs_ms is None else round(gains_ms, 3),
        actions=(action,),
        could_be_wrong_if=(*wrong_if, *context.caveats),
    )


def _exposed_evidence(ms: float) -> Evidence:
    return Evidence("exposed transfer between hosts per step, mean over ranks", round(ms, 3), "ms")


def named(hosts: Sequence[Wired]) -> str:
    """ "host a", "hosts a, b", "hosts a, b and 6 more"."""
    names = [each.host for each in hosts]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"host{'s' * (len(names) > 1)} {', '.join(names[:3])}{more}"


def gb_s(value: float) -> float:
    """Bytes/s as GB/s, three digits."""
    return float(f"{value / _GIGA:.3g}")


def moved_evidence(host: Wired) -> list[Evidence]:
    """What was seen on the carrier, beside what collectives had to move."""
    steps, own = max(host.traffic.steps, 1), host.expected
    return [
        Evidence(f"bytes on {host.carrier.name} of {host.host} per step", float(round(host.per_step)), "B"),
        Evidence("collectives move to or from that host per step, at least", float(round(own.low / steps)), "B"),
        Evidence("the same, at most (a ring, or NCCL's trees)", float(round(own.high / steps)), "B"),
    ]


def rate_evidence(host: Wired) -> list[Evidence]:
    """How fast the carrier was while that cost time, and what it can do."""
    found = []
    where = f"{host.carrier.name} of {host.host}"
    if host.rate.p50 is not None:
        found.append(Evidence(f"rate of {where} while transfers are exposed, median", gb_s(host.rate.p50), "GB/s"))
    elif host.rate.mean is not None:
        found.append(Evidence(f"rate of {where} while bytes move, mean", gb_s(host.rate.mean), "GB/s"))
    if host.carrier.peak is not None:
        found.append(Evidence(f"peak of {where}", gb_s(host.carrier.peak), "GB/s"))
    return found
