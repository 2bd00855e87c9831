"""Names that torch and its profiler give to operations and types, in the words of the trace format."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from commlens.trace.schema import OPS

_PREFIX: Final = re.compile(r"^(?:nccl|gloo|mpi|ucc|rccl|xccl|c10d(?:_functional)?)::?")
_NOISE: Final = re.compile(r"coalesced|intotensor|tensor|single|oop|inplace|base|list|uneven|sparse|(?<!rec)v$")

# Longest first: "reduce" is in three of them.
_STEMS: Final = {
    "reducescatter": "reduce_scatter",
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "barrier": "barrier",
    "scatter": "scatter",
    "gather": "gather",
    "reduce": "reduce",
    "send": "send",
    "recvanysource": "recv",
    "recv": "recv",
}
assert set(_STEMS.values()) == set(OPS)

# Name without namespace and case -> (dtype of the schema, bytes of an element).
_DTYPES: Final = {
    "float": ("float32", 4),
    "float32": ("float32", 4),
    "double": ("float64", 8),
    "float64": ("float64", 8),
    "half": ("float16", 2),
    "float16": ("float16", 2),
    "bfloat16": ("bfloat16", 2),
    "long": ("int64", 8),
    "long int": ("int64", 8),
    "int64": ("int64", 8),
    "int": ("int32", 4),
    "int32": ("int32", 4),
    "short": ("int16", 2),
    "short int": ("int16", 2),
    "int16": ("int16", 2),
    "char": ("int8", 1),
    "signed char": ("int8", 1),
    "int8": ("int8", 1),
    "byte": ("uint8", 1),
    "unsigned char": ("uint8", 1),
    "uint8": ("uint8", 1),
    "bool": ("bool", 1),
    "complexfloat": ("complex64", 8),
    "complex<float>": ("complex64", 8),
    "complex64": ("complex64", 8),
    "complexdouble": ("complex128", 16),
    "complex<double>": ("complex128", 16),
    "complex128": ("complex128", 16),
}


@lru_cache(4096)
def op_of(name: str) -> str | None:
    """The operation that a name of torch stands for ("nccl:_all_gather_base", "c10d::allreduce_"), None if none."""
    letters = re.sub("[^a-z]", "", _PREFIX.sub("", name.strip()).lower())
    return _STEMS.get(_NOISE.sub("", letters))


@lru_cache(4096)
def dtype_of(name: str) -> tuple[str, int] | None:
    """dtype of the schema and bytes of an element, None where the name is not known.

    Takes the names of the profiler ("c10::Half", "Float"), of torch ("torch.float32") and of C++.
    """
    word = name.strip().lower().removeprefix("torch.").removeprefix("c10::")
    if word.startswith("float8"):
        return "float8", 1
    return _DTYPES.get(word)
