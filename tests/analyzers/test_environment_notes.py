"""Settings that change communication, in words."""

import pytest

from commlens.analyzers.environment import settings_to_know

LINKS = [
    {"name": "eth0", "state": "up"},
    {"name": "eth1", "state": "down"},
    {"name": "lo", "state": "unknown"},
]


def notes(**settings: str) -> list[str]:
    return [found.note for found in settings_to_know(settings, LINKS)]


def test_a_quiet_environment_has_no_notes() -> None:
    assert notes(NCCL_DEBUG="WARN", OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="eth0", CUDA_LAUNCH_BLOCKING="0") == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "nothing overlaps"),
        ({"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}, "consistency check"),
        ({"GLOO_SOCKET_IFNAME": "ib0"}, "no interface 'ib0'"),
        ({"GLOO_SOCKET_IFNAME": "eth1"}, "is down"),
        ({"NCCL_SOCKET_IFNAME": "lo"}, "only this host"),
        ({"NCCL_SOCKET_IFNAME": "=eth0,ib"}, "no interface 'ib'"),
    ],
)
def test_a_costly_setting_is_noted(setting: dict[str, str], words: str) -> None:
    (note,) = notes(**setting)
    assert words in note


def test_nccls_prefixes_and_exclusions_are_understood() -> None:
    assert notes(NCCL_SOCKET_IFNAME="eth") == []
    assert notes(NCCL_SOCKET_IFNAME="^docker") == []
