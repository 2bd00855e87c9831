"""Values of NVML's fields: each has a return code and a type of its own.

The module `nvml` is nvidia-ml-py's `pynvml`, whose calls go through ctypes.CDLL and give up the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

ALL_LINKS: Final = 0xFFFFFFFF  # as a scope: the sum over the device's links
MOST_LINKS: Final = 36  # NVML_NVLINK_MAX_LINKS of the newest headers
Field = tuple[int, int]  # id, scope

# Which member of the union holds the value (nvml.h: nvmlValueType_t).
_MEMBERS: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_NARROW: Final = ("uiVal", "siVal", "usVal")


class RefusedError(Exception):
    """NVML does not tell; the message says why, in its words."""


class Value(int):
    """A field's value; `narrow` where NVML keeps it in 32 bits or fewer."""

    narrow = False


def read(nvml: Any, handle: Any, fields: Sequence[Field]) -> list[Value | RefusedError]:
    """Each field's value or why there is none.

    Raises:
        RefusedError: The call itself failed: then no field was read.
    """
    try:
        values = nvml.nvmlDeviceGetFieldValues(handle, list(fields))
    except nvml.NVMLError as error:
        raise RefusedError(str(error)) from None
    return [_value(nvml, value) for value in values]


def read_all(nvml: Any, handle: Any, fields: Sequence[Field]) -> list[Value]:
    """The values of fields that are of use only together.

    Raises:
        RefusedError: One of them is not told.
    """
    values = read(nvml, handle, fields)
    for value in values:
        if isinstance(value, RefusedError):
            raise value
    return [value for value in values if not isinstance(value, RefusedError)]


def one(nvml: Any, handle: Any, field: int, scope: int = 0) -> Value | None:
    """One field's value, None where it is not told."""
    try:
        return read_all(nvml, handle, [(field, scope)])[0]
    except RefusedError:
        return None


def _value(nvml: Any, told: Any) -> Value | RefusedError:
    if told.nvmlReturn != nvml.NVML_SUCCESS:
        return RefusedError(str(nvml.NVMLError(told.nvmlReturn)))
    if not 0 <= told.valueType < len(_MEMBERS):
        return RefusedError(f"a value of unknown type {told.valueType}")
    member = _MEMBERS[told.valueType]
    value = Value(getattr(told.value, member))
    value.narrow = member in _NARROW
    return value
