"""The model with other buckets: what is sent together, and when it can be launched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.whatif.buckets import Buckets, BucketSettings, buckets
from commlens.analyzers.whatif.gradients import Gradients, Round
from commlens.analyzers.whatif.model import NO_OVERLAP, Model, Point
from commlens.analyzers.whatif.nodes import USED_MAP, Node
from commlens.analyzers.whatif.sent import bucket_node, used_map_node

INTERPOLATED = "gradient times were not recorded: a bucket's gradients are taken to come evenly, by bytes"


class _Row(NamedTuple):
    """A point to be placed: its usual own time on all ranks, what goes first where those are equal, and the rest."""

    at: float
    turn: int
    number: int
    point: Point
    low: Floats
    high: Floats
    share: Floats


def laid_out(model: Model, settings: BucketSettings) -> Buckets:
    """The buckets that DDP would make of the recorded gradients."""
    gradients = model.gradients
    return buckets(gradients.parameters, gradients.order, settings) if gradients is not None else ()


def relaid(model: Model, layout: Buckets) -> Model | str:
    """The model with these buckets, or why that cannot be told."""
    gradients = model.gradients
    if gradients is None or gradients.refusal is not None:
        return (gradients and gradients.refusal) or "no DDP model reduces gradients in this run"
    kept = [n for n, node in enumerate(model.nodes) if not node.reduces and node.part != USED_MAP]
    nodes, numbers = [model.nodes[n] for n in kept], {n: k for k, n in enumerate(kept)}
    placed = list(_fixed(model, numbers))
    ready = _ready(model, gradients, layout)
    sent = _sent(model, gradients, layout)
    if isinstance(sent, str):
        return sent
    for each in gradients.rounds:
        for node, place in zip(sent, [*ready, ready[-1]], strict=False):
            nodes.append(node)
            placed.append(_launch(each, place, len(nodes) - 1))
            placed.append(_finalised(each, len(nodes) - 1))
    changed = _sorted(replace(model, nodes=tuple(nodes), layout=layout), placed)
    return changed if gradients.measured or layout == gradients.layout else changed.assuming(INTERPOLATED)


def _sent(model: Model, gradients: Gradients, layout: Buckets) -> list[Node] | str:
    """The collectives of one backward: of its buckets, then of which parameters were used."""
    found = [bucket_node(model, gradients, bucket) for bucket in layout]
    if gradients.settings.maps_used:
        found.append(used_map_node(model, gradients))
    known = [node for node in found if isinstance(node, Node)]
    return known if len(known) == len(found) else next(each for each in found if isinstance(each, str))


def _sorted(model: Model, placed: list[_Row]) -> Model:
    placed.sort(key=lambda row: row[:3])
    low = np.stack([*(row.low for row in placed), model.low_ns[-1]])
    high = low.copy()  # most are the same
    high[-1] = model.high_ns[-1]
    for place, row in enumerate(placed):
        if row.high is not row.low:
            high[place] = row.high
    return replace(
        model,
        points=tuple(row.point for row in placed),
        low_ns=low,
        high_ns=high,
        share=np.stack([*(row.share for row in placed), model.share[-1]]),
    )


def _fixed(model: Model, numbers: dict[int, int]) -> Iterator[_Row]:
    """The points that stay: all that do not belong to gradients."""
    own = np.full(model.step_ns.shape, -np.inf)
    for place, point in enumerate(model.points):
        low = model.low_ns[place]
        high = low if model.high_ns is model.low_ns else model.high_ns[place]
        own = np.maximum(own, low)
        if point.node in numbers:
            new = Point(numbers[point.node], point.waits, point.lag)
            yield _Row(_usual(own), 1, place, new, low, high, model.share[place])


def _usual(own_ns: Floats) -> float:
    return float(own_ns.mean())


def _ready(model: Model, gradients: Gradients, layout: Buckets) -> Floats:
    """Places at which each bucket can be launched: its gradients are ready, and all before it are launched.

    Returns:
        Shape (buckets, ranks).
    """
    if model.overlap == NO_OVERLAP:
        return np.full((len(layout), gradients.place.shape[0]), float(len(gradients.layout)))
    return np.maximum.accumulate([gradients.place[:, list(bucket)].max(axis=1) for bucket in layout], axis=0)


def _launch(each: Round, place: Floats, node: int) -> _Row:
    knot = np.clip(np.ceil(place).astype(int) - 1, 0, each.knots_ns.shape[0] - 2)
    ranks = np.arange(place.size)
    low, high = each.knots_ns[knot, ranks], each.knots_ns[knot + 1, ranks]
    share = np.clip(place - knot, 0, 1)
    at = _usual(low + (high - low) * share[:, None])
    return _Row(at, 0, node, Point(node, waits=False), low, high, share)


def _finalised(each: Round, node: int) -> _Row:
    """DDP waits for all buckets once the backward is through."""
    end = each.knots_ns[-1]
    return _Row(_usual(end), 2, node, Point(node, waits=True), end, end, np.zeros(end.shape[0]))
