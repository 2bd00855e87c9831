"""The catalogue: each planted fault, how large, and the answer that is expected.

`scenario(name, seed)` draws the guilty rank or group, the size of the fault and of the job from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from lab.bases import compute_job, healthy
from lab.broken import BROKEN
from lab.compute_faults import COMPUTE, slow
from lab.link_faults import LINKS
from lab.scenario import Scenario


def _lost(rank_of_fault: bool) -> Callable[[random.Random], Scenario]:
    """A folder is missing, of another rank than the guilty one, or of a healthy job."""

    def draw(rng: random.Random) -> Scenario:
        base = slow("forward", "")(rng) if rank_of_fault else compute_job(rng)
        guilty = base.expected.ranks or ()
        return replace(base, lost=(rng.choice([rank for rank in range(base.ranks) if rank not in guilty]),))

    return draw


CATALOGUE: dict[str, Callable[[random.Random], Scenario]] = {
    **COMPUTE,
    **LINKS,
    **BROKEN,
    "lost-folder": _lost(rank_of_fault=True),
    "lost-folder-healthy": _lost(rank_of_fault=False),
    "healthy-ddp": lambda rng: healthy("ddp", rng),
    "healthy-fsdp2": lambda rng: healthy("fsdp2", rng),
    "healthy-tensor_parallel": lambda rng: healthy("tensor_parallel", rng),
    "healthy-exchange": lambda rng: healthy("exchange", rng),
    "healthy-groups": lambda rng: healthy("groups", rng),
}


def scenario(name: str, seed: int) -> Scenario:
    """One case of the catalogue.

    Raises:
        KeyError: it has no such fault.
    """
    return replace(CATALOGUE[name](random.Random(f"{name}/{seed}")), name=name)
