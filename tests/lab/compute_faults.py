"""Faults of a rank's compute: always the same rank, another in each step, or now and then."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from lab.bases import BLOCKING, STEPS, compute_job, healthy, share, with_faults
from lab.lane import data_factor, whose_turn
from lab.scenario import Expected, Scenario
from lab.sizes import imbalance, lateness, turns


def slow(phase: str, cause: str) -> Callable[[random.Random], Scenario]:
    """One rank takes longer in one phase, in every step."""

    def draw(rng: random.Random) -> Scenario:
        base = compute_job(rng)
        rank, planned = rng.randrange(base.ranks), base.step_ms * share(rng)
        return replace(
            with_faults(base, {"kind": "slow", "rank": rank, "phase": phase, "ms": planned}),
            expected=Expected(("straggler-rank",), ranks=(rank,), cause=cause),
            planned_ms=planned,
            visible_ms=lateness(rank, BLOCKING[base.job]),
        )

    return draw


def _rotating(rng: random.Random) -> Scenario:
    base = compute_job(rng)
    phase, planned = rng.choice(("forward", "backward")), base.step_ms * share(rng)
    return replace(
        with_faults(base, {"kind": "rotating", "phase": phase, "ms": planned}),
        expected=Expected(("rotating-imbalance",)),
        planned_ms=planned,
        visible_ms=turns(lambda step: whose_turn(base.plan.seed, step, base.ranks), BLOCKING[base.job]),
    )


def _by_data(rng: random.Random) -> Scenario:
    base = healthy("ddp", rng)
    sigma = rng.uniform(0.05, 0.15)
    compute = base.options["forward"] + base.options["backward"]
    draws = [[data_factor(base.plan.seed, step, r, sigma) for r in range(base.ranks)] for step in range(2, STEPS)]
    return replace(
        with_faults(base, {"kind": "spread", "sigma": sigma}),
        expected=Expected(("rotating-imbalance",)),
        planned_ms=compute * fmean(max(each) - fmean(each) for each in draws),
        visible_ms=imbalance,
    )


def _host_stall(rng: random.Random) -> Scenario:
    base = compute_job(rng)
    rank, pause = rng.randrange(base.ranks), base.step_ms * rng.uniform(0.5, 2.0)
    phase, at = rng.choice(("load", "forward", "backward")), rng.randrange(3, 8)
    return replace(
        with_faults(base, {"kind": "stall", "rank": rank, "phase": phase, "ms": pause, "every": 8, "at": at}),
        expected=Expected(("host-stall",), ranks=(rank,)),
        planned_ms=pause,
        visible_ms=lateness(rank, BLOCKING[base.job], lambda step: step % 8 == at),
    )


COMPUTE: dict[str, Callable[[random.Random], Scenario]] = {
    "slow-forward": slow("forward", "longer compute"),
    "slow-backward": slow("backward", "longer compute"),
    "late-input": slow("load", "longer before forward"),
    "rotating": _rotating,
    "by-data": _by_data,
    "host-stall": _host_stall,
}
