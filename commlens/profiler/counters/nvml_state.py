"""What state a GPU and its links are in: clocks, power, temperature, what slows it down, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from commlens.profiler.counters.gpus import Gpu, links_of
from commlens.profiler.counters.nvml_fields import RefusedError, read_all
from commlens.profiler.counters.source import Key, key

Reading = tuple[Key, Callable[[], int]]

# Words of a GPU's NVLinks -> fields that mean it, the newest generation's first, and whether each link has its own.
_LINK_ERRORS: Final[dict[str, tuple[tuple[int, bool], ...]]] = {
    "replays": ((161, True), (52, False)),
    "link_recoveries": ((215, True), (162, True), (59, False)),
    "crc_errors": ((163, True), (45, False)),
    "symbol_errors": ((221, True),),
    "rx_errors": ((208, True),),
    "tx_drops": ((212, True),),
}
_ECC: Final = {"ecc_corrected": 3, "ecc_uncorrected": 4}  # since the driver was loaded


def readings(nvml: Any, gpu: Gpu, refuse: Callable[[str, str, str], None]) -> list[Reading]:
    """What this GPU tells, tried out; what it does not is refused with NVML's reason."""
    found = []
    for each, ways in _wanted(nvml, gpu):
        reasons = []
        for way in ways:
            try:
                way()
            except (RefusedError, nvml.NVMLError, AttributeError) as error:
                reasons.append(str(error))
                continue
            found.append((each, way))
            break
        else:
            refuse(*each, "; ".join(dict.fromkeys(reasons)))
    return found


def _wanted(nvml: Any, gpu: Gpu) -> Iterator[tuple[Key, list[Callable[[], int]]]]:
    handle = gpu.handle
    yield key(gpu.name, "sm_clock_mhz"), [lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)]
    yield key(gpu.name, "memory_clock_mhz"), [lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)]
    yield key(gpu.name, "power_mw"), [lambda: nvml.nvmlDeviceGetPowerUsage(handle)]
    yield key(gpu.name, "temperature_c"), [lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)]
    yield (
        key(gpu.name, "throttle_reasons"),
        [
            lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),  # before driver 535
        ],
    )
    for word, field in _ECC.items():
        yield key(gpu.name, word), [_summed(nvml, handle, field, [0])]
    yield key(f"{gpu.name}/pcie", "replays"), [lambda: nvml.nvmlDeviceGetPcieReplayCounter(handle)]
    links = links_of(nvml, gpu)
    for word, fields in _LINK_ERRORS.items() if links else ():
        scopes = {True: list(range(links)), False: [0]}
        yield key(f"{gpu.name}/nvlink", word), [_summed(nvml, handle, field, scopes[own]) for field, own in fields]


def _summed(nvml: Any, handle: Any, field: int, scopes: list[int]) -> Callable[[], int]:
    return lambda: sum(read_all(nvml, handle, [(field, scope) for scope in scopes]))
