"""GPUs and their links, from NVIDIA's driver by way of nvidia-ml-py, where both are there."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from commlens.profiler.counters import gpus, nvml_state
from commlens.profiler.counters.gpus import Gpu
from commlens.profiler.counters.nvml_bytes import Both, Choice, Gpm, Way, c2c_ways, nvlink_ways, pcie_ways
from commlens.profiler.counters.nvml_fields import RefusedError
from commlens.profiler.counters.source import ALL, Pair, Source, key, link

RATES_MS: Final = 500
STATE_MS: Final = 1000
_GPM_APART_S: Final = 0.1
_BYTES: Final = ("tx_bytes", "rx_bytes")
_CLOCK: Final = "when read"


class Nvml:
    """The GPUs that are read, and of each link the way that answers; shared by the sources below.

    Args:
        nvml: the module; None imports it.
        pause: lets the driver's first rates come about.
    """

    def __init__(
        self,
        nvml: Any = None,
        variables: Mapping[str, str] = os.environ,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.module = nvml
        self.gpus: list[Gpu] = []
        self.choices: dict[str, Choice] = {}
        self.gpms: dict[str, Gpm | RefusedError] = {}
        self._variables, self._pause = variables, pause
        self._refusals: list[tuple[str, str, str]] = []
        self._started = False

    def start(self, source: Source) -> None:
        """Finds GPUs and ways, once; their links and what is refused go to `source`."""
        if self._started:
            return
        self._started = True
        try:
            if self.module is None:
                self.module = importlib.import_module("pynvml")
            self.module.nvmlInit()
            self.gpus = gpus.used(self.module, self._variables)
        except ImportError:
            source.refuse("gpu", ALL, "nvidia-ml-py is not installed; next: pip install nvidia-ml-py")
            return
        except self.module.NVMLError as error:
            source.refuse("gpu", ALL, f"NVML: {error}")
            return
        self._start_gpm()
        for gpu in self.gpus:
            self._describe(gpu, source)

    def _start_gpm(self) -> None:
        for gpu in self.gpus:
            try:
                if gpu.shared is not None:
                    raise RefusedError(gpu.shared)
                self.gpms[gpu.name] = Gpm(self.module, gpu.handle)
            except RefusedError as reason:
                self.gpms[gpu.name] = reason
        if any(isinstance(gpm, Gpm) for gpm in self.gpms.values()):
            for _ in range(2):  # again, for what a driver refused the first time
                self._pause(_GPM_APART_S)
                self.advance()

    def advance(self) -> None:
        """Takes the next sample of the rates where some are in use or may come to be."""
        for gpm in self.gpms.values():
            if isinstance(gpm, Gpm):
                gpm.advance()

    def _describe(self, gpu: Gpu, source: Source) -> None:
        nvml, name = self.module, gpu.name
        source.links.append(
            link(name, "gpu", "no bytes", _CLOCK, None, "no link by itself", **_known(gpu), model=gpu.model)
        )
        count = gpus.links_of(nvml, gpu)
        gpm = self.gpms[name]
        rates = gpm if isinstance(gpm, Gpm) else None
        if count:
            ways = nvlink_ways(nvml, gpu.handle, count, rates)
            self._choose(gpu, "nvlink", ways, gpus.nvlink_peak(nvml, gpu), source)
        else:
            source.refuse(f"{name}/nvlink", ALL, "NVML tells of no NVLink")
        self._choose(gpu, "pcie", pcie_ways(nvml, gpu.handle, rates), gpus.pcie_peak(nvml, gpu), source)
        c2c_peak = gpus.c2c_peak(nvml, gpu)
        if c2c_peak[1]:
            self._choose(gpu, "c2c", c2c_ways(rates), c2c_peak, source)

    def _choose(self, gpu: Gpu, kind: str, ways: list[Way], peak: tuple[float | None, str], source: Source) -> None:
        device = f"{gpu.name}/{kind}"
        counts, clock = "none that NVML tells", _CLOCK
        try:
            if gpu.shared is not None:
                raise RefusedError(gpu.shared)
            choice = self.choices[device] = Choice(ways)
            counts, clock = choice.way.counts, choice.way.clock
        except RefusedError as reason:
            for word in _BYTES:
                source.refuse(device, word, str(reason) or "NVML has no counter of it")
        source.links.append(link(device, kind, counts, clock, *peak, **_known(gpu)))


def _known(gpu: Gpu) -> dict[str, Any]:
    return {"uuid": gpu.uuid, "pci": gpu.pci, "numa": gpus.numa(gpu)}


class GpuTotals(Source):
    """Bytes that NVML keeps as totals, at each sample."""

    name = "gpu bytes"
    slow_to_begin = True

    def __init__(self, shared: Nvml) -> None:
        super().__init__()
        self._shared = shared

    def refresh(self) -> None:
        self._shared.start(self)

    def read(self) -> list[Pair] | None:
        return _read(self, self._shared, slow=False)


class GpuRates(Source):
    """Bytes that take the driver longer to tell; and whether a link that says nothing says something another way."""

    name = "gpu rates"
    every_ms = RATES_MS
    slow_to_begin = True

    def __init__(self, shared: Nvml, describes: Source) -> None:
        super().__init__()
        self._shared = shared
        self._describes = describes

    def refresh(self) -> None:
        self._shared.start(self._describes)

    def read(self) -> list[Pair] | None:
        undecided = [device for device, choice in self._shared.choices.items() if not choice.settled]
        if undecided or any(choice.slow for choice in self._shared.choices.values()):
            self._shared.advance()
        for device in undecided:
            self._settle(device)
        return _read(self, self._shared, slow=True)

    def _settle(self, device: str) -> None:
        choice = self._shared.choices[device]
        before = choice.way
        choice.settle()
        if choice.way is not before:
            for each in self._describes.links:
                if each["name"] == device:
                    each.update(bytes=choice.way.counts, clock=choice.way.clock)


class GpuState(Source):
    """Clocks, power, temperature, what slows a GPU down, errors."""

    name = "gpu state"
    every_ms = STATE_MS
    slow_to_begin = True

    def __init__(self, shared: Nvml, describes: Source) -> None:
        super().__init__()
        self._shared = shared
        self._describes = describes
        self._readings: list[nvml_state.Reading] | None = None

    def refresh(self) -> None:
        self._shared.start(self._describes)
        if self._readings is None:
            self._readings = [
                reading
                for gpu in self._shared.gpus
                for reading in nvml_state.readings(self._shared.module, gpu, self.refuse)
            ]

    def read(self) -> list[Pair] | None:
        found = []
        for each, ask in self._readings or ():
            try:
                found.append((each, int(ask())))
            except (RefusedError, self._shared.module.NVMLError) as error:
                self.refuse(*each, f"while the job ran: {error}")
        return found or None


def _read(source: Source, shared: Nvml, slow: bool) -> list[Pair] | None:
    found: list[Pair] = []
    for device, choice in shared.choices.items():
        if choice.slow != slow:
            continue
        try:
            both: Both = choice.read()
        except RefusedError as reason:
            source.refuse(device, ALL, f"while the job ran: {reason}")
            continue
        found += _pairs(device, both)
    return found or None


def _pairs(device: str, both: Both) -> Iterable[Pair]:
    return ((key(device, word), value) for word, value in zip(_BYTES, both, strict=True))


def sources() -> list[Source]:
    """Nothing where there is no driver; the module is imported when the first is refreshed."""
    return of(Nvml()) if gpus.has_driver() else []


def of(shared: Nvml) -> list[Source]:
    totals = GpuTotals(shared)
    return [totals, GpuRates(shared, totals), GpuState(shared, totals)]
