"""Trees of /sys/class/infiniband as drivers lay them out, with small numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

COUNTERS = (
    "excessive_buffer_overrun_errors", "link_downed", "link_error_recovery", "local_link_integrity_errors",
    "multicast_rcv_packets", "multicast_xmit_packets", "port_rcv_constraint_errors", "port_rcv_data", "port_rcv_errors",
    "port_rcv_packets", "port_rcv_remote_physical_errors", "port_rcv_switch_relay_errors",
    "port_xmit_constraint_errors", "port_xmit_data", "port_xmit_discards", "port_xmit_packets", "port_xmit_wait",
    "symbol_error", "unicast_rcv_packets", "unicast_xmit_packets", "VL15_dropped",
)  # fmt: skip
MLX5 = (
    "duplicate_request", "implied_nak_seq_err", "local_ack_timeout_err", "out_of_buffer", "out_of_sequence",
    "packet_seq_err", "req_cqe_error", "req_remote_access_errors", "resp_cqe_error", "rnr_nak_retry_err",
    "rx_atomic_requests", "rx_read_requests", "rx_write_requests",
)  # fmt: skip
MLX5_ROCE = (
    "np_cnp_sent", "np_ecn_marked_roce_packets", "roce_adp_retrans", "roce_slow_restart", "rp_cnp_handled",
    "rp_cnp_ignored", "rx_icrc_encapsulated",
)  # fmt: skip
EFA = (
    "rdma_read_bytes", "rdma_read_resp_bytes", "rdma_read_wr_err", "rdma_read_wrs", "rdma_write_bytes",
    "rdma_write_recv_bytes", "rdma_write_wr_err", "rdma_write_wrs", "recv_bytes", "recv_wrs", "retrans_bytes",
    "retrans_pkts", "retrans_timeout_events", "rx_bytes", "rx_drops", "rx_pkts", "send_bytes", "send_wrs", "tx_bytes",
    "tx_pkts",
)  # fmt: skip
IRDMA = (
    "cnpHandled", "cnpIgnored", "cnpSent", "ip4InDiscards", "ip4InOctets", "ip4InPkts", "ip4OutOctets", "ip4OutPkts",
    "ip6InDiscards", "ip6InOctets", "ip6InPkts", "ip6OutOctets", "ip6OutPkts", "iwInRdmaReads", "RxECNMrkd",
    "rxVlanErrors", "tcpRetransSegs",
)  # fmt: skip


def port(
    root: Path,
    device: str,
    counters: Mapping[str, int],
    hw_counters: Mapping[str, int],
    state: str = "4: ACTIVE",
    layer: str = "InfiniBand",
    rate: str = "400 Gb/sec (4X NDR)",
    pci: str = "0000:0c:00.0",
    netdevs: tuple[str, ...] = (),
    gid_netdev: str | None = None,
    lifespan: int | None = 10,
) -> Path:
    """One device with one port; `root` is what /sys/class/infiniband would be."""
    bus = root.parent / "devices" / pci
    (bus / "infiniband" / device / "ports" / "1").mkdir(parents=True)
    for name in netdevs:
        (bus / "net" / name).mkdir(parents=True)
    (bus / "infiniband" / device / "device").symlink_to("../..")
    root.mkdir(exist_ok=True)
    (root / device).symlink_to(bus / "infiniband" / device)
    place = root / device / "ports" / "1"
    for name, text in {"state": state, "rate": rate, "link_layer": layer, "phys_state": "5: LinkUp"}.items():
        (place / name).write_text(text + "\n")
    write(place / "counters", counters)
    write(place / "hw_counters", hw_counters)
    if hw_counters and lifespan is not None:
        (place / "hw_counters" / "lifespan").write_text(f"{lifespan}\n")
    if gid_netdev is not None:
        (place / "gid_attrs" / "ndevs").mkdir(parents=True)
        (place / "gid_attrs" / "ndevs" / "0").write_text(gid_netdev + "\n")
    return place


def write(folder: Path, values: Mapping[str, int]) -> None:
    """Writes counters in place, as a driver's files change: the same inode, read again from the start."""
    if values:
        folder.mkdir(exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def numbered(names: tuple[str, ...], first: int) -> dict[str, int]:
    """A value of its own for each name."""
    return {name: first + place for place, name in enumerate(names)}
