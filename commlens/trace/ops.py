"""The size of a message and its share of the bus, as nccl-tests defines them.

Source: github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md and src/*.cu.
"""

from __future__ import annotations

from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from commlens.trace.schema import MISSING, OPS

_OUT_BYTES: Final = frozenset({"all_gather", "scatter", "recv"})
_TIMES_GROUP: Final = frozenset({"gather", "scatter"})
_ALL_BUT_OWN_PART: Final = frozenset({"all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"})

_Bytes = NDArray[np.integer[Any]]


@overload
def message_bytes(op: str, in_bytes: int, out_bytes: int, group_size: int) -> int: ...
@overload
def message_bytes(op: str, in_bytes: _Bytes, out_bytes: _Bytes, group_size: int | _Bytes) -> _Bytes: ...
def message_bytes(op: str, in_bytes: int | _Bytes, out_bytes: int | _Bytes, group_size: int | _Bytes) -> int | _Bytes:
    """Message size in bytes, the "size" column of nccl-tests: what algbw is computed from.

    The whole buffer a rank ends or begins with: input of all_reduce, broadcast,
    reduce, reduce_scatter and all_to_all, output of all_gather; of gather and
    scatter one part times the ranks; of a barrier nothing. `MISSING` stays so.

    Args:
        op: One of `schema.OPS`.
        in_bytes: Bytes handed in by the rank.
        out_bytes: Bytes received by the rank.
        group_size: Ranks in the group.

    Raises:
        KeyError: `op` is not one of `schema.OPS`.
    """
    _check(op)
    part = np.asarray(out_bytes if op in _OUT_BYTES else in_bytes, np.int64)
    ranks = np.asarray(group_size if op in _TIMES_GROUP else 1, np.int64)
    size = np.where((part == MISSING) | (ranks == MISSING), MISSING, part * ranks)
    if op == "barrier":
        size = np.zeros_like(size)
    return size if size.ndim else int(size)


def busbw_factor(op: str, group_size: int) -> float | None:
    """Bus bandwidth over algorithm bandwidth, from nccl-tests' PERFORMANCE.md.

    all_reduce 2(n-1)/n; all_gather, reduce_scatter, all_to_all, gather and
    scatter (n-1)/n; broadcast, reduce, send and recv 1.

    Args:
        op: One of `schema.OPS`.
        group_size: Ranks in the group, n.

    Returns:
        The factor; None for a barrier, and where the group's size is not known.

    Raises:
        KeyError: `op` is not one of `schema.OPS`.
    """
    _check(op)
    if op == "barrier" or group_size < 1:
        return None
    share = (group_size - 1) / group_size
    if op == "all_reduce":
        return 2 * share
    return share if op in _ALL_BUT_OWN_PART else 1.0


def _check(op: str) -> None:
    if op not in OPS:
        raise KeyError(op)
