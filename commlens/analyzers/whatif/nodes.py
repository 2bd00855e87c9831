"""What a step's communication is made of: communicators, and the collectives on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.coefficients import Line
from commlens.analyzers.whatif.sharing import Sharing

# What a collective carries, where a change has to know.
BUFFERS, USED_MAP = "buffers", "used map"  # of DDP: rank 0's buffers; which parameters were used
GATHER, REGATHER, SCATTER = "gather", "regather", "scatter"  # of FSDP: parameters for forward, for backward; gradients

ITEM_BYTES: Final = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}  # what can be cast to fewer


@dataclass(frozen=True)
class Link:
    """One communicator, on which collectives run in the order of issue.

    Attributes:
        name: of the group.
        workers: how many it runs at once.
        sharing: how those slow each other down.
        latency: what its alpha is multiplied by.
        speed: what its bandwidth is multiplied by.
        alpha_ns: its alpha instead, None where that was not changed.
        gb_s: its bandwidth instead, None where that was not changed.
        members: global ranks.
        hosts: how many of those each host has, () where hosts are not known.
        lines: what its messages cost, by operation; why that is not known instead.
    """

    name: str
    workers: int
    sharing: Sharing
    latency: float = 1.0
    speed: float = 1.0
    alpha_ns: float | None = None
    gb_s: float | None = None
    members: tuple[int, ...] = ()
    hosts: tuple[int, ...] = ()
    lines: Mapping[str, Line | str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether its messages cost something else than was measured."""
        return (self.latency, self.speed, self.alpha_ns, self.gb_s) != (1.0, 1.0, None, None)


@dataclass(frozen=True)
class Node:
    """One collective of the step, on all ranks; several groups may each have their own at the same place.

    Attributes:
        op: torch's spelling.
        dtype: torch's name.
        bytes: message size.
        links: links it runs on, ascending, shape (n,).
        member: which of those each rank belongs to, shape (ranks,).
        measured_ns: its transfer on each of them in each recorded step, NaN where it was not measured, shape
            (n, steps).
        lines: what its messages cost on each of them; why that is not known instead.
        reduces: it carries gradients of the model in `Model.gradients`.
        part: what else it carries that changes ask for, "" for anything else.
        unit: of FSDP that it belongs to, in the order of forward; -1 where to none.
        messages: that follow each other in it; `bytes` are those of all.
        latency: what alpha is multiplied by, by a change of the ranks.
        per_byte: what beta is multiplied by, likewise.
    """

    op: str
    dtype: str
    bytes: float
    links: Ints
    member: Ints
    measured_ns: Floats
    lines: tuple[Line | str, ...]
    reduces: bool = False
    part: str = ""
    unit: int = -1
    messages: int = 1
    latency: float = 1.0
    per_byte: float = 1.0

    @property
    def rescaled(self) -> bool:
        """Whether it costs something else than its bytes did on its link."""
        return (self.messages, self.latency, self.per_byte) != (1, 1.0, 1.0)
