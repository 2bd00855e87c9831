"""Which interfaces Gloo and NCCL take."""

from __future__ import annotations

from typing import Any

import pytest

from commlens.analyzers.settings.interfaces import gloo_choice, nccl_choice

LOOPBACK = {"name": "lo", "index": 1, "state": "unknown", "address": "127.0.0.1"}
DOCKER = {"name": "docker0", "index": 2, "state": "up", "address": "172.17.0.1"}
FAST = {"name": "eth1", "index": 4, "state": "up", "address": "10.0.1.1", "speed_mbit_s": 100_000}
SLOW = {"name": "eth0", "index": 3, "state": "up", "address": "10.0.0.1", "speed_mbit_s": 1_000}
BARE = {"name": "eth2", "index": 5, "state": "up", "address": None}
OFF = {"name": "eth3", "index": 6, "state": "down", "address": "10.0.3.1"}
IPOIB = {"name": "ib0", "index": 7, "state": "up", "address": "10.1.0.1"}
ALL = [DOCKER, FAST, SLOW, BARE, OFF, LOOPBACK]


@pytest.mark.parametrize(
    ("interfaces", "settings", "names", "why"),
    [
        (ALL, {}, ("eth0", "eth1"), "set-up over eth0"),
        ([*ALL, IPOIB], {}, ("ib0",), "begin with ib"),
        ([DOCKER, LOOPBACK], {}, ("docker0",), "no other"),
        ([LOOPBACK], {}, ("lo",), "no other"),
        ([BARE, OFF], {}, (), "no interface has an IPv4 address"),
        ([], {}, (), "no interface has an IPv4 address"),
        (ALL, {"NCCL_SOCKET_IFNAME": "eth1"}, ("eth1",), "NCCL_SOCKET_IFNAME=eth1"),
        (ALL, {"NCCL_SOCKET_IFNAME": "^eth,lo"}, ("docker0",), "NCCL_SOCKET_IFNAME=^eth,lo"),
        (ALL, {"NCCL_SOCKET_IFNAME": "=eth"}, (), "NCCL_SOCKET_IFNAME==eth"),
    ],
)
def test_nccl_takes(
    interfaces: list[dict[str, Any]], settings: dict[str, str], names: tuple[str, ...], why: str
) -> None:
    choice = nccl_choice(settings, interfaces, ())
    assert choice.names == names
    assert why in choice.why
    assert choice.only_here == (bool(names) and set(names) <= {"lo", "docker0"})
    assert bool(choice.next) == (not names)


def test_nccl_moves_bytes_over_rdma_ports_unless_told_not_to() -> None:
    assert nccl_choice({}, ALL, ["mlx5_0/1"]).why.startswith("bytes go over mlx5_0/1")
    assert nccl_choice({"NCCL_IB_DISABLE": "1"}, ALL, ["mlx5_0/1"]).why.startswith("TCP")
    assert nccl_choice({"NCCL_NET": "socket"}, ALL, ["mlx5_0/1"]).why.startswith("TCP")
    assert "were not looked at" in nccl_choice({}, ALL, None).why


@pytest.mark.parametrize(
    ("address", "names", "why"),
    [
        ("10.0.0.1", ("eth0",), "resolves to 10.0.0.1"),
        ("127.0.1.1", ("lo",), "resolves to 127.0.1.1"),
        ("", ("lo",), "falls back to the loopback"),
        ("10.9.9.9", (), "which no interface has"),
        (None, (), "not recorded"),
    ],
)
def test_gloo_takes_what_the_name_of_the_host_says(address: str | None, names: tuple[str, ...], why: str) -> None:
    choice = gloo_choice({}, ALL, address)
    assert choice.names == names
    assert why in choice.why
    assert choice.only_here == (names == ("lo",))
    if choice.only_here:
        assert choice.next.endswith("GLOO_SOCKET_IFNAME=eth1")  # the fastest that reaches others


def test_gloo_takes_the_interface_it_was_given() -> None:
    assert gloo_choice({"GLOO_SOCKET_IFNAME": "eth1"}, ALL, "10.0.0.1").names == ("eth1",)
    assert gloo_choice({"GLOO_SOCKET_IFNAME": "eth"}, ALL, "10.0.0.1").names == ()


def test_a_loopback_that_is_not_up_is_not_taken() -> None:
    down = {**LOOPBACK, "address": None}
    assert gloo_choice({}, [down], "127.0.0.1").names == ()
