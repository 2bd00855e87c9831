"""What a message could have taken: the measured peak of its group, and how near the job came to it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from math import exp, log
from typing import TYPE_CHECKING

from commlens.trace.calibration import CalibrationEntry, calibrated_as

if TYPE_CHECKING:
    from commlens.trace.calibration import Calibration

# How far beyond the sizes measured a calibration still speaks.
_BELOW, _ABOVE = 2, 4


def peak_time_ns(
    calibration: Calibration | None,
    op: str,
    ranks: Iterable[int],
    group_size: int | None,
    scope: str | None,
    bytes: float,
) -> float | None:
    """Calibrated time of a message, ns: of the same ranks, else of a group of the same size and scope.

    Where several groups are alike the fastest one counts: what one group of its kind reaches, another could.
    A calibration that does not know its scope stands in where none of the right scope is.

    Args:
        calibration: None where there is none.
        op: one of `schema.OPS`.
        ranks: global ranks of the group, in any order; sender and receiver of a message between two.
        group_size: ranks in the group, None where not known; not read for messages between two.
        scope: "intra-node", "inter-node", or None where not known.
        bytes: as in `ops.message_bytes`.

    Returns:
        The time; None without an entry, and below half the smallest or above four times the largest size measured.
    """
    if calibration is None:
        return None
    wanted = calibrated_as(op)
    members = tuple(sorted(ranks))
    size = 2 if wanted == "send" else group_size
    same_op = [entry for entry in calibration.entries if entry.op == wanted]
    alike = [entry for entry in same_op if entry.group_size == size]
    for entries in (
        [entry for entry in same_op if members and entry.ranks == members],
        [entry for entry in alike if entry.scope == scope and scope is not None],
        [entry for entry in alike if entry.scope is None or scope is None],
    ):
        times = [time for entry in entries if (time := _time_us(entry, bytes)) is not None]
        if times:
            return min(times) * 1e3
    return None


def efficiency(peak_ns: float | None, transfer_ns: float | None) -> float | None:
    """Calibrated time over measured transfer: 1 at the peak, less below it.

    More than 1 means that the job beat the calibration, which a busy machine or a slower one can explain:
    then the calibration is no peak and is to be made again. It is not cut off at 1.
    """
    return peak_ns / transfer_ns if peak_ns is not None and transfer_ns else None


def _time_us(entry: CalibrationEntry, bytes: float) -> float | None:
    """Time of a message between the sizes of `entry`, on straight lines in the logarithms of both."""
    sizes, times = entry.bytes, entry.time_us
    if not sizes[0] / _BELOW <= bytes <= sizes[-1] * _ABOVE:
        return None
    if bytes <= sizes[0]:
        return times[0]  # small messages all take their latency
    if bytes >= sizes[-1]:
        return times[-1] * bytes / sizes[-1]
    after = bisect_right(sizes, bytes)
    left, right = after - 1, after
    share = log(bytes / sizes[left]) / log(sizes[right] / sizes[left])
    return exp(log(times[left]) * (1 - share) + log(times[right]) * share)
