"""Simulated DDP jobs in data centres of 100 Gb/s and more: what an advisor meets where networks are good.

    for setup in setups(seed=0):
        baseline = replay(setup.model)

Machines, models, batches and worker counts make a grid of more than 200. Eight ranks stand for all workers, which do
the same; the message cost is that of the whole group. `Setup.truths` is the same job as a recording.

Message cost, by formula (hierarchical all-reduce: reduce-scatter in the host, tree between hosts, all-gather):
    alpha = 8.4 + 2 (g - 1) 3.4 + 2 log2(m) 14 us       NCCL's tuning.cc, base, NVLink and network hop, Simple protocol
    beta  = 2 (g - 1) / (g B_nvlink) + 2 (m - 1) / (m B_host) ns per byte
for g GPUs in each of m hosts, and B in GB/s: what NVLink gives a GPU, and what all NICs of a host give together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from analyzers.model_tables import Table, bert, gpt2, resnet, vgg16
from analyzers.whatif_model import MS, link, measured_as_simulated, step_ms
from numpy.typing import NDArray
from synthetic import START, Collective, Phase, RankTruth

from commlens.analyzers.whatif.buckets import BucketSettings, Parameter, buckets
from commlens.analyzers.whatif.coefficients import exact_line
from commlens.analyzers.whatif.gradients import Gradients, Round
from commlens.analyzers.whatif.model import FREE, Model
from commlens.analyzers.whatif.nodes import ITEM_BYTES, Node
from commlens.analyzers.whatif.relaid import relaid

Floats = NDArray[np.float64]
STEPS, RANKS = 10, 8
EVEN = np.ones((RANKS, STEPS))


@dataclass(frozen=True)
class Machine:
    """A kind of host.

    Attributes:
        name: what it is like; the numbers are round ones of public data sheets, derated.
        gpus: in a host.
        tflop_s: that a GPU does in training, half of which convolutions reach.
        nvlink_gb_s: what NVLink gives a GPU.
        host_gb_s: what all NICs of a host give together.
        dtype: of gradients.
    """

    name: str
    gpus: int
    tflop_s: float
    nvlink_gb_s: float
    host_gb_s: float
    dtype: str


MACHINES = (
    Machine("v100x4-100g", 4, 40.0, 60.0, 11.0, "float32"),
    Machine("v100x8-100g", 8, 40.0, 120.0, 11.0, "float32"),
    Machine("a100x8-400g", 8, 120.0, 220.0, 44.0, "float32"),
    Machine("a100x8-1600g", 8, 120.0, 220.0, 176.0, "bfloat16"),
    Machine("h100x8-3200g", 8, 350.0, 360.0, 350.0, "bfloat16"),
)
WORKERS = (8, 16, 64, 256, 512)
BATCHES: tuple[tuple[Table, tuple[int, int]], ...] = (
    (resnet(50), (64, 256)),
    (resnet(101), (32, 128)),
    (vgg16(), (64, 128)),
    (bert(), (64, 256)),
    (bert(24, 1024, 512), (8, 32)),
    (gpt2(), (8, 32)),
    (gpt2(48, 1600), (2, 8)),
)


@dataclass(frozen=True)
class Job:
    """What one step of a DDP job is, without its ranks' scatter.

    Attributes:
        table: of the model.
        alpha_ms: latency of an all-reduce of all workers.
        ns_per_byte: of its bytes.
        forward_ms: compute.
        backward_ms: compute.
        optimizer_ms: compute.
        settings: of DDP.
        dtype: of gradients.
    """

    table: Table
    alpha_ms: float
    ns_per_byte: float
    forward_ms: float
    backward_ms: float
    optimizer_ms: float = 0.0
    settings: BucketSettings = BucketSettings()  # noqa: RUF009
    dtype: str = "float32"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        item = ITEM_BYTES[self.dtype]
        return tuple(Parameter(math.prod(shape) * item, self.dtype, shape=shape) for shape in self.table.shapes)

    @property
    def order(self) -> tuple[int, ...]:
        """As gradients become ready."""
        return tuple(range(len(self.table.shapes) - 1, -1, -1))


@dataclass(frozen=True)
class Setup:
    """One set-up.

    Attributes:
        name: says all that differs.
        job: its step.
        scatter: own time of each rank in each step over the usual, shape (ranks, steps).
        late_ms: how much longer each rank's forward takes.
        model: of the simulator.
        workers: GPUs that take part.
        hosts: they are in.
        step_ms: simulated.
        exposed_ms: what the step is longer by than with free transfers.
    """

    name: str
    job: Job
    scatter: Floats
    late_ms: tuple[float, ...]
    model: Model
    workers: int
    hosts: int
    step_ms: float
    exposed_ms: float

    @property
    def exposed(self) -> float:
        """Share of the step, 0..1."""
        return self.exposed_ms / self.step_ms

    def truths(self) -> dict[int, RankTruth]:
        """The same job as a recording, for `synthetic.write_run`; ranks lie on as many hosts as they can."""
        return truths_of(self.job, self.scatter, self.late_ms, min(self.hosts, len(self.late_ms)))


def model_of(job: Job, scatter: Floats = EVEN, late_ms: tuple[float, ...] = ()) -> Model:
    """The job as the simulator takes it; each gradient is ready when the work of its layer is done."""
    layout = buckets(job.parameters, job.order, job.settings)
    ready = job.table.ready
    launched = np.maximum.accumulate([max(ready[list(bucket)]) for bucket in layout])
    knots = np.concatenate([[0.0], launched])
    place = np.interp(ready, knots, np.arange(knots.size))
    ranks, steps = scatter.shape
    begun = job.forward_ms * scatter + np.array(late_ms or [0.0] * ranks)[:, None]
    round_ = Round(MS * (begun[None] + job.backward_ms * knots[:, None, None] * scatter[None]))
    end = MS * (begun + (job.backward_ms + job.optimizer_ms) * scatter)[None]
    gradients = Gradients(
        parameters=job.parameters,
        order=job.order,
        place=np.tile(place, (ranks, 1)),
        settings=job.settings,
        layout=layout,
        rounds=(round_,),
        item_bytes=None,
        refusal=None,
        measured=True,
    )
    line = exact_line(job.alpha_ms * MS, job.ns_per_byte)
    member, nothing = np.zeros(ranks, np.int64), np.full((1, steps), np.nan)
    node = Node("all_reduce", job.dtype, 1.0, np.zeros(1, np.int64), member, nothing, (line,), reduces=True)
    bare = Model(
        step_ns=np.zeros((ranks, steps)),
        points=(),
        low_ns=end,
        high_ns=end,
        share=np.zeros((1, ranks)),
        nodes=(node,),
        links=(link(),),
        gradients=gradients,
        layout=layout,
    )
    whole = relaid(bare, layout)
    assert isinstance(whole, Model)
    return measured_as_simulated(whole)


def setups(seed: int = 0) -> Iterator[Setup]:
    """The grid; the same seed gives the same set-ups."""
    random = np.random.default_rng(seed)
    for machine in MACHINES:
        for workers in WORKERS:
            for table, batches in BATCHES:
                for batch in batches:
                    name = f"{machine.name}/{workers}/{table.name}/{batch}"
                    yield _setup(name, job_on(machine, workers, table, batch), workers, machine.gpus, random)


def job_on(machine: Machine, workers: int, table: Table, batch: int) -> Job:
    """A model on so many GPUs of a machine, `batch` samples on each."""
    alpha_ms, ns_per_byte = all_reduce(machine, workers)
    convolutions = table.name.startswith(("resnet", "vgg"))
    forward = batch * table.forward_flop / (machine.tflop_s * 1e9 * (0.5 if convolutions else 1.0))
    optimizer = table.elements * 20 / 1e9  # reads and writes 20 bytes a parameter, at 1 TB/s
    return Job(table, alpha_ms, ns_per_byte, forward, 2 * forward, optimizer, dtype=machine.dtype)


def all_reduce(machine: Machine, workers: int) -> tuple[float, float]:
    """alpha, ms, and beta, ns per byte, of an all-reduce of so many GPUs."""
    inside, hosts = machine.gpus, workers / machine.gpus
    alpha_us = 8.4 + 2 * (inside - 1) * 3.4 + 2 * math.log2(hosts) * 14
    within = 2 * (inside - 1) / inside / machine.nvlink_gb_s
    return alpha_us / 1e3, within + 2 * (hosts - 1) / hosts / machine.host_gb_s


def compute_bound(seed: int = 0) -> Setup:
    """A job whose communication is hidden but for its last bucket: below 2 % of the step."""
    job = job_on(MACHINES[-1], 8, resnet(50), 512)
    return _setup("compute-bound", job, 8, 8, np.random.default_rng(seed))


def straggler(seed: int = 0, late_ms: float = 40.0) -> Setup:
    """The compute-bound job, whose last rank takes `late_ms` longer for every forward."""
    job, late = job_on(MACHINES[-1], 8, resnet(50), 512), (*(0.0,) * (RANKS - 1), late_ms)
    found = _setup("straggler", job, 8, 8, np.random.default_rng(seed), late)
    return replace(found, model=replace(found.model, late=(RANKS - 1,)))


def _setup(
    name: str,
    job: Job,
    workers: int,
    gpus: int,
    random: np.random.Generator,
    late_ms: tuple[float, ...] = (0.0,) * RANKS,
) -> Setup:
    scatter = np.exp(0.005 * random.standard_normal((len(late_ms), STEPS)))
    model = model_of(job, scatter, late_ms)
    step = step_ms(model)
    exposed = step - step_ms(replace(model, overlap=FREE))
    return Setup(name, job, scatter, late_ms, model, workers, max(workers // gpus, 1), step, exposed)


def truths_of(job: Job, scatter: Floats, late_ms: tuple[float, ...], hosts: int) -> dict[int, RankTruth]:
    """A recording of what `model_of` is a model of: a serial link, every rank's bucket launched when it is ready."""
    ranks, steps = scatter.shape
    layout = buckets(job.parameters, job.order, job.settings)
    sent = [sum(job.parameters[p].num_bytes for p in bucket) for bucket in layout]
    ready = np.maximum.accumulate([max(job.table.ready[list(bucket)]) for bucket in layout]) * job.backward_ms
    rows: list[list[Collective]] = [[] for _ in range(ranks)]
    phases: list[list[Phase]] = [[] for _ in range(ranks)]
    now = np.zeros(ranks)
    for step in range(steps):
        own, free = scatter[:, step], 0.0
        begun = now + job.forward_ms * own + np.array(late_ms)
        for size, at in zip(sent, ready, strict=True):
            issued = begun + at * own
            started = np.maximum(issued, free)
            free = max(float(issued.max()), free) + job.alpha_ms + job.ns_per_byte * size / MS
            for rank in range(ranks):
                times = _ns(issued[rank]), _ns(free), _ns(started[rank])
                rows[rank].append(Collective(*times, in_bytes=size, out_bytes=size, dtype=job.dtype, group_size=ranks))
        end = np.maximum(free, begun + job.backward_ms * own)
        now = end + job.optimizer_ms * own
        for rank in range(ranks):
            phases[rank].append(Phase("backward", _ns(begun[rank]), _ns(end[rank])))
            phases[rank].append(Phase("optimizer", _ns(end[rank]), _ns(now[rank]), "SGD"))
    info = {rank: _info(job, sent, rank, ranks, rank * hosts // ranks) for rank in range(ranks)}
    return {rank: RankTruth(rows[rank], phases[rank], info=info[rank]) for rank in range(ranks)}


def _info(job: Job, sent: list[int], rank: int, ranks: int, host: int) -> dict[str, Any]:
    cap = job.settings.bucket_cap_mb
    model = {
        "kind": "DDP",
        "name": "DDP(Net)",
        "group": "0",
        "flags": {"bucket_bytes_cap_default": cap is None, "bucket_bytes_cap": int((cap or 25) * 2**20)},
        "bucket_bytes": sent,
        "parameters": [
            {"num_bytes": p.num_bytes, "dtype": p.dtype, "shape": list(p.shape), "trainable": True}
            for p in job.parameters
        ],
    }
    group = {"name": "0", "ranks": list(range(ranks)), "size": ranks, "backend": "nccl"}
    return {"host": f"host{host}", "boot_id": f"boot{host}", "device": "cuda", "groups": [group], "models": [model]}


def _ns(ms: float) -> int:
    return START + round(ms * MS)
