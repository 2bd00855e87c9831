"""Finding slow-link by counters: a link is full, or counts errors, while transfers over it are exposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from commlens.analyzers.counted.link_lines import DAMAGE
from commlens.analyzers.findings.build import advice
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.wired import (
    Wired,
    exposed_between,
    gb_s,
    moved_evidence,
    named,
    on_link,
    rate_evidence,
)
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Evidence, Finding

_FULL = 0.85  # of the peak
_FOREIGN = 0.3  # of what is on the link: then it is others who fill it
_FOREIGN_IN_MEAN = 0.05  # the same where the rate is a mean, which charges all bytes to the transfers
_DOWN = ("link_downs", "link_recoveries")  # one is too many
_DAMAGED = 1e-4  # of packets
_FEWEST_ERRORS = 10


def find_full_links(context: Context, hosts: Sequence[Wired], slow: Sequence[Finding]) -> list[Finding]:
    """Links that are full, and what counters add to the slow links that transfers show.

    Args:
        context: the run.
        hosts: those whose links can be judged.
        slow: findings slow-link, and slow-group, by transfers.
    """
    lost = exposed_between(context)
    damaged = [host for host in hosts if _errors(host)]
    explained = [_with_errors(each, damaged) for each in slow]
    if not context.matters(lost):
        return explained
    known = {rank for each in slow if each.id == "slow-link" for rank in each.ranks}
    full = [host for host in hosts if _is_full(host)]
    if full and not slow:
        explained.append(_full(context, full, lost))
    else:
        explained += [
            _damaged(context, host, lost) for host in damaged if not known & set(host.traffic.ranks) and not full
        ]
    return explained


def _is_full(host: Wired) -> bool:
    others = _FOREIGN if host.rate.p50 is not None else _FOREIGN_IN_MEAN
    return (host.share or 0.0) >= _FULL and host.foreign <= others * max(host.together)


def _errors(host: Wired) -> dict[str, int]:
    """Counters of damage that say something is wrong with the carrier, and how far they grew."""
    node, device, window = host.traffic.node, host.carrier, host.traffic.window
    grown = {name: round(node.grown(device, name, window)) for name in DAMAGE}
    packets = max(node.grown(device, name, window) for name in ("tx_packets", "rx_packets"))
    damaged = {name: count for name, count in grown.items() if count >= max(_FEWEST_ERRORS, _DAMAGED * packets)}
    if not packets:
        damaged = {}  # a share of nothing
    return damaged | {name: grown[name] for name in _DOWN if grown[name]}


def _with_errors(finding: Finding, damaged: Sequence[Wired]) -> Finding:
    """The finding with the errors that were counted on the links of its ranks' hosts."""
    if finding.id != "slow-link":
        return finding
    own = [host for host in damaged if set(host.traffic.ranks) & set(finding.ranks)]
    more = [evidence for host in own for evidence in _error_evidence(host)]
    return replace(finding, evidence=(*finding.evidence, *more)) if more else finding


def _error_evidence(host: Wired) -> list[Evidence]:
    where = f"{host.carrier.name} of {host.host}"
    return [
        Evidence(f"{name.replace('_', ' ')} counted on {where} in the analysed steps", float(count), "")
        for name, count in _errors(host).items()
    ]


def _full(context: Context, full: Sequence[Wired], lost: float) -> Finding:
    worst = max(full, key=lambda each: each.share or 0.0)
    used, peak = worst.rate.usual or 0.0, worst.carrier.peak or 0.0
    devices = ", ".join(dict.fromkeys(each.carrier.name for each in full))
    many = len(full) > 1
    mean = ["bytes moved at other times than while collectives moved them: the rate is a mean"]
    return on_link(
        context,
        "slow-link",
        f"the network link{'s' * many} of {named(full)} ({devices}) {'are' if many else 'is'} full: "
        f"{plain(gb_s(used))} of {plain(gb_s(peak))} GB/s while the job waits for transfers",
        full,
        gains_ms=lost,
        costs_ms=lost,
        confidence="high" if worst.rate.p50 is not None else "medium",
        evidence=[*rate_evidence(worst), *moved_evidence(worst)],
        action=advice(
            "send fewer bytes over it, hide them, or use a faster link: the link does what it can",
            risk="depends on the change: commlens whatif RUN ranks them",
            verify="commlens whatif RUN --set link.bandwidth=x2 says what a faster link would gain",
        ),
        wrong_if=[
            *mean * (worst.rate.p50 is None),
            f"the link's peak is not what is told ({worst.carrier.peak_from or 'source not known'})",
        ],
    )


def _damaged(context: Context, host: Wired, lost: float) -> Finding:
    errors = _errors(host)
    what = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in errors.items())
    return on_link(
        context,
        "slow-link",
        f"the link {host.carrier.name} of host {host.host} is damaged: {what} in the analysed steps",
        [host],
        gains_ms=lost,
        costs_ms=lost,
        confidence="medium",
        evidence=[*_error_evidence(host), *rate_evidence(host)],
        action=advice(
            "look at its cable, transceiver, port and firmware; take the host out of the job until it is mended",
            verify="record again: the counters stay where they are, and the finding is gone",
        ),
        wrong_if=["errors are counted that cost no time: packets that are not the job's"],
    )
