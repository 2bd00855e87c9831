"""Writes a large run that looks like a real one, quickly: for benchmarks of what people look at.

A DDP job with tensor-parallel groups inside each host of eight ranks and data-parallel groups across the hosts.
Each step: load, forward and backward with blocking collectives of the tensor-parallel group, the backward also with
DDP's buckets, which overlap; an all_reduce of the gradient norm over everybody; optimizer. One rank, that of
`straggler(ranks)`, computes `SLOWER` times longer. Clocks of hosts differ by milliseconds and drift, and each rank
reads its wall clock once. Every time follows from work and transfers drawn
from `seed`, so what analysis finds can be checked.

    .venv/bin/python bench/big_run.py FOLDER --ranks 64 --steps 100 --collectives 500
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from simulated import (
    HOST,
    MS,
    SLOWER,
    START,
    US,
    Clocks,
    Floats,
    Ints,
    as_ops,
    group_info,
    natively_recorded,
    overhead_columns,
    rank_info,
    run_info,
)

from commlens.trace import RankWriter, write_run_info
from commlens.trace.schema import DTYPES, MISSING, OPS, PHASES

BUCKET_SHARE: Final = 25  # one collective in so many is a bucket of DDP
PARAMETER_BYTES: Final = 8 << 20
PER_BUCKET: Final = 4  # parameters of a bucket but the first, at DDP's cap of 25 MiB
TENSOR_SIZES: Final = (64 << 10, 256 << 10, 1 << 20, 4 << 20)
TENSOR_OPS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_reduce")
SAMPLED: Final = (4, 8, 16, 32, 64)  # steps in which gradients' times are recorded
WORLD, TENSOR, DATA = "0", "tp", "dp"


def main() -> None:
    options = parse()
    path = make_run(options.folder, options.ranks, options.steps, options.collectives, options.seed, options.counters)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    rows = options.ranks * options.steps * options.collectives
    print(json.dumps({"run": str(path), "collectives": rows, "mib": round(size / 2**20, 1)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--collectives", type=int, default=500, help="per rank and step, at least 4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counters", action="store_true", help="with readings of each host's link")
    return parser.parse_args()


def straggler(ranks: int) -> int:
    """The rank that computes longer."""
    return ranks // 3


def make_run(
    folder: Path, ranks: int = 64, steps: int = 100, collectives: int = 500, seed: int = 0, counters: bool = False
) -> Path:
    """Write a run folder and return it.

    Args:
        folder: a new one.
        ranks: of the job, eight a host.
        steps: of the optimizer; the first two are the warm-up.
        collectives: of a rank and step, at least 4.
        seed: of work, transfers and clocks.
        counters: also readings of one link a host, ten a second.

    Raises:
        ValueError: fewer than 4 collectives, or no rank or step.
        FileExistsError: `folder` holds a run.
    """
    if collectives < 4 or min(ranks, steps) < 1:
        raise ValueError("give at least 1 rank, 1 step and 4 collectives")
    job = _Job(ranks, steps, collectives, seed)
    _simulate(job)
    run = run_info(f"big-{ranks}-{steps}-{collectives}-{seed}", ranks)
    write_run_info(folder, run)
    head = {name: run[name] for name in ("run_id", "world_size")}
    for rank in range(ranks):
        _write_rank(folder, job, rank, head, counters)
    return folder


@dataclass
class _Group:
    """Groups of one kind: every rank is in exactly one of them."""

    kind: str
    of: Ints  # number of the group of each rank, shape (ranks,)
    order: Ints = field(init=False)
    first: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.order = np.argsort(self.of, kind="stable")
        self.first = np.searchsorted(self.of[self.order], np.arange(self.of.max() + 1))

    def last(self, times: Ints) -> Ints:
        """The latest time in each rank's group, shape (ranks,)."""
        return np.asarray(np.maximum.reduceat(times[self.order], self.first)[self.of])

    def members(self, rank: int) -> list[int]:
        return [int(each) for each in np.flatnonzero(self.of == self.of[rank])]

    def name(self, rank: int) -> str:
        return self.kind if self.kind == WORLD else f"{self.kind}{self.of[rank]}"


class _Job:
    """What is planned, and room for what follows: times on the true clock, ns, shape (ranks, steps, collectives)."""

    def __init__(self, ranks: int, steps: int, collectives: int, seed: int) -> None:
        self.ranks, self.steps, self.collectives = ranks, steps, collectives
        self.draw = np.random.default_rng(seed)
        every = np.arange(ranks)
        self.groups = {
            WORLD: _Group(WORLD, np.zeros(ranks, np.int64)),
            TENSOR: _Group(TENSOR, every // HOST),
            DATA: _Group(DATA, every % HOST),
        }
        self.plan = _plan(collectives)
        shape = (ranks, steps, collectives)
        self.issued, self.started, self.ended = (np.zeros(shape, np.int64) for _ in range(3))
        self.bounds = np.zeros((ranks, steps, 5), np.int64)  # forward, backward, its end, optimizer, its end
        self.clocks = Clocks.drawn(ranks, self.draw)


@dataclass
class _Plan:
    """The collectives of a step in the order of issue, shape (collectives,) each.

    The first `forward` are of the forward, the last is of the gradient norm, the others of the backward.
    """

    kind: list[str]
    op: list[str]
    bytes: Ints
    bucket: Ints
    transfer_ns: Floats
    forward: int

    @cached_property
    def buckets(self) -> Ints:
        return np.flatnonzero(self.bucket != MISSING)


def _plan(collectives: int) -> _Plan:
    buckets = max(1, collectives // BUCKET_SHARE)
    forward = (collectives - buckets - 1) // 3
    backward = collectives - 1 - forward
    places = forward + (np.arange(1, buckets + 1) * backward) // buckets - 1
    number = np.full(collectives, MISSING, np.int64)
    number[places] = np.arange(buckets)
    kind, op, size = [], [], np.zeros(collectives, np.int64)
    for k in range(collectives):
        bucket, last = number[k] != MISSING, k == collectives - 1
        kind.append(DATA if bucket else WORLD if last else TENSOR)
        op.append("all_reduce" if bucket or last else TENSOR_OPS[k % 4])
        whole = PARAMETER_BYTES if number[k] == 0 else PER_BUCKET * PARAMETER_BYTES
        size[k] = whole if bucket else 4 if last else TENSOR_SIZES[(k // 4) % 4]
    alpha = np.array([20_000 if each == TENSOR else 60_000 for each in kind])
    per_byte = np.array([1 / 25 if each == TENSOR else 1 / 12 for each in kind])  # ns: 25 and 12 GB/s
    return _Plan(kind, op, size, number, alpha + per_byte * size, forward)


def _simulate(job: _Job) -> None:
    """Fill in every time, collective after collective, all ranks at once."""
    now = np.full(job.ranks, START, np.int64)
    for step in range(job.steps):
        now = _step(job, step, now)


def _step(job: _Job, step: int, now: Ints) -> Ints:
    plan, count = job.plan, job.collectives
    work = job.draw.normal(200 * US, 6 * US, (count, job.ranks)).clip(100 * US)
    work[:, straggler(job.ranks)] *= SLOWER
    noise = job.draw.lognormal(0, 0.05, count)
    now = now + job.draw.integers(1 * MS, 2 * MS, job.ranks)
    job.bounds[:, step, 0] = now
    free = np.zeros(job.ranks, np.int64)  # when DDP's communicator is
    for k in range(count):
        if k == plan.forward:
            job.bounds[:, step, 1] = now
        if k == count - 1:
            now = np.maximum(now, free) + 30 * US
            job.bounds[:, step, 2] = now
        group, transfer = job.groups[plan.kind[k]], int(plan.transfer_ns[k] * noise[k])
        now = now + work[k].astype(np.int64)
        started = np.maximum(now + 15 * US, free) if plan.kind[k] == DATA else now + 15 * US
        ended = group.last(started) + transfer
        job.issued[:, step, k], job.started[:, step, k], job.ended[:, step, k] = now, started, ended
        now, free = (now, ended) if plan.kind[k] == DATA else (ended, free)
    job.bounds[:, step, 3] = now
    now = now + job.draw.integers(8 * MS, 9 * MS, job.ranks)
    job.bounds[:, step, 4] = now
    return now


def _write_rank(folder: Path, job: _Job, rank: int, head: dict[str, Any], counters: bool) -> None:
    writer = RankWriter(folder, rank)
    sampler = counters and rank % HOST == 0
    writer.write_info(head | _info(job, rank, sampler))
    for first in range(0, job.steps, 20):
        writer.append("collectives", _collective_columns(job, rank, np.arange(first, min(first + 20, job.steps))))
    writer.append("phases", _phase_columns(job, rank))
    writer.append(
        "overhead", overhead_columns(job.clocks, rank, job.issued[rank].ravel(), int(job.bounds[rank, -1, 4]))
    )
    if any(step < job.steps for step in SAMPLED):
        writer.append("gradients", _gradient_columns(job, rank))
    if sampler:
        writer.append("counters", _counter_columns(job, rank))
    writer.close()


def _info(job: _Job, rank: int, sampler: bool) -> dict[str, Any]:
    groups = [_described(group, rank) for group in job.groups.values()]
    info = rank_info(rank, job.clocks, groups, int(job.bounds[rank, -1, 4]) + MS)
    info["models"] = [_model(job, groups[-1]["name"])]
    if sampler:
        link = {"name": "eth0", "kind": "ethernet", "peak_bytes_per_s": 12.5e9, "peak_from": "speed", "bytes": "frames"}
        info["links"] = [link]
        info["counters"] = {"interval_ms": 100, "sources": [{"source": "network", "every_ms": 100}]}
    return info


def _described(group: _Group, rank: int) -> dict[str, Any]:
    words = {WORLD: "default_pg", TENSOR: "tensor parallel", DATA: "data parallel"}
    return group_info(group.name(rank), words[group.kind], group.members(rank))


def _model(job: _Job, group: str) -> dict[str, Any]:
    """A model whose parameters DDP lays out into the buckets of the plan, last registered first."""
    count = _parameters(job)
    weight = {"shape": [2048, 1024], "dtype": "float32", "num_bytes": PARAMETER_BYTES, "trainable": True}
    order = list(range(count))[::-1]
    cuts = [0, *range(1, count + 1, PER_BUCKET)]
    layout = [order[a:b] for a, b in zip(cuts, [*cuts[1:], count], strict=True) if order[a:b]]
    flags: dict[str, Any] = {"find_unused_parameters": False, "gradient_as_bucket_view": False, "static_graph": False}
    flags |= {"bucket_bytes_cap": 25 << 20, "bucket_bytes_cap_default": True, "broadcast_buffers": False}
    return {
        "kind": "DDP",
        "name": "DDP(Net)",
        "group": group,
        "flags": flags | {"bucket_bytes_cap_list": [], "comm_hook": ""},
        "bucket_bytes": [PARAMETER_BYTES * len(bucket) for bucket in layout],
        "bucket_parameters": layout,
        "ready_order": order,
        "parameters": [{"name": f"layers.{n}.weight", **weight} for n in range(count)],
    }


def _parameters(job: _Job) -> int:
    return 1 + PER_BUCKET * (job.plan.buckets.size - 1)


def _collective_columns(job: _Job, rank: int, steps: Ints) -> dict[str, Any]:
    plan, shape = job.plan, (steps.size, job.collectives)
    issued, started, ended = (
        job.clocks.shown(rank, each[rank, steps]) for each in (job.issued, job.started, job.ended)
    )
    kinds = list(job.groups)
    kind = np.array([kinds.index(each) for each in plan.kind])
    sizes = np.array([len(job.groups[each].members(rank)) for each in kinds])
    asynchronous = plan.bucket != MISSING
    op = as_ops(plan.op)
    gathered, scattered = op == OPS.index("all_gather"), op == OPS.index("reduce_scatter")

    def each_step(values: Ints) -> Ints:
        return np.broadcast_to(values, shape).ravel()

    return {
        "event": (steps[:, None] * job.collectives + np.arange(job.collectives)).ravel(),
        "group": (each_step(kind), [job.groups[each].name(rank) for each in kinds]),
        "group_desc": (each_step(kind), ["default_pg", "tensor parallel", "data parallel"]),
        "seq": _numbered(kind, steps),
        "op": (each_step(op), list(OPS)),
        "dtype": (np.full(steps.size * job.collectives, DTYPES.index("float32")), list(DTYPES)),
        "in_bytes": each_step(np.where(gathered, plan.bytes // sizes[kind], plan.bytes)),
        "out_bytes": each_step(np.where(scattered, plan.bytes // sizes[kind], plan.bytes)),
        "group_size": each_step(sizes[kind]),
        "issued_ns": issued.ravel(),
        "started_ns": started.ravel(),
        "completed_ns": ended.ravel(),
        "waited_ns": np.where(asynchronous, MISSING, issued).ravel(),
        "blocked_ns": np.where(asynchronous, MISSING, ended - issued).ravel(),
        "step": np.repeat(steps, job.collectives),
        "bucket": each_step(plan.bucket),
        **natively_recorded(steps.size * job.collectives),
    }


def _numbered(kind: Ints, steps: Ints) -> Ints:
    """n-th collective of its group, shape (rows,)."""
    total = np.bincount(kind, minlength=3)
    within = np.array([np.count_nonzero(kind[:k] == kind[k]) for k in range(kind.size)])
    return np.asarray((steps[:, None] * total[kind] + within).ravel())


def _phase_columns(job: _Job, rank: int) -> dict[str, Any]:
    bounds = job.clocks.shown(rank, job.bounds[rank])
    spans = ((0, 1), (1, 2), (3, 4))  # of forward, backward and optimizer in `bounds`
    steps = np.arange(job.steps).repeat(3)
    return {
        "phase": (np.tile(np.arange(3), job.steps), list(PHASES)),
        "name": (np.tile(np.arange(3), job.steps), ["DDP(Net)", "", "AdamW"]),
        "start_ns": bounds[:, [start for start, _ in spans]].ravel(),
        "end_ns": bounds[:, [end for _, end in spans]].ravel(),
        "step": steps,
        "thread": np.zeros(steps.size, np.int64),
    }


def _gradient_columns(job: _Job, rank: int) -> dict[str, Any]:
    """A bucket's gradients come evenly since the bucket before was launched; the last is what launches it."""
    steps, buckets = np.array([step for step in SAMPLED if step < job.steps]), job.plan.buckets
    before = np.concatenate([job.bounds[rank, steps, 1:2], job.issued[rank][np.ix_(steps, buckets[:-1])]], axis=1)
    after = job.issued[rank][np.ix_(steps, buckets)]
    share = [(0, 1.0), *((b, (n + 1) / PER_BUCKET) for b in range(1, buckets.size) for n in range(PER_BUCKET))]
    bucket = np.array([b for b, _ in share])
    ready = before[:, bucket] + ((after - before)[:, bucket] * np.array([part for _, part in share])).astype(np.int64)
    count = _parameters(job)
    return {
        "model": np.zeros(ready.size, np.int64),
        "parameter": np.tile(np.arange(count)[::-1], steps.size),
        "ready_ns": job.clocks.shown(rank, ready.ravel() - US),
        "step": steps.repeat(count),
    }


def _counter_columns(job: _Job, rank: int) -> dict[str, Any]:
    """What DDP's buckets of all ranks of the host moved over its link, read ten times a second."""
    host = range(rank, min(rank + HOST, job.ranks))
    read = np.arange(START, job.bounds[rank, -1, 4], 100 * MS)
    moved = sum((_sent(job, each, read) for each in host), np.zeros(read.size)).astype(np.int64)
    names: Sequence[str] = ("tx_bytes", "rx_bytes")
    return {
        "time_ns": np.tile(job.clocks.shown(rank, read), 2),
        "device": (np.zeros(2 * read.size, np.int64), ["eth0"]),
        "counter": (np.arange(2).repeat(read.size), names),
        "value": np.tile(moved, 2),
    }


def _sent(job: _Job, rank: int, times: Ints) -> Floats:
    """Bytes that a rank has sent in rings of its data-parallel group by each time."""
    members = len(job.groups[DATA].members(rank))
    buckets = job.plan.buckets
    knots = job.ended[rank][:, buckets].ravel()
    sent = np.cumsum(np.tile(2 * (members - 1) / members * job.plan.bytes[buckets], job.steps))
    return np.asarray(np.interp(times - START, knots - START, sent, left=0.0))


if __name__ == "__main__":
    main()
