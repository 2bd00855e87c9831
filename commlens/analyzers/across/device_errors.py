"""How sure the times are that devices tell by their own clocks, as NCCL's plugin maps them to the hosts'."""

from __future__ import annotations

from math import ceil
from typing import Final

import numpy as np

from commlens.analyzers.ranks import RankFacts

_USUAL: Final = 0.95


def device_error_ns(facts: RankFacts) -> int:
    """What 95 % of a rank's device times are right to on its host's clock, ns; 0 where NCCL's plugin told none."""
    errors = facts.operations.error_ns if facts.operations is not None else None
    return ceil(float(np.quantile(errors, _USUAL))) if errors is not None and errors.size else 0


def is_one_sided(facts: RankFacts) -> bool:
    """Whether most of a rank's device times are only bounds: how far they can be wrong is not known then."""
    own = facts.operations
    return own is not None and own.clocks.get("device_late", 0) > own.error_ns.size and bool(own.by_plugin.any())
