"""What torch makes of each collective in NCCL: the table by which both are matched."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Part(NamedTuple):
    """What a collective of torch may be in NCCL: operations of one kind that move so many bytes together.

    Attributes:
        op: word of `schema.OPS`.
        bytes: of all of them; None where the collective does not tell.
    """

    op: str
    bytes: int | None


class Message(NamedTuple):
    """A send or recv that a collective is made of; `bytes` None where it does not tell."""

    op: str
    peer: int
    bytes: int | None


@lru_cache(4096)  # a job asks for the same again and again
def collective_parts(op: str, in_bytes: int, out_bytes: int) -> list[Part]:
    """What a collective is as NCCL's collectives, any one of these.

    NCCL tells each rank's part of all_gather and reduce_scatter. torch makes broadcasts and reduces of lists whose
    tensors differ in size. Several tensors in one call (coalesced) are as many operations.
    """
    table = {
        "all_reduce": [Part("all_reduce", in_bytes)],
        "all_gather": [Part("all_gather", in_bytes), Part("broadcast", out_bytes)],
        "reduce_scatter": [Part("reduce_scatter", out_bytes), Part("reduce", in_bytes)],
        "broadcast": [Part("broadcast", in_bytes)],
        "reduce": [Part("reduce", in_bytes)],
        "barrier": [Part("all_reduce", None)],
        "all_to_all": [Part("all_to_all", None)],
        "gather": [Part("gather", None)],
        "scatter": [Part("scatter", None)],
    }
    return table.get(op, [])


@lru_cache(4096)
def message_parts(op: str, in_bytes: int, out_bytes: int, own: int, size: int, peer: int) -> list[Message]:
    """What a collective is as messages; empty where it is none.

    Args:
        op: word of `schema.OPS`.
        in_bytes, out_bytes: of this rank.
        own, peer: rank of this process and of the root or other end, in the group; peer MISSING where there is none.
        size: of the group.
    """
    others = [each for each in range(size) if each != own]
    if op == "send":
        return [Message("send", peer, in_bytes)]
    if op == "recv":
        return [Message("recv", peer, out_bytes)]
    if op == "all_to_all":
        return [Message(way, each, None) for each in others for way in ("send", "recv")]
    if op == "gather":
        return (
            [Message("recv", each, in_bytes) for each in others] if own == peer else [Message("send", peer, in_bytes)]
        )
    if op == "scatter":
        return (
            [Message("send", each, out_bytes) for each in others] if own == peer else [Message("recv", peer, out_bytes)]
        )
    return []
