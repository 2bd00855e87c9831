"""Ways to learn how many bytes a GPU's NVLink, PCIe and C2C links carried, from exact totals down to sampled rates.

Which of them answers depends on the generation, the driver and what shares the GPU; some answer with a zero that never
moves. So all that answer at the start are kept, and the first that ever says more than zero is the one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from commlens.profiler.clock import now
from commlens.profiler.counters.nvml_fields import ALL_LINKS, MOST_LINKS, Field, RefusedError, read_all

Both = tuple[int, int]  # bytes sent, bytes received, since some moment of the past

NVLINK_KIB, PCIE_BYTES, LINK_BYTES = (138, 139), (197, 198), (202, 204)
GPM_NVLINK, GPM_PCIE, GPM_C2C = (61, 60), (20, 21), (100, 101)  # sent, received; MiB/s
_MIB, _KIB = 2**20, 2**10
_TWO_32: Final = 2**32


class Way(ABC):
    """One way to read bytes of one link.

    Attributes:
        counts: what the bytes include.
        clock: how old they may be.
        slow: too dear for each sample.
    """

    counts = ""
    clock = "when read"
    slow = False

    @abstractmethod
    def read(self) -> Both:
        """Raises:
        RefusedError: NVML does not tell.
        """


class Totals(Way):
    """Totals that NVML keeps: fields, summed over scopes."""

    def __init__(
        self, nvml: Any, handle: Any, ids: Both, scopes: Sequence[int], factor: int, counts: str, slow: bool = False
    ) -> None:
        self._nvml, self._handle, self._factor = nvml, handle, factor
        self._fields: list[Field] = [(field, scope) for field in ids for scope in scopes]
        self._half = len(scopes)
        self.counts, self.slow = counts, slow
        self._unwrap = [Unwrap() for _ in self._fields]

    def read(self) -> Both:
        told = read_all(self._nvml, self._handle, self._fields)
        # Where NVML keeps 32 bits a fast link may go round more than once between two readings.
        if any(value.narrow for value in told) and self._factor == 1:
            raise RefusedError("a 32-bit counter of bytes, which goes round several times a second")
        totals = [
            unwrap(value) if value.narrow else int(value) for unwrap, value in zip(self._unwrap, told, strict=True)
        ]
        return sum(totals[: self._half]) * self._factor, sum(totals[self._half :]) * self._factor


class Unwrap:
    """A 32-bit total made to go on where it goes round. A smaller value that is no such step is a reset, and kept."""

    def __init__(self) -> None:
        self._before = self._rounds = 0

    def __call__(self, value: int) -> int:
        if value < self._before:
            went_round = self._before - value > _TWO_32 // 2
            self._rounds = self._rounds + _TWO_32 if went_round else 0
        self._before = value
        return value + self._rounds


class Rates(Way):
    """Rates turned into totals since the first reading: each holds for the time since the one before.

    Args:
        rates: gives bytes a second, sent and received.
    """

    slow = True

    def __init__(self, rates: Callable[[], tuple[float, float]], counts: str, clock: str) -> None:
        self._rates, self.counts, self.clock = rates, counts, clock
        self._sent = self._received = 0.0
        self._at: int | None = None

    def read(self) -> Both:
        sent, received = self._rates()
        at = now()
        if self._at is not None:
            self._sent += sent * (at - self._at) / 1e9
            self._received += received * (at - self._at) / 1e9
        self._at = at
        return int(self._sent), int(self._received)


class Choice(Way):
    """The first of several ways that says more than zero; until one does, the first that answers.

    Args:
        ways: the best first.
        why_not: gets the reason of each that does not answer.

    Raises:
        RefusedError: None answers.
    """

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways: list[Way] = []
        reasons = []
        for way in ways:
            try:
                if any(way.read()):
                    self._ways = [way]
                    break
                self._ways.append(way)
            except RefusedError as reason:
                reasons.append(str(reason))
        if not self._ways:
            raise RefusedError("; ".join(dict.fromkeys(reasons)))
        self.settled = len(self._ways) == 1

    @property
    def way(self) -> Way:
        return self._ways[0]

    @property
    def slow(self) -> bool:  # type: ignore[override]
        return self.way.slow

    def read(self) -> Both:
        return self.way.read()

    def settle(self) -> None:
        """While the way in use says nothing, looks whether another says something; for the slow samples."""
        for way in [] if self.settled else self._ways:
            try:
                if any(way.read()):
                    self._ways, self.settled = [way], True
                    return
            except RefusedError:
                continue


def nvlink_ways(nvml: Any, handle: Any, links: int, gpm: Callable[[Both], tuple[float, float]] | None) -> list[Way]:
    """Payload of all links in one field; bytes of each link (from Blackwell on); GPM's rates (from Hopper on)."""
    ways: list[Way] = [
        Totals(nvml, handle, NVLINK_KIB, [ALL_LINKS], _KIB, "payload"),
        Totals(nvml, handle, LINK_BYTES, range(min(links, MOST_LINKS)), 1, "as NVML's fields 202 and 204", slow=True),
    ]
    return ways + _gpm_ways(gpm, GPM_NVLINK)


def pcie_ways(nvml: Any, handle: Any, gpm: Callable[[Both], tuple[float, float]] | None) -> list[Way]:
    """Totals; GPM's rates; what went over in a few ms before each reading."""

    def throughput() -> tuple[float, float]:
        try:
            sent, received = (nvml.nvmlDeviceGetPcieThroughput(handle, way) for way in (0, 1))
        except nvml.NVMLError as error:
            raise RefusedError(str(error)) from None
        return sent * 1000.0, received * 1000.0  # KB/s

    return [
        Totals(nvml, handle, PCIE_BYTES, [0], 1, "as NVML's fields 197 and 198"),
        *_gpm_ways(gpm, GPM_PCIE),
        Rates(
            throughput, "as nvmlDeviceGetPcieThroughput", "a window of about 20 ms before each reading stands for all"
        ),
    ]


def c2c_ways(gpm: Callable[[Both], tuple[float, float]] | None) -> list[Way]:
    return _gpm_ways(gpm, GPM_C2C)


def _gpm_ways(gpm: Callable[[Both], tuple[float, float]] | None, metrics: Both) -> list[Way]:
    if gpm is None:
        return []
    rates = Rates(
        lambda: gpm(metrics), f"as NVML's GPM metrics {metrics[0]} and {metrics[1]}", "means between readings"
    )
    return [rates]


class Gpm:
    """NVML's performance metrics (from Hopper on): rates over the time between two samples that the driver takes.

    Raises:
        RefusedError: This GPU or driver has none.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        try:
            if not nvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                raise RefusedError("GPM: not on this GPU")
            self._before, self._after = nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()
            nvml.nvmlGpmSampleGet(handle, self._before)
        except nvml.NVMLError as error:
            raise RefusedError(f"GPM: {error}") from None
        self._asked = nvml.c_nvmlGpmMetricsGet_t()
        self._asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
        self._metrics: tuple[int, ...] = (*GPM_PCIE, *GPM_NVLINK, *GPM_C2C)
        self._rates: dict[int, float | RefusedError] = {}
        self._why_none = "GPM: no two samples yet"

    def advance(self) -> None:
        """Takes a sample; the rates are then those since the one before."""
        try:
            self._nvml.nvmlGpmSampleGet(self._handle, self._after)
            self._asked.sample1, self._asked.sample2 = self._before, self._after
            self._asked.numMetrics = len(self._metrics)
            for place, metric in enumerate(self._metrics):
                self._asked.metrics[place].metricId = metric
            self._nvml.nvmlGpmMetricsGet(self._asked)
        except self._nvml.NVMLError as error:
            # A driver that is older than a metric may refuse them all: the newest are asked for no more.
            self._metrics = tuple(metric for metric in self._metrics if metric not in GPM_C2C)
            self._rates, self._why_none = {}, f"GPM: {error}"
            return
        self._before, self._after = self._after, self._before
        self._rates = {metric: self._rate(place) for place, metric in enumerate(self._metrics)}

    def _rate(self, place: int) -> float | RefusedError:
        told = self._asked.metrics[place]
        if told.nvmlReturn != self._nvml.NVML_SUCCESS:
            return RefusedError(f"GPM: {self._nvml.NVMLError(told.nvmlReturn)}")
        return max(0.0, float(told.value)) * _MIB

    def __call__(self, metrics: Both) -> tuple[float, float]:
        """Bytes a second of two metrics.

        Raises:
            RefusedError: One of them is not told.
        """
        found = [self._rates.get(metric, RefusedError(self._why_none)) for metric in metrics]
        for rate in found:
            if isinstance(rate, RefusedError):
                raise rate
        return found[0], found[1]  # type: ignore[return-value]
