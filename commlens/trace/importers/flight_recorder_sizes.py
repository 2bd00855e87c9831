"""What an entry of a Flight Recorder dump moved: bytes and dtype of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from commlens.trace.importers.torch_names import dtype_of
from commlens.trace.schema import MISSING

_LAST: Final = 2**62  # no count, size or time is larger
_MOST_DIMENSIONS: Final = 64
_ITEM_BYTES: Final = {"Undefined": 0, "UInt16": 2, "UInt32": 4, "UInt64": 8, "ComplexHalf": 4, "Float4_e2m1fn_x2": 1}


def whole(value: object) -> int:
    """A count, MISSING where it is none."""
    return value if type(value) is int and 0 <= value <= _LAST else MISSING


def sizes(op: str | None, raw: Mapping[str, object]) -> tuple[int, int]:
    """Bytes handed in and received.

    Torch notes a message's tensor on both sides, and NCCL's scatter with the sides exchanged: the part is the
    smaller, and all that a rank has which is not the root.
    """
    if op == "barrier":
        return 0, 0
    got, out = (_bytes(raw.get(f"{side}_sizes"), raw.get(f"{side}_dtypes")) for side in ("input", "output"))
    if op == "send":
        return got, 0
    if op == "recv":
        return 0, out
    if op == "scatter" and MISSING not in (got, out):
        return (max(got, out), min(got, out)) if got and out else (0, max(got, out))
    return got, out


def _bytes(sizes: object, dtypes: object) -> int:
    """Bytes of all tensors; torch names the dtype once for a list that it flattened."""
    if not isinstance(sizes, list | tuple):
        return MISSING
    names = dtypes if isinstance(dtypes, list | tuple) else [dtypes]
    items = [_item_bytes(name) for name in names]
    if len(items) != len(sizes):
        items = [items[0] if len(set(items)) == 1 else MISSING] * len(sizes)
    counts = [_count(shape) for shape in sizes]
    if MISSING in counts or MISSING in items[: len(counts)]:
        return MISSING
    return whole(sum(count * item for count, item in zip(counts, items, strict=True)))


def _count(shape: object) -> int:
    """Elements of a tensor."""
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > _MOST_DIMENSIONS
        or any(whole(length) == MISSING for length in shape)
    ):
        return MISSING
    return math.prod(shape)


def _item_bytes(name: object) -> int:
    if not isinstance(name, str):
        return MISSING
    known = dtype_of(name)
    return known[1] if known else _ITEM_BYTES.get(name, MISSING)


def dtype(raw: Mapping[str, object]) -> str | None:
    """The dtype of the first tensor that has one."""
    lists = [raw.get("input_dtypes"), raw.get("output_dtypes")]
    names = [name for names in lists for name in (names if isinstance(names, list | tuple) else [names])]
    named = [name for name in names if isinstance(name, str) and name not in ("", "Undefined")]
    known = dtype_of(named[0]) if named else None
    return known[0] if known else "other" if named else None
