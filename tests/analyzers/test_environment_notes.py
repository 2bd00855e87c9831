"""Settings that change communication, in words: single ones, those that conflict, and when they cannot matter."""

from __future__ import annotations

import pytest

from commlens.analyzers.settings.known import settings_to_know, without_launcher
from commlens.analyzers.settings.setting import BREAKS, CONTRADICTS, COSTS, NOTED, UNKNOWN_JOB, Job, Setting, job_of

LINKS = [
    {"name": "docker0", "state": "up", "address": "172.17.0.1"},
    {"name": "eth0", "state": "up", "address": "10.0.0.1"},
    {"name": "eth1", "state": "down", "address": None},
    {"name": "lo", "state": "unknown", "address": "127.0.0.1"},
]
ONE_HOST = Job(hosts=1, local_ranks=8)


def known(job: Job = UNKNOWN_JOB, **settings: str) -> list[Setting]:
    return settings_to_know(settings, LINKS, job)


def only(job: Job = UNKNOWN_JOB, **settings: str) -> Setting:
    (found,) = known(job, **settings)
    return found


def test_a_quiet_environment_has_no_notes() -> None:
    assert known(NCCL_DEBUG="WARN", OMP_NUM_THREADS="4", GLOO_SOCKET_IFNAME="eth0", CUDA_LAUNCH_BLOCKING="0") == []


@pytest.mark.parametrize(
    ("setting", "words", "kind"),
    [
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "nothing overlaps", COSTS),
        ({"CUDA_DEVICE_MAX_CONNECTIONS": "1"}, "tensor parallelism wants it", NOTED),
        ({"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}, "consistency check", COSTS),
        ({"NCCL_IB_DISABLE": "1"}, "over TCP", COSTS),
        ({"NCCL_NET": "Socket"}, "over TCP", COSTS),
        ({"NCCL_P2P_DISABLE": "1"}, "cannot reach each other directly", COSTS),
        ({"NCCL_PROTO": "LL128"}, "may corrupt data", BREAKS),
        ({"NCCL_PROTO": "Simple"}, "no longer chooses", COSTS),
        ({"NCCL_DEBUG": "INFO"}, "while communicators are made", NOTED),
        ({"NCCL_BLOCKING_WAIT": "1"}, "it is TORCH_NCCL_BLOCKING_WAIT now", NOTED),
        ({"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}, "wait for ever", COSTS),
        ({"OMP_NUM_THREADS": "1"}, "torchrun sets this", NOTED),
        ({"GLOO_SOCKET_IFNAME": "ib0"}, "no interface 'ib0'", BREAKS),
        ({"GLOO_SOCKET_IFNAME": "eth"}, "no interface 'eth'", BREAKS),
        ({"GLOO_SOCKET_IFNAME": "^docker"}, "whole names only", BREAKS),
        ({"GLOO_SOCKET_IFNAME": "eth1"}, "is down", BREAKS),
        ({"GLOO_SOCKET_IFNAME": "docker0"}, "bridge within this host", COSTS),
        ({"NCCL_SOCKET_IFNAME": "lo"}, "only this host", COSTS),
        ({"NCCL_SOCKET_IFNAME": "ib"}, "no interface 'ib'", BREAKS),
        ({"NCCL_SOCKET_IFNAME": "=eth0,ib"}, "no interface 'ib'", NOTED),
        ({"NCCL_SOCKET_IFNAME": "^eth,docker,lo"}, "no interface with an address", BREAKS),
    ],
)
def test_a_remarkable_setting_is_noted(setting: dict[str, str], words: str, kind: str) -> None:
    found = only(**setting)
    assert words in found.note
    assert found.kind == kind
    assert found.is_warning == bool(found.next)
    assert found.words == next(f"{name}={value}" for name, value in setting.items())


def test_nccls_prefixes_and_exclusions_are_understood() -> None:
    assert known(NCCL_SOCKET_IFNAME="eth") == []
    assert known(NCCL_SOCKET_IFNAME="^docker") == []
    assert known(NCCL_SOCKET_IFNAME="eth0:1") == []


@pytest.mark.parametrize(
    ("settings", "words", "kind"),
    [
        ({"NCCL_IB_DISABLE": "1", "NCCL_NET": "IB"}, "no network it may use", BREAKS),
        ({"NCCL_IB_DISABLE": "1", "NCCL_IB_HCA": "mlx5_0"}, "adapters named are not used", CONTRADICTS),
        ({"NCCL_NET": "Socket", "NCCL_IB_HCA": "mlx5_0"}, "adapters named are not used", CONTRADICTS),
        ({"NCCL_P2P_DISABLE": "1", "NCCL_P2P_LEVEL": "NVL"}, "level has no effect", CONTRADICTS),
        (
            {"TORCH_NCCL_BLOCKING_WAIT": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"},
            "takes only TORCH_NCCL_BLOCKING_WAIT",
            CONTRADICTS,
        ),
        ({"NCCL_BLOCKING_WAIT": "0", "TORCH_NCCL_BLOCKING_WAIT": "1"}, "TORCH_NCCL_BLOCKING_WAIT wins", CONTRADICTS),
        ({"NCCL_MIN_CTAS": "32", "NCCL_MAX_CTAS": "4"}, "least is more than the most", CONTRADICTS),
        ({"NCCL_SOCKET_NTHREADS": "16", "NCCL_NSOCKS_PERTHREAD": "8"}, "128 sockets", CONTRADICTS),
        ({"TORCH_FR_BUFFER_SIZE": "0", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}, "it will be empty", CONTRADICTS),
        ({"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,COLL"}, "logs every call", COSTS),
        ({"MASTER_ADDR": "localhost", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}, "cannot reach", BREAKS),
    ],
)
def test_settings_that_work_against_each_other(settings: dict[str, str], words: str, kind: str) -> None:
    found = [each for each in known(**settings) if words in each.note]
    assert [each.kind for each in found] == [kind]
    assert len(found[0].given) == 2
    assert found[0].next


def test_the_same_settings_one_of_them_otherwise_are_no_conflict() -> None:
    assert known(NCCL_NET="IB", NCCL_IB_HCA="mlx5_0", NCCL_P2P_LEVEL="NVL") == []
    assert known(NCCL_MIN_CTAS="4", NCCL_MAX_CTAS="4", NCCL_SOCKET_NTHREADS="8", NCCL_NSOCKS_PERTHREAD="8") == []
    assert known(MASTER_ADDR="localhost", WORLD_SIZE="8", LOCAL_WORLD_SIZE="8") == []
    assert known(NCCL_MIN_CTAS="many", NCCL_MAX_CTAS="4") == []


def test_one_queue_for_all_kernels_is_a_conflict_of_sharded_models_only() -> None:
    one_queue = {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    fsdp = only(Job(models=frozenset({"FSDP2"})), **one_queue)
    assert fsdp.kind == COSTS
    assert "collectives of FSDP2" in fsdp.note
    assert only(Job(models=frozenset({"module"})), **one_queue).kind == NOTED


def test_what_cannot_matter_is_only_noted() -> None:
    assert only(ONE_HOST, NCCL_IB_DISABLE="1").kind == NOTED
    assert only(Job(rdma=False), NCCL_IB_DISABLE="1").kind == NOTED
    assert only(ONE_HOST, GLOO_SOCKET_IFNAME="lo").kind == NOTED
    assert only(Job(hosts=2), GLOO_SOCKET_IFNAME="lo").kind == BREAKS
    assert only(Job(local_ranks=1), NCCL_P2P_DISABLE="1").kind == NOTED
    on_gloo = only(Job(backends=frozenset({"gloo"})), NCCL_P2P_DISABLE="1")
    assert (on_gloo.kind, on_gloo.next) == (NOTED, "")
    assert on_gloo.note.startswith("no effect here, NCCL is not used")
    assert known(Job(backends=frozenset({"gloo"})), NCCL_SOCKET_IFNAME="ib0", NCCL_IB_DISABLE="0") == []


def test_threads_are_too_many_only_for_the_cores_that_there_are() -> None:
    shared = Job(cpus=8, shared_cpus=8, local_ranks=4)
    assert only(shared, OMP_NUM_THREADS="8").next == "OMP_NUM_THREADS=2"
    assert known(shared, OMP_NUM_THREADS="2") == []
    assert known(Job(cpus=8, local_ranks=4), OMP_NUM_THREADS="8") == []  # each rank may have eight of its own
    assert "9 threads a rank" in only(Job(cpus=8, local_ranks=4), OMP_NUM_THREADS="9").note
    assert only(Job(cpus=1, shared_cpus=1, local_ranks=4), OMP_NUM_THREADS="1").kind == NOTED


def test_the_worst_comes_first() -> None:
    found = known(OMP_NUM_THREADS="1", NCCL_IB_DISABLE="1", GLOO_SOCKET_IFNAME="ib0", NCCL_IB_HCA="mlx5_0")
    assert [each.kind for each in found] == [BREAKS, CONTRADICTS, COSTS, NOTED]


def test_the_job_is_read_of_its_ranks() -> None:
    info = {
        "boot_id": "a",
        "cpus": 4,
        "cores": 4,
        "backend": "cpu:gloo,cuda:nccl",
        "models": [{"kind": "FSDP2"}],
        "links": [{"name": "mlx5_0/1", "kind": "infiniband"}],
    }
    job = job_of([info, {**info, "cpus": 2, "links": []}, {"boot_id": "b", "backend": "nccl"}])
    assert job == Job(frozenset({"gloo", "nccl"}), frozenset({"FSDP2"}), 2, 2, 2, None, True)
    assert job_of([info]).shared_cpus == 4
    assert job_of([]) == Job(models=frozenset())


def test_what_launchers_set_is_left_out() -> None:
    assert without_launcher({"RANK": "0", "TORCHELASTIC_RUN_ID": "x", "MASTER_PORT": "1", "NCCL_DEBUG": "INFO"}) == {
        "NCCL_DEBUG": "INFO"
    }
