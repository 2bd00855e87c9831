"""RDMA ports: which files are which counter, and what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import sysfs_trees
from sysfs_trees import COUNTERS, EFA, IRDMA, MLX5, MLX5_ROCE, numbered, port

from commlens.profiler.counters import infiniband
from commlens.profiler.counters.source import Key, Source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "infiniband"


def opened(root: Path) -> list[Source]:
    sources = infiniband.sources(root)
    for source in sources:
        source.refresh()
    return sources


def read(sources: Iterable[Source]) -> dict[Key, int]:
    return {
        each: value for source in sources if (raw := source.read()) is not None for each, value in source.decode(raw)
    }


def reasons(sources: Iterable[Source]) -> dict[Key, str]:
    return {(each["device"], each["counter"]): each["reason"] for source in sources for each in source.unsupported}


def test_an_infiniband_port_of_mlx5(root: Path) -> None:
    own, driver = numbered(COUNTERS, 1000), numbered(MLX5, 50)
    port(root, "mlx5_0", own, driver)
    sources = opened(root)
    assert [source.every_ms for source in sources] == [0, 1000]
    assert read(sources) == {
        ("mlx5_0/1", "tx_bytes"): own["port_xmit_data"] * 4,
        ("mlx5_0/1", "rx_bytes"): own["port_rcv_data"] * 4,
        ("mlx5_0/1", "tx_packets"): own["port_xmit_packets"],
        ("mlx5_0/1", "rx_packets"): own["port_rcv_packets"],
        ("mlx5_0/1", "rx_errors"): own["port_rcv_errors"],
        ("mlx5_0/1", "tx_drops"): own["port_xmit_discards"],
        ("mlx5_0/1", "tx_wait_ticks"): own["port_xmit_wait"],
        ("mlx5_0/1", "symbol_errors"): own["symbol_error"],
        ("mlx5_0/1", "link_recoveries"): own["link_error_recovery"],
        ("mlx5_0/1", "link_downs"): own["link_downed"],
        ("mlx5_0/1", "out_of_sequence"): driver["out_of_sequence"],
        ("mlx5_0/1", "retransmits"): driver["packet_seq_err"] + driver["local_ack_timeout_err"],
        ("mlx5_0/1", "receiver_not_ready"): driver["rnr_nak_retry_err"],
    }
    (link,) = [each for source in sources for each in source.links]
    assert link["kind"] == "infiniband"
    assert (link["peak_bytes_per_s"], link["peak_from"]) == (50_000_000_000, "rate file: 400 Gb/sec (4X NDR)")
    assert link["pci"] == "0000:0c:00.0"
    assert reasons(sources)["mlx5_0/1", "cnp_sent"] == "this driver has no file for it in hw_counters"


def test_a_roce_port_of_mlx5_knows_its_interface(root: Path) -> None:
    driver = numbered(MLX5 + MLX5_ROCE, 50)
    port(
        root, "mlx5_0", numbered(COUNTERS, 1), driver, layer="Ethernet", rate="100 Gb/sec (4X EDR)", netdevs=("ens1f0",)
    )
    port(
        root, "mlx5_bond_0", numbered(COUNTERS, 1), driver, layer="Ethernet", pci="0000:0d:00.0",
        netdevs=("ens2f0", "ens2f1"), gid_netdev="bond0",
    )  # fmt: skip
    sources = opened(root)
    links = {link["name"]: link for source in sources for link in source.links}
    assert {name: (link["kind"], link["netdev"]) for name, link in links.items()} == {
        "mlx5_0/1": ("roce", "ens1f0"),
        "mlx5_bond_0/1": ("roce", "bond0"),
    }
    found = read(sources)
    assert found["mlx5_0/1", "cnp_sent"] == driver["np_cnp_sent"]
    assert found["mlx5_0/1", "cnp_handled"] == driver["rp_cnp_handled"]
    assert found["mlx5_0/1", "ecn_marked"] == driver["np_ecn_marked_roce_packets"]


def test_adapters_that_name_their_counters_otherwise(root: Path) -> None:
    efa, irdma = numbered(EFA, 100), numbered(IRDMA, 500)
    port(root, "rdmap0s31", {}, efa, layer="Unspecified", rate="100 Gb/sec (4X EDR)")
    port(root, "rocep1s0", {}, irdma, layer="Ethernet", pci="0000:0e:00.0")
    sources = opened(root)
    found = read(sources)
    assert found["rdmap0s31/1", "tx_bytes"] == efa["tx_bytes"]
    assert found["rdmap0s31/1", "rx_drops"] == efa["rx_drops"]
    assert found["rdmap0s31/1", "retransmits"] == efa["retrans_pkts"]
    assert found["rocep1s0/1", "tx_bytes"] == irdma["ip4OutOctets"] + irdma["ip6OutOctets"]
    assert found["rocep1s0/1", "cnp_handled"] == irdma["cnpHandled"]
    assert found["rocep1s0/1", "ecn_marked"] == irdma["RxECNMrkd"]
    assert "counters" in reasons(sources)["rdmap0s31/1", "tx_wait_ticks"]


def test_the_drivers_cache_is_respected(root: Path) -> None:
    port(root, "rdmap0s31", {}, numbered(EFA, 1), lifespan=2500)
    assert [source.every_ms for source in opened(root)] == [2500, 2500]


def test_counters_move_under_open_files(root: Path) -> None:
    place = port(root, "mlx5_0", numbered(COUNTERS, 7), numbered(MLX5, 1))
    sources = opened(root)
    before = read(sources)
    sysfs_trees.write(place / "counters", {"port_xmit_data": 2**62 // 4, "port_rcv_data": 12})
    after = read(sources)
    assert (after["mlx5_0/1", "tx_bytes"], after["mlx5_0/1", "rx_bytes"]) == (2**62, 48)
    assert after["mlx5_0/1", "rx_packets"] == before["mlx5_0/1", "rx_packets"]


def test_a_port_that_is_down_is_said_and_read_once_it_is_up(root: Path) -> None:
    place = port(root, "mlx5_1", numbered(COUNTERS, 7), {}, state="1: DOWN")
    sources = opened(root)
    assert read(sources) == {}
    assert reasons(sources) == {("mlx5_1/1", "all"): "the port is not active: 1: DOWN"}
    (place / "state").write_text("4: ACTIVE\n")
    for source in sources:
        source.refresh()
    assert read(sources)["mlx5_1/1", "tx_bytes"] > 0


def test_what_cannot_be_read_is_refused_with_the_reason(root: Path) -> None:
    place = port(root, "mlx4_0", {**numbered(COUNTERS, 7), "port_xmit_data": 2**32 - 1}, {})
    (place / "counters" / "port_rcv_data").write_text("N/A (no PMA)\n")
    (place / "counters" / "symbol_error").unlink()
    (place / "counters" / "symbol_error").mkdir()  # a read that fails, for root too
    sources = opened(root)
    assert not {"tx_bytes", "rx_bytes", "symbol_errors"} & {word for _, word in read(sources)}
    why = reasons(sources)
    assert "32-bit counter that is full" in why["mlx4_0/1", "tx_bytes"]
    assert "no number: 'N/A (no PMA)'" in why["mlx4_0/1", "rx_bytes"]
    assert why["mlx4_0/1", "symbol_errors"] == "counters/symbol_error: is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(root: Path) -> None:
    place = port(root, "mlx5_0", numbered(COUNTERS, 7), {})
    (place / "counters" / "port_xmit_wait").chmod(0)
    assert reasons(opened(root))["mlx5_0/1", "tx_wait_ticks"] == "counters/port_xmit_wait: permission denied"


def test_an_adapter_that_goes_is_said_and_one_that_comes_back_is_read(root: Path, tmp_path: Path) -> None:
    port(root, "mlx5_0", numbered(COUNTERS, 7), {})
    sources = opened(root)
    (root / "mlx5_0").rename(tmp_path / "gone")
    for source in sources:
        source.close()  # as the kernel does: what is open answers ENODEV
    assert read(sources) == {}
    assert "while the job ran" in reasons(sources)["mlx5_0/1", "all"]
    (tmp_path / "gone").rename(root / "mlx5_0")
    for source in sources:
        source.refresh()
    assert read(sources)["mlx5_0/1", "tx_bytes"] > 0
    assert len(sources[0].links) == 1


def test_no_adapter_no_source(root: Path) -> None:
    assert infiniband.sources(root) == []
