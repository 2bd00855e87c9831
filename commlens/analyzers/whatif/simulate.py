"""The door for programs: predictions from text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commlens.analyzers.whatif.answers import WhatIf
from commlens.analyzers.whatif.asked import simulator_of, what_if
from commlens.trace.changes import parse_all

if TYPE_CHECKING:
    from commlens.trace import Run


def simulate(run: Run, *sets: str) -> WhatIf:
    """What changes would gain, before anything is tried.

    simulate(run, "ddp.bucket_cap_mb=50", "ddp.bucket_cap_mb=50,link.bandwidth=x2").scenarios

    Args:
        run: recorded.
        sets: changes, each as `commlens whatif --set` takes them.

    Raises:
        UsageError: There is no such change, or it does not take that value.
    """
    return what_if(simulator_of(run), [parse_all(each) for each in sets])
