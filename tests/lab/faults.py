"""The catalogue: each planted fault, how large, and the answer that is expected.

`scenario(name, seed)` draws the guilty rank or group, the size of the fault and of the job from the seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from lab.bases import BLOCKING, STEPS, compute_job, healthy, with_faults
from lab.broken import BROKEN
from lab.lane import data_factor, whose_turn
from lab.plan import Slow
from lab.scenario import Expected, Scenario
from lab.sizes import imbalance, lateness, slowness, small_messages, turns

SMALLEST, LARGEST = 0.03, 0.25  # of a step
_PAIR_BYTES = 128 * 128 * 4  # of one gradient in `jobs/groups.py`


def _share(rng: random.Random, largest: float = LARGEST) -> float:
    """Of a step; each doubling is equally likely."""
    return math.exp(rng.uniform(math.log(SMALLEST), math.log(largest)))


def _slow(phase: str, cause: str) -> Callable[[random.Random], Scenario]:
    def draw(rng: random.Random) -> Scenario:
        base = compute_job(rng)
        rank, planned = rng.randrange(base.ranks), base.step_ms * _share(rng)
        return replace(
            with_faults(base, {"kind": "slow", "rank": rank, "phase": phase, "ms": planned}),
            expected=Expected(("straggler-rank",), ranks=(rank,), cause=cause),
            planned_ms=planned,
            visible_ms=lateness(rank, BLOCKING[base.job]),
        )

    return draw


def _rotating(rng: random.Random) -> Scenario:
    base = compute_job(rng)
    phase, planned = rng.choice(("forward", "backward")), base.step_ms * _share(rng)
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


def _pair(exact: bool) -> Callable[[random.Random], Scenario]:
    def draw(rng: random.Random) -> Scenario:
        base = replace(healthy("groups", rng), ranks=6)
        first, planned = 2 * rng.randrange(3), base.step_ms * _share(rng, 0.2)
        reduces = base.options["reduces"]
        alpha, beta = base.plan.alpha_beta((first, first + 1))
        normal = (alpha + beta * _PAIR_BYTES) / 1e6
        gb_s = _PAIR_BYTES / ((normal + planned / reduces) * 1e6 - alpha)
        slow = Slow((first, first + 1), gb_s=gb_s, exact=exact)
        return replace(
            base,
            plan=replace(base.plan, slow=(slow,)),
            expected=Expected(("slow-group",) if exact else ("slow-group", "slow-link"), members=slow.ranks),
            planned_ms=planned,
            visible_ms=slowness(slow.ranks, normal * reduces),
        )

    return draw


def _all_slow(rng: random.Random) -> Scenario:
    base = healthy("ddp", rng)
    times = rng.uniform(2.5, 6)
    buckets, last = 4 * 2 * _PAIR_BYTES, _PAIR_BYTES
    normal = (5 * base.plan.alpha_us * 1e3 + 1.5 * (buckets + last) / base.plan.gb_s) / 1e6
    slower = replace(base.plan, gb_s=base.plan.gb_s / times)
    everyone = tuple(range(base.ranks))
    return replace(
        base,
        plan=slower,
        healthy_link=base.plan,
        expected=Expected(("slow-link",), ranks=()),
        planned_ms=1.5 * (buckets + last) * (1 / slower.gb_s - 1 / base.plan.gb_s) / 1e6,
        visible_ms=slowness(everyone, normal),
    )


def _tiny(rng: random.Random) -> Scenario:
    base = healthy("messages", rng)
    alpha_us = rng.uniform(900, 1300)
    return replace(
        base,
        plan=replace(base.plan, alpha_us=alpha_us),
        expected=Expected(("small-collectives",)),
        planned_ms=base.options["messages"] * alpha_us / 1e3,
        step_ms=base.step_ms - 60 + base.options["messages"] * alpha_us / 1e3,
        visible_ms=small_messages,
    )


def _uneven(rng: random.Random) -> Scenario:
    base = healthy("exchange", rng)
    hot, extra, slows = rng.randrange(base.ranks), rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4)
    compute = base.options["forward"] + base.options["backward"]
    # The hot expert receives 1 + 3 extra times its share; the others 1 - extra times.
    return replace(
        base,
        options={**base.options, "hot": hot, "extra": round(extra, 3), "slows": round(slows, 3)},
        expected=Expected(("expert-imbalance",), ranks=(hot,)),
        planned_ms=slows * base.ranks * extra * compute,
        visible_ms=lateness(hot, blocking=True),
    )


def _lost(rank_of_fault: bool) -> Callable[[random.Random], Scenario]:
    """A folder is missing, of another rank than the guilty one, or of a healthy job."""

    def draw(rng: random.Random) -> Scenario:
        base = _slow("forward", "")(rng) if rank_of_fault else compute_job(rng)
        guilty = base.expected.ranks or ()
        return replace(base, lost=(rng.choice([rank for rank in range(base.ranks) if rank not in guilty]),))

    return draw


CATALOGUE: dict[str, Callable[[random.Random], Scenario]] = {
    "slow-forward": _slow("forward", "longer compute"),
    "slow-backward": _slow("backward", "longer compute"),
    "late-input": _slow("load", "late input"),
    "rotating": _rotating,
    "by-data": _by_data,
    "host-stall": _host_stall,
    "slow-pair": _pair(exact=False),
    "slow-group": _pair(exact=True),
    "all-links-slow": _all_slow,
    "tiny-messages": _tiny,
    "uneven-exchange": _uneven,
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
