"""What `commlens doctor` says of the counters that can be read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sysfs_trees import COUNTERS, numbered, port

from commlens.cli import machine
from commlens.profiler.counters import infiniband, nvml, probe
from commlens.render.machine import counters_part


def test_each_device_with_what_it_tells_and_what_it_does_not(tmp_path: Path) -> None:
    port(tmp_path / "infiniband", "mlx5_0", numbered(COUNTERS, 5), {})
    port(tmp_path / "infiniband", "mlx5_1", {}, {}, state="1: DOWN", pci="0000:0d:00.0")
    answer = probe.look(infiniband.sources(tmp_path / "infiniband"))
    ((link, words),) = answer.told
    assert link["name"] == "mlx5_0/1"
    assert {"tx_bytes", "rx_bytes", "tx_wait_ticks"} <= set(words)
    refused = dict(answer.refused)
    assert refused["mlx5_1/1"] == "the port is not active: 1: DOWN"
    assert "mlx5_0/1 cnp_sent" in refused


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_the_doctor_lists_this_machine() -> None:
    lines = {check.name: check.answer for check in counters_part(machine.network()).checks}
    assert "tx_bytes" in lines["lo (ethernet)"]
    assert "no peak: loopback" in lines["lo (ethernet)"]
    assert "rx_bytes" in lines["TCP of each rank"]
    if not infiniband.ROOT.is_dir():
        assert lines["InfiniBand, RoCE"].startswith("not read: no adapter")
    if not nvml.gpus.has_driver():
        assert lines["NVLink, PCIe, GPUs"] == "not read: no NVIDIA driver here"
