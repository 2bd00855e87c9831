"""Between numpy columns (`MISSING` for unknown) and Arrow arrays (null).

Arrays are built from and read as buffers: `pa.array` and `Array.to_numpy`
import pandas where it is installed, which a training process must not pay for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from commlens.trace.schema import MISSING

Integers = NDArray[np.signedinteger[Any]]


def to_arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Integer array of the Arrow type `kind`, null where `values` is `MISSING`; may share their memory.

    Raises:
        TypeError: `values` are not integers.
        OverflowError: A value does not fit into `kind`.
    """
    narrow = _narrowed(np.asarray(values), np.dtype(str(kind)))
    known = narrow != MISSING
    validity = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(narrow), [validity, pa.py_buffer(narrow)])


def _narrowed(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "iub":
        raise TypeError(f"a column holds integers, not {values.dtype}")
    limits = np.iinfo(dtype)
    fits = np.can_cast(values.dtype, dtype) or not values.size
    if not fits and (values.min() < limits.min or values.max() > limits.max):
        raise OverflowError(f"a value does not fit into {dtype}")
    return np.ascontiguousarray(values, dtype)


def names_to_arrow(codes: NDArray[Any], vocabulary: Sequence[str], kind: pa.DictionaryType) -> pa.Array:
    """Dictionary array of type `kind`, null where a code is `MISSING`.

    Raises:
        TypeError: `codes` are not integers.
        OverflowError: `kind` has no room for a code.
        IndexError: A code is not in `vocabulary`.
    """
    indices = to_arrow(codes, kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, _strings(vocabulary))


def _strings(words: Sequence[str]) -> pa.Array:
    encoded = [word.encode("utf-8", "backslashreplace") for word in words]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(word) for word in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def from_arrow(array: pa.Array) -> Integers:
    """Values of an integer array, or codes of a dictionary array, `MISSING` where null. Read-only."""
    if isinstance(array, pa.DictionaryArray):
        array = array.indices
    dtype = np.dtype(str(array.type))
    if not len(array):
        return np.zeros(0, dtype)
    validity, data = array.buffers()
    span = slice(array.offset, array.offset + len(array))
    values = np.frombuffer(data, dtype)[span]
    if array.null_count:
        known = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[span]
        values = np.where(known.view(bool), values, dtype.type(MISSING))
        values.flags.writeable = False
    return values


def one_array(table: pa.Table, column: str) -> pa.Array:
    """The column as one array, whatever its chunks."""
    chunks = table.column(column)
    if not chunks.num_chunks:
        return pa.nulls(0, chunks.type)
    return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.unify_dictionaries().combine_chunks()
