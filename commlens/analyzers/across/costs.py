"""The alpha-beta cost of messages: transfer = alpha + beta * bytes (Hockney 1994), with what is not known said so.

Small messages show alpha, large ones beta, and many jobs send only one kind. So each of the two is reported only
where its own 95 % interval is narrower than its value, and otherwise is None with the bound that the data gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from commlens.analyzers.across.by_size import Sizes, by_size
from commlens.analyzers.across.line import Line, fit_line, resampled_lines
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.numerals import plain

LATENCY, BANDWIDTH = "latency-bound", "bandwidth-bound"
_FEWEST = 5  # samples; fewer leave nothing to judge the noise by
_ALIKE = 1.25  # largest size over smallest; below, a bent curve passes for any alpha
_WIDEST = 1.0  # width of an interval over its value, beyond which the value is noise
_INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Cost:
    """What a message of a group and operation costs.

    Attributes:
        alpha_us: latency, None where it cannot be told.
        alpha_low_us: lower end of its 95 % interval, 0 where it may be nothing.
        alpha_high_us: upper end; known also where alpha is not.
        bandwidth_gb_s: 1/beta, 1 GB = 1e9 bytes; None where it cannot be told.
        bandwidth_low_gb_s: lower end of its 95 % interval; known also where the bandwidth is not.
        bandwidth_high_gb_s: upper end, None where the data sets none.
        samples: transfers used.
        sizes: distinct message sizes among them.
        residual: median relative error of the fit over the samples, None where there is no fit.
        reason: why alpha or the bandwidth is not known, None where both are.
    """

    alpha_us: float | None
    alpha_low_us: float
    alpha_high_us: float
    bandwidth_gb_s: float | None
    bandwidth_low_gb_s: float
    bandwidth_high_gb_s: float | None
    samples: int
    sizes: int
    residual: float | None
    reason: str | None


def fit_cost(bytes: Ints, transfer_ns: Ints) -> Cost | None:
    """Fit the cost of messages, robust against slow outliers; the same data gives the same answer.

    Args:
        bytes: message sizes, shape (n,); rows of no bytes, or of unknown size or transfer, are left out.
        transfer_ns: completion minus last arrival, shape (n,).

    Returns:
        The cost; None where there is nothing to fit.
    """
    sizes = by_size(bytes, transfer_ns)
    if sizes is None:
        return None
    bounds = _bounds(sizes)
    if refusal := _refusal(sizes):
        return replace(bounds, reason=refusal)
    line = fit_line(sizes)
    alpha_ns, beta = resampled_lines(sizes, line)
    error = np.abs(sizes.transfer_ns / line.at(sizes.bytes) - 1)
    return _judged(replace(bounds, residual=float(np.median(error))), line, alpha_ns, beta)


def regime(cost: Cost, bytes: float) -> str | None:
    """LATENCY where bytes * beta < alpha, else BANDWIDTH; None where the cost cannot tell.

    Where only bounds are known, they decide if they can.
    """
    if cost.alpha_us is not None and cost.bandwidth_gb_s is not None:
        return LATENCY if _moving_us(bytes, cost.bandwidth_gb_s) < cost.alpha_us else BANDWIDTH
    if _moving_us(bytes, cost.bandwidth_low_gb_s) < cost.alpha_low_us:
        return LATENCY
    fastest = cost.bandwidth_high_gb_s
    return BANDWIDTH if fastest is not None and _moving_us(bytes, fastest) > cost.alpha_high_us else None


def _moving_us(bytes: float, gb_s: float) -> float:
    return bytes / gb_s / 1e3


def _bounds(sizes: Sizes) -> Cost:
    """What holds without a fit: neither part takes longer than the whole."""
    return Cost(
        alpha_us=None,
        alpha_low_us=0.0,
        alpha_high_us=float(sizes.median_ns.min()) / 1e3,
        bandwidth_gb_s=None,
        bandwidth_low_gb_s=float((sizes.size / sizes.median_ns).max()),
        bandwidth_high_gb_s=None,
        samples=sizes.bytes.size,
        sizes=sizes.distinct,
        residual=None,
        reason=None,
    )


def _refusal(sizes: Sizes) -> str | None:
    smallest, largest = int(sizes.bytes.min()), int(sizes.bytes.max())
    if smallest == largest:
        return f"one message size only ({smallest} bytes): alpha and bandwidth cannot be told apart"
    if largest < _ALIKE * smallest:
        return f"sizes from {smallest} to {largest} bytes are too alike to tell alpha and bandwidth apart"
    if sizes.bytes.size < _FEWEST:
        return f"{sizes.bytes.size} transfers are too few to fit a cost"
    return None


def _judged(cost: Cost, line: Line, alpha_ns: Floats, beta: Floats) -> Cost:
    """The fit's values, those drowned in noise left unknown."""
    low, high = np.percentile(alpha_ns, _INTERVAL) / 1e3
    least, most = np.percentile(beta, _INTERVAL)
    slowest = float(1 / most) if most > 0 else cost.bandwidth_low_gb_s
    has_alpha = line.alpha_ns > 0 and high - low <= _WIDEST * line.alpha_ns / 1e3
    has_beta = line.beta > 0 and most - least <= _WIDEST * line.beta
    reasons = []
    if not has_alpha:
        reasons.append(f"alpha (below {plain(high)} us) is lost in the scatter of these sizes")
    if not has_beta:
        reasons.append(f"the bandwidth (above {plain(slowest)} GB/s) is lost in the scatter of these sizes")
    return replace(
        cost,
        alpha_us=line.alpha_ns / 1e3 if has_alpha else None,
        alpha_low_us=float(low),
        alpha_high_us=float(high),
        bandwidth_gb_s=1 / line.beta if has_beta else None,
        bandwidth_low_gb_s=slowest,
        bandwidth_high_gb_s=float(1 / least) if least > 0 else None,
        reason="; ".join(reasons) or None,
    )
