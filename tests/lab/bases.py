"""Healthy jobs, of sizes drawn by a seed: what the faults are planted in."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from lab.plan import Plan
from lab.scenario import Expected, Scenario
from lab.sizes import waiting

STEPS = 32
SMALLEST, LARGEST = 0.03, 0.25  # size of a fault, as a share of the step
BLOCKING = {"ddp": False, "fsdp2": True, "tensor_parallel": True, "groups": True, "exchange": True, "messages": True}
# Options of each job, and how long a step stands still for its collectives on the default link, ms. FSDP2 has the
# most to do between waking and issuing, in which ranks that share a core wait for each other: it gets longer steps.
_OPTIONS: dict[str, tuple[dict[str, float], float]] = {
    "ddp": ({"layers": 9, "width": 128, "bucket_kb": 128}, 3.0),
    "fsdp2": ({"layers": 2, "width": 128}, 10.0),
    "tensor_parallel": ({"layers": 3, "width": 32, "rows": 512}, 15.0),
    "groups": ({"layers": 3, "width": 128, "reduces": 4}, 8.0),
    "exchange": ({"layers": 2, "width": 64, "tokens": 512}, 19.0),
    "messages": ({"layers": 3, "messages": 100, "elements": 64}, 60.0),
}
_STRETCH = {"fsdp2": 1.25}
_PHASES_MS = {"load": (6, 12), "forward": (50, 70), "backward": (90, 120)}


def healthy(job: str, rng: random.Random) -> Scenario:
    """A job without any fault."""
    options, exposed_ms = _OPTIONS[job]
    longer = _STRETCH.get(job, 1.0)
    phases = {name: round(longer * rng.uniform(*between), 2) for name, between in _PHASES_MS.items()}
    return Scenario(
        name=f"healthy-{job}",
        job=job,
        options={"steps": STEPS, **options, **phases},
        plan=Plan(seed=rng.randrange(2**31), jitter=0.02),
        expected=Expected(),
        step_ms=sum(phases.values()) + exposed_ms,
        visible_ms=waiting,
    )


def with_faults(base: Scenario, *faults: dict[str, object]) -> Scenario:
    """The same job with faults of its ranks."""
    return replace(base, plan=replace(base.plan, faults=(*base.plan.faults, *faults)))


def compute_job(rng: random.Random) -> Scenario:
    """A job in which each rank computes the same, of one of three kinds."""
    return healthy(rng.choice(("ddp", "fsdp2", "tensor_parallel")), rng)


def share(rng: random.Random, largest: float = LARGEST) -> float:
    """Of a step; each doubling is equally likely."""
    return math.exp(rng.uniform(math.log(SMALLEST), math.log(largest)))
