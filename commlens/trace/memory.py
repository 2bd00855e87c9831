"""Memory that is no longer used, handed back: allocators keep it, and what is kept for a dashboard stays for long."""

from __future__ import annotations

import ctypes

import pyarrow as pa


def give_back() -> None:
    """Hand what Arrow's pool and the C library hold free back to the system, as far as they can."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others need none
    if trim is not None:
        trim(0)
