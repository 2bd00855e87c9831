"""Finding transport-fallback within a host: GPUs that talk over PCIe beside idle NVLink."""

from __future__ import annotations

from commlens.analyzers.counted.nodes import BYTES, Device
from commlens.analyzers.counted.traffic import Traffic
from commlens.analyzers.findings.build import fixing
from commlens.analyzers.findings.context import Context
from commlens.analyzers.report import Evidence, Finding
from commlens.analyzers.settings.setting import is_on, lets, remedy

_INSIDE = 0.8  # of the bytes between a host's GPUs that PCIe shows


def find_bypassed_nvlink(context: Context) -> list[Finding]:
    """GPUs of a host that talk over PCIe beside idle NVLink."""
    if "nccl" not in str(context.run.get("backend") or ""):
        return []
    hosts = [each for each in context.traffic if _nvlink_idle(each)]
    off = [each for each in hosts if is_on(each.node.settings.get("NCCL_P2P_DISABLE"))]
    if not off:  # PCIe carries other bytes as well: without the setting zeros prove nothing
        return []
    first = off[0]
    pcie, per_gpu = _total(first, "pcie"), first.within / max(len(_of(first, "nvlink")), 1)
    names = ", ".join(each.name for each in off[:3])
    action = fixing(
        context,
        f"env.NCCL_P2P_DISABLE={lets('NCCL_P2P_DISABLE')}",
        "let GPUs of a host reach each other directly: NCCL_P2P_DISABLE keeps NCCL off NVLink",
        change=remedy("NCCL_P2P_DISABLE"),
    )
    return [
        Finding(
            id="transport-fallback",
            title=f"traffic between the GPUs of host{'s' * (len(off) > 1)} {names} goes over PCIe: NVLink is idle",
            layer="network",
            severity="medium",
            confidence="high",
            ranks=tuple(sorted(rank for each in off for rank in each.ranks)),
            group=None,
            steps=(),
            evidence=(
                Evidence(
                    "bytes on NVLink of all GPUs per step", float(round(_step(first, _total(first, "nvlink")))), "B"
                ),
                Evidence("bytes on PCIe of all GPUs per step", float(round(_step(first, pcie))), "B"),
                Evidence(
                    "collectives move between them per step and GPU, at least", float(round(_step(first, per_gpu))), "B"
                ),
            ),
            ceiling_ms=None,
            actions=(action,),
            could_be_wrong_if=("PCIe carried other bytes, and this GPU does not count NVLink's", *context.caveats),
        )
    ]


def _nvlink_idle(traffic: Traffic) -> bool:
    links = _of(traffic, "nvlink")
    if len(links) < 2 or not traffic.enough or not traffic.within:
        return False
    silent = _total(traffic, "nvlink") < 0.05 * traffic.within
    return silent and _total(traffic, "pcie") >= _INSIDE * traffic.within


def _of(traffic: Traffic, kind: str) -> list[Device]:
    return [each for each in traffic.node.devices if each.kind == kind and traffic.node.read(each, *BYTES)]


def _total(traffic: Traffic, kind: str) -> float:
    """Bytes sent by all devices of a kind."""
    return sum(traffic.moved(each)[0] for each in _of(traffic, kind))


def _step(traffic: Traffic, total: float) -> float:
    return total / max(traffic.steps, 1)
