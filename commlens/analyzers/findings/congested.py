"""Finding congestion: packets were marked, held back or sent again while transfers were exposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from commlens.analyzers.findings.build import advice
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.wired import Wired, exposed_between, named, on_link, rate_evidence
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Evidence, Finding

_SHARE = 1e-3  # of packets
_FEWEST = 100  # of them
_PACKET = 4096  # bytes, of InfiniBand and RoCE where packets were not counted
_MORE = 5.0  # times the other hosts' ticks a byte
_SIGNS = (
    ("cnp_handled", "tx", "times it slowed down for congestion"),
    ("ecn_marked", "rx", "packets marked by a switch"),
    ("retransmits", "tx", "packets sent again"),
    ("out_of_sequence", "rx", "packets out of order"),
)


@dataclass(frozen=True)
class Sign:
    """One counter that shows congestion."""

    where: str
    meaning: str
    count: float
    packets: float


def find_congestion(context: Context, hosts: Sequence[Wired]) -> list[Finding]:
    """Hosts that show it; one finding for all of them."""
    shown = [(host, signs) for host in hosts if (signs := [*_on_carrier(host), *_of_tcp(host)])]
    lost = exposed_between(context)
    if not shown or not context.matters(lost):
        return []
    host, signs = max(shown, key=lambda each: max(sign.count / sign.packets for sign in each[1]))
    worst = max(signs, key=lambda sign: sign.count / sign.packets)
    saved = lost * host.room(host.carrier.peak)
    if not context.matters(saved):
        return []
    own = [each for each, _ in shown]
    return [
        on_link(
            context,
            "congestion",
            f"the network of {named(own)} is congested: {plain(100 * worst.count / worst.packets, 2)} % of packets: "
            f"{worst.meaning} ({worst.where})",
            own,
            gains_ms=saved,
            costs_ms=lost,
            confidence="medium",
            evidence=[
                *(Evidence(f"{sign.meaning} per million packets, {sign.where}", _million(sign), "") for sign in signs),
                *_waiting(host, hosts),
                *rate_evidence(host),
            ],
            action=advice(
                "look at the switches between these hosts: buffers, ECN and PFC settings, other jobs, routes",
                verify="record again: counts per million packets fall",
            ),
            wrong_if=["the packets were not the job's: the counters are of the whole host"],
        )
    ]


def _on_carrier(host: Wired) -> list[Sign]:
    """Of the InfiniBand or RoCE port that carries the job's bytes."""
    node, device, window = host.traffic.node, host.carrier, host.traffic.window
    found = []
    for counter, way, meaning in _SIGNS:
        count = node.grown(device, counter, window)
        packets = node.grown(device, f"{way}_packets", window) or host.seen / _PACKET
        if count >= max(_FEWEST, _SHARE * packets):
            found.append(Sign(device.name, meaning, count, packets))
    return found


def _of_tcp(host: Wired) -> list[Sign]:
    """Of the host's TCP, where the job's bytes go over Ethernet."""
    if host.carrier.kind != "ethernet":
        return []
    found = []
    for device in host.traffic.node.devices:
        if device.kind == "tcp":
            node, window = host.traffic.node, host.traffic.window
            count, sent = (node.grown(device, name, window) for name in ("retransmits", "tx_segments"))
            if count >= max(_FEWEST, _SHARE * sent) and sent:
                found.append(Sign("TCP", "segments sent again", count, sent))
    return found


def _million(sign: Sign) -> float:
    return float(f"{1e6 * sign.count / sign.packets:.4g}")


def _waiting(host: Wired, hosts: Sequence[Wired]) -> list[Evidence]:
    """How long the port had data it could not send, where that is much longer than on the other hosts."""
    own, others = _ticks(host), [_ticks(each) for each in hosts if each is not host]
    if not own or not others or own < _MORE * median(others):
        return []
    where = f"{host.carrier.name} of {host.host}"
    return [
        Evidence(f"ticks a byte that {where} had data and could not send", float(f"{own:.3g}"), ""),
        Evidence("the same of the other hosts, median", float(f"{median(others):.3g}"), ""),
    ]


def _ticks(host: Wired) -> float:
    return host.traffic.node.grown(host.carrier, "tx_wait_ticks", host.traffic.window) / max(host.seen, 1.0)
