"""One line a link: what it could carry, what it carried while that cost time, and what went wrong on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from commlens.analyzers.counted.nodes import BYTES, Device
from commlens.analyzers.counted.traffic import UNKNOWN, Traffic

CARRIED, IDLE, UNSURE, UNREAD = "carried", "idle", "idle or unsupported", "not read"

DAMAGE = ("tx_errors", "rx_errors", "symbol_errors", "link_recoveries", "link_downs", "crc_errors", "replays")
_TOLD = (
    *DAMAGE,
    *("tx_drops", "rx_drops", "tx_wait_ticks", "cnp_sent", "cnp_handled", "ecn_marked", "out_of_sequence"),
    *("retransmits", "receiver_not_ready", "tx_segments"),
)
_LINKS = ("ethernet", "infiniband", "roce", "nvlink", "pcie", "c2c", "tcp")
_STILL = 1e-3  # of what the host's busiest link carried: less is idle


@dataclass(frozen=True)
class LinkLine:
    """A link of one host over the analysed steps; GB are 1e9 bytes.

    Attributes:
        host: its name.
        device: as the sampler names it.
        kind: one of `LINK_KINDS`.
        peak_gb_s: each way, None where not known.
        peak_from: who says so.
        used_gb_s_p50: busier direction while transfers were exposed, over the times between readings that were
            filled with that; None where they are too few.
        used_gb_s_p95: likewise.
        used_gb_s_mean: all its bytes over the time in which bytes moved between hosts; None where that is not known.
        share_of_peak: the median, or else the mean, over the peak, 0..1.
        run_gb_s: busier direction over all of the analysed steps, None where they are too short to tell.
        tx_gb: sent.
        rx_gb: received.
        expected_low_gb: least that the host's collectives had to move to or from other hosts, over all its links.
        expected_high_gb: the same in a ring, the most.
        errors: damaged or lost bits: `DAMAGE` added up.
        counts: what else was counted and is not zero, by counter.
        state: CARRIED, IDLE, UNSURE (it reads zero, and nothing shows where the bytes went) or UNREAD.
        readings: how often it was read in these steps.
        unsupported: counters that could not be read, with the reason.
    """

    host: str
    device: str
    kind: str
    peak_gb_s: float | None
    peak_from: str
    used_gb_s_p50: float | None
    used_gb_s_p95: float | None
    used_gb_s_mean: float | None
    share_of_peak: float | None
    run_gb_s: float | None
    tx_gb: float | None
    rx_gb: float | None
    expected_low_gb: float | None
    expected_high_gb: float | None
    errors: int
    counts: dict[str, int]
    state: str
    readings: int
    unsupported: tuple[str, ...]


def link_lines(traffic: Sequence[Traffic]) -> tuple[LinkLine, ...]:
    """Lines by host and device, in the order in which they are described."""
    return tuple(_line(each, device) for each in traffic for device in each.node.devices if device.kind in _LINKS)


def _line(traffic: Traffic, device: Device) -> LinkLine:
    node, read = traffic.node, traffic.node.read(device, *BYTES)
    sent, received = traffic.moved(device) if read and traffic.enough else (None, None)
    rate = traffic.rate(device) if device.network and read else UNKNOWN
    used = rate.usual
    grown = {name: int(node.grown(device, name, traffic.window)) for name in _TOLD}
    expected = traffic.expected if device.network else None
    return LinkLine(
        host=node.host,
        device=device.name,
        kind=device.kind,
        peak_gb_s=_giga(device.peak),
        peak_from=device.peak_from,
        used_gb_s_p50=_giga(rate.p50),
        used_gb_s_p95=_giga(rate.p95),
        used_gb_s_mean=_giga(rate.mean),
        share_of_peak=round(used / device.peak, 4) if used is not None and device.peak is not None else None,
        run_gb_s=_giga(max(sent, received) / traffic.seconds) if sent is not None and received is not None else None,
        tx_gb=_giga(sent),
        rx_gb=_giga(received),
        expected_low_gb=_giga(expected and expected.low),
        expected_high_gb=_giga(expected and expected.high),
        errors=sum(grown[name] for name in DAMAGE),
        counts={name: count for name, count in grown.items() if count},
        state=state_of(traffic, device),
        readings=int(traffic.readings),
        unsupported=tuple(
            f"{counter}: {reason}" for (name, counter), reason in node.unsupported.items() if name == device.name
        ),
    )


def state_of(traffic: Traffic, device: Device) -> str:
    """Whether it carried anything: zeros are believed only where another link is seen to have carried the bytes."""
    if not traffic.node.read(device, *BYTES):
        return UNREAD
    alike = _alternatives(traffic, device)
    busiest = max((traffic.most(each) for each in alike), default=0.0)
    own = traffic.most(device)
    if own > _STILL * busiest:
        return CARRIED
    return IDLE if busiest >= _needed(traffic, device) else UNSURE


def _alternatives(traffic: Traffic, device: Device) -> list[Device]:
    """Links that the same bytes could have taken, this one among them."""
    if device.network:
        return list(traffic.carriers)
    inside = ("nvlink", "pcie", "c2c")
    same = [each for each in traffic.node.devices if each.kind in inside]
    return [each for each in same if traffic.node.read(each, *BYTES)] if device.kind in inside else [device]


def _needed(traffic: Traffic, device: Device) -> float:
    """Bytes that one of the alternatives must show, for the silence of another to be idleness."""
    if device.network:
        return 0.5 * traffic.expected.low if traffic.expected is not None else 0.0
    gpus = max(sum(each.kind == "nvlink" for each in traffic.node.devices), 1)
    return traffic.within / gpus if device.kind == "nvlink" else 0.0


def _giga(value: float | None) -> float | None:
    return None if value is None else float(f"{value / 1e9:.6g}")
