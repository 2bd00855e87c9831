from __future__ import annotations

import numpy as np
import pytest

from commlens.trace.ops import busbw_factor, message_bytes
from commlens.trace.schema import MISSING, OPS


@pytest.mark.parametrize(
    ("op", "size", "factor"),
    [
        ("all_reduce", 100, 1.5),
        ("all_gather", 7, 0.75),
        ("reduce_scatter", 100, 0.75),
        ("all_to_all", 100, 0.75),
        ("broadcast", 100, 1),
        ("reduce", 100, 1),
        ("gather", 400, 0.75),
        ("scatter", 28, 0.75),
        ("barrier", 0, None),
        ("send", 100, 1),
        ("recv", 7, 1),
    ],
)
def test_sizes_and_factors_of_four_ranks(op: str, size: int, factor: float | None) -> None:
    assert message_bytes(op, 100, 7, 4) == size
    assert busbw_factor(op, 4) == factor
    arrays = message_bytes(op, np.array([100, 100]), np.array([7, 7]), 4)
    assert arrays.tolist() == [size, size]


def test_unknown_bytes_stay_unknown() -> None:
    sizes = message_bytes("gather", np.array([MISSING, 5, 5]), np.zeros(3, int), np.array([4, 4, MISSING]))
    assert sizes.tolist() == [MISSING, 20, MISSING]


def test_every_operation_has_a_size_and_only_those() -> None:
    assert all(isinstance(message_bytes(op, 1, 1, 2), int) for op in OPS)
    with pytest.raises(KeyError):
        message_bytes("allreduce", 1, 1, 2)
    with pytest.raises(KeyError):
        busbw_factor("allreduce", 2)
