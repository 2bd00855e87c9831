"""Counters of links beside collectives: planted causes are found, on the right host, and nothing else is."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_job import SIZE, CountedJob, link, nothing, steady, two_hosts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import MS, RankTruth, training_rank, write_run

from commlens import Finding, analyze, open_run
from commlens.analyzers import Report
from commlens.trace.counters import COUNTERS, LINK_KINDS
from commlens.trace.schema import MISSING


def report(job: CountedJob, backend: str = "gloo") -> Report:
    with tempfile.TemporaryDirectory() as folder:
        return analyze(open_run(write_run(Path(folder), job.truths(), backend=backend)))


def only(found: Report) -> Finding:
    (finding,) = found.findings
    return finding


def reasons(found: Report) -> list[str]:
    return [each.reason for each in found.abstentions if each.analysis == "links"]


def evidence(finding: Finding) -> dict[str, float]:
    return {each.name: each.value for each in finding.evidence}


def test_a_healthy_link_is_measured_and_blamed_for_nothing() -> None:
    found = report(two_hosts())
    assert (found.findings, reasons(found)) == ((), [])
    first, second = found.links
    assert (first.host, first.device, first.kind, first.peak_gb_s) == ("a", "eth0", "ethernet", 1.25)
    assert (first.state, second.state, first.errors, first.counts) == ("carried", "carried", 0, {})
    steps = found.run.steps.analyzed
    assert first.expected_low_gb == first.expected_high_gb == pytest.approx(steps * SIZE / 1e9, rel=1e-5)
    assert first.tx_gb == pytest.approx(steps * SIZE / 1e9, rel=0.02)
    assert first.used_gb_s_mean == pytest.approx(SIZE / 24e6, rel=0.03)
    assert first.share_of_peak == pytest.approx(SIZE / 24e6 / 1.25, rel=0.03)
    assert first.readings == pytest.approx(steps * 59.2 / 20, rel=0.02)


def test_long_transfers_are_measured_between_readings() -> None:
    found = report(two_hosts(transfer_ms=100.0))
    (line, _) = found.links
    assert line.used_gb_s_p50 == pytest.approx(SIZE / 100e6, rel=0.02)
    assert line.used_gb_s_p95 == pytest.approx(SIZE / 100e6, rel=0.02)


def test_a_link_at_its_peak_is_full() -> None:
    found = report(two_hosts(transfer_ms=100.0, links=[link("eth0", gb_s=0.21)]))
    finding = only(found)
    assert (finding.id, finding.ranks, finding.layer, finding.confidence) == ("slow-link", (0, 1), "network", "high")
    assert "hosts a, b (eth0) are full: 0.2 of 0.21 GB/s" in finding.title
    assert finding.ceiling_ms == pytest.approx(100, rel=0.02)


def test_where_the_peak_is_not_known_no_link_is_full() -> None:
    assert report(two_hosts(transfer_ms=100.0, links=[link("eth0", gb_s=None)])).findings == ()


def test_errors_on_a_link_that_is_waited_for_are_told() -> None:
    packets = {("b", "eth0", f"{way}_packets"): steady(1e5) for way in ("tx", "rx")}
    damaged = {("b", "eth0", "rx_errors"): steady(300.0)}
    finding = only(report(two_hosts(more=packets | damaged)))
    assert (finding.id, finding.ranks) == ("slow-link", (1,))
    assert "eth0 of host b is damaged" in finding.title
    rare = {("b", "eth0", "rx_errors"): steady(1.0)}
    found = report(two_hosts(more=packets | rare))
    assert found.findings == ()
    assert [line.errors for line in found.links] == [0, pytest.approx(3, abs=1)]


INFINIBAND = [link("eth0"), link("mlx5_0/1", "infiniband", 25.0, netdev="ib0")]
ON_ETHERNET = {"eth0": 1.0, "mlx5_0/1": 0.0}


def test_ethernet_beside_idle_infiniband_is_a_fallback() -> None:
    info = {"environment": {"NCCL_IB_DISABLE": "1"}}
    finding = only(report(two_hosts(links=INFINIBAND, carries=ON_ETHERNET, info=info), "nccl"))
    assert (finding.id, finding.ranks, finding.confidence) == ("transport-fallback", (0, 1), "high")
    assert finding.actions[0].fix == "env.NCCL_IB_DISABLE=0"
    assert finding.ceiling_ms == pytest.approx(24 * (1 - 0.83 / 25), rel=0.03)
    gloo = only(report(two_hosts(links=INFINIBAND, carries=ON_ETHERNET)))
    assert gloo.actions[0].fix == "env.GLOO_SOCKET_IFNAME=ib0"


def launched_only(job: CountedJob) -> Report:
    """The report of a recording that knows when collectives were issued, and nothing else of them."""
    unknown = dict.fromkeys(("completed_ns", "started_ns", "waited_ns", "blocked_ns"), MISSING)
    truths = {
        rank: replace(truth, collectives=[replace(row, timing="enqueue_only", **unknown) for row in truth.collectives])
        for rank, truth in job.truths().items()
    }
    with tempfile.TemporaryDirectory() as folder:
        return analyze(open_run(write_run(Path(folder), truths, backend="nccl")))


def test_a_fallback_is_found_where_only_launches_are_known() -> None:
    slow, by_socket = [link("eth0", gb_s=1.0), INFINIBAND[1]], {"environment": {"NCCL_NET": "Socket"}}
    found = launched_only(two_hosts(links=slow, carries=ON_ETHERNET, info=by_socket))
    finding = only(found)
    assert (finding.id, finding.ceiling_ms, finding.actions[0].fix) == ("transport-fallback", None, "env.NCCL_NET=IB")
    assert {line.used_gb_s_mean for line in found.links} == {None}
    # A step of 59 ms, of which 20 MB take 2 ms: they may well be hidden.
    fast = [link("eth0", gb_s=10.0), link("mlx5_0/1", "infiniband", 50.0)]
    assert launched_only(two_hosts(links=fast, carries=ON_ETHERNET)).findings == ()


def test_infiniband_that_carries_the_bytes_is_no_fallback() -> None:
    found = report(two_hosts(links=INFINIBAND, carries={"eth0": 0.0, "mlx5_0/1": 1.0}), "nccl")
    assert found.findings == ()
    assert [line.state for line in found.links] == ["idle", "carried"] * 2


def test_a_slow_interface_beside_a_fast_one_is_a_fallback() -> None:
    cards, carries = [link("eth0", gb_s=1.0), link("eth1", gb_s=12.5)], {"eth0": 1.0, "eth1": 0.0}
    up = {"interfaces": [{"name": name, "state": "up", "address": "10.0.0.1"} for name in ("eth0", "eth1")]}
    finding = only(report(two_hosts(links=cards, carries=carries, info=up)))
    assert (finding.id, finding.actions[0].fix) == ("transport-fallback", "env.GLOO_SOCKET_IFNAME=eth1")
    # Without an address nothing can be sent over it.
    assert report(two_hosts(links=cards, carries=carries)).findings == ()


def test_zeros_everywhere_are_unsupported_and_nobody_is_blamed() -> None:
    found = report(two_hosts(links=INFINIBAND, carries={"eth0": 0.0, "mlx5_0/1": 0.0}), "nccl")
    assert found.findings == ()
    assert {line.state for line in found.links} == {"idle or unsupported"}
    assert "idle or not supported: eth0 (ethernet), mlx5_0/1 (infiniband)" in reasons(found)[0]


def test_one_of_two_cards_carries_all() -> None:
    cards = [link("eth0", gb_s=1.0), link("eth1", gb_s=1.0)]
    up = {"interfaces": [{"name": name, "state": "up", "address": "10.0.0.1"} for name in ("eth0", "eth1")]}
    finding = only(report(two_hosts(links=cards, carries={"eth0": 1.0, "eth1": 0.0}, info=up)))
    assert (finding.id, finding.ranks) == ("one-nic", (0, 1))
    assert finding.actions[0].fix == "env.GLOO_SOCKET_IFNAME=eth0,eth1"
    assert finding.ceiling_ms == pytest.approx(12, rel=0.03)
    assert report(two_hosts(links=cards, carries={"eth0": 0.5, "eth1": 0.5}, info=up)).findings == ()
    slow = [link("eth0", gb_s=12.5), link("eth1", gb_s=12.5)]  # room to spare: not what is waited for
    assert report(two_hosts(links=slow, carries={"eth0": 1.0, "eth1": 0.0}, info=up)).findings == ()


@pytest.mark.parametrize("counter", ["cnp_handled", "ecn_marked", "retransmits"])
def test_marked_packets_are_congestion(counter: str) -> None:
    ports = [link("mlx5_0/1", "roce", 12.5)]
    more = {("b", "mlx5_0/1", f"{way}_packets"): steady(1e5) for way in ("tx", "rx")}
    marked = more | {("b", "mlx5_0/1", counter): steady(1e3)}
    finding = only(report(two_hosts(links=ports, carries={"mlx5_0/1": 1.0}, more=marked), "nccl"))
    assert (finding.id, finding.ranks) == ("congestion", (1,))
    few = more | {("b", "mlx5_0/1", counter): steady(50.0)}
    assert report(two_hosts(links=ports, carries={"mlx5_0/1": 1.0}, more=few), "nccl").findings == ()


def test_tcp_segments_sent_again_are_congestion() -> None:
    links = [link("eth0"), link("tcp", "tcp", None)]
    sent = {("a", "tcp", "tx_segments"): steady(1e5)}
    finding = only(report(two_hosts(links=links, more=sent | {("a", "tcp", "retransmits"): steady(500.0)})))
    assert (finding.id, finding.ranks) == ("congestion", (0,))
    assert evidence(finding)["segments sent again per million packets, TCP"] == pytest.approx(5000, rel=0.01)
    assert report(two_hosts(links=links, more=sent | {("a", "tcp", "retransmits"): steady(20.0)})).findings == ()


def disturbed(share: float, slower: float, steps: int = 120) -> CountedJob:
    """Others use host b's link for a third of the time, in long runs; transfers then take `slower` times as long."""
    made = two_hosts(steps=steps)
    turn = np.arange(steps) // 15 % 3 == 1
    job = made.job
    transfer = np.where(turn, slower, 1.0) * 24 * MS
    lengths = 30 * MS + transfer + 5 * MS
    begins = np.concatenate([[0], np.cumsum(lengths)])
    grown = np.concatenate([[0.0], np.cumsum(np.where(turn, share * SIZE, 0.0))])
    varying = _Varying(job.work, job.transfer, hosts=job.hosts, bytes=job.bytes, each=transfer.astype(np.int64))

    def others(times: Any) -> Any:
        return np.interp(times, begins, grown)

    return replace(made, job=varying, more={("b", "eth0", way): others for way in ("tx_bytes", "rx_bytes")})


class _Varying(type(two_hosts().job)):  # type: ignore[misc]
    """Transfers that differ from step to step."""

    def __init__(self, *args: Any, each: Any, **options: Any) -> None:
        self.each = each
        super().__init__(*args, **options)

    def __post_init__(self) -> None:
        ranks, steps, _ = self.work.shape
        self.issued, self.ends = np.zeros_like(self.work), np.zeros_like(self.work)
        now = np.full(ranks, 1_700_000_000_000_000_000, np.int64)
        for step in range(steps):
            self.issued[:, step, 0] = now + self.work[:, step, 0]
            now = np.full(ranks, self.issued[:, step, 0].max() + self.each[step])
            self.ends[:, step, 0] = now
            now = now + self.optimizer_ns
        self.wait = self.issued.max(axis=0) - self.issued


def test_others_on_the_link_are_interference() -> None:
    finding = only(report(disturbed(1.0, 2.0)))
    assert (finding.id, finding.ranks, finding.confidence) == ("interference", (1,), "high")
    assert finding.title == "others use the network link of host b (eth0): meanwhile transfers take 2 times as long"
    assert finding.ceiling_ms == pytest.approx(24 * 45 / 118, rel=0.02)


def test_others_that_cost_nothing_are_no_finding() -> None:
    assert report(disturbed(1.0, 1.0)).findings == ()
    assert report(disturbed(0.0, 2.0)).findings == ()  # slow for another reason


def test_others_that_fill_the_link_all_the_time_are_interference() -> None:
    more = {("a", "eth0", way): steady(0.35e9) for way in ("tx_bytes", "rx_bytes")}
    found = report(two_hosts(more=more, links=[link("eth0", gb_s=1.5)]))
    finding = only(found)
    assert (finding.id, finding.ranks, finding.confidence) == ("interference", (0,), "medium")
    assert report(two_hosts(more=more, links=[link("eth0", gb_s=12.5)])).findings == ()


def test_a_counter_that_begins_anew_costs_only_its_step() -> None:
    whole = report(two_hosts()).links[0]
    job = two_hosts()
    truths = job.truths()
    at = len(truths[0].counters) // 4  # within the sent bytes
    rows = list(truths[0].counters)
    base = rows[at][3]
    reset = [(t, d, c, v - base if c == "tx_bytes" and t >= rows[at][0] else v) for t, d, c, v in rows]
    truths[0] = replace(truths[0], counters=reset)
    with tempfile.TemporaryDirectory() as folder:
        found = analyze(open_run(write_run(Path(folder), truths)))
    assert found.findings == ()
    assert 0 < whole.readings - found.links[0].readings <= 6  # a step, or two
    assert found.links[0].used_gb_s_mean == pytest.approx(whole.used_gb_s_mean, rel=0.02)


def test_a_host_without_counters_is_named() -> None:
    found = report(two_hosts(unread=["b"]))
    assert reasons(found) == ["no counters were read on host b"]
    assert [line.host for line in found.links] == ["a"]


def test_readings_too_few_are_no_measure() -> None:
    found = report(two_hosts(interval=10**9, counters={"interval_ms": 1000}))
    assert "at least 20 are needed" in reasons(found)[0]
    assert found.links[0].tx_gb is found.links[0].used_gb_s_mean is None
    once = report(two_hosts(interval=5 * 10**9 // 2, counters={"interval_ms": 2500}))
    assert reasons(once)[0].startswith("counters were read 1 time in the analysed steps")
    rare = report(two_hosts(interval=60 * 10**9, counters={"interval_ms": 60_000}))
    assert rare.findings == ()
    assert len(reasons(rare)) == 1


def test_a_run_without_counters_says_so() -> None:
    found = report(two_hosts(unread=["a", "b"]))
    assert reasons(found) == ["no counters of links were read"]
    assert found.links == ()


@pytest.mark.parametrize("reason", [0x40, 0x20])
def test_a_hot_gpu_is_why_a_rank_is_late(reason: int) -> None:
    job = two_hosts(links=[link("eth0"), link("gpu0", "gpu", None)])
    work = job.job.work.copy()
    work[1] += 15 * MS
    gauges = {("a", "gpu0", "sm_clock_mhz"): lambda t: np.full(t.size, 1900)}
    gauges |= {("b", "gpu0", "sm_clock_mhz"): lambda t: np.full(t.size, 1200)}
    gauges |= {("a", "gpu0", "throttle_reasons"): lambda t: np.zeros(t.size)}
    gauges |= {("b", "gpu0", "throttle_reasons"): lambda t: np.full(t.size, reason)}
    hot = replace(job, job=replace(job.job, work=work), gauges=gauges, info={"environment": {"LOCAL_RANK": "0"}})
    found = report(hot)
    finding = only(found)
    assert (finding.id, finding.ranks) == ("straggler-rank", (1,))
    assert finding.title.endswith("; its GPU is slowed down by heat")
    assert evidence(finding)["clock of its GPU (gpu0), mean"] == 1200
    assert [(line.host, line.rank, line.held_down) for line in found.gpus] == [("a", 0, {}), ("b", 1, {"heat": 1.0})]
    alike = gauges | {("b", "gpu0", "sm_clock_mhz"): lambda t: np.full(t.size, 1890)}
    assert "GPU" not in only(report(replace(hot, gauges=alike))).title


def test_gpus_on_pcie_beside_idle_nvlink() -> None:
    names = [f"gpu{n}/{kind}" for kind in ("nvlink", "pcie") for n in range(2)]
    links = [link("eth0"), *(link(name, name.partition("/")[2], 100.0) for name in names)]
    job = two_hosts(links=links, info={"environment": {"NCCL_P2P_DISABLE": "1"}})
    one_host = replace(job, job=replace(job.job, hosts=("a", "a")))
    more = {("a", name, f"{way}_bytes"): nothing for name in names[:2] for way in ("tx", "rx")}
    more |= {("a", name, f"{way}_bytes"): steady(1e9) for name in names[2:] for way in ("tx", "rx")}
    finding = only(report(replace(one_host, more=more), "nccl"))
    assert (finding.id, finding.actions[0].fix) == ("transport-fallback", "env.NCCL_P2P_DISABLE=0")
    unread = dict.fromkeys(more, nothing)
    found = report(replace(one_host, more=unread), "nccl")
    assert found.findings == ()
    assert "gpu0/nvlink" in reasons(found)[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(-(10**10), 10**10), st.integers(-(10**10), 10**10), st.booleans())
def test_clocks_of_hosts_change_nothing_on_a_host(first: int, second: int, busy: bool) -> None:
    plain = disturbed(1.0, 2.0, 90) if busy else two_hosts(steps=40)
    moved = replace(plain, job=replace_offset(plain, (first, second)))
    before, after = report(plain), report(moved)
    assert after.links == before.links
    assert [each.id for each in after.findings] == [each.id for each in before.findings]


def replace_offset(job: CountedJob, offset: tuple[int, int]) -> Any:
    changed = job.job
    changed.offset = ()
    made = disturbed(1.0, 2.0, 90).job if isinstance(changed, _Varying) else two_hosts(steps=40).job
    made.offset = offset
    return made


@st.composite
def tables(draw: st.DrawFn) -> RankTruth:
    devices, names = st.sampled_from(["eth0", "mlx5_0/1", "gpu0", "tcp", "x"]), st.sampled_from([*COUNTERS, "unknown"])
    times = st.integers(1_700_000_000_000_000_000, 1_700_000_001_000_000_000)
    values = st.integers(-1, 2**62)
    rows = draw(st.lists(st.tuples(times, devices, names, values), max_size=30))
    described = st.fixed_dictionaries(
        {"name": devices, "kind": st.sampled_from([*LINK_KINDS, "?"])},
        optional={"peak_bytes_per_s": st.sampled_from([None, 0, -1, 1e9, "fast", True]), "netdev": st.none()},
    )
    info = {
        "links": draw(st.one_of(st.none(), st.lists(st.one_of(described, st.just("eth0")), max_size=6))),
        "counters": draw(st.sampled_from([None, {}, {"interval_ms": 0}, {"interval_ms": 10, "unsupported": [1]}])),
        "host": draw(st.sampled_from(["a", "b"])),
        "boot_id": draw(st.sampled_from(["a", "b", None])),
        "environment": draw(st.sampled_from([None, {"LOCAL_RANK": "x"}, {"LOCAL_RANK": "0"}])),
        "interfaces": draw(st.sampled_from([None, [1], [{"name": "eth0"}]])),
    }
    truth = training_rank(8)
    return replace(truth, counters=rows, info=info)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tables(), min_size=1, max_size=3), st.permutations(range(3)))
def test_any_readings_make_a_report_whatever_the_order_of_ranks(truths: list[RankTruth], order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(write_run(Path(folder), dict(enumerate(truths))))
        found = analyze(run)
        run.ranks = {rank: run.ranks[rank] for rank in order if rank in run.ranks}
        assert analyze(run) == found
    whole = found.to_dict()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
