"""What the ranks of a large job do in a step: who is grouped with whom, and which collectives in which order.

Tensor-parallel groups of eight fill a host. Pipeline stages lie on different hosts and pass messages to their
neighbours, one forward and one backward in turn (1F1B: Narayanan et al. 2021, "Efficient Large-Scale Language Model
Training on GPU Clusters"). Data-parallel groups join the ranks of one stage and one place in the host, across hosts.
Ranks are numbered as Megatron-LM does it: place in the host, then replica, then stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from simulated import HOST, US, Floats, Ints, as_ops

from commlens.trace.schema import OPS

WORLD, TENSOR, DATA, PIPELINE = KINDS = ("0", "tp", "dp", "pp")
DESCRIPTIONS: Final = ("default_pg", "tensor parallel", "data parallel", "pipeline parallel")
GRADIENT_BYTES: Final = 288 << 10  # for each collective of the step
MESSAGE_BYTES: Final = 512 << 10
TENSOR_SIZES: Final = (4 << 20, 4 << 20, 8 << 20, 16 << 20)
TENSOR_OPS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_reduce")
_ALPHA_NS: Final = {WORLD: 100_000, TENSOR: 15_000, DATA: 60_000, PIPELINE: 20_000}
_BYTES_PER_NS: Final = {WORLD: 25, TENSOR: 400, DATA: 25, PIPELINE: 25}  # GB/s
_NEXT, _PREVIOUS = 1, -1


@dataclass(frozen=True)
class Shape:
    """How large a job is.

    Raises:
        ValueError: it has no such groups, or too few collectives for its messages.
    """

    ranks: int
    steps: int
    collectives: int  # of a rank and step
    stages: int = 0  # of the pipeline; 0: four where there are ranks and micro-batches enough, else two

    def __post_init__(self) -> None:
        if not self.stages:
            object.__setattr__(self, "stages", 4 if self.ranks >= 8 * HOST and self.micro_batches >= 4 else 2)
        if self.steps < 1 or self.replicas < 2 or self.ranks % (HOST * self.stages):
            raise ValueError(f"give a multiple of {HOST * self.stages} ranks, {2 * HOST * self.stages} at least")
        if self.micro_batches < 1:
            raise ValueError("give at least 18 collectives a rank and step")

    @property
    def replicas(self) -> int:
        return self.ranks // HOST // self.stages

    @property
    def micro_batches(self) -> int:
        return min(8, (self.collectives - 6) // 12)

    @property
    def buckets(self) -> int:
        return max(2, self.collectives // 50)

    @property
    def bucket_bytes(self) -> int:
        return self.collectives * GRADIENT_BYTES // self.buckets

    def places(self, rank: int) -> tuple[int, int, int]:
        """Stage, replica and place in the host."""
        hosts, place = divmod(rank, HOST)
        stage, replica = divmod(hosts, self.replicas)
        return stage, replica, place

    def rank(self, stage: int, replica: int, place: int) -> int:
        return (stage * self.replicas + replica) * HOST + place

    def group(self, kind: str, rank: int) -> str:
        """The name of a rank's group of a kind."""
        stage, replica, place = self.places(rank)
        number = {TENSOR: rank // HOST, DATA: stage * HOST + place, PIPELINE: replica * HOST + place}
        return kind if kind == WORLD else f"{kind}{number[kind]}"

    def members(self, kind: str, rank: int) -> list[int]:
        stage, replica, place = self.places(rank)
        if kind == WORLD:
            return list(range(self.ranks))
        if kind == TENSOR:
            return [self.rank(stage, replica, each) for each in range(HOST)]
        if kind == DATA:
            return [self.rank(stage, each, place) for each in range(self.replicas)]
        return [self.rank(each, replica, place) for each in range(self.stages)]


@dataclass
class Segment:
    """The forward or backward of one micro-batch on one stage: where its collectives stand in the step."""

    backward: bool
    micro: int
    received: int | None = None
    tensor: list[int] = field(default_factory=list)
    buckets: list[tuple[int, int]] = field(default_factory=list)  # its place; the tensor-parallel one it follows
    sent: int | None = None


class StagePlan:
    """The collectives of a rank of one stage in the order of issue, arrays of shape (collectives,)."""

    def __init__(self, shape: Shape, stage: int) -> None:
        self.shape, self.stage = shape, stage
        self.segments = [Segment(backward, micro) for backward, micro in _one_forward_one_backward(shape, stage)]
        self._kind: list[int] = []
        self._op: list[str] = []
        self._bytes: list[int] = []
        self._peer: list[int] = []
        counts = self._tensor_counts()
        for segment, count in zip(self.segments, counts, strict=True):
            self._lay_out(segment, int(count))
        self._add(WORLD, "all_reduce", 4)
        self.kind, self.bytes, self.peer = (np.array(each) for each in (self._kind, self._bytes, self._peer))
        self.op = as_ops(self._op)
        self.bucket_slots = [slot for slot, _ in self.segments[-1].buckets]

    def _tensor_counts(self) -> Ints:
        """Tensor-parallel collectives of each segment: twice as many in a backward as in a forward."""
        messages = 2 * self.shape.micro_batches * (2 - (self.stage in (0, self.shape.stages - 1)))
        left = self.shape.collectives - messages - self.shape.buckets - 1
        weights = np.cumsum([1 + segment.backward for segment in self.segments])
        return np.diff(np.round(weights / weights[-1] * left).astype(int), prepend=0)

    def _lay_out(self, segment: Segment, count: int) -> None:
        first, last = self.stage == 0, self.stage == self.shape.stages - 1
        source, target = (_NEXT, _PREVIOUS) if segment.backward else (_PREVIOUS, _NEXT)
        if not (last if segment.backward else first):
            segment.received = self._add(PIPELINE, "recv", MESSAGE_BYTES, source)
        launched = np.linspace(0, count, self.shape.buckets + 1)[1:].round().astype(int)
        ending = segment.backward and segment.micro == self.shape.micro_batches - 1
        for k in range(count):
            place = len(self._op)
            segment.tensor.append(self._add(TENSOR, TENSOR_OPS[place % 4], TENSOR_SIZES[(place // 4) % 4]))
            for _ in range(int((launched == k + 1).sum()) if ending else 0):
                segment.buckets.append((self._add(DATA, "all_reduce", self.shape.bucket_bytes), k))
        if not (first if segment.backward else last):
            segment.sent = self._add(PIPELINE, "send", MESSAGE_BYTES, target)

    def _add(self, kind: str, op: str, size: int, peer: int = 0) -> int:
        self._kind.append(KINDS.index(kind))
        self._op.append(op)
        self._bytes.append(size)
        self._peer.append(peer)
        return len(self._op) - 1

    @cached_property
    def transfer_ns(self) -> Floats:
        alpha = np.array([_ALPHA_NS[kind] for kind in KINDS])[self.kind]
        return np.asarray(alpha + self.bytes / np.array([_BYTES_PER_NS[kind] for kind in KINDS])[self.kind])

    def ranks_away(self) -> Ints:
        """How far off the peer's number is, 0 where there is none."""
        return np.asarray(self.peer * self.shape.replicas * HOST)

    def numbered(self, steps: Ints) -> Ints:
        """The n-th collective of its group, or message in its direction, shape (steps, collectives)."""
        direction = np.where(self.peer != 0, 8 + 4 * (self.op == OPS.index("send")) + self.peer, self.kind)
        total = np.bincount(direction)
        within = np.array([np.count_nonzero(direction[:k] == direction[k]) for k in range(direction.size)])
        return np.asarray(steps[:, None] * total[direction] + within)


def _one_forward_one_backward(shape: Shape, stage: int) -> list[tuple[bool, int]]:
    """Whether backward, and the micro-batch, in the order in which a stage runs them."""
    micro = shape.micro_batches
    ahead = min(micro, shape.stages - 1 - stage)
    order = [(False, m) for m in range(ahead)]
    for m in range(micro - ahead):
        order += [(False, ahead + m), (True, m)]
    return order + [(True, m) for m in range(micro - ahead, micro)]


def in_order(plans: Sequence[StagePlan]) -> list[tuple[int, int]]:
    """Stage and number of every segment of all stages, each after those whose messages it needs."""
    done: set[tuple[int, bool, int]] = set()
    at, order = [0] * len(plans), []

    def ready(stage: int, segment: Segment) -> bool:
        source = stage + (1 if segment.backward else -1)
        return segment.received is None or (source, segment.backward, segment.micro) in done

    while len(order) < sum(len(plan.segments) for plan in plans):
        for stage, plan in enumerate(plans):
            while at[stage] < len(plan.segments) and ready(stage, segment := plan.segments[at[stage]]):
                done.add((stage, segment.backward, segment.micro))
                order.append((stage, at[stage]))
                at[stage] += 1
    return order


def work_ns(shape: Shape, segment: Segment) -> float:
    """Own work of a segment, whatever the number of its collectives: 200 us a collective of the step."""
    return 200 * US * shape.collectives * (1 + segment.backward) / (3 * shape.micro_batches)
