"""Whether transfers take longer while others use a link: stretches of the run set beside one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commlens.analyzers.grouped import Floats

_LOADED = 0.3  # of the own rate: what a stretch has more of others' bytes than a quiet one
_MUCH = 0.3  # of the own rate: less is not worth a comparison
_EITHER = 4  # of them on either side
_TIMES = 1.3  # the quiet ones' transfers
_SURE = 3.0  # standard deviations beyond chance


@dataclass(frozen=True)
class Contrast:
    """Stretches of the run with much traffic of others beside those with little.

    Attributes:
        loaded_in: stretches with much of it.
        quiet_in: stretches with little.
        quiet_ms: transfer per step between hosts where there is little, median.
        loaded_ms: where there is much.
        quiet: bytes/s of others where there is little, median.
        loaded: where there is much.
        cost_ms: what the mean stretch takes longer than a quiet one, per step.
        turns: changes between more and less of it.
    """

    loaded_in: int
    quiet_in: int
    quiet_ms: float
    loaded_ms: float
    quiet: float
    loaded: float
    cost_ms: float
    turns: int


def compare(other: Floats, ms: Floats, own: float) -> Contrast | None:
    """Stretches with much of others' traffic beside those with little; None where transfers do not differ clearly.

    Args:
        other: bytes/s on the link that collectives do not explain, of each stretch, shape (n,).
        ms: transfer per step, shape (n,).
        own: bytes/s of the collectives, their median.
    """
    least, most = np.quantile(other, [0.1, 0.9])
    busy = other > (least + most) / 2
    loaded, quiet = ms[busy], ms[~busy]
    if most - least < _LOADED * own or most < _MUCH * own or min(loaded.size, quiet.size) < _EITHER:
        return None
    if np.quantile(loaded, 0.25) <= np.quantile(quiet, 0.75) or _longer(loaded, quiet) < _SURE:
        return None
    if np.median(loaded) < _TIMES * np.median(quiet):
        return None
    return Contrast(
        loaded_in=loaded.size,
        quiet_in=quiet.size,
        quiet_ms=float(np.median(quiet)),
        loaded_ms=float(np.median(loaded)),
        quiet=float(np.median(other[~busy])),
        loaded=float(np.median(other[busy])),
        cost_ms=float(ms.mean() - np.median(quiet)),
        turns=int(np.count_nonzero(np.diff(busy))),
    )


def _longer(first: Floats, second: Floats) -> float:
    """By how many standard deviations `first` is the longer one, were it chance (Mann and Whitney)."""
    above = first[:, None] - second[None, :]
    wins = np.count_nonzero(above > 0) + 0.5 * np.count_nonzero(above == 0)
    pairs = first.size * second.size
    return float((wins - pairs / 2) / np.sqrt(pairs * (first.size + second.size + 1) / 12))
