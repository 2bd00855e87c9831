"""How much collectives of one group that run at once slow each other down.

Arrays have 1 + DRAWS entries, as those of `coefficients`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints, length_within, merge
from commlens.analyzers.whatif.coefficients import DRAWS, SEED

_SURE = 0.1  # standard error below which the sharing is taken as measured
_FAR = 4.0  # deviations of the rest of the samples; farther ones are outliers
_FEWEST = 8


@dataclass(frozen=True)
class Sharing:
    """How much two collectives of one group that run at once slow each other down.

    Attributes:
        factor: each runs at 1 / (1 + factor): 0 as if alone, 1 at half speed; shape (1 + DRAWS,).
        measured: seen in the recording; else both ends are among the draws.
    """

    factor: Floats
    measured: bool


def alone() -> Sharing:
    """Of a group that runs one collective at a time."""
    return Sharing(np.zeros(1 + DRAWS), measured=True)


def beside(starts: Ints, ends: Ints) -> Ints:
    """How long each transfer ran beside another one of its group, ns, shape (n,).

    Args:
        starts: last arrivals on one clock, ns, ascending, shape (n,).
        ends: shape (n,).
    """
    if starts.size < 2:
        return np.zeros(starts.size, np.int64)
    reach = np.maximum.accumulate(ends)[:-1]
    return length_within(merge(starts[1:], np.minimum(ends[1:], reach)), starts, ends)


def find_sharing(bytes: Ints, transfer_ns: Ints, beside_ns: Ints) -> Sharing:
    """The slow-down of transfers by their neighbours: transfer = alpha + beta * bytes + share * beside.

    A transfer that runs at 1 / (1 + factor) for `beside` loses factor / (1 + factor) of it. Where the recording
    does not tell, one link between them (factor 1) is assumed, and that each has one of its own is not excluded;
    where most already ran side by side the fitted cost holds the slow-down, and none is added.
    """
    random = np.random.default_rng(SEED)
    if (found := _fitted_share(bytes, transfer_ns, beside_ns)) is not None:
        share, error = found
        draws = np.clip(np.append(share, share + error * random.standard_normal(DRAWS)), 0, 0.5)
        return Sharing(draws / (1 - draws), measured=True)
    usual = float(beside_ns.sum() / max(int(transfer_ns.sum()), 1))
    both = random.integers(0, 2, DRAWS).astype(np.float64)
    return Sharing(np.append(1.0 if usual < 0.1 else 0.0, both), measured=False)


def _fitted_share(bytes: Ints, transfer_ns: Ints, beside_ns: Ints) -> tuple[float, float] | None:
    """Least squares of relative errors, outliers left out; None where the share is not sure."""
    keep = transfer_ns > 0
    for _ in range(2):
        if np.count_nonzero(keep) < _FEWEST or np.ptp(beside_ns[keep] / transfer_ns[keep]) < 0.05:
            return None
        time = transfer_ns[keep].astype(np.float64)
        table = np.stack([np.ones(time.size), bytes[keep], beside_ns[keep]], axis=1) / time[:, None]
        scale = np.maximum(np.abs(table).max(axis=0), 1e-300)
        solution, _, rank, _ = np.linalg.lstsq(table / scale, np.ones(time.size), rcond=1e-6)
        if rank < 3:
            return None
        off = 1 - table / scale @ solution
        spread = max(1.4826 * float(np.median(np.abs(off))), 1e-3)
        covariance = np.linalg.inv((table / scale).T @ (table / scale)) * spread**2
        error = float(np.sqrt(covariance[2, 2]) / scale[2])
        keep[np.flatnonzero(keep)[np.abs(off) > _FAR * spread]] = False
    return (float(np.clip(solution[2] / scale[2], 0, 0.5)), error) if error < _SURE else None
