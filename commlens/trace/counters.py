"""The one vocabulary of link and device counters: what each word counts, and in what unit.

A `counters` row is one reading of one counter of one device of the node. Totals
only grow (a sampler undoes wraps and resets are seen as a smaller value);
gauges are as they were read. What a device is stands in `links` of rank.json.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Counter(NamedTuple):
    """What one counter means."""

    unit: str
    total: bool  # it only grows; a gauge does not
    meaning: str


LINK_KINDS: Final = ("ethernet", "infiniband", "roce", "nvlink", "pcie", "c2c", "gpu", "tcp", "process")

# Bytes are those of the link's payload wherever the source can tell; `links[].bytes` says what they include.
COUNTERS: Final[dict[str, Counter]] = {
    "tx_bytes": Counter("B", True, "sent"),
    "rx_bytes": Counter("B", True, "received"),
    "tx_packets": Counter("1", True, "packets sent"),
    "rx_packets": Counter("1", True, "packets received"),
    "tx_errors": Counter("1", True, "packets that could not be sent"),
    "rx_errors": Counter("1", True, "packets received damaged"),
    "tx_drops": Counter("1", True, "packets given up before they were sent"),
    "rx_drops": Counter("1", True, "packets given up after they were received"),
    # InfiniBand and RoCE (kernel: Documentation/ABI/stable/sysfs-class-infiniband; mlx5 hw_counters)
    "tx_wait_ticks": Counter("ticks", True, "port had data and could not send: no credit, or arbitration"),
    "symbol_errors": Counter("1", True, "minor link errors"),
    "link_recoveries": Counter("1", True, "times the link retrained"),
    "link_downs": Counter("1", True, "times the link went down"),
    "cnp_sent": Counter("1", True, "congestion notifications sent: this end saw marked packets"),
    "cnp_handled": Counter("1", True, "congestion notifications obeyed: this end slowed down"),
    "ecn_marked": Counter("1", True, "packets received that a switch had marked"),
    "out_of_sequence": Counter("1", True, "packets received out of order"),
    "retransmits": Counter("1", True, "sent again: sequence errors, timeouts, TCP segments"),
    "receiver_not_ready": Counter("1", True, "receiver had no buffer"),
    # TCP of the whole network namespace
    "tx_segments": Counter("1", True, "TCP segments sent"),
    # GPUs
    "replays": Counter("1", True, "NVLink or PCIe packets sent again"),
    "crc_errors": Counter("1", True, "NVLink packets received damaged"),
    "ecc_corrected": Counter("1", True, "memory errors corrected"),
    "ecc_uncorrected": Counter("1", True, "memory errors not corrected"),
    "sm_clock_mhz": Counter("MHz", False, "clock of the multiprocessors"),
    "memory_clock_mhz": Counter("MHz", False, "clock of the memory"),
    "power_mw": Counter("mW", False, "power drawn"),
    "temperature_c": Counter("C", False, "temperature"),
    "throttle_reasons": Counter("bits", False, "NVML's clocks event reasons, a bit each"),
}
