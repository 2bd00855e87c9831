"""The units of a model that FSDP shards: what is gathered and scattered together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Units:
    """The units of an FSDP model, numbered in the order of forward; their collectives are nodes with that `unit`.

    Attributes:
        count: of them.
        link: the communicator that they are sharded over.
        synchronous: a thread that issues a collective stands still for it at once (FSDP2 on the CPU).
        refusal: why they cannot be told apart, None where they can.
    """

    count: int
    link: int
    synchronous: bool = False
    refusal: str | None = None
