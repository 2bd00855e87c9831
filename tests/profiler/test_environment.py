"""What is read of the machine, on recorded sysfs trees."""

from pathlib import Path

import pytest

from commlens.profiler import environment


def test_interfaces_are_read_from_sysfs(tmp_path: Path) -> None:
    for name, files in {
        "eth9": {"operstate": "up", "speed": "25000", "mtu": "9000", "ifindex": "2"},
        "eth8": {"operstate": "down", "speed": "-1", "mtu": "1500"},
        "odd0": {},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text + "\n")
    assert environment.interfaces(tmp_path) == [
        {"name": "eth8", "index": None, "state": "down", "speed_mbit_s": None, "mtu": 1500, "address": None},
        {"name": "eth9", "index": 2, "state": "up", "speed_mbit_s": 25000, "mtu": 9000, "address": None},
        {"name": "odd0", "index": None, "state": None, "speed_mbit_s": None, "mtu": None, "address": None},
    ]


def test_no_sysfs_is_no_error(tmp_path: Path) -> None:
    assert environment.interfaces(tmp_path / "none") == []


def test_only_settings_of_communication_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    kept = environment.settings()
    assert kept["NCCL_DEBUG"] == "INFO"
    assert kept["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
    assert "hunter2" not in str(kept)


def test_each_rank_tells_the_versions_it_runs() -> None:
    import torch

    told = environment.software()
    assert set(told) == {"commlens", "torch", "cuda", "nccl", "gpu"}
    assert told["torch"] == torch.__version__
    assert (told["cuda"] is None) == (torch.version.cuda is None)
    if not torch.cuda.is_initialized():
        assert told["gpu"] is None  # asking has not begun to use it
        assert not torch.cuda.is_initialized()
