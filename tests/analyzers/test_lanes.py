"""What devices did: lanes, standstill of a device, steps from marks, compute slowed by communication."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import Collective, Kernel, Phase, RankTruth, write_run

from commlens import analyze, open_run
from commlens.analyzers.contention import find_contention
from commlens.analyzers.ranks import RankFacts, rank_facts


def facts_of(path: Path, truth: RankTruth) -> RankFacts:
    return rank_facts(open_run(write_run(path / "run", {0: truth})).ranks[0])


def device(start: int, end: int, **more: object) -> Collective:
    return Collective(start - 5, end, start, timing="device", **more)  # type: ignore[arg-type]


def spin(start: int, end: int, launched: int = -1) -> Kernel:
    return Kernel(start, end, launched, kind="communication", name="ncclDevKernel_AllReduce")


STEPS = [Phase("step", 0, 100, "ProfilerStep#7"), Phase("step", 100, 200, "ProfilerStep#8")]


def test_every_moment_of_a_step_is_one_thing(tmp_path: Path) -> None:
    kernels = [
        Kernel(10, 40, 5),
        spin(30, 60, 20),
        Kernel(55, 70, 50, kind="copy"),
        Kernel(90, 100, 75),
        Kernel(120, 130, 118, kind="unclassified"),
    ]
    facts = facts_of(tmp_path, RankTruth([device(30, 60)], STEPS, kernels))
    budget = facts.budget
    assert budget is not None
    assert budget.step.tolist() == [100, 100]
    assert budget.compute.tolist() == [30 + 10, 0]
    assert budget.exposed.tolist() == [20, 0]  # 40 to 60
    assert budget.hidden.tolist() == [10, 0]  # 30 to 40
    assert budget.other_parts is not None
    assert {name: ns.tolist() for name, ns in budget.other_parts.items()} == {
        "copies": [10, 0],  # 60 to 70: before that communication ran
        "unclassified": [0, 10],
        "gaps": [5 + 15, 2],  # 5 to 10, 75 to 90, 118 to 120
        "host-bound": [5 + 5, 18 + 70],  # 0 to 5, 70 to 75, 100 to 118, 130 to 200
    }
    assert budget.overlap == pytest.approx(10 / 30)


def test_an_unclassified_kernel_is_no_compute_and_is_counted(tmp_path: Path) -> None:
    path = write_run(
        tmp_path / "run",
        {0: RankTruth([device(10, 20)], STEPS, [spin(10, 20), Kernel(12, 30, kind="unclassified"), Kernel(40, 50)])},
    )
    report = analyze(open_run(path))
    assert report.coverage.kernels_unclassified == 1
    assert report.time_budget.exposed_ms == 5e-6  # median of 10 and 0 ns


def test_where_two_collectives_run_the_first_is_charged(tmp_path: Path) -> None:
    rows = [device(10, 50), device(20, 40), device(30, 80), device(60, 70)]
    kernels = [spin(row.started_ns, row.completed_ns) for row in rows]
    facts = facts_of(tmp_path, RankTruth(rows, STEPS, [*kernels, Kernel(45, 55)]))
    blocked = facts.blocked
    assert list(zip(blocked.row.tolist(), blocked.starts.tolist(), blocked.ends.tolist(), strict=True)) == [
        (0, 10, 45),
        (2, 55, 80),
    ]
    assert facts.exposed_ns.tolist() == [35, 0, 25, 0]


def test_a_step_ends_with_the_work_launched_in_it(tmp_path: Path) -> None:
    kernels = [Kernel(50, 130, 10), Kernel(140, 150, 110), Kernel(160, 230, 150), Kernel(240, 250, 205)]
    facts = facts_of(tmp_path, RankTruth([device(50, 60)], STEPS, [*kernels, spin(50, 60, 12)]))
    assert facts.steps.index.tolist() == [7, 8]
    assert facts.steps.start_ns.tolist() == [0, 130]
    assert facts.steps.end_ns.tolist() == [130, 230]


def test_work_from_before_the_trace_delays_the_first_step(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, RankTruth([device(30, 60)], STEPS, [Kernel(5, 25), spin(30, 60, 28)]))
    assert facts.steps.start_ns.tolist() == [25, 100]


def test_the_jobs_first_two_steps_are_left_out_if_others_remain(tmp_path: Path) -> None:
    marks = [Phase("step", 100 * n, 100 * n + 100, f"ProfilerStep#{n}") for n in range(3)]
    kernels = [Kernel(10, 20, 5), spin(210, 220, 205)]
    assert facts_of(tmp_path / "a", RankTruth([device(210, 220)], marks, kernels)).steps.index.tolist() == [2]
    assert facts_of(tmp_path / "b", RankTruth([device(210, 220)], marks[:2], kernels)).steps.index.tolist() == [0, 1]


def test_device_times_without_its_compute_are_refused(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, RankTruth([device(10, 20)], STEPS, [spin(10, 20)]))
    assert facts.budget is None
    assert facts.refusal == "collectives were timed on the device, but its compute was not recorded"
    assert facts.overlap_whole_trace is None


KERNELS = st.lists(
    st.builds(
        lambda start, length, lead, kind: Kernel(start, start + length, max(start - lead, 0), kind=kind),
        st.integers(0, 300),
        st.integers(0, 60),
        st.integers(0, 90),
        st.sampled_from(["compute", "communication", "copy", "unclassified"]),
    ),
    min_size=1,
    max_size=25,
)


@given(kernels=KERNELS)
def test_parts_make_up_every_window(kernels: list[Kernel], tmp_path_factory: pytest.TempPathFactory) -> None:
    facts = facts_of(tmp_path_factory.mktemp("any"), RankTruth([], STEPS, kernels))
    assert facts.lanes is not None
    starts, ends = np.array([0, 37, 120]), np.array([37, 120, 400])
    truth = np.zeros((400, 4), bool)
    for kernel in kernels:
        kind = ["compute", "communication", "copy", "unclassified"].index(kernel.kind)
        truth[kernel.start_ns : kernel.end_ns, kind] = True
    pending = np.zeros(400, bool)
    for kernel in kernels:
        pending[kernel.launched_ns : kernel.start_ns] = True
    compute, talk, copy, unknown = truth.T
    idle = ~truth.any(axis=1)
    expected = {
        "copies": copy & ~compute & ~talk,
        "unclassified": unknown & ~compute & ~talk & ~copy,
        "gaps": idle & pending,
        "host-bound": idle & ~pending,
    }
    for name, ns in facts.lanes.parts(starts, ends).items():
        assert ns.tolist() == [int(expected[name][a:b].sum()) for a, b in zip(starts, ends, strict=True)]


def test_kernels_that_run_longer_beside_communication(tmp_path: Path) -> None:
    kernels, rows = [], []
    for n in range(10):
        start = 1000 * n
        kernels.append(Kernel(start, start + 100 + n, start))  # alone: 100 to 109
        kernels.append(Kernel(start + 500, start + 640, start + 400))  # beside: 140
        kernels.append(Kernel(start + 700, start + 760, start + 690, blocks=2))  # another grid, beside only
        kernels.append(spin(start + 490, start + 800, start + 480))
        rows.append(device(start + 490, start + 800))
    mark = Phase("step", 0, 10_000, "ProfilerStep#3")
    (line,) = find_contention([facts_of(tmp_path, RankTruth(rows, [mark], kernels))])
    assert (line.name, line.blocks, line.alone, line.beside) == ("gemm", 1, 10, 10)
    assert line.alone_ms == pytest.approx(104.5e-6, abs=1e-6)
    assert line.beside_ms == 140e-6
    assert line.lost_ms_per_step == pytest.approx(10 * 35.5e-6)


def test_the_same_durations_are_no_contention(tmp_path: Path) -> None:
    kernels, rows = [], []
    for n in range(10):
        start = 1000 * n
        kernels += [Kernel(start, start + 100 + n % 3, start), Kernel(start + 500, start + 601 + n % 3, start + 400)]
        kernels.append(spin(start + 490, start + 800, start + 480))
        rows.append(device(start + 490, start + 800))
    assert find_contention([facts_of(tmp_path, RankTruth(rows, STEPS, kernels))]) == ()
