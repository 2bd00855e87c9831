"""One line of the collectives table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NcclChoice:
    """What NCCL chose most often for the collectives of a line, in its words.

    Attributes:
        algorithm: RING, TREE, NVLS, ...; None where it does not tell, as of messages.
        protocol: LL, LL128 or SIMPLE; None likewise.
        channels: on which it ran; None likewise.
        share: of `operations` for which it chose this, 0..1.
        operations: of NCCL that belong to the line's collectives, over all ranks; a collective may be several.
        graph: operations of the same group, operation and size that CUDA graphs replayed: the line does not count them.
    """

    algorithm: str | None
    protocol: str | None
    channels: int | None
    share: float
    operations: int
    graph: int


@dataclass(frozen=True)
class CollectiveLine:
    """All collectives of one group, operation and message size, over all ranks.

    Without steps the durations are over the whole trace and the fields per step are None.

    Attributes:
        group: torch's name of the process group.
        group_desc: its description.
        op: torch's spelling.
        bytes: nccl-tests' message size; the median where `bytes_vary`.
        bytes_vary: an all_to_all whose ranks send different sizes: no bus bandwidth.
        dtype: the most common one, "mixed" where there are several.
        group_size: ranks in the group.
        count: collectives (of one rank each) the line rests on.
        count_per_step: mean over the ranks that take part.
        duration_ms_p50: started to completed, which includes waiting for late ranks.
        duration_ms_p95: as above.
        transfer_ms_p50: completion - last arrival, over all ranks' parts; None where ranks are not joined, or an end
            is only an upper bound.
        transfer_ms_p95: as above.
        wait_ms_p50: last arrival - own arrival, over all ranks, the last one's 0 among them.
        wait_ms_p95: as above.
        wait_ms_mean: as above; what late ranks cost is in the mean where only some wait.
        algbw_gb_s: bytes / p50 of the parts' transfers (or what `bandwidth_basis` says), 1 GB = 1e9 bytes.
        busbw_gb_s: algbw times nccl-tests' factor.
        bandwidth_basis: what the bandwidths were computed on; on durations they are lower bounds.
        regime: "latency-bound" or "bandwidth-bound" by the group's cost model, None where it cannot tell.
        efficiency: calibrated time / transfer, None without a calibration of such a group.
        exposed_ms_per_step: median over steps, mean over all ranks with a time budget.
        exposed_wait_ms_per_step: the part of it that waits for late ranks, mean over steps and ranks.
        timing: what the ends mean (`trace.schema.TIMINGS`), the most common one or "mixed".
        nccl: what NCCL chose, None where its plugin saw none of the operations.
    """

    group: str
    group_desc: str
    op: str
    bytes: int | None
    bytes_vary: bool
    dtype: str
    group_size: int | None
    count: int
    count_per_step: float | None
    duration_ms_p50: float | None
    duration_ms_p95: float | None
    transfer_ms_p50: float | None
    transfer_ms_p95: float | None
    wait_ms_p50: float | None
    wait_ms_p95: float | None
    wait_ms_mean: float | None
    algbw_gb_s: float | None
    busbw_gb_s: float | None
    bandwidth_basis: str | None
    regime: str | None
    efficiency: float | None
    exposed_ms_per_step: float | None
    exposed_wait_ms_per_step: float | None
    timing: str
    nccl: NcclChoice | None = None
