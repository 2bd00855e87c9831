"""What a message costs, with a bootstrap of that: the cost model's own fit, kept whole.

Every array here has 1 + DRAWS entries: the fit itself, then what other samples might have given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from commlens.analyzers.across.by_size import by_size
from commlens.analyzers.across.costs import fit_cost
from commlens.analyzers.across.line import fit_line, resampled_lines
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.trace.calibration import CalibrationEntry

DRAWS = 200
SEED = 20240602


@dataclass(frozen=True)
class Line:
    """transfer = alpha + beta * bytes.

    Attributes:
        alpha_ns: shape (1 + DRAWS,).
        beta: ns per byte, shape (1 + DRAWS,).
        low_bytes: smallest message it was fitted to.
        high_bytes: largest.
        calibrated: it comes from a calibration, scaled to the job's transfers.
        borrowed: whose split into latency and bandwidth it has, "" where its own.
        alone: why it tells nothing of messages of more bytes: what is known of it is latency; "" where it does.
    """

    alpha_ns: Floats
    beta: Floats
    low_bytes: float
    high_bytes: float
    calibrated: bool = False
    borrowed: str = ""
    alone: str = ""


def exact_line(alpha_ns: float, beta: float) -> Line:
    """A line that is known."""
    return Line(np.full(1 + DRAWS, alpha_ns), np.full(1 + DRAWS, beta), 0.0, float("inf"))


def measured_line(bytes: Ints, transfer_ns: Ints) -> Line | str:
    """The line through measured transfers, as `costs.fit_cost` fits it; or why there is none.

    Args:
        bytes: shape (n,).
        transfer_ns: without what sharing the link has added, shape (n,).
    """
    cost, sizes = fit_cost(bytes, transfer_ns), by_size(bytes, transfer_ns)
    if cost is None or sizes is None:
        return "no transfer was measured"
    if cost.residual is None:
        return cost.reason or "no cost could be fitted"
    line = fit_line(sizes)
    alpha, beta = (each[:DRAWS] for each in resampled_lines(sizes, line))
    return Line(
        np.concatenate([[line.alpha_ns], alpha]),
        np.concatenate([[line.beta], beta]),
        float(sizes.bytes[0]),
        float(sizes.bytes[-1]),
    )


def calibrated_line(entry: CalibrationEntry, bytes: Ints, transfer_ns: Ints) -> Line | None:
    """The line through a calibration, scaled so that it meets the job's own transfers; None where there is none.

    The more it has to be scaled, the less is known of what is latency and what bandwidth: the draws split what the
    usual transfer takes otherwise.

    Args:
        entry: of the same operation and ranks.
        bytes: of the job's messages, shape (n,).
        transfer_ns: shape (n,).
    """
    line = measured_line(np.array(entry.bytes, np.int64), np.round(np.array(entry.time_us) * 1e3).astype(np.int64))
    met = None if isinstance(line, str) else meeting(line, bytes, transfer_ns)
    return replace(met, calibrated=True) if met is not None else None


def meeting(line: Line, bytes: Ints, transfer_ns: Ints) -> Line | None:
    """The line scaled so that it meets these transfers, its draws as `calibrated_line` says; None where there are none.

    Args:
        line: whose split into latency and bandwidth is taken.
        bytes: shape (n,).
        transfer_ns: shape (n,).
    """
    usable = (bytes > 0) & (transfer_ns > 0)
    if not usable.any():
        return None
    size, taken = float(np.median(bytes[usable])), float(np.median(transfer_ns[usable]))
    scale = taken / max(float(line.alpha_ns[0] + line.beta[0] * size), 1.0)
    random = np.random.default_rng(SEED)
    other = np.append(1.0, np.exp(abs(np.log(scale)) * random.standard_normal(DRAWS)))
    alpha = np.minimum(line.alpha_ns * scale * other, taken)
    return Line(alpha, (taken - alpha) / size, line.low_bytes, line.high_bytes)
