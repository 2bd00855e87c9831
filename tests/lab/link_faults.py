"""Faults of the links, and of how they are used: slow ones, too many messages, uneven exchanges."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from lab.bases import healthy, share
from lab.plan import Slow
from lab.scenario import Expected, Scenario
from lab.sizes import lateness, slowness, small_messages

_PAIR_BYTES = 128 * 128 * 4  # of one gradient in `jobs/groups.py` and of one layer in `jobs/ddp.py`


def _pair(exact: bool) -> Callable[[random.Random], Scenario]:
    def draw(rng: random.Random) -> Scenario:
        base = replace(healthy("groups", rng), ranks=6)
        first, planned = 2 * rng.randrange(3), base.step_ms * share(rng, 0.2)
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


LINKS: dict[str, Callable[[random.Random], Scenario]] = {
    "slow-pair": _pair(exact=False),
    "slow-group": _pair(exact=True),
    "all-links-slow": _all_slow,
    "tiny-messages": _tiny,
    "uneven-exchange": _uneven,
}
