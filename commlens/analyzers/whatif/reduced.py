"""The gradients that DDP reduces in a recorded run: its buckets, and when each gradient was ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.numerals import plain
from commlens.analyzers.whatif.buckets import Buckets, BucketSettings, Parameter, buckets
from commlens.analyzers.whatif.described import Described, read_ddp
from commlens.analyzers.whatif.gradients import Gradients, Round
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import USED_MAP
from commlens.analyzers.whatif.ready import GradientTimes, as_they_come, interpolated_places, measured_places
from commlens.analyzers.whatif.thread import Thread

_UNNAMED = "the recorded buckets cannot be told from the model's parameters"
_MISLAID = "the recorded buckets are not those that DDP makes of these gradients and settings"
_SHARED_GROUP = "several DDP models, or none that was found, reduce gradients in this group"


def find_gradients(
    model: Model,
    threads: Sequence[Thread],
    rows: Sequence[Ints],
    infos: Mapping[int, Mapping[str, Any]],
    times: Sequence[GradientTimes] | None = None,
) -> Model:
    """The model with what is known of the gradients that its collectives carry; as it is where there are none."""
    rounds = _rounds(model, threads[0], rows[0])
    if not rounds:
        return model
    sent = [model.nodes[n].bytes for n in rounds[0]]
    group = model.links[int(model.nodes[rounds[0][0]].links[0])].name
    ddp = read_ddp(infos.get(threads[0].facts.rank, {}), group, sent)
    if ddp is None:
        return replace(model, gradients=_unknown(model, _SHARED_GROUP))
    ratio = sent[0] / ddp.bucket_bytes[0] if ddp.layout and ddp.bucket_bytes[0] else 0.0
    model, rounds = _without_extras(model, rounds, ddp)
    expected = [ratio * size for size in ddp.bucket_bytes]
    if ddp.layout is None or any([model.nodes[n].bytes for n in own] != expected for own in rounds):
        return replace(model, gradients=_unknown(model, _UNNAMED))
    knots = tuple(_round(model, threads, rows, own) for own in rounds)
    known = _known(ddp, ddp.layout, threads, times, ratio)
    return replace(model, gradients=replace(known, rounds=knots), layout=ddp.layout)


def _rounds(model: Model, thread: Thread, rows: Ints) -> list[list[int]]:
    """Collectives of gradients by backward."""
    reducing = [place for place, node in enumerate(model.nodes) if node.reduces]
    backward = thread.backward[rows[:, 0]]
    return [[n for n in reducing if backward[n] == one] for one in dict.fromkeys(backward[reducing].tolist())]


def _known(
    ddp: Described, layout: Buckets, threads: Sequence[Thread], times: Sequence[GradientTimes] | None, ratio: float
) -> Gradients:
    """When the gradients were ready, and what they take on the wire."""
    found = None if times is None else measured_places(threads, times, ddp.number, len(ddp.parameters), len(layout))
    usual = as_they_come(layout, ddp.settings)
    place, order, refusal = found or (
        interpolated_places(ddp.parameters, usual, len(threads)),
        tuple(p for bucket in usual for p in bucket),
        None,
    )
    order = ddp.ready_order or order
    if refusal is None and buckets(ddp.parameters, order, ddp.settings) != layout:
        refusal = _MISLAID
    wire = _item_bytes(ddp.parameters, layout, ratio)
    if wire == 0:
        refusal = f"a bucket takes {plain(ratio)} of its bytes on the wire, and it is not known how"
    return Gradients(
        parameters=ddp.parameters,
        order=order,
        place=place,
        settings=ddp.settings,
        layout=layout,
        rounds=(),
        item_bytes=wire or None,
        refusal=refusal,
        measured=found is not None,
        view=ddp.view,
    )


def _unknown(model: Model, reason: str) -> Gradients:
    nothing = np.zeros((model.step_ns.shape[0], 0))
    return Gradients((), (), nothing, BucketSettings(), (), (), None, reason, measured=False)


def _without_extras(model: Model, rounds: list[list[int]], ddp: Described) -> tuple[Model, list[list[int]]]:
    """DDP also reduces which parameters were used: what follows the buckets carries no gradients."""
    count, part = len(ddp.bucket_bytes), USED_MAP if ddp.settings.maps_used else ""
    extras = {n for own in rounds for n in own[count:]}
    nodes = tuple(
        replace(node, reduces=False, part=part) if n in extras else node for n, node in enumerate(model.nodes)
    )
    return replace(model, nodes=nodes), [own[:count] for own in rounds]


def _item_bytes(parameters: Sequence[Parameter], layout: Buckets, ratio: float) -> int | None:
    """Bytes of an element on the wire, None where it is the parameter's own; 0 where it cannot be told."""
    if ratio == 1:
        return None
    dtypes = {parameters[p].dtype for bucket in layout for p in bucket}
    return 2 if ratio == 0.5 and dtypes == {"float32"} else 0


def _round(model: Model, threads: Sequence[Thread], rows: Sequence[Ints], own: Sequence[int]) -> Round:
    begun = each(partial(_begun_ns, first=own[0]), threads, rows)
    launched: list[Floats] = [
        model.low_ns[place]
        for n in own
        for place, point in enumerate(model.points)
        if point.node == n and not point.waits
    ]
    knots = np.stack([np.maximum(np.stack(begun), 0), *launched])
    return Round(np.maximum.accumulate(knots, axis=0))


def _begun_ns(thread: Thread, rows: Ints, first: int) -> Floats:
    """The thread's own time when the backwards began that a collective was issued in."""
    rows = rows[first]
    return thread.own_ns(thread.backward_ns[thread.backward[rows]], thread.step[rows])
