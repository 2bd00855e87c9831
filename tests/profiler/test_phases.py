"""Phases: nesting, the step counter, the primary optimizer, DDP's buckets."""

import pytest

from commlens.profiler import phases as module
from commlens.profiler.phases import Phases
from commlens.trace.schema import MISSING, PHASES

FORWARD, BACKWARD, OPTIMIZER = range(3)


class Adam:
    pass


class Clock:
    def __init__(self) -> None:
        self.time = 0

    def __call__(self) -> int:
        self.time += 10
        return self.time


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> Phases:
    monkeypatch.setattr(module, "now", Clock())
    return Phases(lambda: 0)


def run(phases: Phases, phase: int, owner: object) -> None:
    phases.enter(phase, owner)
    phases.leave(phase, owner)


def test_a_phase_has_its_times_name_and_step(phases: Phases) -> None:
    optimizer = Adam()
    run(phases, BACKWARD, object())
    run(phases, OPTIMIZER, optimizer)
    run(phases, FORWARD, Adam())
    assert [(PHASES[p.phase], phases.names[p.name], p.start_ns, p.end_ns, p.step) for p in phases.finished] == [
        ("backward", "", 10, 20, 0),
        ("optimizer", "Adam", 30, 40, 0),
        ("forward", "Adam#2", 50, 60, 1),
    ]


def test_a_nested_phase_of_the_same_kind_belongs_to_the_outer_one(phases: Phases) -> None:
    outer, inner = object(), object()
    phases.enter(BACKWARD, outer)
    run(phases, BACKWARD, inner)
    phases.leave(BACKWARD, outer)
    assert len(phases.finished) == 1


def test_an_optimizer_that_raised_can_step_again(phases: Phases) -> None:
    optimizer = Adam()
    phases.enter(OPTIMIZER, optimizer)
    run(phases, OPTIMIZER, optimizer)
    assert phases.step == 1


def test_with_two_optimizers_the_first_one_makes_the_steps(phases: Phases) -> None:
    first, second = Adam(), Adam()
    for _ in range(3):
        run(phases, OPTIMIZER, first)
        run(phases, OPTIMIZER, second)
    assert phases.step == 3


def test_when_the_first_optimizer_is_gone_the_next_takes_over(phases: Phases) -> None:
    first = Adam()
    run(phases, OPTIMIZER, first)
    del first
    run(phases, OPTIMIZER, Adam())
    assert phases.step == 2


def test_buckets_are_numbered_in_order_within_a_backward(phases: Phases) -> None:
    phases.buckets.lay_out({"0": [[400, 100, 100]]})
    assert phases.buckets.of("0", "all_reduce", 400) == MISSING  # outside a backward
    for _ in range(2):
        backward = object()
        phases.enter(BACKWARD, backward)
        assert phases.buckets.of("0", "all_reduce", 400) == 0
        assert phases.buckets.of("0", "all_reduce", 7) == MISSING
        assert phases.buckets.of("0", "broadcast", 100) == MISSING
        assert phases.buckets.of("1", "all_reduce", 100) == MISSING
        assert [phases.buckets.of("0", "all_reduce", 100) for _ in range(3)] == [1, 2, MISSING]
        phases.leave(BACKWARD, backward)
