"""GPUs by NVML: which of its ways answers, what it means, and what is said where none does."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import pynvml
import pytest
from fake_nvml import ALL_LINKS, Code, Device, FakeNvml, alive, blackwell, hopper, ui, ull, volta

from commlens.profiler.counters import nvml, nvml_bytes
from commlens.profiler.counters.nvml_bytes import Unwrap
from commlens.profiler.counters.source import Key, Source

Reasons = dict[Key, str]
GIB = 2**30


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    replaced = Clock()
    monkeypatch.setattr(nvml_bytes, "now", replaced)
    return replaced


def opened(fake: FakeNvml, variables: Mapping[str, str] | None = None) -> list[Source]:
    sources = nvml.of(nvml.Nvml(fake, variables or {}, pause=lambda seconds: None))
    for source in sources:
        source.refresh()
    return sources


def read(sources: list[Source]) -> dict[Key, int]:
    return {each: value for source in sources for each, value in source.read() or ()}


def reasons(sources: list[Source]) -> Reasons:
    return {(each["device"], each["counter"]): each["reason"] for source in sources for each in source.unsupported}


def test_hopper_tells_payload_in_one_field(clock: Clock) -> None:
    fake = FakeNvml([hopper()])
    sources = opened(fake)
    fake.called.clear()
    totals = dict(sources[0].read())
    assert fake.called == ["nvmlDeviceGetFieldValues"] * 2  # what each sample costs
    assert totals == {
        ("gpu0/nvlink", "tx_bytes"): 5000 * 1024,
        ("gpu0/nvlink", "rx_bytes"): 7000 * 1024,
        ("gpu0/pcie", "tx_bytes"): 111,
        ("gpu0/pcie", "rx_bytes"): 222,
    }
    state = dict(sources[2].read())
    assert state["gpu0", "power_mw"] == 512_345
    assert state["gpu0", "sm_clock_mhz"] == 1980
    assert state["gpu0", "throttle_reasons"] == 4
    assert (state["gpu0", "ecc_corrected"], state["gpu0", "ecc_uncorrected"]) == (1, 0)
    assert state["gpu0/nvlink", "crc_errors"] == sum(range(18))
    assert state["gpu0/pcie", "replays"] == 3
    links = {link["name"]: link for link in sources[0].links}
    assert links["gpu0/nvlink"]["peak_bytes_per_s"] == 18 * 26_562_000_000
    assert links["gpu0/nvlink"]["peak_from"] == "18 links x 26562 MB/s (NVML)"
    assert links["gpu0/nvlink"]["bytes"] == "payload"
    assert links["gpu0/pcie"]["peak_bytes_per_s"] == int(32e9 * 128 / 130 * 16 / 8)
    assert links["gpu0"]["pci"] == "0000:1b:00.0"
    assert "gpu0/c2c" not in links


def test_volta_has_no_nvlink_totals_and_sampled_pcie(clock: Clock) -> None:
    sources = opened(FakeNvml([volta()]))
    assert reasons(sources)["gpu0/nvlink", "tx_bytes"] == "Not Supported"
    assert [read(sources).get(("gpu0/pcie", "tx_bytes"))] == [0]  # no time has passed
    clock.ns += 2_000_000_000
    found = read(sources)
    assert (found["gpu0/pcie", "tx_bytes"], found["gpu0/pcie", "rx_bytes"]) == (2_000_000_000, 4_000_000_000)
    assert found["gpu0", "throttle_reasons"] == 0x20
    assert found["gpu0/nvlink", "replays"] == 7
    assert ("gpu0/nvlink", "tx_bytes") not in found
    (link,) = [link for link in sources[0].links if link["name"] == "gpu0/pcie"]
    assert "20 ms" in link["clock"]


def test_blackwell_tells_bytes_of_each_link(clock: Clock) -> None:
    sources = opened(FakeNvml([blackwell()]))
    found = read(sources)
    assert found["gpu0/nvlink", "tx_bytes"] == sum(1000 + link for link in range(18))
    assert found["gpu0/nvlink", "rx_bytes"] == sum(2000 + link for link in range(18))
    assert found["gpu0/nvlink", "link_recoveries"] == 18 * 215
    assert found["gpu0/nvlink", "symbol_errors"] == 18 * 221
    links = {link["name"]: link for link in sources[0].links}
    assert links["gpu0/nvlink"]["peak_bytes_per_s"] == 17 * 53_125_000_000  # one link is not active
    assert links["gpu0/c2c"]["peak_bytes_per_s"] == 10 * 45_000_000_000
    clock.ns += 1_000_000_000
    found = read(sources)
    assert (found["gpu0/c2c", "tx_bytes"], found["gpu0/c2c", "rx_bytes"]) == (3 * 2**20, 5 * 2**20)
    assert ("gpu0/nvlink", "tx_bytes") not in dict(sources[0].read())  # 36 fields are too dear for each sample
    assert reasons(sources)["gpu0/nvlink", "replays"] == "Not Supported"


def test_a_field_that_answers_zero_gives_way_to_one_that_moves(clock: Clock) -> None:
    device = hopper(nvlink_kib=(0, 0), gpm={60: 0.0, 61: 0.0, 20: 0.0, 21: 0.0})
    sources = opened(FakeNvml([device]))
    assert read(sources)["gpu0/nvlink", "tx_bytes"] == 0
    device.gpm = {61: 1024.0, 60: 512.0, 20: 0.0, 21: 0.0}
    clock.ns += 3_000_000_000
    found = read(sources)
    assert (found["gpu0/nvlink", "tx_bytes"], found["gpu0/nvlink", "rx_bytes"]) == (3 * GIB, 3 * GIB // 2)
    (link,) = [link for link in sources[0].links if link["name"] == "gpu0/nvlink"]
    assert "GPM" in link["bytes"]
    device.fields[138, ALL_LINKS] = ull(10**9)  # too late: totals must not jump
    clock.ns += 1_000_000_000
    assert read(sources)["gpu0/nvlink", "tx_bytes"] == 4 * GIB


def test_a_link_that_is_idle_at_first_keeps_its_field(clock: Clock) -> None:
    device = hopper(nvlink_kib=(0, 0), gpm={60: 0.0, 61: 0.0})
    sources = opened(FakeNvml([device]))
    read(sources)
    device.fields |= {(138, ALL_LINKS): ull(4), (139, ALL_LINKS): ull(4)}
    device.gpm = {60: 77.0, 61: 77.0}
    clock.ns += 1_000_000_000
    read(sources)
    assert dict(sources[0].read())["gpu0/nvlink", "tx_bytes"] == 4096


def test_a_driver_that_refuses_everything(clock: Clock) -> None:
    sources = opened(FakeNvml([Device({(91, 0): ui(18)}, {})]))
    assert read(sources) == {}
    why = reasons(sources)
    for word in ("power_mw", "sm_clock_mhz", "throttle_reasons", "ecc_corrected"):
        assert why["gpu0", word] == "Not Supported"
    assert why["gpu0/nvlink", "tx_bytes"] == "Not Supported"
    assert why["gpu0/pcie", "rx_bytes"] == "Not Supported"
    assert {link["peak_bytes_per_s"] for link in sources[0].links} == {None}


def test_a_driver_that_cannot_be_asked(clock: Clock) -> None:
    sources = opened(FakeNvml([], refuses=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    assert read(sources) == {}
    assert list(reasons(sources)) == [("gpu", "all")]
    assert "mismatch" in reasons(sources)["gpu", "all"]


def test_success_with_zero_is_read_as_zero_and_judged_by_nobody_here(clock: Clock) -> None:
    device = Device({(91, 0): ui(18), (138, ALL_LINKS): ull(0), (139, ALL_LINKS): ull(0)}, alive())
    sources = opened(FakeNvml([device]))
    for _ in range(3):
        clock.ns += 1_000_000_000
        assert read(sources)["gpu0/nvlink", "tx_bytes"] == 0
    assert ("gpu0/nvlink", "tx_bytes") not in reasons(sources)


def test_the_union_is_read_by_its_type(clock: Clock) -> None:
    device = hopper()
    device.fields |= {(3, 0): ("siVal", 5), (4, 0): ("usVal", 6), (91, 0): ("usVal", 18)}
    found = read(opened(FakeNvml([device])))
    assert (found["gpu0", "ecc_corrected"], found["gpu0", "ecc_uncorrected"]) == (5, 6)


def test_a_value_with_an_error_code_is_no_value(clock: Clock) -> None:
    device = hopper()
    device.fields[139, ALL_LINKS] = Code(pynvml.NVML_ERROR_NO_PERMISSION)
    sources = opened(FakeNvml([device]))
    assert reasons(sources)["gpu0/nvlink", "rx_bytes"].startswith("Insufficient Permissions")
    assert ("gpu0/nvlink", "tx_bytes") not in read(sources)


def test_an_error_while_the_job_runs_costs_that_reading_only(clock: Clock) -> None:
    device = hopper()
    sources = opened(FakeNvml([device]))
    device.fields[138, ALL_LINKS] = Code(pynvml.NVML_ERROR_GPU_IS_LOST)
    device.calls["nvmlDeviceGetPowerUsage"] = Code(pynvml.NVML_ERROR_UNKNOWN)
    found = read(sources)
    assert ("gpu0/nvlink", "tx_bytes") not in found
    assert ("gpu0", "power_mw") not in found
    assert found["gpu0/pcie", "tx_bytes"] == 111
    assert "while the job ran: GPU is lost" in reasons(sources)["gpu0/nvlink", "all"]


@pytest.mark.parametrize(("shared", "word"), [({"mig": 1}, "MIG"), ({"vgpu": True}, "vGPU")])
def test_a_shared_gpu_tells_no_bytes(clock: Clock, shared: dict[str, object], word: str) -> None:
    device = hopper()
    for name, value in shared.items():
        setattr(device, name, value)
    sources = opened(FakeNvml([device]))
    found = read(sources)
    assert not [each for each in found if each[1].endswith("bytes")]
    assert found["gpu0", "power_mw"] == 512_345
    assert word in reasons(sources)["gpu0/nvlink", "tx_bytes"]


def test_pcie_bytes_in_32_bits_are_not_used(clock: Clock) -> None:
    device = hopper(gpm={20: 100.0, 21: 200.0})
    device.fields |= {(197, 0): ui(5), (198, 0): ui(6)}
    sources = opened(FakeNvml([device]))
    read(sources)
    clock.ns += 1_000_000_000
    assert read(sources)["gpu0/pcie", "rx_bytes"] == 200 * 2**20


def test_a_driver_older_than_a_metric_still_tells_the_others(clock: Clock) -> None:
    device = Device({(91, 0): ui(18)}, alive(), gpm={60: 2.0, 61: 1.0, 20: 4.0, 21: 3.0}, newest_metric=99)
    sources = opened(FakeNvml([device]))
    read(sources)
    clock.ns += 1_000_000_000
    found = read(sources)
    assert (found["gpu0/nvlink", "tx_bytes"], found["gpu0/nvlink", "rx_bytes"]) == (2**20, 2 * 2**20)
    assert (found["gpu0/pcie", "tx_bytes"], found["gpu0/pcie", "rx_bytes"]) == (4 * 2**20, 3 * 2**20)


def test_kib_in_32_bits_go_on_where_they_go_round(clock: Clock) -> None:
    device = hopper()
    device.fields |= {(138, ALL_LINKS): ui(2**32 - 2), (139, ALL_LINKS): ui(8)}
    sources = opened(FakeNvml([device]))
    before = read(sources)["gpu0/nvlink", "tx_bytes"]
    device.fields[138, ALL_LINKS] = ui(3)
    assert read(sources)["gpu0/nvlink", "tx_bytes"] - before == 5 * 1024


def test_a_reset_is_a_smaller_value() -> None:
    unwrap = Unwrap()
    seen = [unwrap(value) for value in (2**32 - 10, 5, 1000, 7)]
    assert seen == [2**32 - 10, 2**32 + 5, 2**32 + 1000, 7]


ALIKE = [hopper(), hopper()]
ALIKE[0].uuid, ALIKE[1].uuid = "GPU-aaaa", "GPU-bbbb"


@pytest.mark.parametrize(
    ("variables", "used"),
    [
        ({}, ["gpu0", "gpu1"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "LOCAL_WORLD_SIZE": "1"}, ["gpu1"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bb", "LOCAL_WORLD_SIZE": "1"}, ["gpu1"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "LOCAL_WORLD_SIZE": "2"}, ["gpu0", "gpu1"]),  # the other rank has another
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["gpu0", "gpu1"]),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1234", "LOCAL_WORLD_SIZE": "1"}, ["gpu0", "gpu1"]),
        ({"CUDA_VISIBLE_DEVICES": "7", "LOCAL_WORLD_SIZE": "1"}, ["gpu0", "gpu1"]),
    ],
)
def test_which_gpus_are_read(clock: Clock, variables: dict[str, str], used: list[str]) -> None:
    links = opened(FakeNvml(ALIKE), variables)[0].links
    assert [link["name"] for link in links if link["kind"] == "gpu"] == used


def test_without_a_driver_nothing_is_imported() -> None:
    if nvml.gpus.has_driver():
        pytest.skip("there is a driver here")
    assert nvml.sources() == []


def test_calls_give_up_the_interpreter_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module opens the library as ctypes.CDLL, whose functions do; those of PyDLL would not."""
    opened_as = []

    def load(name: str) -> ctypes.CDLL:
        opened_as.append(name)
        return ctypes.CDLL(None)

    monkeypatch.setattr(pynvml, "CDLL", load)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    pynvml._LoadNvmlLibrary()
    assert opened_as == ["libnvidia-ml.so.1"]
    assert not isinstance(pynvml.nvmlLib, ctypes.PyDLL)
