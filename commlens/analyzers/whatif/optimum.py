"""The best buckets in the model: one cap for all, or a list of caps.

What is offered has been simulated, and a list is never worse than the best single cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.whatif.altered import alter
from commlens.analyzers.whatif.buckets import MIB, Buckets
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.cuts import cuts
from commlens.analyzers.whatif.gradients import Gradients
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.predicted import Baseline
from commlens.analyzers.whatif.relaid import laid_out, wire_bytes
from commlens.analyzers.whatif.steady import Batch, simulate
from commlens.trace.changes import Change

CAP, CAPS = "ddp.bucket_cap_mb", "ddp.bucket_cap_mb_list"
_GRID = 60
_MOST_STEPS = 16  # simulated to compare caps
_SMALLEST = 0.01  # MiB
_DIGITS = 3


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
    sizes = planned_bytes(baseline.model, gradients)
    if sizes is None:
        return single
    change = Change(CAPS, tuple(_below(size / MIB) for size in sizes))
    step = _step_ns(baseline, change, {})
    if isinstance(step, str) or step / 1e6 >= single.step_ms:
        return single
    return Optimum(change, step / 1e6, single.tried + 1)


def planned_bytes(model: Model, gradients: Gradients) -> list[float] | None:
    """Sizes of the best buckets in the order of sending, bytes of gradients; None where no link is to be planned on."""
    order = [p for bucket in laid_out(model, gradients.settings) for p in bucket]
    lines = [line for node in model.nodes if node.reduces for line in node.lines if isinstance(line, Line)]
    if not lines or len({gradients.parameters[p].dtype for p in order}) > 1:
        return None
    sizes = np.array([gradients.parameters[p].num_bytes for p in order], np.float64)
    wire = np.array([wire_bytes(gradients, (p,)) for p in order])
    worst = max(lines, key=lambda line: float(line.alpha_ns[0] + line.beta[0] * wire.sum()))
    ends = cuts(_ready_ns(gradients, order), wire, float(worst.alpha_ns[0]), float(worst.beta[0]))
    return [float(part.sum()) for part in np.split(sizes, ends[:-1])]


def _ready_ns(gradients: Gradients, order: Sequence[int]) -> Floats:
    """Usual own time at which the last rank has each gradient, in the first backward, ns."""
    knots = np.median(gradients.rounds[0].knots_ns, axis=2)
    places = gradients.place[:, list(order)]
    each = [np.interp(own, np.arange(knots.shape[0]), knots[:, rank]) for rank, own in enumerate(places)]
    return np.asarray(np.max(each, axis=0))


def _of(model: Model) -> Gradients | str:
    gradients = model.gradients
    if gradients is None:
        return "no DDP model reduces gradients in this run"
    return gradients.refusal or gradients


def _step_ns(baseline: Baseline, change: Change, tried: dict[Buckets, float]) -> float | str:
    model = alter(baseline.model, [change])
    if isinstance(model, str):
        return model
    layout = model.layout or ()
    if layout not in tried:
        some = np.unique(np.linspace(0, baseline.steps - 1, _MOST_STEPS).astype(np.int64))
        first = baseline.first
        batch = Batch(first.steps[some], first.draws[some], first.warp[some])
        tried[layout] = float(np.median(simulate(model, batch)))
    return tried[layout]


def _rounded(values: Floats) -> list[float]:
    return sorted({float(f"{value:.{_DIGITS}g}") for value in values})


def _below(mib: float) -> float:
    """A little less, so that a bucket of that size is closed."""
    return float(np.floor(mib * 1e5) / 1e5) if mib > 1e-4 else mib
