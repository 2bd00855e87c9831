"""The best buckets in the model: one cap for all, or a list of caps.

What is offered has been simulated, and a list is always better than the best single cap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.altered import layout_of, set_up, with_buckets
from commlens.analyzers.whatif.buckets import MIB, Buckets
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.cuts import cuts
from commlens.analyzers.whatif.gradients import Gradients
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.predicted import Baseline
from commlens.analyzers.whatif.relaid import laid_out
from commlens.analyzers.whatif.sent import wire_bytes
from commlens.analyzers.whatif.steady import Batch, simulate
from commlens.trace.changes import Change

CAP, CAPS = "ddp.bucket_cap_mb", "ddp.bucket_cap_mb_list"
_GRID = 60
_MOST_STEPS = 16  # simulated to compare caps
_SMALLEST = 0.01  # MiB
_DIGITS = 3
_USUAL = (50, 25, 75, 90)  # percentiles over steps of when gradients are ready that are planned for
_BETTER = 1 - 1e-6  # a list of caps that gains less than this on a single one is not worth writing


@dataclass(frozen=True)
class Optimum:
    """The best buckets found.

    Attributes:
        change: that makes them.
        step_ms: simulated.
        tried: how many different layouts were.
    """

    change: Change
    step_ms: float
    tried: int


def best_cap(baseline: Baseline) -> Optimum | str:
    """The best single cap: a fine grid, then smaller steps about its best; or why that cannot be told."""
    gradients = _of(baseline.model)
    if isinstance(gradients, str):
        return gradients
    total = sum(gradients.parameters[p].num_bytes for p in gradients.order) / MIB
    tried: dict[Buckets, float] = {}
    caps = _rounded(np.geomspace(_SMALLEST, max(total, 2 * _SMALLEST), _GRID))
    found: dict[float, float] = {}
    for _ in range(3):
        for cap in caps:
            step = _step_ns(baseline, Change(CAP, cap), tried)
            if isinstance(step, str):
                return step
            found[cap] = step
        # Of equals the largest: fewer collectives.
        best = min(found, key=lambda cap: (found[cap], -cap))
        near = sorted(found)
        place = near.index(best)
        caps = _rounded(np.geomspace(near[max(place - 1, 0)], near[min(place + 1, len(near) - 1)], 10))
    return Optimum(Change(CAP, best), found[best] / 1e6, len(tried))


def best_caps(baseline: Baseline, single: Optimum | str) -> Optimum | str:
    """The best list of caps, or the single cap (`best_cap`) that is as good; or why that cannot be told."""
    gradients = _of(baseline.model)
    if isinstance(single, str) or isinstance(gradients, str):
        return single
    tried: dict[Buckets, float] = {}
    found = single
    for plan in _plans(baseline, gradients):
        change = Change(CAPS, tuple(_below(size / MIB) for size in plan))
        step = _step_ns(baseline, change, tried)
        if not isinstance(step, str) and step / 1e6 < found.step_ms * _BETTER:
            found = Optimum(change, step / 1e6, 0)
    return found if found is single else replace(found, tried=single.tried + len(tried))


def _plans(baseline: Baseline, gradients: Gradients) -> Iterator[list[float]]:
    """Sizes of the best buckets in the order of sending, bytes of gradients, for steps early and late.

    A plan is exact where all steps are alike; else each percentile has its own. Nothing where no cost is known.
    """
    model = baseline.model
    order = [p for bucket in laid_out(model, gradients.settings) for p in bucket]
    lines = [line for node in model.nodes if node.reduces for line in node.lines if isinstance(line, Line)]
    if not lines or len({gradients.parameters[p].dtype for p in order}) > 1:
        return
    sizes = np.array([gradients.parameters[p].num_bytes for p in order], np.float64)
    wire = np.array([wire_bytes(gradients, (p,)) for p in order])
    worst = max(lines, key=lambda line: float(line.alpha_ns[0] + line.beta[0] * wire.sum()))
    for ready in np.percentile(_ready_ns(gradients, order, _some(baseline)), _USUAL, axis=0):
        ends = cuts(ready, wire, float(worst.alpha_ns[0]), float(worst.beta[0]))
        yield [float(part.sum()) for part in np.split(sizes, ends[:-1])]


def _ready_ns(gradients: Gradients, order: Sequence[int], steps: Ints) -> Floats:
    """Own time at which the last rank has each gradient, in the first backward, ns, shape (steps, gradients)."""
    knots = gradients.rounds[0].knots_ns[:, :, steps]
    places = gradients.place[:, list(order)]
    before = np.clip(np.ceil(places).astype(np.int64) - 1, 0, knots.shape[0] - 2)
    ranks = np.arange(places.shape[0])[:, None]
    low, high = knots[before, ranks], knots[before + 1, ranks]
    return np.asarray((low + (high - low) * np.clip(places - before, 0, 1)[:, :, None]).max(axis=0).T)


def _of(model: Model) -> Gradients | str:
    gradients = model.gradients
    if gradients is None:
        return "no DDP model reduces gradients in this run"
    return gradients.refusal or gradients


def _step_ns(baseline: Baseline, change: Change, tried: dict[Buckets, float]) -> float | str:
    model = set_up(baseline.model, [change])
    if isinstance(model, str):
        return model
    layout = layout_of(baseline.model, model) or ()
    if layout not in tried:
        model = with_buckets(baseline.model, model)
        if isinstance(model, str):
            return model
        some = _some(baseline)
        batch = Batch(some, np.zeros(some.size, np.int64), np.ones(some.size))
        tried[layout] = float(np.median(simulate(model, batch)))
    return tried[layout]


def _some(baseline: Baseline) -> Ints:
    """Recorded steps that are simulated."""
    steps = baseline.first.steps
    return np.asarray(steps[np.unique(np.linspace(0, steps.size - 1, _MOST_STEPS).astype(np.int64))])


def _rounded(values: Floats) -> list[float]:
    return sorted({float(f"{value:.{_DIGITS}g}") for value in values})


def _below(mib: float) -> float:
    """A little less, so that a bucket of that size is closed."""
    return float(np.floor(mib * 1e5) / 1e5) if mib > 1e-4 else mib
