"""What FSDP's thread itself does for a collective: it flattens, copies and calls, and that goes with the collective.

In backward FSDP2 gathers the next unit's parameters right behind a reduce_scatter or another gather: between the two
nothing is computed, so that time is work for the gather. The shortest of those is taken for every collective.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.numerals import plain
from commlens.analyzers.whatif.edited import without
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import REGATHER, SCATTER

_FEWEST = 2  # such gathers in a step, of which the shortest counts


def host_ns(model: Model) -> Floats:
    """Own time for one collective of FSDP, ns, shape (ranks,); 0 where it cannot be told."""
    gaps = []
    for place, (before, point) in enumerate(zip(model.points, model.points[1:], strict=False), start=1):
        gathers = not point.waits and model.nodes[point.node].part == REGATHER
        if gathers and before.waits and model.nodes[before.node].part in (REGATHER, SCATTER):
            gaps.append(np.median(model.low_ns[place] - model.low_ns[place - 1], axis=1))
    if len(gaps) < _FEWEST:
        return np.zeros(model.step_ns.shape[0])
    return np.asarray(np.maximum(np.min(gaps, axis=0), 0.0))


def spared(model: Model, dropped: Collection[int]) -> Model:
    """The model without some of FSDP's collectives, and without what the threads did for them."""
    work = host_ns(model)
    issued = [not point.waits and point.node in dropped for point in model.points]
    less = np.append(np.cumsum(issued), sum(issued))[:, None] * work
    low, high = (np.maximum(own - less[:, :, None], 0.0) for own in (model.low_ns, model.high_ns))
    fewer = replace(model, low_ns=low, high_ns=high, spared_ns=model.spared_ns + float(less[-1].max()))
    if not work.any() or not sum(issued):
        return without(model, dropped)
    each = f"{plain(work.mean() / 1e6, 2)} ms"
    return without(fewer, dropped).assuming(f"each collective less spares its thread {each} of work, the least seen")
