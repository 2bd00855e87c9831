"""Writes a run of thousands of ranks with known faults, quickly: tensor, pipeline and data parallel.

What each step does says bench/scale_plan.py. Work and transfers are drawn from `seed` and simulated on one true clock,
all ranks at once; hosts' clocks differ by milliseconds and drift. Planted, and told in FOLDER.planted.json:

    straggler   one rank computes 12 % longer
    host        all ranks of one host compute 8 % longer, as a host does that is too warm
    group       the transfers of one data-parallel group take 2.5 times as long, as on a bad rail

    .venv/bin/python bench/scale_run.py FOLDER --ranks 1024 --steps 100 --collectives 200
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from scale_plan import DATA, DESCRIPTIONS, KINDS, Segment, Shape, StagePlan, in_order, work_ns
from simulated import (
    HOST,
    MS,
    SLOWER,
    START,
    US,
    Clocks,
    Floats,
    Ints,
    group_info,
    natively_recorded,
    overhead_columns,
    rank_info,
    run_info,
)

from commlens.trace import RankWriter, write_run_info
from commlens.trace.aggregates import aggregated
from commlens.trace.pack import write_pack
from commlens.trace.schema import DTYPES, MISSING, OPS, PACK_FILE, PHASES

STRAGGLER, SLOW_HOST, SLOW_GROUP = FAULTS = ("straggler", "host", "group")
WARM: Final = 1.08  # the slow host's work
BAD_RAIL: Final = 2.5  # the slow group's transfers
_NOISE: Final = 0.01  # of work, standard deviation
_BLOCK: Final = 20  # steps written at once


def main() -> None:
    options = parse()
    began = time.perf_counter()
    shape = Shape(options.ranks, options.steps, options.collectives, options.stages)
    make_run(options.folder, shape, options.seed, options.plant, options.packed, options.sums, options.processes)
    size = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
    rows = shape.ranks * shape.steps * shape.collectives
    told = {"run": str(options.folder), "collectives": rows, "mib": round(size / 2**20, 1)}
    print(json.dumps(told | {"bytes_per_collective": round(size / rows, 1), "s": round(time.perf_counter() - began)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--collectives", type=int, default=200, help="per rank and step")
    parser.add_argument("--stages", type=int, default=0, help="of the pipeline (default: 4, or 2 in a small job)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plant", choices=FAULTS, nargs="*", default=FAULTS, help="faults (default: all)")
    parser.add_argument("--packed", action="store_true", help="one packed file a host")
    parser.add_argument("--sums", action="store_true", help="aggregates alone, as with COMMLENS_QUOTA=0")
    parser.add_argument("--processes", type=int, default=2, help="that write")
    return parser.parse_args()


def make_run(
    folder: Path,
    shape: Shape,
    seed: int = 0,
    faults: Collection[str] = FAULTS,
    packed: bool = False,
    sums: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Write a run folder, and FOLDER.planted.json beside it.

    Args:
        folder: a new one.
        shape: of the job.
        seed: of work, transfers and clocks.
        faults: of FAULTS, to be planted.
        packed: one packed file a host in place of rank folders.
        sums: aggregates in place of single collectives and phases, as with COMMLENS_QUOTA=0.
        processes: that write.

    Returns:
        What was planted, as in that file.

    Raises:
        FileExistsError: `folder` holds a run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = run_info(f"scale-{shape.ranks}-{shape.steps}-{shape.collectives}-{seed}", shape.ranks)
    if not write_run_info(folder, run):
        raise FileExistsError(f"{folder} holds a run")
    with tempfile.TemporaryDirectory(prefix=".scale-", dir=folder.parent) as scratch:
        job = _Job(shape, seed, faults, Path(scratch))
        _simulate(job)
        head = {name: run[name] for name in ("run_id", "world_size")}
        _write(_Writer(folder, job, head, packed, sums, Path(scratch)), processes)
    planted = _planted(shape, faults)
    planted_file(folder).write_text(json.dumps(planted, indent=1) + "\n")
    return planted


def planted_file(folder: Path) -> Path:
    """What tells of the faults of the run in a folder."""
    return folder.with_name(f"{folder.name}.planted.json")


def _planted(shape: Shape, faults: Collection[str]) -> dict[str, Any]:
    late, warm, rail = straggler(shape), slow_host(shape), slow_group(shape)
    told: dict[str, Any] = {
        STRAGGLER: {"rank": late, "work_times": SLOWER},
        SLOW_HOST: {
            "host": f"node-{warm:03d}",
            "ranks": list(range(HOST * warm, HOST * warm + HOST)),
            "work_times": WARM,
        },
        SLOW_GROUP: {
            "group": shape.group(DATA, rail),
            "ranks": shape.members(DATA, rail),
            "transfer_times": BAD_RAIL,
        },
    }
    return {fault: told[fault] for fault in FAULTS if fault in faults}


def straggler(shape: Shape) -> int:
    """The rank that computes longer."""
    return shape.rank(1, shape.replicas // 3, 5)


def slow_host(shape: Shape) -> int:
    """The host whose ranks do."""
    return shape.rank(shape.stages // 2, 3 * shape.replicas // 4, 0) // HOST


def slow_group(shape: Shape) -> int:
    """The first rank of the group whose transfers take longer."""
    return shape.rank(0, 0, 2)


class _Job:
    """What is planned, and files for what follows: times on the true clock, ns."""

    def __init__(self, shape: Shape, seed: int, faults: Collection[str], scratch: Path) -> None:
        self.shape, self.draw = shape, np.random.default_rng(seed)
        self.clocks = Clocks.drawn(shape.ranks, self.draw)
        self.plans = [StagePlan(shape, stage) for stage in range(shape.stages)]
        self.order = in_order(self.plans)
        self.grid = (shape.stages, shape.replicas, HOST)
        self.slower = np.ones(self.grid)  # times usual work
        self.rail = np.ones((shape.stages, HOST))  # times usual transfers of the data-parallel groups
        if SLOW_HOST in faults:
            self.slower[shape.places(HOST * slow_host(shape))[:2]] = WARM
        if STRAGGLER in faults:
            self.slower[shape.places(straggler(shape))] = SLOWER
        if SLOW_GROUP in faults:
            stage, _, place = shape.places(slow_group(shape))
            self.rail[stage, place] = BAD_RAIL
        spans = 2 * shape.micro_batches + 1
        self.issued, self.started, self.ended = (
            _on_disk(scratch / name, (shape.ranks, shape.steps, shape.collectives))
            for name in ("issued", "started", "ended")
        )
        self.spans = _on_disk(scratch / "spans", (shape.ranks, shape.steps, spans, 2))  # segments, optimizer
        self.synced = _on_disk(scratch / "synced", (shape.ranks, shape.steps))  # began to wait for its buckets


def _on_disk(path: Path, shape: tuple[int, ...]) -> Ints:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.int64, shape=shape)


def _simulate(job: _Job) -> None:
    now = np.full(job.grid, START, np.int64)
    for step in range(job.shape.steps):
        now = _Step(job, now).run(step)


class _Step:
    """One step of all ranks; times have the shape (stages, replicas, places in the host, collectives)."""

    def __init__(self, job: _Job, now: Ints) -> None:
        self.job, self.draw, self.shape = job, job.draw, job.shape
        self.now = now + self.draw.integers(800 * US, MS, job.grid)
        self.issued, self.started, self.ended = (
            np.empty((*job.grid, job.shape.collectives), np.int64) for _ in range(3)
        )
        self.spans = np.empty((*job.grid, 2 * job.shape.micro_batches + 1, 2), np.int64)
        self.arrives: dict[tuple[int, bool, int], Ints] = {}  # a message, by its target

    def run(self, step: int) -> Ints:
        """Fill in the step's times, and return when each rank ends it."""
        for stage, number in self.job.order:
            self._segment(stage, number)
        synced = self.now.copy()
        for stage in range(self.shape.stages):
            self._buckets(stage)
        self._world()
        self.spans[..., -1, 0] = self.now
        self.now = self.now + (30 * US * self.shape.collectives * self.job.slower * self._noise(self.job.grid)).astype(
            np.int64
        )
        self.spans[..., -1, 1] = self.now
        for name in ("issued", "started", "ended", "spans"):
            target = getattr(self.job, name)
            target[:, step] = getattr(self, name).reshape(target.shape[0], *target.shape[2:])
        self.job.synced[:, step] = synced.ravel()
        return self.now

    def _noise(self, shape: tuple[int, ...]) -> Floats:
        return np.asarray(1 + _NOISE * self.draw.standard_normal(shape, np.float32))

    def _segment(self, stage: int, number: int) -> None:
        segment = self.job.plans[stage].segments[number]
        if segment.received is not None:
            self._receive(stage, segment)
        self.spans[stage, ..., number, 0] = self.now[stage]
        self._tensor(stage, segment)
        self.spans[stage, ..., number, 1] = self.now[stage]
        if segment.sent is not None:
            self._send(stage, segment)

    def _receive(self, stage: int, segment: Segment) -> None:
        issued = self.now[stage] + 5 * US
        came = self.arrives.pop((stage, segment.backward, segment.micro))
        self.now[stage] = np.maximum(issued + 5 * US, came)
        self._note(stage, segment.received, issued, issued, self.now[stage])

    def _send(self, stage: int, segment: Segment) -> None:
        issued = self.now[stage] + 5 * US
        transfer = self.job.plans[stage].transfer_ns[segment.sent] * self.draw.lognormal(0, 0.05, issued.shape)
        self.now[stage] = issued + transfer.astype(np.int64)
        self._note(stage, segment.sent, issued, issued, self.now[stage])
        target = stage + (-1 if segment.backward else 1)
        self.arrives[target, segment.backward, segment.micro] = self.now[stage].copy()

    def _tensor(self, stage: int, segment: Segment) -> None:
        """Blocking collectives within each host, one after another: all ranks leave each one together."""
        count, replicas = len(segment.tensor), self.shape.replicas
        each = work_ns(self.shape, segment) / count * self.job.slower[stage][..., None]
        work = (each * self._noise((replicas, HOST, count))).astype(np.int64)
        noise = self.draw.lognormal(0, 0.05, (replicas, count))
        transfer = (self.job.plans[stage].transfer_ns[segment.tensor] * noise).astype(np.int64)
        work[..., 0] += self.now[stage]
        ended = np.cumsum(work.max(axis=1) + 15 * US + transfer, axis=1)[:, None, :]
        issued = work
        issued[..., 1:] += ended[..., :-1]
        self._note(stage, segment.tensor, issued, issued + 15 * US, np.broadcast_to(ended, issued.shape))
        self.now[stage] = ended[..., -1]
        for slot, follows in segment.buckets:
            self.issued[stage, ..., slot] = ended[..., follows] + (5 + segment.buckets.index((slot, follows))) * US

    def _buckets(self, stage: int) -> None:
        """Those of the data-parallel groups run one after another beside the backward; then the rank waits."""
        plan, free = self.job.plans[stage], np.zeros((), np.int64)
        for slot in plan.bucket_slots:
            issued = self.issued[stage, ..., slot]
            started = np.maximum(issued + 15 * US, free)
            noise = self.job.rail[stage] * self.draw.lognormal(0, 0.05, HOST)
            free = started.max(axis=0) + (plan.transfer_ns[slot] * noise).astype(np.int64)
            self._note(stage, slot, issued, started, np.broadcast_to(free, issued.shape))
        self.now[stage] = np.maximum(self.now[stage], free)

    def _world(self) -> None:
        """The norm of the gradients."""
        issued = self.now + 30 * US
        transfer = int(self.job.plans[0].transfer_ns[-1] * self.draw.lognormal(0, 0.05))
        self.now = np.full_like(issued, issued.max() + 15 * US + transfer)
        self.issued[..., -1], self.started[..., -1], self.ended[..., -1] = issued, issued + 15 * US, self.now

    def _note(self, stage: int, slots: Any, issued: Ints, started: Ints, ended: Ints) -> None:
        self.issued[stage][..., slots] = issued
        self.started[stage][..., slots] = started
        self.ended[stage][..., slots] = ended


@dataclass
class _Writer:
    """Writes the ranks of one host after another."""

    folder: Path
    job: _Job
    head: dict[str, Any]
    packed: bool
    sums: bool
    scratch: Path

    def host(self, number: int) -> None:
        first = HOST * number
        ranks = range(first, first + HOST)
        folder = self.scratch / f"host-{number}" if self.packed else self.folder
        for rank in ranks:
            self._rank(folder, rank)
        if self.packed:
            write_pack(folder, ranks, self.folder / PACK_FILE.format(rank=first))
            shutil.rmtree(folder)

    def _rank(self, folder: Path, rank: int) -> None:
        job = self.job
        end = int(job.spans[rank, -1, -1, 1])
        info = self.head | rank_info(rank, job.clocks, _groups(job.shape, rank), end + MS)
        if self.sums:
            info["aggregates"] = {"quota_bytes": 0, "from_step": 0}
        writer = RankWriter(folder, rank)
        writer.write_info(info)
        for table, columns in self._sums(rank) if self.sums else self._rows(rank):
            writer.append(table, columns)
        writer.append("overhead", overhead_columns(job.clocks, rank, job.issued[rank].ravel(), end))
        writer.close(compact=False)

    def _rows(self, rank: int) -> Iterator[tuple[str, dict[str, Any]]]:
        steps = self.job.shape.steps
        for first in range(0, steps, _BLOCK):
            yield "collectives", _collective_columns(self.job, rank, first, min(first + _BLOCK, steps))
        yield "phases", _phase_columns(self.job, rank)

    def _sums(self, rank: int) -> Iterator[tuple[str, dict[str, Any]]]:
        collectives = _collective_columns(self.job, rank, 0, self.job.shape.steps)
        yield from aggregated(collectives, _phase_columns(self.job, rank)).items()


def _groups(shape: Shape, rank: int) -> list[dict[str, Any]]:
    return [
        group_info(shape.group(kind, rank), description, shape.members(kind, rank))
        for kind, description in zip(KINDS, DESCRIPTIONS, strict=True)
    ]


_writer: _Writer | None = None  # of the processes that write: they inherit it, for its times are mapped, not sent


def _write(writer: _Writer, processes: int) -> None:
    global _writer
    hosts = range(writer.job.shape.ranks // HOST)
    if processes < 2:
        for number in hosts:
            writer.host(number)
        return
    _writer = writer
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        for _ in pool.map(_write_host, hosts, chunksize=4):
            pass
    _writer = None


def _write_host(number: int) -> None:
    assert _writer is not None
    _writer.host(number)


def _collective_columns(job: _Job, rank: int, first: int, last: int) -> dict[str, Any]:
    shape, stage = job.shape, job.shape.places(rank)[0]
    plan = job.plans[stage]
    rows = (last - first, shape.collectives)
    issued, started, ended = (
        job.clocks.shown(rank, each[rank, first:last]) for each in (job.issued, job.started, job.ended)
    )
    waited, blocked = _standstill(job, rank, first, last, issued, ended)
    same = _same_in_every_step(shape, stage, last - first)
    away = plan.ranks_away()
    return same | {
        "event": np.arange(first * shape.collectives, last * shape.collectives),
        "group": (same["group_desc"][0], [shape.group(kind, rank) for kind in KINDS]),
        "seq": plan.numbered(np.arange(first, last)).ravel(),
        "peer": np.broadcast_to(np.where(away, rank + away, MISSING), rows).ravel(),
        "issued_ns": issued.ravel(),
        "started_ns": started.ravel(),
        "completed_ns": ended.ravel(),
        "waited_ns": waited.ravel(),
        "blocked_ns": blocked.ravel(),
        "step": np.repeat(np.arange(first, last), shape.collectives),
    }


def _standstill(job: _Job, rank: int, first: int, last: int, issued: Ints, ended: Ints) -> tuple[Ints, Ints]:
    """When the rank began to stand still for each collective, and how long: at once, but for buckets in the end."""
    plan = job.plans[job.shape.places(rank)[0]]
    waited, blocked = issued.copy(), ended - issued
    free = job.clocks.shown(rank, job.synced[rank, first:last])
    for slot in plan.bucket_slots:
        waited[:, slot] = free
        free = np.maximum(free, ended[:, slot])
        blocked[:, slot] = free - waited[:, slot]
    return waited, blocked


@cache
def _same_in_every_step(shape: Shape, stage: int, steps: int) -> dict[str, Any]:
    """Columns that are alike in all ranks of a stage and all steps."""
    plan, rows = StagePlan(shape, stage), (steps, shape.collectives)
    sizes = np.array([shape.ranks, HOST, shape.replicas, shape.stages])[plan.kind]
    gathered, scattered = plan.op == OPS.index("all_gather"), plan.op == OPS.index("reduce_scatter")

    def each_step(values: Ints) -> Ints:
        return np.broadcast_to(values, rows).ravel()

    return {
        "group_desc": (each_step(plan.kind), list(DESCRIPTIONS)),
        "op": (each_step(plan.op), list(OPS)),
        "dtype": (np.full(rows[0] * rows[1], DTYPES.index("float32")), list(DTYPES)),
        "in_bytes": each_step(np.where(gathered, plan.bytes // sizes, plan.bytes)),
        "out_bytes": each_step(np.where(scattered, plan.bytes // sizes, plan.bytes)),
        "group_size": each_step(sizes),
        **natively_recorded(rows[0] * rows[1]),
    }


def _phase_columns(job: _Job, rank: int) -> dict[str, Any]:
    segments = job.plans[job.shape.places(rank)[0]].segments
    which = [*(int(segment.backward) for segment in segments), PHASES.index("optimizer")]
    count = len(which)
    return {
        "phase": (np.tile(which, job.shape.steps), list(PHASES)),
        "name": (np.tile(which, job.shape.steps), ["Stage", "", "AdamW"]),
        **{
            name: job.clocks.shown(rank, job.spans[rank, ..., side]).ravel()
            for side, name in enumerate(("start_ns", "end_ns"))
        },
        "step": np.arange(job.shape.steps).repeat(count),
        "thread": np.zeros(job.shape.steps * count, np.int64),
    }


if __name__ == "__main__":
    main()
