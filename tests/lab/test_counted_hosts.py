"""Counters on emulated hosts: Gloo moves what is expected of it, and others' traffic is told from the job's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.host_faults import JOB
from lab.hosts import Lab, available, lab_hosts

import commlens
from commlens.analyzers import Report
from commlens.analyzers.counted.crossing import factors, share

JOBS = Path(__file__).with_name("jobs")
ON_LINKS = {"slow-link", "transport-fallback", "one-nic", "congestion", "interference"}


@pytest.fixture(scope="module")
def emulated() -> None:
    """Skips where there can be no emulated hosts."""
    if reason := available():
        pytest.skip(reason)


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("hosts", "ranks_per_host"), [(3, 1), (2, 2)])
def test_gloo_moves_between_hosts_what_is_expected(hosts: int, ranks_per_host: int) -> None:
    with lab_hosts([None] * hosts) as lab:
        ended = lab.launch(JOBS / "every_crossing.py", ranks_per_host=ranks_per_host)
    machines = [str(rank // ranks_per_host) for rank in range(hosts * ranks_per_host)]
    measured = [(each.host, json.loads(line)) for each in ended for line in each.stdout.splitlines()]
    assert len(measured) == len(machines) * 12
    for host, (op, root, sent, received) in measured:
        part = share(machines, str(host))
        own = factors(op, part, root_here=machines[root] == str(host), gloo=True)
        assert own.tx_low <= sent <= 1.05 * own.tx_high + 0.02, (op, host)
        assert own.rx_low <= received <= 1.05 * own.rx_high + 0.02, (op, host)
        if op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):  # rings, and no more than one
            assert (sent, received) == pytest.approx((own.tx_high, own.rx_high), rel=0.05)


@contextmanager
def other_traffic(lab: Lab, on_s: float, off_s: float) -> Iterator[None]:
    """A flow from host 1 to host 0, now and then."""

    def begin(host: int, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", lab.hosts[host], sys.executable, str(JOBS / "other_traffic.py"), *arguments]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    ends = [begin(0, "sink", "5000"), begin(1, "source", lab.addresses[0], "5000", str(on_s), str(off_s))]
    try:
        yield
    finally:
        for each in ends:
            each.kill()
            each.wait()


def recorded(folder: Path, steps: int, disturbed: bool) -> Report:
    with lab_hosts([400, 400]) as lab:
        job = ("--steps", str(steps), "--world-bytes", "500000", "--compute-ms", "12")
        read = {"COMMLENS": str(folder), "COMMLENS_COUNTERS": "20"}
        if disturbed:
            with other_traffic(lab, 0.5, 0.5):
                lab.launch(JOB, *job, env=read)
        else:
            lab.launch(JOB, *job, env=read)
    return commlens.analyze(commlens.open_run(folder))


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_a_link_carries_what_its_collectives_need(tmp_path: Path) -> None:
    report = recorded(tmp_path, 80, disturbed=False)
    assert ON_LINKS.isdisjoint(each.id for each in report.findings)
    links = [line for line in report.links if line.device == "lab0"]
    assert [line.host for line in links] == ["lab-host-0", "lab-host-1"]
    for line in links:
        assert line.expected_low_gb == line.expected_high_gb == pytest.approx(78 * 500_004 / 1e9, rel=1e-3)
        assert line.tx_gb == pytest.approx(line.expected_high_gb, rel=0.08)
        assert line.peak_gb_s is None  # a veth's speed limits nothing


@pytest.mark.job
@pytest.mark.usefixtures("emulated")
def test_traffic_of_others_is_interference(tmp_path: Path) -> None:
    report = recorded(tmp_path, 150, disturbed=True)
    found = {each.id: each for each in report.findings}
    assert report.findings[0].id == "interference", list(found)
    assert found["interference"].ranks == (0, 1)
