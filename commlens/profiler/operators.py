"""The `c10d` operators that carry communication, and where their arguments are.

Positions follow torch's schemas (`c10d::allreduce_` and so on), unchanged from
torch 2.11 to 2.13; trailing arguments equal to their default are not passed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from commlens.trace.schema import OPS


class Operator(NamedTuple):
    """One operator: its word in our vocabulary and the positions of its arguments.

    `inputs`, `outputs` and `group` are positions; `peer` is the position of
    root, source or destination; `is_async` that of the async flag; `work` the
    place of the Work in the result (None: the result is the Work).
    """

    op: str
    inputs: int | None
    outputs: int | None
    group: int
    peer: int | None = None
    is_async: int | None = None
    work: int | None = None

    @property
    def code(self) -> int:
        return OPS.index(self.op)


OPERATORS: dict[str, Operator] = {
    "allreduce_": Operator("all_reduce", 0, 0, 1, is_async=4, work=1),
    "allreduce_coalesced_": Operator("all_reduce", 0, 0, 1, is_async=3),
    "allgather_": Operator("all_gather", 1, 0, 2, is_async=3, work=1),
    "_allgather_base_": Operator("all_gather", 1, 0, 2, is_async=3, work=1),
    "allgather_coalesced_": Operator("all_gather", 1, 0, 2, is_async=3),
    "allgather_into_tensor_coalesced_": Operator("all_gather", 1, 0, 2, is_async=3),
    "reduce_scatter_": Operator("reduce_scatter", 1, 0, 2, is_async=4, work=1),
    "_reduce_scatter_base_": Operator("reduce_scatter", 1, 0, 2, is_async=4, work=1),
    "reduce_scatter_tensor_coalesced_": Operator("reduce_scatter", 1, 0, 2, is_async=4),
    "alltoall_": Operator("all_to_all", 1, 0, 2, is_async=3, work=1),
    "alltoall_base_": Operator("all_to_all", 1, 0, 2, is_async=5),
    "broadcast_": Operator("broadcast", 0, 0, 1, peer=2, is_async=4, work=1),
    "reduce_": Operator("reduce", 0, 0, 1, peer=3, is_async=5),
    "gather_": Operator("gather", 1, 0, 2, peer=3, is_async=4),
    "scatter_": Operator("scatter", 1, 0, 2, peer=3, is_async=4, work=1),
    "barrier": Operator("barrier", None, None, 1, is_async=3),
    "monitored_barrier_": Operator("barrier", None, None, 1),
    "send": Operator("send", 0, None, 1, peer=2),
    "recv_": Operator("recv", None, 0, 1, peer=2),
    "recv_any_source_": Operator("recv", None, 0, 1),
}


def num_bytes(tensors: Any) -> int:
    """Bytes of a tensor, or of all tensors of a (nested) list."""
    if not isinstance(tensors, (list, tuple)):
        try:
            return int(tensors.nbytes)
        except RuntimeError:  # a sparse one: what is sent is its indices and its values
            return int(tensors._indices().nbytes + tensors._values().nbytes)
    if len(tensors) == 1:  # most calls, on the hot path
        return num_bytes(tensors[0])
    return sum(map(num_bytes, tensors))


def first_tensor(tensors: Any) -> Any:
    """The first tensor of a (nested) list, None where there is none."""
    while isinstance(tensors, (list, tuple)):
        if not tensors:
            return None
        tensors = tensors[0]
    return tensors
