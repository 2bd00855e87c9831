"""Steps whose every number is chosen, as models of the simulator: forward | backward with DDP | optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from synthetic import START, Collective, Phase, RankTruth

from commlens.analyzers.whatif.altered import alter
from commlens.analyzers.whatif.buckets import BucketSettings, Parameter, buckets
from commlens.analyzers.whatif.coefficients import DRAWS, Line, exact_line
from commlens.analyzers.whatif.gradients import Gradients, Round
from commlens.analyzers.whatif.model import Model, Point
from commlens.analyzers.whatif.nodes import BUFFERS, GATHER, REGATHER, SCATTER, Link, Node
from commlens.analyzers.whatif.predicted import Baseline, predict, replay
from commlens.analyzers.whatif.ready import as_they_come, interpolated_places
from commlens.analyzers.whatif.relaid import relaid
from commlens.analyzers.whatif.sharing import Sharing
from commlens.analyzers.whatif.steady import Batch, simulate
from commlens.analyzers.whatif.units import Units
from commlens.trace.changes import parse_all

MS = 1e6
SLACK = 1e-6  # ms that sums in another order may differ by
FORWARD, OPTIMIZER = 10.0, 5.0  # ms


def changed(model: Model, text: str) -> Model:
    """The model with the changes of `text`."""
    altered = alter(model, parse_all(text))
    assert isinstance(altered, Model), altered
    return altered


def check_ceiling(model: Model, altered: Model) -> None:
    """The gain lies in its interval and does not exceed its ceiling."""
    predicted, ceiling = predict(replay(model), altered, widen=altered.widen)
    assert step_ms(model) - step_ms(altered) <= ceiling + SLACK
    assert predicted.low_ms <= predicted.gain_ms <= predicted.high_ms
    assert predicted.gain_ms <= ceiling + SLACK


def link(workers: int = 1, sharing: float = 0.0, ranks: int = 0, **lines: Line) -> Link:
    """A communicator; `lines` are what its operations cost."""
    return Link(
        "0", workers, Sharing(np.full(1 + DRAWS, sharing), measured=True), members=(*range(ranks),), lines=lines
    )


def points_in_time(steps: int) -> Batch:
    """Every step that can be simulated, once."""
    which = np.arange(2, steps)
    return Batch(which, np.zeros(which.size, np.int64), np.ones(which.size))


def ddp_model(
    sizes: Sequence[int],
    alpha_ms: float,
    ns_per_byte: float,
    backward_ms: float,
    settings: BucketSettings | None = None,
    late_ms: Sequence[float] = (0.0, 0.0),
    steps: int = 8,
    on: Link | None = None,
    rounds: int = 1,
    shapes: Sequence[tuple[int, ...]] = (),
) -> Model:
    """Ranks whose gradients become ready evenly by bytes, the last parameter's first.

    Args:
        late_ms: how much longer each rank's forward takes.
        shapes: of the parameters, () where they are not known.
    """
    settings = settings or BucketSettings(bucket_cap_mb=1000.0)
    ranks = len(late_ms)
    parameters = tuple(
        Parameter(size, shape=shape) for size, shape in zip(sizes, shapes or [()] * len(sizes), strict=True)
    )
    order = tuple(range(len(sizes) - 1, -1, -1))
    layout = buckets(parameters, order, settings)
    share = np.cumsum([0, *(sum(sizes[p] for p in bucket) for bucket in layout)]) / sum(sizes)
    late = np.array(late_ms)[:, None] * np.ones(steps)
    knots = [(FORWARD + late)[None] + backward_ms * (n + share)[:, None, None] for n in range(rounds)]
    end = FORWARD + late + rounds * backward_ms + OPTIMIZER
    gradients = Gradients(
        parameters=parameters,
        order=order,
        place=interpolated_places(parameters, as_they_come(layout, settings), ranks),
        settings=settings,
        layout=layout,
        rounds=tuple(Round(each * MS) for each in knots),
        item_bytes=None,
        refusal=None,
        measured=True,
    )
    line = exact_line(alpha_ms * MS, ns_per_byte)
    template = Node(
        "all_reduce", "float32", 1.0, np.zeros(1, int), np.zeros(ranks, int), np.full((1, steps), np.nan), (line,), True
    )
    bare = Model(
        step_ns=np.zeros((ranks, steps)),
        points=(),
        low_ns=end[None] * MS,
        high_ns=end[None] * MS,
        share=np.zeros((1, ranks)),
        nodes=(template,),
        links=(on or link(ranks=ranks, all_reduce=line),),
        gradients=gradients,
        layout=layout,
    )
    whole = relaid(bare, layout)
    assert isinstance(whole, Model)
    return measured_as_simulated(whole)


def fsdp_model(
    sizes: Sequence[int],
    alpha_ms: float,
    ns_per_byte: float,
    forward_ms: float,
    backward_ms: float,
    late_ms: Sequence[float] = (0.0, 0.0),
    steps: int = 8,
    kept: Sequence[int] = (),
) -> Model:
    """Units that are gathered just before each forward and backward, and scattered just after; all waited for at once.

    Args:
        sizes: bytes of each unit.
        forward_ms: of each unit.
        backward_ms: of each unit.
        late_ms: how much longer each rank takes before its first unit.
        kept: units that are not given up after forward.
    """
    count, ranks = len(sizes), len(late_ms)
    line = exact_line(alpha_ms * MS, ns_per_byte)
    late = np.array(late_ms)[:, None] * np.ones(steps)
    order = [(GATHER, unit, unit * forward_ms) for unit in range(count)]
    for turn, unit in enumerate(reversed(range(count))):
        begun = count * forward_ms + turn * backward_ms
        order += [(REGATHER, unit, begun)] if unit not in kept else []
        order.append((SCATTER, unit, begun + backward_ms))
    nodes = tuple(
        Node(
            "reduce_scatter" if part == SCATTER else "all_gather",
            "float32",
            float(sizes[unit]),
            np.zeros(1, int),
            np.zeros(ranks, int),
            np.full((1, steps), alpha_ms * MS + ns_per_byte * sizes[unit]),
            (line,),
            part=part,
            unit=unit,
        )
        for part, unit, _ in order
    )
    own = np.stack([at + late for _, _, at in order for _ in range(2)] + [order[-1][2] + late + OPTIMIZER]) * MS
    whole = Model(
        step_ns=np.zeros((ranks, steps)),
        points=tuple(Point(n, waits) for n in range(len(nodes)) for waits in (False, True)),
        low_ns=own,
        high_ns=own,
        share=np.zeros(own.shape[:2]),
        nodes=nodes,
        links=(link(ranks=ranks, all_gather=line, reduce_scatter=line),),
        units=Units(count, 0),
    )
    return measured_as_simulated(whole)


def with_buffers(model: Model, takes_ms: float) -> Model:
    """The model with a broadcast of buffers when the step begins."""
    shape = (1, model.steps)
    node = replace(
        model.nodes[0],
        op="broadcast",
        part=BUFFERS,
        reduces=False,
        bytes=1.0,
        measured_ns=np.full(shape, takes_ms * MS),
        lines=("one size only",),
    )
    moved = tuple(replace(point, node=point.node + 1) for point in model.points)
    begun = np.zeros((2, *model.low_ns.shape[1:]))
    return measured_as_simulated(
        replace(
            model,
            nodes=(node, *model.nodes),
            points=(Point(0, waits=False), Point(0, waits=True), *moved),
            low_ns=np.concatenate([begun, model.low_ns]),
            high_ns=np.concatenate([begun, model.high_ns]),
            share=np.concatenate([begun[:, :, 0], model.share]),
        )
    )


def measured_as_simulated(model: Model) -> Model:
    """The model with step times that are exactly its own."""
    step = np.median(simulate(model, points_in_time(model.steps)))
    return replace(model, step_ns=np.full(model.step_ns.shape, step))


def step_ms(model: Model) -> float:
    """The simulated step."""
    return float(np.median(simulate(model, points_in_time(model.steps)))) / MS


def ddp_truths(
    sizes: Sequence[int],
    alpha_ms: float,
    ns_per_byte: float,
    backward_ms: float,
    settings: BucketSettings,
    late_ms: Sequence[float] = (0.0, 0.0),
    steps: int = 12,
    workers: int = 1,
    buffers_ms: float = 0.0,
) -> dict[int, RankTruth]:
    """The same job as a recording: what `ddp_model` is a model of, on a serial link."""
    parameters = [Parameter(size) for size in sizes]
    layout = buckets(parameters, range(len(sizes) - 1, -1, -1), settings)
    sent = [sum(sizes[p] for p in bucket) for bucket in layout]
    ready = backward_ms * np.cumsum(sent) / sum(sent)
    cap = settings.bucket_cap_mb
    model = {
        "kind": "DDP",
        "name": "DDP(Net)",
        "group": "0",
        "flags": {
            "bucket_bytes_cap_default": cap is None,
            "bucket_bytes_cap": int((cap or 25) * 2**20),
            "find_unused_parameters": settings.find_unused_parameters,
        },
        "bucket_bytes": list(sent),
        "parameters": [{"num_bytes": size, "dtype": "float32", "trainable": True} for size in sizes],
    }
    if settings.maps_used:
        sent.append(4 * len(sizes))
    group = {"name": "0", "ranks": list(range(len(late_ms))), "size": len(late_ms), "workers": workers}
    rows: list[list[Collective]] = [[] for _ in late_ms]
    phases: list[list[Phase]] = [[] for _ in late_ms]
    now, late = 0.0, np.array(late_ms)
    for _ in range(steps):
        sent_ms = now + buffers_ms
        begun, free = sent_ms + FORWARD + late, 0.0
        for k, size in enumerate(sent):
            issued = begun + (ready[k] if k < len(ready) else backward_ms)
            started, free = np.maximum(issued, free), max(issued.max(), free) + alpha_ms + ns_per_byte * size / MS
            for rank in range(late.size):
                if buffers_ms and k == 0:
                    at = (_ns(now), _ns(sent_ms), _ns(now))
                    rows[rank].append(Collective(*at, op="broadcast", in_bytes=512, out_bytes=512))
                times = (_ns(issued[rank]), _ns(free), _ns(started[rank]))
                rows[rank].append(Collective(*times, in_bytes=size, out_bytes=size, group_size=late.size))
        end = max(free, (begun + backward_ms).max())
        for rank in range(late.size):
            if buffers_ms:
                phases[rank].append(Phase("forward", _ns(now), _ns(begun[rank])))
            phases[rank].append(Phase("backward", _ns(begun[rank]), _ns(end)))
            phases[rank].append(Phase("optimizer", _ns(end), _ns(end + OPTIMIZER), "SGD"))
        now = end + OPTIMIZER
    info = {"host": "host", "boot_id": "boot", "groups": [group], "models": [model]}
    return {rank: RankTruth(rows[rank], phases[rank], info=info) for rank in range(late.size)}


def fsdp_truths(
    sizes: Sequence[int],
    alpha_ms: float,
    ns_per_byte: float,
    forward_ms: float,
    backward_ms: float,
    late_ms: Sequence[float] = (0.0, 0.0),
    steps: int = 12,
    kept: Sequence[int] = (),
) -> dict[int, RankTruth]:
    """The same job as a recording: what `fsdp_model` is a model of."""
    count, ranks = len(sizes), len(late_ms)
    group = {"name": "0", "ranks": list(range(ranks)), "size": ranks, "workers": 2}
    info = {"host": "host", "boot_id": "boot", "groups": [group], "models": [{"kind": "FSDP2"}]}
    rows: list[list[Collective]] = [[] for _ in late_ms]
    phases: list[list[Phase]] = [[] for _ in late_ms]
    now = np.zeros(ranks)

    def call(op: str, size: int) -> None:
        nonlocal now
        end = now.max() + alpha_ms + ns_per_byte * size / MS
        shard = size // ranks
        given, taken = (shard, size) if op == "all_gather" else (size, shard)
        for rank, issued in enumerate(now):
            stood = _ns(end) - _ns(issued)
            times = (_ns(issued), _ns(end), _ns(issued), _ns(issued), stood)
            rows[rank].append(Collective(*times, op=op, in_bytes=given, out_bytes=taken, group_size=ranks))
        now = np.full(ranks, end)

    for _ in range(steps):
        now = now + np.array(late_ms)
        for size in sizes:
            call("all_gather", size)
            now = now + forward_ms
        begun = now
        for unit in reversed(range(count)):
            if unit not in kept:
                call("all_gather", sizes[unit])
            now = now + backward_ms
            call("reduce_scatter", sizes[unit])
        for rank in range(ranks):
            phases[rank].append(Phase("backward", _ns(begun[rank]), _ns(now[rank]) + 1))
            phases[rank].append(Phase("optimizer", _ns(now[rank]) + 1, _ns(now[rank] + OPTIMIZER), "SGD"))
        now = now + OPTIMIZER
    return {rank: RankTruth(rows[rank], phases[rank], info=info) for rank in range(ranks)}


def _ns(ms: float) -> int:
    return START + round(ms * MS)


def baseline(model: Model) -> Baseline:
    return replay(model)
