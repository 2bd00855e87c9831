"""How fast each rank's GPU was allowed to run: its clock, and what held it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from commlens.analyzers.counted.nodes import Device, Node
from commlens.analyzers.counted.traffic import Traffic

# NVML's clocks event reasons, by what they mean for a job (nvml.h: nvmlClocksEventReason*).
_SLOWDOWN: Final = 0x8
REASONS: Final = {"heat": 0x20 | 0x40, "power": 0x4 | 0x80, "hardware slowdown": _SLOWDOWN}
_SLOWER = 0.95  # of the other ranks' clock
_OFTEN = 0.2  # of the time a reason is set
_MORE = 2.0  # times the others' share


@dataclass(frozen=True)
class GpuLine:
    """A GPU over the analysed steps.

    Attributes:
        host: its name.
        device: as the sampler names it.
        rank: that used it, by its local rank and CUDA_VISIBLE_DEVICES; None where that does not tell.
        sm_clock_mhz: mean clock of its multiprocessors, None where not read.
        power_w: mean.
        temperature_c: the highest.
        held_down: share of the time, 0..1, in which its clock was held down, by reason; without those that never were.
        ecc_uncorrected: memory errors that were not corrected.
    """

    host: str
    device: str
    rank: int | None
    sm_clock_mhz: float | None
    power_w: float | None
    temperature_c: int | None
    held_down: dict[str, float]
    ecc_uncorrected: int


@dataclass(frozen=True)
class HeldDown:
    """A rank whose GPU ran slower than the others', and why."""

    device: str
    mhz: float
    others_mhz: float
    reason: str
    share: float


def gpu_lines(traffic: Sequence[Traffic], infos: Mapping[int, Mapping[str, Any]]) -> tuple[GpuLine, ...]:
    """One line for each GPU that was read."""
    return tuple(
        _line(each, device, infos) for each in traffic for device in each.node.devices if _was_read(each.node, device)
    )


def held_down(lines: Sequence[GpuLine], rank: int) -> HeldDown | None:
    """What made a rank's GPU slower than the other ranks'; None where nothing shows that it was."""
    own = next((line for line in lines if line.rank == rank), None)
    others = [line for line in lines if line.rank not in (None, rank) and line.sm_clock_mhz is not None]
    if own is None or own.sm_clock_mhz is None or not others or not own.held_down:
        return None
    usual = median(line.sm_clock_mhz for line in others if line.sm_clock_mhz is not None)
    reason = max(own.held_down, key=lambda name: own.held_down[name])
    theirs = median(line.held_down.get(reason, 0.0) for line in others)
    share = own.held_down[reason]
    if own.sm_clock_mhz > _SLOWER * usual or share < max(_OFTEN, _MORE * theirs):
        return None
    return HeldDown(own.device, own.sm_clock_mhz, round(usual, 1), reason, share)


def _was_read(node: Node, device: Device) -> bool:
    return device.kind == "gpu" and any(name == device.name for name, _ in node.series)


def _line(traffic: Traffic, device: Device, infos: Mapping[int, Mapping[str, Any]]) -> GpuLine:
    node, window = traffic.node, traffic.window

    def mean(counter: str) -> float | None:
        series = node.series.get((device.name, counter))
        return series.mean_in(window) if series is not None else None

    hottest = node.series.get((device.name, "temperature_c"))
    clock, power = mean("sm_clock_mhz"), mean("power_mw")
    return GpuLine(
        host=node.host,
        device=device.name,
        rank=next((rank for rank in traffic.ranks if _uses(infos.get(rank, {}), node, device)), None),
        sm_clock_mhz=None if clock is None else round(clock, 1),
        power_w=None if power is None else round(power / 1e3, 1),
        temperature_c=hottest.largest_in(window) if hottest is not None else None,
        held_down=_held_down(traffic, device),
        ecc_uncorrected=int(node.grown(device, "ecc_uncorrected", window)),
    )


def _held_down(traffic: Traffic, device: Device) -> dict[str, float]:
    series = traffic.node.series.get((device.name, "throttle_reasons"))
    if series is None:
        return {}
    shares = {name: series.share_in(traffic.window, bits) for name, bits in REASONS.items()}
    return {name: round(share, 4) for name, share in shares.items() if share}


def _uses(info: Mapping[str, Any], node: Node, device: Device) -> bool:
    """Whether a rank's local number picks this GPU among those that it may see."""
    environment = info.get("environment")
    told = environment if isinstance(environment, dict) else {}
    local, visible = told.get("LOCAL_RANK"), told.get("CUDA_VISIBLE_DEVICES")
    if local is None or not str(local).isdigit():
        return False
    if not visible:
        return device.name == f"gpu{int(local)}"
    names = str(visible).split(",")
    # A launcher may give each rank one GPU of its own.
    chosen = names[int(local)] if int(local) < len(names) else names[0] if len(names) == 1 else ""
    by_uuid = device.uuid is not None and chosen.startswith("GPU-") and device.uuid.startswith(chosen)
    return by_uuid or device.name == f"gpu{chosen.strip()}"
