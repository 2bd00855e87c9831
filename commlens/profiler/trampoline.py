"""What it costs that torch calls a Python kernel at all, measured on this machine.

Our hooks time themselves, but not the way into Python and back. A process group
that communicates with nobody (torch's own fake backend, one rank) is called
before and after the hooks are installed; the difference of the medians is it.
"""

from __future__ import annotations

import statistics
from typing import Any

from commlens.profiler.clock import now

CALLS = 101


class Trampoline:
    """Measures at construction (before the hooks) and at `cost_ns` (after)."""

    def __init__(self) -> None:
        self._group = _group_without_peers()
        self._before = self._median_ns()

    def cost_ns(self) -> int | None:
        """Nanoseconds a call, None where this torch has no such backend."""
        after = self._median_ns()
        return max(0, after - self._before) if after is not None and self._before is not None else None

    def _median_ns(self) -> int | None:
        if self._group is None:
            return None
        import torch

        tensors = [torch.zeros(1)]
        return int(statistics.median(_timed(self._group, tensors) for _ in range(CALLS)))


def _timed(group: Any, tensors: list[Any]) -> int:
    started = now()
    group.allreduce(tensors)
    return now() - started


def _group_without_peers() -> Any | None:
    import torch
    from torch._C import _distributed_c10d as c10d

    create = getattr(getattr(c10d, "FakeProcessGroup", None), "_create_internal", None)
    if create is None:
        return None
    group = c10d.ProcessGroup(c10d.HashStore(), 0, 1)
    group._register_backend(torch.device("cpu"), c10d.ProcessGroup.BackendType.CUSTOM, create(0, 1))
    return group
