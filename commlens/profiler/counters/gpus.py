"""The GPUs of this node as NVML sees them: which of them the job uses, what they are, how fast their links can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from commlens.profiler.counters.interfaces import numa_node
from commlens.profiler.counters.nvml_fields import MOST_LINKS, one

_DRIVER: Final = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version"))
_LINK_SPEED, _LINK_COUNT, _LINK_STATE, _ONE_SPEED = 90, 91, 165, 164  # speeds in MB/s
_C2C_COUNT, _C2C_SPEED = 170, 172  # MB/s
# PCIe: transfers a second of a lane, and the share of bits that carry data.
_LANES: Final = {
    1: (2.5e9, 0.8),
    2: (5e9, 0.8),
    3: (8e9, 128 / 130),
    4: (16e9, 128 / 130),
    5: (32e9, 128 / 130),
    6: (64e9, 242 / 256),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU; `shared` says why its links' bytes cannot be told apart, None where it is whole."""

    name: str
    handle: Any
    uuid: str
    model: str
    pci: str | None
    shared: str | None


def has_driver() -> bool:
    """Whether importing NVML's module (31 ms) is worth it."""
    return any(path.exists() for path in _DRIVER)


def used(nvml: Any, variables: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that the ranks of this node use; all of the node where this process sees fewer than there are ranks.

    Raises:
        nvml.NVMLError: Not even their number is told.
    """
    found = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not _fits_all(visible, variables):
        return found
    return _chosen(found, visible.split(","), variables) or found


def _fits_all(visible: str, variables: Mapping[str, str]) -> bool:
    ranks = variables.get("LOCAL_WORLD_SIZE", "")
    return ranks.isdigit() and len(visible.split(",")) >= int(ranks)


def _chosen(found: Sequence[Gpu], names: Sequence[str], variables: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA's names stand for; empty where a name is not understood."""
    # CUDA counts the fastest first unless it is told otherwise; NVML as the bus does. Alike GPUs are in one order.
    in_bus_order = variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({gpu.model for gpu in found}) == 1
    chosen = []
    for name in (name.strip() for name in names):
        if name.isdigit() and in_bus_order and int(name) < len(found):
            chosen.append(found[int(name)])
        else:
            of_name = [gpu for gpu in found if name.startswith("GPU-") and gpu.uuid.startswith(name)]
            if len(of_name) != 1:
                return []
            chosen.append(of_name[0])
    return chosen


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    bus = told(nvml, lambda: nvml.nvmlDeviceGetPciInfo(handle).busId)
    return Gpu(
        name=f"gpu{index}",
        handle=handle,
        uuid=_text(told(nvml, lambda: nvml.nvmlDeviceGetUUID(handle))),
        model=_text(told(nvml, lambda: nvml.nvmlDeviceGetName(handle))),
        pci=_text(bus).lower()[-12:] or None,  # NVML writes the domain with eight digits, the kernel with four
        shared=_shared(nvml, handle),
    )


def _shared(nvml: Any, handle: Any) -> str | None:
    mode = told(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    if mode is not None and mode[0] == 1:
        return "the GPU is split (MIG): NVML tells bytes of whole GPUs only"
    if told(nvml, lambda: nvml.nvmlDeviceGetVirtualizationMode(handle)) == nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU:
        return "the GPU is a virtual one (vGPU): its links are not told"
    return None


def told(nvml: Any, ask: Any) -> Any:
    """What NVML answers, None where it does not; an old module or driver lacks some calls."""
    try:
        return ask()
    except (nvml.NVMLError, AttributeError):
        return None


def _text(said: Any) -> str:
    if isinstance(said, bytes):  # from older modules, and from structures
        said = said.decode("ascii", "replace")
    return said or ""


def links_of(nvml: Any, gpu: Gpu) -> int:
    """How many NVLinks a GPU has."""
    return min(one(nvml, gpu.handle, _LINK_COUNT) or 0, MOST_LINKS)


def nvlink_peak(nvml: Any, gpu: Gpu) -> tuple[float | None, str]:
    """Bytes a second of all active links in one direction."""
    count = links_of(nvml, gpu)
    states = [one(nvml, gpu.handle, _LINK_STATE, link) for link in range(count)]
    active = sum(1 for state in states if state) if any(state is not None for state in states) else count
    speed = one(nvml, gpu.handle, _LINK_SPEED) or one(nvml, gpu.handle, _ONE_SPEED, 0)
    if not active or not speed:
        return None, "NVML does not tell the speed of the links"
    return active * speed * 1e6, f"{active} links x {int(speed)} MB/s (NVML)"


def pcie_peak(nvml: Any, gpu: Gpu) -> tuple[float | None, str]:
    """Bytes a second in one direction of the fastest that GPU and slot can together; they idle at less."""
    generation = told(nvml, lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu.handle))
    width = told(nvml, lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu.handle))
    if generation not in _LANES or not width:
        return None, "NVML does not tell generation and width"
    transfers, share = _LANES[generation]
    return transfers * share * width / 8, f"generation {generation} x{width} (NVML)"


def c2c_peak(nvml: Any, gpu: Gpu) -> tuple[float | None, str]:
    """Bytes a second to the CPU over C2C; None and no reason where the GPU has no such links."""
    count = one(nvml, gpu.handle, _C2C_COUNT)
    if not count:
        return None, ""
    speed = one(nvml, gpu.handle, _C2C_SPEED, 0)
    if not speed:
        return None, "NVML does not tell the speed of the links"
    return count * speed * 1e6, f"{int(count)} links x {int(speed)} MB/s (NVML)"


def numa(gpu: Gpu) -> int | None:
    return numa_node(gpu.pci)
