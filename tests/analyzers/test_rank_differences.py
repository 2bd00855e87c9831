"""What differs between ranks though it should not."""

from __future__ import annotations

from typing import Any

from commlens.analyzers.health.differences import NOT_SET, Difference, find_differences


def info(**more: Any) -> dict[str, Any]:
    own: dict[str, Any] = {
        "boot_id": "a",
        "torch": "2.13.0",
        "python": "3.11.7",
        "platform": "Linux-6",
        "cpus": 4,
        "backend": "gloo",
        "environment": {"NCCL_DEBUG": "WARN"},
        "interfaces": [{"name": "eth0", "address": "10.0.0.1", "mtu": 1500, "speed_mbit_s": 1000}],
        "hooks": {"recorder": "native", "collectives": "ok", "forward": "ok"},
        "models": [{"kind": "DDP", "name": "Net"}],
        "fix": None,
    }
    return {**own, **more}


def differ(*infos: dict[str, Any]) -> dict[str, Difference]:
    return {each.name: each for each in find_differences(dict(enumerate(infos)))}


def test_ranks_that_are_alike_differ_in_nothing() -> None:
    own = {"RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_ERROR_FILE": "x", "NCCL_DEBUG": "WARN"}
    other = {name: value + ("" if name == "NCCL_DEBUG" else "1") for name, value in own.items()}
    assert find_differences({0: info(environment=own), 1: info(environment=other)}) == ()
    assert find_differences({0: info()}) == ()
    assert find_differences({}) == ()


def test_what_a_rank_does_not_tell_is_not_compared() -> None:
    assert find_differences({0: info(), 1: {}, 2: {"interfaces": None, "hooks": "ok", "models": None}}) == ()


def test_a_setting_of_some_ranks_is_told_with_the_ranks() -> None:
    found = differ(info(), info(), info(environment={}))
    assert found["NCCL_DEBUG"].sides == (("WARN", (0, 1)), (NOT_SET, (2,)))
    assert not found["NCCL_DEBUG"].expected
    assert found["NCCL_DEBUG"].note


def test_names_of_interfaces_may_differ_between_hosts_but_not_within_one() -> None:
    def on(host: str, interface: str) -> dict[str, Any]:
        return info(boot_id=host, environment={"GLOO_SOCKET_IFNAME": interface, "CUDA_VISIBLE_DEVICES": interface})

    between = differ(on("a", "eth0"), on("a", "eth0"), on("b", "eth1"))
    within = differ(on("a", "eth0"), on("a", "eth1"))
    assert between["GLOO_SOCKET_IFNAME"].expected
    assert not within["GLOO_SOCKET_IFNAME"].expected
    assert within["CUDA_VISIBLE_DEVICES"].expected


def test_versions_devices_and_recorders() -> None:
    hooks = {"recorder": "dispatcher", "collectives": "ok", "forward": "no module"}
    other = info(torch="2.12.0", platform="Linux-5", cpus=2, hooks=hooks, fix={"applied": ["ddp.static_graph=1"]})
    found = differ(info(gpu="A"), {**other, "gpu": "B"})
    unexpected = {name for name, each in found.items() if not each.expected}
    assert unexpected == {"torch", "GPU", "cores a rank may use", "hook: recorder", "changes of COMMLENS_FIX"}
    assert {name for name, each in found.items() if each.expected} == {"kernel", "hook: forward"}
    assert list(found)[-1] in ("kernel", "hook: forward")  # the unexpected come first


def test_interfaces_that_reach_other_hosts_are_compared() -> None:
    def with_(**own: Any) -> dict[str, Any]:
        bridge = {"name": "docker0", "address": "172.17.0.1", "mtu": own["mtu"] + 7}
        return info(interfaces=[{"name": "eth0", "address": "10.0.0.1", **own}, bridge])

    found = differ(with_(mtu=1500, speed_mbit_s=1000), with_(mtu=9000, speed_mbit_s=None), with_(mtu=9000))
    assert set(found) == {"MTU of eth0"}
    assert found["MTU of eth0"].sides == (("9000", (1, 2)), ("1500", (0,)))
    assert "Mbit/s of eth0" in differ(with_(mtu=1, speed_mbit_s=1000), with_(mtu=1, speed_mbit_s=100))
    renamed = info(interfaces=[{"name": "ens3", "address": "10.0.0.2", "mtu": 1500}])
    assert differ(info(), renamed)["interfaces with an address"].expected


def test_ports_are_compared_between_ranks_that_read_their_node() -> None:
    port = {"name": "mlx5_0/1", "kind": "infiniband", "peak_bytes_per_s": 50_000_000_000}
    slow = {**port, "peak_bytes_per_s": 25_000_000_000}
    process = {"name": "process-1", "kind": "process"}
    assert differ(info(links=[process, port]), info(links=[process]), info(links=[port])) == {}
    found = differ(info(links=[port]), info(links=[slow]))["InfiniBand and RoCE ports"]
    assert [value for value, _ in found.sides] == ["mlx5_0/1 50 GB/s", "mlx5_0/1 25 GB/s"]
