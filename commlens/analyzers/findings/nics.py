"""Finding one-nic: a host has several like network devices, and one carries nearly all of the job's bytes."""

from __future__ import annotations

from collections.abc import Sequence

from commlens.analyzers.counted.nodes import RDMA, Device
from commlens.analyzers.findings.build import advice, fixing
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.wired import Wired, exposed_between, moved_evidence, named, on_link, rate_evidence
from commlens.analyzers.report import Action, Evidence, Finding

_MOST = 0.8  # of the bytes of all like devices
_BUSY = 0.5  # of its peak: a device with room to spare is not what is waited for
_FEWEST_RANKS = 2  # on a host: one GPU uses the device next to it, and no other


def find_one_nic(context: Context, hosts: Sequence[Wired]) -> list[Finding]:
    """Hosts that send over one of several like devices; one finding for all of them."""
    lonely = [(host, like) for host in hosts if len(like := _like(host)) > 1 and _alone(host, like)]
    if not lonely:
        return []
    host, like = lonely[0]
    exposed = exposed_between(context)
    lost = exposed * (1 - 1 / len(like))
    if not context.matters(lost):
        return []
    own = [each for each, _ in lonely]
    carried = host.seen / max(sum(host.traffic.most(each) for each in like), 1.0)
    others = ", ".join(each.name for each in like if each is not host.carrier)
    return [
        on_link(
            context,
            "one-nic",
            f"{host.carrier.name} carries {100 * carried:.0f} % of the bytes of {named(own)}: {others} idle",
            own,
            gains_ms=lost,
            costs_ms=exposed,
            confidence="medium",
            evidence=[
                Evidence("like network devices of that host", float(len(like)), ""),
                Evidence(f"of their bytes on {host.carrier.name}", round(100 * carried, 1), "%"),
                *rate_evidence(host),
                *moved_evidence(host),
            ],
            action=_action(context, host, like),
            wrong_if=["the other devices do not reach the other hosts, or are meant for other traffic"],
        )
    ]


def _like(host: Wired) -> list[Device]:
    """Devices like the carrier, up and read, the carrier among them."""
    carrier = host.carrier
    if carrier.peak is None or carrier.virtual:
        return []
    same = [each for each in host.traffic.carriers if (each.kind, each.peak) == (carrier.kind, carrier.peak)]
    if carrier.kind in RDMA:
        return same if len(host.traffic.ranks) >= _FEWEST_RANKS else []
    return [each for each in same if not each.virtual and each.name in host.traffic.node.addressed]


def _alone(host: Wired, like: Sequence[Device]) -> bool:
    """The carrier does nearly all, and has not much room left."""
    total = sum(host.traffic.most(each) for each in like)
    return host.carrier in like and host.seen > _MOST * total and (host.share or 0.0) >= _BUSY


def _action(context: Context, host: Wired, like: Sequence[Device]) -> Action:
    settings, names = host.traffic.node.settings, ",".join(sorted(each.name for each in like))
    nccl = "nccl" in str(context.run.get("backend") or "")
    if nccl and host.carrier.kind in RDMA:
        told = f" (NCCL_IB_HCA={settings['NCCL_IB_HCA']} is set)" if "NCCL_IB_HCA" in settings else ""
        return advice(
            f"let NCCL use all of them{told}, and give each rank the GPU next to one",
            change="unset NCCL_IB_HCA; NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=NET,GRAPH says which it chose",
            verify="record again: all of them carry bytes",
        )
    variable = "NCCL_SOCKET_IFNAME" if nccl else "GLOO_SOCKET_IFNAME"
    return fixing(
        context, f"env.{variable}={names}", "spread collectives over all of them", change=f"{variable}={names}"
    )
