"""Finding transport-fallback: bytes take a slow way though a fast one is there and idle."""

from __future__ import annotations

from collections.abc import Sequence

from commlens.analyzers.counted.link_lines import IDLE, state_of
from commlens.analyzers.counted.nodes import RDMA, Device
from commlens.analyzers.findings.build import advice, fixing
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.gpu_paths import find_bypassed_nvlink
from commlens.analyzers.findings.wired import Wired, exposed_between, gb_s, moved_evidence, named, on_link
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Action, Evidence, Finding
from commlens.analyzers.settings.setting import is_on, lets, remedy

_FASTER = 1.5  # times the carrier's peak, for another kind of link to be worth using
_MUCH_FASTER = 2.0  # the same of two Ethernet interfaces, which need not reach the same hosts
_BUSY = 0.3  # of the carrier's peak, over all steps, where exposed time is not known


def find_transport_fallback(context: Context, hosts: Sequence[Wired]) -> list[Finding]:
    """Hosts whose traffic goes over Ethernet beside idle faster links, and GPUs that do not use their NVLink."""
    return [*_between_hosts(context, hosts), *find_bypassed_nvlink(context)]


def _between_hosts(context: Context, hosts: Sequence[Wired]) -> list[Finding]:
    slow = [(host, faster) for host in hosts if (faster := _idle_faster(context, host, hosts)) is not None]
    if not slow:
        return []
    lost = _lost_ms(context, slow)
    if lost is None or not context.matters(lost):
        return []
    host, faster = slow[0]
    carrier, own = host.carrier, [each for each, _ in slow]
    speeds = f"{_speed(carrier)}, while {faster.name} ({_kind(faster)}{_speed(faster)}) is idle"
    bypassed = float(round(host.traffic.most(faster) / max(host.traffic.steps, 1)))
    return [
        on_link(
            context,
            "transport-fallback",
            f"traffic between hosts goes over {carrier.name} ({_kind(carrier)}{speeds}) on {named(own)}",
            own,
            gains_ms=lost,
            costs_ms=exposed_between(context) or None,
            confidence="high" if _culprits(context, host) else "medium",
            evidence=[
                *moved_evidence(host),
                Evidence(f"bytes on {faster.name} per step", bypassed, "B"),
                *(Evidence(f"peak of {each.name}", gb_s(each.peak), "GB/s") for each in (carrier, faster) if each.peak),
            ],
            action=_action(context, host, faster),
            wrong_if=[f"{faster.name} does not reach the other hosts: another network, a cable to storage only"],
        )
    ]


def _idle_faster(context: Context, host: Wired, hosts: Sequence[Wired]) -> Device | None:
    """An idle link that is faster than the Ethernet that carries the bytes; None where there is none."""
    carrier = host.carrier
    if carrier.kind != "ethernet":
        return None
    idle = [each for each in host.traffic.carriers if state_of(host.traffic, each) == IDLE and each.peak is not None]
    least = 1.0 if _culprits(context, host) else _FASTER  # TCP on a port's own interface is slower than RDMA
    ports = [each for each in idle if each.kind in RDMA and _outruns(each, carrier, least)]
    cards = [
        each
        for each in idle
        if each.kind == "ethernet"
        and not each.virtual
        and each.name in host.traffic.node.addressed
        and carrier.peak is not None
        and _outruns(each, carrier, _MUCH_FASTER)
        and all(_has(other, each) for other in hosts)
    ]
    return max([*ports, *cards], key=lambda each: each.peak or 0.0, default=None)


def _outruns(faster: Device, carrier: Device, times: float) -> bool:
    return faster.peak is not None and (carrier.peak is None or faster.peak >= times * carrier.peak)


def _has(host: Wired, device: Device) -> bool:
    """Whether a host has an interface like one of another's, up and with an address."""
    return any(
        each.name == device.name and each.peak == device.peak and each.name in host.traffic.node.addressed
        for each in host.traffic.carriers
    )


def _lost_ms(context: Context, slow: Sequence[tuple[Wired, Device]]) -> float | None:
    """What a faster link could gain a step: of the exposed transfer, or of what the bytes take; None if not known."""
    exposed = exposed_between(context)
    host, faster = slow[0]
    peak, best = host.carrier.peak, faster.peak
    if exposed:
        return exposed * host.room(best)
    if peak is None or host.seen / host.traffic.seconds < _BUSY * peak:
        return None  # devices run collectives beside the host: their bytes may be hidden
    return host.per_step / peak * 1e3 * (1 - peak / best if best is not None else 0.0)


def _culprits(context: Context, host: Wired) -> list[str]:
    """Settings that keep NCCL off the fast ports."""
    if "nccl" not in str(context.run.get("backend") or ""):
        return []
    settings = host.traffic.node.settings
    blamed = {"NCCL_IB_DISABLE": is_on(settings.get("NCCL_IB_DISABLE"))}
    blamed["NCCL_NET"] = settings.get("NCCL_NET", "").lower() == "socket"
    return [name for name, is_set in blamed.items() if is_set]


def _action(context: Context, host: Wired, faster: Device) -> Action:
    culprits = _culprits(context, host)
    if culprits and faster.kind in RDMA:
        name = culprits[0]
        now = host.traffic.node.settings.get(name, "")
        return fixing(
            context,
            f"env.{name}={lets(name)}",
            f"let NCCL use {faster.name}: {name}={now} keeps it off",
            change=remedy(name),
        )
    nccl = "nccl" in str(context.run.get("backend") or "")
    interface = faster.netdev or faster.name
    if not nccl and faster.kind in RDMA and faster.netdev is None:
        return advice(
            f"use NCCL for tensors on GPUs, or give Gloo, which speaks TCP only, an IP interface of {faster.name}",
            change='init_process_group("nccl"), or GLOO_SOCKET_IFNAME=ib0',
            verify="record again: the bytes are on the other link",
        )
    if nccl and faster.kind in RDMA:
        return advice(
            f"find out why NCCL does not use {faster.name}: NCCL_DEBUG=INFO says NET/IB or NET/Socket, and why",
            change="NCCL_DEBUG=INFO; look for a missing libibverbs, /dev/infiniband in the container, NCCL_IB_HCA",
            verify="record again: the bytes are on the other link",
        )
    variable = "NCCL_SOCKET_IFNAME" if nccl else "GLOO_SOCKET_IFNAME"
    return fixing(
        context,
        f"env.{variable}={interface}",
        f"use {interface} for traffic between hosts",
        change=f"{variable}={interface}",
    )


def _kind(device: Device) -> str:
    return {"infiniband": "InfiniBand", "roce": "RoCE", "ethernet": "Ethernet"}[device.kind]


def _speed(device: Device) -> str:
    return f", {plain(gb_s(device.peak))} GB/s" if device.peak is not None else ""
