"""Steps whose every number is chosen, as models of the simulator: forward | backward with DDP | optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from synthetic import START, Collective, Phase, RankTruth

from commlens.analyzers.whatif.buckets import BucketSettings, Parameter, buckets
from commlens.analyzers.whatif.coefficients import DRAWS, exact_line
from commlens.analyzers.whatif.gradients import Gradients, Round
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.nodes import Link, Node
from commlens.analyzers.whatif.predicted import Baseline, replay
from commlens.analyzers.whatif.ready import interpolated_places
from commlens.analyzers.whatif.relaid import relaid
from commlens.analyzers.whatif.sharing import Sharing
from commlens.analyzers.whatif.steady import Batch, simulate

MS = 1e6
FORWARD, OPTIMIZER = 10.0, 5.0  # ms


def link(workers: int = 1, sharing: float = 0.0) -> Link:
    return Link("0", workers, Sharing(np.full(1 + DRAWS, sharing), measured=True))


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
) -> Model:
    """Ranks whose gradients become ready evenly by bytes, the last parameter's first.

    Args:
        late_ms: how much longer each rank's forward takes.
    """
    settings = settings or BucketSettings(bucket_cap_mb=1000.0)
    ranks = len(late_ms)
    parameters = tuple(Parameter(size) for size in sizes)
    order = tuple(range(len(sizes) - 1, -1, -1))
    layout = buckets(parameters, order, settings)
    share = np.cumsum([0, *(sum(sizes[p] for p in bucket) for bucket in layout)]) / sum(sizes)
    late = np.array(late_ms)[:, None] * np.ones(steps)
    knots = [(FORWARD + late)[None] + backward_ms * (n + share)[:, None, None] for n in range(rounds)]
    end = FORWARD + late + rounds * backward_ms + OPTIMIZER
    gradients = Gradients(
        parameters=parameters,
        order=order,
        place=interpolated_places(parameters, layout, ranks),
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
        links=(on or link(),),
        gradients=gradients,
        layout=layout,
    )
    whole = relaid(bare, layout)
    assert isinstance(whole, Model)
    return measured_as_simulated(whole)


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
        "flags": {"bucket_bytes_cap_default": cap is None, "bucket_bytes_cap": int((cap or 25) * 2**20)},
        "bucket_bytes": sent,
        "parameters": [{"num_bytes": size, "dtype": "float32", "trainable": True} for size in sizes],
    }
    group = {"name": "0", "ranks": list(range(len(late_ms))), "size": len(late_ms), "workers": workers}
    rows: list[list[Collective]] = [[] for _ in late_ms]
    phases: list[list[Phase]] = [[] for _ in late_ms]
    now, late = 0.0, np.array(late_ms)
    for _ in range(steps):
        begun, free = now + FORWARD + late, 0.0
        for k, size in enumerate(sent):
            issued = begun + ready[k]
            started, free = np.maximum(issued, free), max(issued.max(), free) + alpha_ms + ns_per_byte * size / MS
            for rank in range(late.size):
                times = (_ns(issued[rank]), _ns(free), _ns(started[rank]))
                rows[rank].append(Collective(*times, in_bytes=size, out_bytes=size, group_size=late.size))
        end = max(free, (begun + backward_ms).max())
        for rank in range(late.size):
            phases[rank].append(Phase("backward", _ns(begun[rank]), _ns(end)))
            phases[rank].append(Phase("optimizer", _ns(end), _ns(end + OPTIMIZER), "SGD"))
        now = end + OPTIMIZER
    info = {"host": "host", "boot_id": "boot", "groups": [group], "models": [model]}
    return {rank: RankTruth(rows[rank], phases[rank], info=info) for rank in range(late.size)}


def _ns(ms: float) -> int:
    return START + round(ms * MS)


def baseline(model: Model) -> Baseline:
    return replay(model)
