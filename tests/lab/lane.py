"""Compute made of sleep: exact on a busy machine, and where the faults of a rank's compute are planted."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from lab.board import STUCK, folder
from lab.plan import Plan

PATIENCE_NS = 20_000_000  # lateness that later sleeps make up for; more is lost


class Lane:
    """A rank's compute: phases of planned length, each split over a few equal parts.

    A part ends at a planned time, not after a planned sleep: what Python and the scheduler took in between
    comes out of the next sleep, so a step takes what the plan says.

    Args:
        plan: with the faults of all ranks.
        phases_ms: planned time of each phase in a step.
        released_ns: planned end of the latest collective, from which `resume` goes on.
    """

    def __init__(
        self, plan: Plan, rank: int, world: int, phases_ms: Mapping[str, float], released_ns: Callable[[], int]
    ) -> None:
        self._plan, self._rank, self._world = plan, rank, world
        self._phases_ms = dict(phases_ms)
        self._released_ns = released_ns
        self._at_ns = time.perf_counter_ns()
        self._begun: set[str] = set()
        self._late_ns = 0
        self.step = -1

    @property
    def late_ms(self) -> float:
        """The most that this rank was behind its plan at the end of a part, after the first two steps."""
        return self._late_ns / 1e6

    def begin_step(self, step: int) -> None:
        self.step = step
        self._begun.clear()

    def run(self, phase: str, parts: int = 1, times: float = 1.0) -> None:
        """Computes one of the `parts` of a phase, `times` as long as planned."""
        share = (self._phases_ms[phase] * self._factor(phase) * times + self._extra_ms(phase)) / parts
        if phase not in self._begun:
            self._begun.add(phase)
            share += self._once(phase)
        now = time.perf_counter_ns()
        if now - self._at_ns > PATIENCE_NS:
            self._at_ns = now
        self._at_ns += round(share * 1e6)
        _sleep_until(self._at_ns)
        if self.step >= 2:
            self._late_ns = max(self._late_ns, time.perf_counter_ns() - self._at_ns)

    def resume(self) -> None:
        """To be called after standing still for a collective: compute goes on from its planned end."""
        self._at_ns = max(self._at_ns, self._released_ns())

    def fault(self, kind: str, **where: Any) -> dict[str, Any] | None:
        """The planned fault of this kind that strikes this rank now, and also fits `where`."""
        wanted = {"kind": kind, "rank": self._rank, "step": self.step, **where}
        return next((f for f in self._plan.faults if all(f.get(k, v) == v for k, v in wanted.items())), None)

    def _factor(self, phase: str) -> float:
        """Share of the planned work that this rank's data means in this step, about 1."""
        spread = self.fault("spread") if phase != "load" else None
        return data_factor(self._plan.seed, self.step, self._rank, spread["sigma"]) if spread is not None else 1.0

    def _extra_ms(self, phase: str) -> float:
        slow, turn = self.fault("slow", phase=phase), self.fault("rotating", phase=phase)
        extra = slow["ms"] if slow is not None else 0.0
        if turn is not None and self._rank == whose_turn(self._plan.seed, self.step, self._world):
            extra += turn["ms"]
        return float(extra)

    def _once(self, phase: str) -> float:
        """Pauses, in ms, and ends of this rank that come at the start of a phase."""
        if self.fault("kill", phase=phase):
            (folder() / STUCK).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault("stuck", phase=phase):
            (folder() / STUCK).touch()
            time.sleep(3600)
        stall = self.fault("stall", phase=phase)
        return float(stall["ms"]) if stall is not None and self.step % stall["every"] == stall["at"] else 0.0


def data_factor(seed: int, step: int, rank: int, sigma: float) -> float:
    """How long a rank's data keeps it busy in a step, in planned times: log-normal, about 1."""
    return math.exp(random.Random(f"{seed}/{step}/{rank}").gauss(0, sigma))


def whose_turn(seed: int, step: int, world: int) -> int:
    """The rank that a rotating imbalance makes slow in this step: never the same twice in a row."""
    turn = 0
    for number in range(step + 1):
        turn = (turn + random.Random(f"{seed}/{number}").randrange(1, world)) % world
    return turn


def _sleep_until(at_ns: int) -> None:
    while (left := at_ns - time.perf_counter_ns()) > 0:
        time.sleep(left / 1e9)
