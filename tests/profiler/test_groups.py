"""Process groups: backend per device, members, names."""

import pytest

from commlens.profiler.groups import Group, sorted_members


def group(backend: str, ranks: list[int] | None = None) -> Group:
    return Group(0, "0", "default_pg", ranks or [], backend, 2, None)


@pytest.mark.parametrize(
    ("backend", "shown", "host_cpu", "host_device"),
    [
        ("gloo", "gloo", True, True),
        ("cpu:gloo,cuda:gloo", "gloo", True, True),
        ("cpu:gloo,cuda:nccl", "cpu:gloo,cuda:nccl", True, False),
        ("nccl", "nccl", False, False),
        ("cuda:nccl", "nccl", False, False),
    ],
)
def test_ends_are_seen_on_the_host_only_where_the_host_does_the_work(
    backend: str, shown: str, host_cpu: bool, host_device: bool
) -> None:
    made = group(backend)
    assert (made.backend, made.host_cpu, made.host_device) == (shown, host_cpu, host_device)


def test_peers_are_global_ranks() -> None:
    made = group("gloo", sorted_members({5: 1, 9: 0}))
    assert (made.global_rank(0), made.global_rank(1), made.global_rank(2), made.global_rank(-1)) == (9, 5, -1, -1)
