"""Faults after which a job does not go on: somebody is stuck, gone, or out of step with the others."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from lab.bases import healthy, with_faults
from lab.scenario import HANGS, Expected, Scenario


def _strikes(rng: random.Random, job: str) -> tuple[Scenario, int, int]:
    base = healthy(job, rng)
    base = replace(base, plan=replace(base.plan, dry=True))
    return base, rng.randrange(base.ranks), rng.randrange(8, 16)


def _stuck(rng: random.Random) -> Scenario:
    """A rank never comes out of its host's code: the others stand in the collective that it does not issue."""
    base, rank, step = _strikes(rng, rng.choice(("ddp", "fsdp2", "tensor_parallel")))
    phase = rng.choice(("load", "forward", "backward"))
    return replace(
        with_faults(base, {"kind": "stuck", "rank": rank, "step": step, "phase": phase}),
        expected=Expected(("hang",), ranks=(rank,)),
        ends=HANGS,
    )


def _killed(rng: random.Random) -> Scenario:
    """A rank dies and nobody is told."""
    base, rank, step = _strikes(rng, rng.choice(("ddp", "fsdp2", "tensor_parallel")))
    phase = rng.choice(("load", "forward", "backward"))
    return replace(
        with_faults(base, {"kind": "kill", "rank": rank, "step": step, "phase": phase}),
        expected=Expected(("hang",), ranks=(rank,)),
        ends=HANGS,
    )


def _out_of_step(kind: str, ids: tuple[str, ...]) -> Callable[[random.Random], Scenario]:
    """A rank skips the all_reduce of the gradients' norm, or gets its size wrong."""

    def draw(rng: random.Random) -> Scenario:
        base, rank, step = _strikes(rng, "tensor_parallel")
        return replace(
            with_faults(base, {"kind": kind, "rank": rank, "step": step, "name": "norm"}),
            expected=Expected(ids, ranks=(rank,)),
            ends=HANGS,
        )

    return draw


BROKEN: dict[str, Callable[[random.Random], Scenario]] = {
    "stuck-rank": _stuck,
    "killed-rank": _killed,
    "skipped-collective": _out_of_step("skip", ("desync", "hang")),
    "odd-size": _out_of_step("odd-size", ("desync",)),
}
