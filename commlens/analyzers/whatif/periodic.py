"""Local SGD: ranks train by themselves, and average their models every H steps.

Stich, "Local SGD Converges Fast and Communicates Little" (ICLR 2019); in torch, PostLocalSGDOptimizer with
PeriodicModelAverager(period=H). A step takes, in the long run,

    max over ranks of (its own time, mean over H steps) + (alpha + beta M) / H

as nothing of the average is hidden and ranks wait for each other only there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.whatif.ddp_changes import gradients_of
from commlens.analyzers.whatif.edited import Placed, known_lines, points_of, with_points, without
from commlens.analyzers.whatif.model import Altered, Model, Point
from commlens.analyzers.whatif.nodes import USED_MAP

_AVERAGED = "the model's average is one all_reduce of all parameters, nothing of it hidden; a step is the mean of many"


def period(model: Model, value: int) -> Altered:
    """No gradients are reduced; instead the model's M bytes every H steps, of which each step pays 1/H."""
    gradients = gradients_of(model)
    if isinstance(gradients, str):
        return gradients
    template = next(node for node in model.nodes if node.reduces)
    unknown = known_lines(template)
    if isinstance(unknown, str):
        return unknown
    size = float(sum(parameter.num_bytes for parameter in gradients.parameters if parameter.trainable))
    average = replace(
        template,
        bytes=size,
        measured_ns=np.full_like(template.measured_ns, np.nan),
        reduces=False,
        latency=template.latency / value,
        per_byte=template.per_byte / value,
    )
    local = without(model, [n for n, node in enumerate(model.nodes) if node.reduces or node.part == USED_MAP])
    number = len(local.nodes)
    ends = [Placed(Point(number, waits=False), -1), Placed(Point(number, waits=True), -1)]
    averaged = with_points(replace(local, nodes=(*local.nodes, average)), [*points_of(local), *ends])
    averaged = replace(
        averaged,
        low_ns=_mean_of(averaged.low_ns, value),
        high_ns=_mean_of(averaged.high_ns, value),
        gradients=None,
        layout=None,
        sync_every=1,
    )
    return averaged.touching("transfer", "wait").assuming(_AVERAGED)


def _mean_of(own_ns: Floats, count: int) -> Floats:
    """Mean of each step and those before it, `count` together, as if the recording went round; shape as given."""
    steps = own_ns.shape[-1]
    if count >= steps:
        return np.broadcast_to(own_ns.mean(axis=-1, keepdims=True), own_ns.shape)
    return np.asarray(sum((np.roll(own_ns, shift, axis=-1) for shift in range(1, count)), own_ns) / count)
