"""Which files of an InfiniBand port mean which counter.

`counters/` is the kernel's own list (Documentation/ABI/stable/sysfs-class-infiniband); `hw_counters/` is the driver's:
mlx5 (drivers/infiniband/hw/mlx5/counters.c), efa, irdma and bnxt_re name theirs as they like.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Files(NamedTuple):
    """Files of one folder whose sum is a counter; those that a port lacks count nothing, but one must be there."""

    folder: str
    names: tuple[str, ...]
    factor: int = 1


_OWN, _DRIVER = "counters", "hw_counters"
OCTETS_BY_FOUR: Final = ("port_xmit_data", "port_rcv_data")
SATURATED: Final = 2**32 - 1  # where old adapters' 32-bit counters stay

# Counter -> ways to read it, the best first. Of one way everything comes from one folder.
BYTES: Final[dict[str, tuple[Files, ...]]] = {
    "tx_bytes": (
        Files(_OWN, ("port_xmit_data",), 4),
        Files(_DRIVER, ("tx_bytes",)),
        Files(_DRIVER, ("ip4OutOctets", "ip6OutOctets")),
    ),
    "rx_bytes": (
        Files(_OWN, ("port_rcv_data",), 4),
        Files(_DRIVER, ("rx_bytes",)),
        Files(_DRIVER, ("ip4InOctets", "ip6InOctets")),
    ),
}

EVENTS: Final[dict[str, tuple[Files, ...]]] = {
    "tx_packets": (
        Files(_OWN, ("port_xmit_packets",)),
        Files(_DRIVER, ("tx_pkts",)),
        Files(_DRIVER, ("ip4OutPkts", "ip6OutPkts")),
    ),
    "rx_packets": (
        Files(_OWN, ("port_rcv_packets",)),
        Files(_DRIVER, ("rx_pkts",)),
        Files(_DRIVER, ("ip4InPkts", "ip6InPkts")),
    ),
    "rx_errors": (Files(_OWN, ("port_rcv_errors",)), Files(_DRIVER, ("rx_roce_error_pkts", "rx_roce_errors"))),
    "tx_drops": (
        Files(_OWN, ("port_xmit_discards",)),
        Files(_DRIVER, ("tx_roce_discard_pkts", "tx_roce_discards")),
    ),
    "rx_drops": (
        Files(_DRIVER, ("rx_drops",)),
        Files(_DRIVER, ("rx_roce_discard_pkts", "rx_roce_discards")),
        Files(_DRIVER, ("ip4InDiscards", "ip6InDiscards")),
    ),
    "tx_wait_ticks": (Files(_OWN, ("port_xmit_wait",)),),
    "symbol_errors": (Files(_OWN, ("symbol_error",)),),
    "link_recoveries": (Files(_OWN, ("link_error_recovery",)),),
    "link_downs": (Files(_OWN, ("link_downed",)),),
    "cnp_sent": (Files(_DRIVER, ("np_cnp_sent",)), Files(_DRIVER, ("cnpSent",)), Files(_DRIVER, ("tx_cnp_pkts",))),
    "cnp_handled": (
        Files(_DRIVER, ("rp_cnp_handled",)),
        Files(_DRIVER, ("cnpHandled",)),
        Files(_DRIVER, ("rx_cnp_pkts",)),
    ),
    "ecn_marked": (
        Files(_DRIVER, ("np_ecn_marked_roce_packets",)),
        Files(_DRIVER, ("RxECNMrkd",)),
        Files(_DRIVER, ("rx_ecn_marked_pkts",)),
    ),
    "out_of_sequence": (Files(_DRIVER, ("out_of_sequence",)), Files(_DRIVER, ("oos_drop_count",))),
    "retransmits": (
        Files(_DRIVER, ("packet_seq_err", "local_ack_timeout_err")),
        Files(_DRIVER, ("retrans_pkts",)),
        Files(_DRIVER, ("tcpRetransSegs", "RetransSegs")),
        Files(_DRIVER, ("to_retransmits", "seq_err_naks_rcvd")),
    ),
    "receiver_not_ready": (Files(_DRIVER, ("rnr_nak_retry_err",)), Files(_DRIVER, ("rnr_naks_rcvd",))),
}
