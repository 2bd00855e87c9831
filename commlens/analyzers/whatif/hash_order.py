"""The order in which torch's C++ walks a hash table of dtypes and devices: DDP's left-over buckets come in it.

`compute_bucket_assignment_by_size` (reducer.cpp) keeps a std::unordered_map; hashes are those of c10/util/hash.h and
c10/core/Device.h. Exact with libstdc++, which is every Linux wheel, and up to 13 keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Key = tuple[str, str]  # dtype and device as torch prints them

# torch's ScalarType of everything that can have a gradient, and its DeviceType.
_DTYPE_CODES: Final = {
    "float16": 5,
    "float32": 6,
    "float64": 7,
    "complex32": 8,
    "complex64": 9,
    "complex128": 10,
    "bfloat16": 15,
    "float8_e5m2": 23,
    "float8_e4m3fn": 24,
    "float8_e5m2fnuz": 25,
    "float8_e4m3fnuz": 26,
}
_DEVICE_CODES: Final = {"cpu": 0, "cuda": 1, "xpu": 12, "mps": 13, "meta": 14, "hpu": 15, "mtia": 19}
_OTHER_DEVICE: Final = 20
_SLOTS: Final = 13  # of a libstdc++ table that holds 1 to 13 keys


def table_order(keys: Iterable[Key]) -> list[Key]:
    """`keys` as the table hands them back; they were put in one by one, in the given order.

    A new key stands in front of all others, or, where its slot is taken, in front of that slot's.
    """
    order: list[Key] = []
    for key in keys:
        taken = [place for place, other in enumerate(order) if _slot(other) == _slot(key)]
        order.insert(taken[0] if taken else 0, key)
    return order


def _slot(key: Key) -> int:
    # c10::get_hash(dtype, device): boost's hash_combine, seeded with the device.
    kind, _, index = key[1].partition(":")
    seed = _DEVICE_CODES.get(kind, _OTHER_DEVICE) << 16 | (int(index) if index else 0xFF)
    value = _DTYPE_CODES.get(key[0], 0)
    return (seed ^ (value + 0x9E3779B9 + (seed << 6) + (seed >> 2))) % _SLOTS
