"""What the clocks of devices add to the doubt in comparing ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from commlens.analyzers.across.clocks import Clocks
from commlens.analyzers.across.device_errors import device_error_ns, is_one_sided
from commlens.analyzers.ranks import RankFacts

BY_PLUGIN: Final = "device clocks by NCCL's plugin"


def with_device_clocks(clocks: Clocks, ranks: Sequence[RankFacts]) -> Clocks:
    """Clocks whose uncertainty holds for the devices' times as well, refused where nothing bounds these.

    Times of two ranks are wrong against each other by both their devices' errors at most, besides the hosts'.
    """
    if clocks.refusal or len(ranks) < 2:
        return clocks
    bounds = [facts.rank for facts in ranks if is_one_sided(facts)]
    if bounds:
        whose = f"rank {bounds[0]}" if len(bounds) == 1 else f"{len(bounds)} ranks"
        return replace(clocks, refusal=f"the device times of {whose} are bounds: they may be earlier by any time")
    worst = sum(sorted(map(device_error_ns, ranks))[-2:])
    if not worst:
        return clocks
    return replace(clocks, method=f"{clocks.method}; {BY_PLUGIN}", uncertainty_ns=clocks.uncertainty_ns + worst)
