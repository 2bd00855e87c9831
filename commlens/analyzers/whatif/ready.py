"""When gradients became ready, as places between the launches of the recorded buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.buckets import Buckets, BucketSettings, Parameter
from commlens.analyzers.whatif.thread import REDUCER, Thread
from commlens.trace.schema import MISSING

if TYPE_CHECKING:
    from commlens.trace import Rank

_AGREE = 0.9  # share of the places that must hold the same parameter in every sampled backward

UNSTABLE = "gradients become ready in another order from step to step"


@dataclass(frozen=True)
class GradientTimes:
    """The table of gradients of one rank, int64 arrays of shape (rows,) each."""

    model: Ints
    parameter: Ints
    ready_ns: Ints

    def of(self, model: int) -> GradientTimes:
        """Those of one model."""
        own = self.model == model
        return GradientTimes(self.model[own], self.parameter[own], self.ready_ns[own])


def read_gradients(rank: Rank) -> GradientTimes:
    """The table of a rank; empty where none was recorded."""
    columns = rank.columns("gradients", ["model", "parameter", "ready_ns"])
    return GradientTimes(*(columns[name].astype(np.int64) for name in ("model", "parameter", "ready_ns")))


def as_they_come(layout: Buckets, settings: BucketSettings) -> Buckets:
    """Buckets with their gradients in the order in which those usually come: the last registered first.

    Buckets that were laid out anew are in the order of readiness themselves.
    """
    return layout if settings.rebuilds else tuple(tuple(sorted(bucket, reverse=True)) for bucket in layout)


def interpolated_places(parameters: Sequence[Parameter], layout: Buckets, ranks: int) -> Floats:
    """Places where only the buckets' launches are known: a bucket's gradients come evenly, by bytes.

    Returns:
        Shape (ranks, parameters); 0 for parameters in no bucket.
    """
    place = np.zeros(len(parameters))
    for number, bucket in enumerate(layout):
        size = np.cumsum([max(parameters[p].num_bytes, 1) for p in bucket])
        place[list(bucket)] = number + size / size[-1]
    return np.tile(place, (ranks, 1))


def measured_places(
    threads: Sequence[Thread], times: Sequence[GradientTimes], model: int, parameters: int, count: int
) -> tuple[Floats, tuple[int, ...], str | None] | None:
    """Places from the recorded times, medians over the sampled backwards.

    Args:
        threads: of all ranks.
        times: of each of them.
        model: number of the model.
        parameters: how many the model has.
        count: recorded buckets.

    Returns:
        Places, shape (ranks, parameters), the order on the first rank, and why that cannot be relied on (None where
        it can); None where no rank has times of usual backwards.
    """
    tables = each(partial(_sampled, model=model, parameters=parameters, count=count), threads, times)
    if not tables[0].size:
        return None
    middle = np.stack([np.nanmedian(table, axis=0) if table.size else _like(tables) for table in tables])
    seen = np.flatnonzero(~np.isnan(middle[0]))
    order = tuple(int(p) for p in seen[np.argsort(middle[0, seen], kind="stable")])
    # A parameter without a gradient counts as ready from the start.
    return np.nan_to_num(middle, nan=0.0), order, None if _stable(tables[0][:, seen]) else UNSTABLE


def _like(tables: Sequence[Floats]) -> Floats:
    return np.asarray(np.nanmedian(np.concatenate([table for table in tables if table.size]), axis=0))


def _stable(samples: Floats) -> bool:
    orders = np.argsort(samples, axis=1, kind="stable")
    return bool((orders == orders[0]).mean() >= _AGREE)


def _sampled(thread: Thread, times: GradientTimes, model: int, parameters: int, count: int) -> Floats:
    """Places in each sampled backward, shape (backwards, parameters); NaN where a parameter had none."""
    times = times.of(model)
    if not times.ready_ns.size:
        return np.zeros((0, parameters))
    issued = thread.facts.columns.collectives["issued_ns"]
    rows = np.flatnonzero((thread.waiter == REDUCER) & (thread.step != MISSING))
    of = np.searchsorted(thread.backward_ns, times.ready_ns, side="right") - 1
    found = []
    for backward in np.unique(of[of >= 0]):
        launched = np.sort(issued[rows[thread.backward[rows] == backward]])[:count]
        own: NDArray[np.bool_] = of == backward
        if launched.size == count:
            knots = np.concatenate([thread.backward_ns[backward : backward + 1], launched]).astype(np.float64)
            place = np.full(parameters, np.nan)
            place[times.parameter[own]] = np.interp(times.ready_ns[own], knots, np.arange(count + 1))
            found.append(place)
    return np.stack(found) if found else np.zeros((0, parameters))
