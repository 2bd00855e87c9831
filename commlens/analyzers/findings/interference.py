"""Finding interference: the link that the job uses carries bytes that its collectives do not explain, at their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.counted.contrast import Contrast, compare
from commlens.analyzers.counted.nodes import BYTES
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
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Intervals, length
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Evidence, Finding
from commlens.trace.schema import MISSING

_MUCH = 0.3  # of what the collectives move
_BUSY = 0.7  # of the peak, above which bytes of others cost time for sure
_OWN = 0.8  # of what the link carried went over the rank's own connections
_READINGS = 5  # in a stretch: bytes at its edges blur no more than a fifth
_FEWEST = 15  # stretches, to set those with others' bytes beside those without
_TURNS = 3  # changes between more and less of others' traffic: once may be a coincidence


@dataclass(frozen=True)
class Shared:
    """A host whose link others use at the job's cost.

    Attributes:
        host: it.
        saved_ms: what the transfers would take less without them, per step.
        contrast: what shows it; None where the link is nearly full all the time.
    """

    host: Wired
    saved_ms: float
    contrast: Contrast | None


def find_interference(context: Context, hosts: Sequence[Wired]) -> list[Finding]:
    """Links that others use too, where that costs time; one finding, since a flow has two ends."""
    lost = exposed_between(context)
    if not context.matters(lost):
        return []
    shared = [found for host in hosts if not _is_own(host) if (found := _shared(context, host, lost)) is not None]
    worth = sorted((each for each in shared if context.matters(each.saved_ms)), key=lambda each: -each.host.foreign)
    return [_finding(context, worth, lost)] if worth else []


def _shared(context: Context, host: Wired, lost: float) -> Shared | None:
    contrast = _contrast(context, host)
    if contrast is not None:
        return Shared(host, min(contrast.cost_ms, lost), contrast)
    if host.foreign >= _MUCH * host.expected.high and _filled(host) >= _BUSY:
        return Shared(host, lost * host.foreign / max(host.together), None)
    return None


def _is_own(host: Wired) -> bool:
    """Whether the connections of the job's own process, one on this host, account for the bytes."""
    own = host.traffic.of_processes
    return len(host.traffic.ranks) == 1 and own is not None and own >= _OWN * max(host.together)


def _filled(host: Wired) -> float:
    """Share of the carrier's peak, 0..1; where the rate is a mean, with others' bytes spread over all of the steps."""
    peak, busy = host.carrier.peak, host.traffic.busy
    if peak is None or busy is None:
        return 0.0
    own = host.expected.high / (length(busy.transfer) / 1e9)
    spread = own + host.foreign / host.traffic.seconds
    return (host.rate.p50 if host.rate.p50 is not None else spread) / peak


def _contrast(context: Context, host: Wired) -> Contrast | None:
    """Whether transfers take longer while others use the link; None where that cannot be told, or is not so."""
    stretches, steps = host.traffic.stretches(_READINGS)
    if stretches.starts.size < _FEWEST:
        return None
    sent, received = host.traffic.moved(host.carrier)
    counter = BYTES[int(received > sent)]
    spans = (stretches.ends - stretches.starts) / 1e9
    seen = host.traffic.node.series[host.carrier.name, counter].grown(*stretches) / spans
    own = host.expected.high * steps / host.traffic.steps / spans
    ms = _transfer_ms(context, host, stretches) / steps
    return compare(seen - own, ms, float(np.median(own))) if ms.all() else None


def _transfer_ms(context: Context, host: Wired, stretches: Intervals) -> Floats:
    """Transfer between hosts in each stretch, ms, mean over the ranks of the host that took part."""
    shift = context.joined.clocks.shift_ns - context.joined.clocks.shift_ns[host.traffic.node.sampler]
    inter, found = context.between_hosts, []
    for position in host.traffic.node.positions:
        rows, own = context.ranks[position].columns.collectives, context.joined.waits[position]
        known = inter[position] & (own.transfer_ns != MISSING) & (rows["completed_ns"] != MISSING)
        end = rows["completed_ns"][known] + shift[position]
        place = np.searchsorted(stretches.starts, end, side="right") - 1
        inside = (place >= 0) & (end <= stretches.ends[place])
        took = own.transfer_ns[known][inside]
        if took.size:
            found.append(np.bincount(place[inside], weights=took, minlength=stretches.starts.size) / 1e6)
    return np.asarray(np.mean(found, axis=0)) if found else np.zeros(stretches.starts.size)


def _finding(context: Context, shared: Sequence[Shared], lost: float) -> Finding:
    host, contrast, saved = shared[0].host, shared[0].contrast, shared[0].saved_ms
    hosts = sorted((each.host for each in shared), key=lambda each: each.traffic.ranks)
    devices = ", ".join(dict.fromkeys(each.carrier.name for each in hosts))
    title = f"others use the network link{'s' * (len(hosts) > 1)} of {named(hosts)} ({devices})"
    if contrast is not None:
        title += f": meanwhile transfers take {plain(contrast.loaded_ms / contrast.quiet_ms)} times as long"
    else:
        more = 100 * host.foreign / host.expected.high
        title += f": {more:.0f} % more than collectives explain, and nearly full"
    return on_link(
        context,
        "interference",
        title,
        hosts,
        gains_ms=saved,
        costs_ms=lost,
        confidence="high" if contrast is not None and contrast.turns >= _TURNS else "medium",
        evidence=[
            *_contrast_evidence(contrast),
            *moved_evidence(host),
            *_own_evidence(host),
            *rate_evidence(host),
        ],
        action=advice(
            "find out what else uses this link: storage, data loading, checkpoints, another job, a backup; "
            "give it another interface or another time",
            verify="record again: bytes on the link are what collectives explain",
        ),
        wrong_if=[
            "the bytes are the job's own: input from the network, checkpoints, messages outside torch.distributed"
        ],
    )


def _own_evidence(host: Wired) -> list[Evidence]:
    own = host.traffic.of_processes
    if own is None:
        return []
    per_step = float(round(own / max(host.traffic.steps, 1)))
    return [Evidence("bytes over the TCP connections of the job's ranks there per step", per_step, "B")]


def _contrast_evidence(contrast: Contrast | None) -> list[Evidence]:
    if contrast is None:
        return []
    return [
        Evidence(
            f"others' traffic in {contrast.loaded_in} stretches of the run with much of it, median",
            gb_s(contrast.loaded),
            "GB/s",
        ),
        Evidence(f"in {contrast.quiet_in} stretches with little, median", gb_s(max(contrast.quiet, 0.0)), "GB/s"),
        Evidence("transfer between hosts per step in the former, median", round(contrast.loaded_ms, 3), "ms"),
        Evidence("in the latter, median", round(contrast.quiet_ms, 3), "ms"),
    ]
