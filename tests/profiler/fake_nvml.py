"""An NVML whose driver is a table: the module's own types, errors and constants, with answers of a generation.

    nvml = FakeNvml([Device(fields={(138, ALL_LINKS): kib(5), ...})])

Field values go through the module's ctypes structures, as the driver fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

ALL_LINKS = 0xFFFFFFFF
TYPES = {"dVal": 0, "uiVal": 1, "ulVal": 2, "ullVal": 3, "sllVal": 4, "siVal": 5, "usVal": 6}
Typed = tuple[str, float]  # the union's member, the value
Table = dict[tuple[int, int], "Typed | int"]  # (field, scope): a value, or the code of an error


def ull(value: int) -> Typed:
    return "ullVal", value


def ui(value: int) -> Typed:
    return "uiVal", value


@dataclass
class Device:
    """One GPU. What is in no table is not supported."""

    fields: Table = field(default_factory=dict)
    calls: dict[str, Any] = field(default_factory=dict)  # the call's name: its answer, or the code of an error
    gpm: Mapping[int, float] | None = None  # metric: MiB/s; None on GPUs without
    uuid: str = "GPU-00000000-1111-2222-3333-444444444444"
    model: str = "NVIDIA Test"
    bus: bytes = b"00000000:1B:00.0"
    mig: int | None = None
    vgpu: bool = False
    newest_metric: int = 10**6  # a metric beyond it fails the whole call


class Code(int):
    """The code of an error, where a value could stand."""


class FakeNvml:
    """The module `pynvml`, with another driver below it."""

    def __init__(self, devices: Sequence[Device], refuses: int | None = None) -> None:
        self.devices = list(devices)
        self.refuses = refuses
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlDeviceGet"):
            return self._call(name)
        return getattr(pynvml, name)

    def _call(self, name: str) -> Callable[..., Any]:
        getattr(pynvml, name)  # a call that the module has not got would not work with the real one either

        def call(device: Device, *args: Any) -> Any:
            self.called.append(name)
            answer = device.calls.get((name, *args), device.calls.get(name, Code(pynvml.NVML_ERROR_NOT_SUPPORTED)))
            if isinstance(answer, Code):
                raise pynvml.NVMLError(int(answer))
            return answer() if callable(answer) else answer

        return call

    def nvmlInit(self) -> None:  # noqa: N802
        if self.refuses is not None:
            raise pynvml.NVMLError(self.refuses)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        return self.devices[index]

    def nvmlDeviceGetUUID(self, device: Device) -> str:  # noqa: N802
        return device.uuid

    def nvmlDeviceGetName(self, device: Device) -> bytes:  # noqa: N802
        return device.model.encode()

    def nvmlDeviceGetPciInfo(self, device: Device) -> Any:  # noqa: N802
        return SimpleNamespace(busId=device.bus)

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:  # noqa: N802
        if device.mig is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [device.mig, device.mig]

    def nvmlDeviceGetVirtualizationMode(self, device: Device) -> int:  # noqa: N802
        return pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU if device.vgpu else 0

    def nvmlDeviceGetFieldValues(self, device: Device, asked: list[Any]) -> Any:  # noqa: N802
        self.called.append("nvmlDeviceGetFieldValues")
        values = (pynvml.c_nvmlFieldValue_t * len(asked))()
        for value, (number, scope) in zip(values, asked, strict=True):
            value.fieldId, value.scopeId = number, scope
            answer = device.fields.get((number, scope), Code(pynvml.NVML_ERROR_NOT_SUPPORTED))
            if isinstance(answer, Code):
                value.nvmlReturn = int(answer)
                value.value.ullVal = 0xDEADBEEF  # what a driver leaves there says nothing
                continue
            member, number_ = answer
            value.valueType = TYPES[member]
            value.value.ullVal = 0xA5A5A5A5A5A5A5A5  # only the member that the type names is written
            setattr(value.value, member, number_)
        return values

    def nvmlGpmQueryDeviceSupport(self, device: Device) -> Any:  # noqa: N802
        support = pynvml.c_nvmlGpmSupport_t()
        support.isSupportedDevice = int(device.gpm is not None)
        return support

    def nvmlGpmSampleAlloc(self) -> Any:  # noqa: N802
        return pynvml.c_nvmlGpmSample_t()

    def nvmlGpmSampleGet(self, device: Device, sample: Any) -> Any:  # noqa: N802
        self.called.append("nvmlGpmSampleGet")
        self._gpm, self._newest = device.gpm, device.newest_metric
        return sample

    def nvmlGpmMetricsGet(self, asked: Any) -> Any:  # noqa: N802
        assert asked.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        if any(metric.metricId > self._newest for metric in asked.metrics[: asked.numMetrics]):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        for metric in asked.metrics[: asked.numMetrics]:
            known = self._gpm is not None and metric.metricId in self._gpm
            metric.nvmlReturn = 0 if known else pynvml.NVML_ERROR_NOT_SUPPORTED
            metric.value = self._gpm[metric.metricId] if known else 0.0
        return asked


def alive(**calls: Any) -> dict[Any, Any]:
    """Calls that every generation answers."""
    return {
        ("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM): 1980,
        ("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM): 2619,
        "nvmlDeviceGetPowerUsage": 512_345,
        "nvmlDeviceGetTemperature": 61,
        "nvmlDeviceGetCurrentClocksEventReasons": 0x4,
        "nvmlDeviceGetPcieReplayCounter": 3,
        "nvmlDeviceGetMaxPcieLinkGeneration": 5,
        "nvmlDeviceGetMaxPcieLinkWidth": 16,
        **calls,
    }


def volta() -> Device:
    """Six NVLinks, no totals of bytes at all; PCIe by its 20 ms window; throttle reasons by their older name."""
    calls = alive(nvmlDeviceGetCurrentClocksThrottleReasons=0x20, nvmlDeviceGetMaxPcieLinkGeneration=3)
    del calls["nvmlDeviceGetCurrentClocksEventReasons"]
    calls |= {("nvmlDeviceGetPcieThroughput", 0): 1_000_000, ("nvmlDeviceGetPcieThroughput", 1): 2_000_000}
    fields: Table = {(90, 0): ui(25781), (91, 0): ui(6), (52, 0): ull(7), (59, 0): ull(1), (45, 0): ull(2)}
    return Device(fields, calls, model="Tesla V100")


def hopper(nvlink_kib: tuple[int, int] = (5000, 7000), gpm: Mapping[int, float] | None = None) -> Device:
    """Eighteen NVLinks with their payload in one field, PCIe totals, GPM."""
    fields: Table = {
        (90, 0): ui(26562), (91, 0): ui(18), (138, ALL_LINKS): ull(nvlink_kib[0]), (139, ALL_LINKS): ull(nvlink_kib[1]),
        (197, 0): ull(111), (198, 0): ull(222), (3, 0): ull(1), (4, 0): ull(0),
    }  # fmt: skip
    fields |= {(number, link): ull(link) for number in (161, 162, 163) for link in range(18)}
    return Device(fields, alive(), gpm={} if gpm is None else gpm, model="NVIDIA H100")


def blackwell() -> Device:
    """NVLink 5: bytes and errors of each link; a C2C link to the CPU."""
    fields: Table = {
        (91, 0): ui(18), (164, 0): ui(53125), (197, 0): ull(1), (198, 0): ull(2), (170, 0): ui(10), (172, 0): ui(45000),
    }  # fmt: skip
    for link in range(18):
        fields |= {(202, link): ull(1000 + link), (204, link): ull(2000 + link), (165, link): ui(int(link < 17))}
        fields |= {(number, link): ull(number) for number in (208, 212, 215, 221)}
    return Device(fields, alive(), gpm={100: 3.0, 101: 5.0}, model="NVIDIA GB200")
