"""ByteDance's straggler traces (OSDI'25 artifact, `../shared/traces`) as models of the simulator.

A trace is a table of operations of a Megatron job: data-parallel ranks, pipeline stages, steps. What each needs to end
before it begins is as in the artifact's analyzer/dependency_model.py, for jobs without virtual stages:

    stage s:   params-all-gather, then its forwards and backwards in the recorded order, each after its recv;
               last one, gc, layernorm all-reduce, [embedding all-reduce: first and last stage],
               grads reduce-scatter, clip (all ranks), optimizer
    send:      after its compute; nobody waits for it. A message begins when both sides have come.

The simulator knows neither senders nor receivers, but two nodes in a row on the serial link of two stages are a
message: the first takes the transfer and both stages issue it, the second is its receipt, which takes nothing and only
the receiver waits for. Ranks without part in a node have it on a link of their own, where it takes nothing. A transfer
is the end minus the last start (analyzer/wia.py, get_transfer_time).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from analyzers.whatif_model import link
from numpy.typing import NDArray

from commlens.analyzers.whatif.model import Model, Point
from commlens.analyzers.whatif.nodes import Link, Node

Floats = NDArray[np.float64]
NS = 1e9
GATHER, SCATTER, EMBEDDING = "params-all-gather", "grads-reduce-scatter", "embedding-grads-all-reduce"
LAYERNORM, CLIP = "layernorm-grads-all-reduce", "optimizer-clip-main-grad"
SENT = ("forward-send", "forward-recv", "backward-send", "backward-recv")
_MEDIAN = (*SENT, GATHER, SCATTER, EMBEDDING, LAYERNORM, CLIP)  # their usual time is a median, computing's a mean
_EARLIEST = -0.01  # s; transfers below are errors of the clocks


class Op(NamedTuple):
    """One operation of one stage."""

    kind: str
    seq: int
    stage: int


@dataclass(frozen=True)
class Operations:
    """A trace.

    Attributes:
        dp: data-parallel ranks.
        stages: of the pipeline.
        steps: recorded.
        starts: s, of each operation, shape (dp, steps).
        ends: s, likewise.
    """

    dp: int
    stages: int
    steps: int
    starts: dict[Op, Floats]
    ends: dict[Op, Floats]

    @cached_property
    def seconds(self) -> dict[Op, Floats]:
        """What each takes by itself: computing, or the transfer; shape (dp, steps)."""
        return {op: self._transfer(op) if self.partners(op) else self.ends[op] - self.starts[op] for op in self.starts}

    def partners(self, op: Op) -> list[Op]:
        """Operations of one data-parallel rank that begin together with it, itself included; none of computing."""
        if op.kind in SENT:
            # Stage 0 receives no activations and the last no gradients.
            far = op.stage + (1 if op.kind in ("forward-send", "backward-recv") else -1)
            way, role = op.kind.split("-")
            peer = Op(f"{way}-{'recv' if role == 'send' else 'send'}", op.seq, far)
            return [op, peer] if peer in self.starts else []
        if op.kind in (GATHER, SCATTER):
            return [op]
        stages = {EMBEDDING: (0, self.stages - 1), CLIP: range(self.stages)}.get(op.kind, ())
        return [op._replace(stage=stage) for stage in stages]

    def computing(self, stage: int) -> list[Op]:
        """Forwards and backwards of a stage, in the order of the first rank's first step."""
        own = [op for op in self.starts if op.stage == stage and op.kind in ("forward-compute", "backward-compute")]
        return sorted(own, key=lambda op: self.starts[op][0, 0])

    def _transfer(self, op: Op) -> Floats:
        begun = np.max([self.starts[each] for each in self.partners(op)], axis=0)
        if op.kind in (GATHER, SCATTER, CLIP):
            begun = begun.max(axis=0, keepdims=True)
        taken = self.ends[op] - begun
        return np.where(taken <= _EARLIEST, 0.0, taken)


def read_operations(path: Path) -> Operations:
    """The table of a trace."""
    table = {name: column.to_numpy() for name, column in zip(*_columns(path), strict=True)}
    steps = np.unique(table["step"])
    dp, stages = int(table["dp_rank"].max()) + 1, int(table["stage"].max()) + 1
    starts: dict[Op, Floats] = {}
    ends: dict[Op, Floats] = {}
    at = np.searchsorted(steps, table["step"])
    kinds, kind = np.unique(table["optype"].astype(str), return_inverse=True)
    key = (kind * 4096 + table["seq_id"]) * 64 + table["stage"]
    order = np.argsort(key, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        first = rows[0]
        op = Op(str(kinds[kind[first]]), int(table["seq_id"][first]), int(table["stage"][first]))
        starts[op], ends[op] = np.full((2, dp, steps.size), np.nan)
        where = table["dp_rank"][rows], at[rows]
        starts[op][where] = table["start_ts"][rows]
        ends[op][where] = starts[op][where] + table["duration"][rows]
    return Operations(dp, stages, steps.size, starts, ends)


def _columns(path: Path) -> tuple[list[str], list[Any]]:
    names = ["dp_rank", "stage", "step", "optype", "seq_id", "start_ts", "duration"]
    table = pq.read_table(path)
    return names, [table.column(name) for name in names]


def usual(operations: Operations) -> dict[Op, Floats]:
    """The published ideal: each takes what its kind takes on average over ranks, stages and steps."""
    kinds: dict[str, list[Floats]] = {}
    for op, seconds in operations.seconds.items():
        kinds.setdefault(op.kind, []).append(seconds)
    middle = {kind: (np.median if kind in _MEDIAN else np.mean)(np.stack(each)) for kind, each in kinds.items()}
    return {op: np.full_like(seconds, middle[op.kind]) for op, seconds in operations.seconds.items()}


def pipeline_model(operations: Operations, seconds: dict[Op, Floats]) -> Model:
    """A step of the job in which each operation takes so long; rank dp * stages + stage."""
    return _Assembly(operations, seconds).model()


class _Assembly:
    """Points in an order that every rank can follow, while own time adds up."""

    def __init__(self, operations: Operations, seconds: dict[Op, Floats]) -> None:
        self.of, self.seconds = operations, seconds
        ranks = operations.dp * operations.stages
        self.links: dict[tuple[object, ...], int] = {("alone", rank): rank for rank in range(ranks)}
        self.own = np.zeros((ranks, operations.steps))
        self.points: list[Point] = []
        self.low: list[Floats] = []
        self.nodes: list[Node] = []
        self.numbers: dict[Op, int] = {}

    def model(self) -> Model:
        plans = [list(self._plan(stage)) for stage in range(self.of.stages)]
        done = [0] * self.of.stages
        while any(done[stage] < len(plan) for stage, plan in enumerate(plans)):
            before = sum(done)
            for stage, plan in enumerate(plans):
                while done[stage] < len(plan) and self._ready(plan[done[stage]], plans, done):
                    self._do(*plan[done[stage]])
                    done[stage] += 1
            assert sum(done) > before, "the pipeline's messages wait for each other"
        low = np.stack([*self.low, self.own])
        names = [str(name) for name in self.links]
        return Model(
            step_ns=np.ones(self.own.shape),
            points=tuple(self.points),
            low_ns=low,
            high_ns=low,
            share=np.zeros(low.shape[:2]),
            nodes=tuple(self.nodes),
            links=tuple(Link(name, 1, link().sharing) for name in names),
        )

    def _plan(self, stage: int) -> Iterator[tuple[str, Op]]:
        """What a stage does, one after the other."""
        yield "join", Op(GATHER, 0, stage)
        for op in self.of.computing(stage):
            way = op.kind.split("-")[0]
            if self.of.partners(recv := Op(f"{way}-recv", op.seq, stage)):
                yield "receive", recv
            yield "compute", op
            if self.of.partners(send := Op(f"{way}-send", op.seq, stage)):
                yield "send", send
        yield "compute", Op("gc", 0, stage)
        yield "compute", Op(LAYERNORM, 0, stage)
        if stage in (0, self.of.stages - 1):
            yield "join", Op(EMBEDDING, 0, stage)
        yield "join", Op(SCATTER, 0, stage)
        yield "join", Op(CLIP, 0, stage)
        yield "compute", Op("optimizer", 0, stage)

    def _ready(self, each: tuple[str, Op], plans: list[list[tuple[str, Op]]], done: list[int]) -> bool:
        what, op = each
        partners = self.of.partners(op)
        if what == "receive":
            return partners[1] in self.numbers
        if what != "join" or op in self.numbers:
            return True
        # Collectives are issued when all have come to them.
        return all(plans[other.stage][done[other.stage]] == ("join", other) for other in partners)

    def _do(self, what: str, op: Op) -> None:
        if what == "compute":
            self.own[op.stage :: self.of.stages] += NS * self.seconds[op]
            return
        if what == "send":
            self._issue(op)
            return
        if what == "join" and op not in self.numbers:
            self._issue(op)
            self.numbers |= dict.fromkeys(self.of.partners(op), self.numbers[op])
        self._point(Point(self.numbers[self.of.partners(op)[-1]], waits=True))

    def _issue(self, op: Op) -> None:
        partners = self.of.partners(op)
        message = op.kind in SENT
        taken = [self.seconds[each] for each in (partners[1:] if message else partners)]
        self._point(Point(self._node(op, partners, partners, taken), waits=False))
        if message:
            self._point(Point(self._node(op, partners, partners[1:], [np.zeros_like(taken[0])]), waits=False))

    def _point(self, point: Point) -> None:
        self.points.append(point)
        self.low.append(self.own.copy())

    def _node(self, op: Op, partners: list[Op], members: list[Op], seconds: list[Floats]) -> int:
        """A node between some of the partners' ranks, of one data-parallel rank or of all; its number.

        Args:
            seconds: what it takes, of each that counts; the longest is waited for later, but for the
                gather, after which ranks go on by themselves: the mean.
        """
        whole = op.kind in (GATHER, SCATTER, CLIP)
        member = np.arange(self.own.shape[0])
        table = NS * np.maximum(np.max(seconds, axis=0), 0)
        taken: dict[int, Floats] = {}
        for dp in range(self.of.dp):
            key = (op.kind, *sorted(each.stage for each in partners), *([] if whole else [dp]))
            number = self.links.setdefault(key, len(self.links))
            member[[dp * self.of.stages + each.stage for each in members]] = number
            taken[number] = (table.mean if op.kind == GATHER else table.max)(axis=0) if whole else table[dp]
        numbers, places = np.unique(member, return_inverse=True)
        measured = np.stack([taken.get(int(number), np.zeros(self.of.steps)) for number in numbers])
        self.numbers[op] = len(self.nodes)
        self.nodes.append(Node(op.kind, "float32", 0.0, numbers, places, measured, ("as measured",) * numbers.size))
        return self.numbers[op]
