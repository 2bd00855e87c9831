"""How often counters are read: COMMLENS_COUNTERS."""

from __future__ import annotations

import os
from typing import Final

from commlens.profiler import live

VARIABLE: Final = "COMMLENS_COUNTERS"
DEFAULT_MS: Final = 100
LEAST_MS, MOST_MS = 10, 60_000
_NONE: Final = ("0", "off", "no", "false")


def interval_ms() -> int:
    """Milliseconds between two readings; 0 is none at all. A value that is none of these costs one line."""
    said = os.environ.get(VARIABLE, "").strip()
    if not said:
        return DEFAULT_MS
    if said.lower() in _NONE:
        return 0
    if said.isascii() and said.isdigit() and LEAST_MS <= int(said[:9]) <= MOST_MS:
        return int(said[:9])
    live.warn(
        f"{VARIABLE}={said[:40]} is not off, and no number of ms from {LEAST_MS} to {MOST_MS}:"
        f" reading each {DEFAULT_MS} ms"
    )
    return DEFAULT_MS
