"""Simulated jobs of tensor, pipeline and data parallel ranks: what is planted is found, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from commlens import Report, analyze, open_run
from commlens.analyzers.across.lateness import STEP, Lateness
from commlens.analyzers.across.stragglers import find_tiers

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from scale_cluster import found_faults
from scale_plan import DATA, PIPELINE, TENSOR, Shape, StagePlan, in_order
from scale_run import FAULTS, SLOW_GROUP, SLOW_HOST, STRAGGLER, make_run, straggler

SMALL = Shape(ranks=32, steps=20, collectives=40)


def report(path: Path, faults: tuple[str, ...], packed: bool = False) -> tuple[Report, dict[str, bool]]:
    planted = make_run(path / "run", SMALL, faults=faults, packed=packed)
    told = analyze(open_run(path / "run"))
    return told, found_faults(told.to_dict(), planted)


def test_all_faults_at_once_are_found_each_by_its_own_finding(tmp_path: Path) -> None:
    told, found = report(tmp_path, FAULTS)
    assert found == dict.fromkeys(FAULTS, True)
    assert told.findings[0].ranks == (straggler(SMALL),) and told.findings[0].id == "straggler-rank"
    assert len(told.findings) == 3
    assert told.coverage.collectives_seen == 32 * 20 * 40 and told.coverage.collectives_unmatched == 0
    assert told.coverage.clock.refusal is None and told.run.steps.count == 20


@pytest.mark.parametrize("fault", FAULTS)
def test_each_alone_is_the_only_finding(tmp_path: Path, fault: str) -> None:
    told, found = report(tmp_path, (fault,))
    assert found == {fault: True} and len(told.findings) == 1


def test_without_faults_there_is_no_finding(tmp_path: Path) -> None:
    told, found = report(tmp_path, ())
    assert found == {} and told.findings == ()
    moved = [line.exposed_transfer_ms for line in told.time_budget.per_rank]
    assert max(moved) < 1.2 * min(
        moved
    )  # waiting for a message is none, however little longer than clocks err it takes


def test_packed_it_tells_the_same(tmp_path: Path) -> None:
    told = {form: report(tmp_path / form, FAULTS, form == "packed")[0].to_dict() for form in ("plain", "packed")}
    for form, each in told.items():
        assert each["findings"] and each["overhead"].pop("trace_bytes") and each["overhead"].pop("bytes_per_collective")
        told[form] = json.loads(json.dumps(each).replace(str(tmp_path / form), "."))
    assert told["plain"] == told["packed"]
    assert sorted(path.name for path in (tmp_path / "packed" / "run").iterdir()) == [
        *(f"node-{rank:05d}.zip" for rank in range(0, 32, 8)),
        "run.json",
    ]


def test_a_slow_host_says_whom_its_waiting_does_not_count(tmp_path: Path) -> None:
    told, _ = report(tmp_path, (STRAGGLER, SLOW_HOST))
    host = next(finding for finding in told.findings if len(finding.ranks) > 1)
    assert host.title.startswith("host node-003 (ranks 24-31) is always late: longer compute")
    assert any(f"but for rank {straggler(SMALL)}" in each.name for each in host.evidence)
    assert any(f"rank {straggler(SMALL)}" in each for each in host.could_be_wrong_if)


def test_a_group_of_many_hosts_is_named_instead_of_them(tmp_path: Path) -> None:
    planted = make_run(tmp_path / "run", Shape(64, 12, 40, stages=2), faults=(SLOW_GROUP,))
    (finding,) = analyze(open_run(tmp_path / "run")).findings
    assert finding.title.startswith(
        "group dp2 (data parallel), between 4 hosts, is slow: all_reduce of 5.9 MB takes 2."
    )
    assert (finding.group, list(finding.ranks)) == (planted[SLOW_GROUP]["group"], planted[SLOW_GROUP]["ranks"])


def lateness(usual_ms: list[float], samples: int = 20) -> Lateness:
    noise = np.random.default_rng(0).normal(0, 0.05, (len(usual_ms), samples))
    wait = (np.array(usual_ms)[:, None] + noise) * 1e6
    return Lateness(STEP, np.arange(samples), wait, True, False, 100e6, 1.0)


@pytest.mark.parametrize(
    ("usual_ms", "tiers"),
    [
        ([10.0] * 12, []),
        ([10.0] * 3 + [1.0] + [10.0] * 8, [(3,)]),
        ([10.0] * 3 + [1.0, 1.0] + [10.0] * 8, [(3, 4)]),  # two alike are one tier
        ([10.0] * 3 + [1.0] + [10.0] * 8 + [4.0] * 4, [(3,), (12, 13, 14, 15)]),  # the host is nearer to the others
        ([10.0] * 3 + [1.0] + [10.0] * 8 + [8.0] * 4, [(3,), (12, 13, 14, 15)]),  # and to the straggler
        ([10.0, 10.0, 4.0, 1.0], [(3,), (2,)]),
        ([10.0, 8.0, 1.0], [(2,)]),  # of two ranks that are left one is always later
    ],
)
def test_tiers_of_late_ranks(usual_ms: list[float], tiers: list[tuple[int, ...]]) -> None:
    late = lateness(usual_ms)
    found = find_tiers(late, late.index)
    assert [each.positions for each in found] == tiers
    others = [ms for position, ms in enumerate(usual_ms) if all(position not in tier for tier in tiers)]
    for each in found:  # what it saves is as if it were alone
        assert each.saved_ns / 1e6 == pytest.approx(min(others) - usual_ms[each.positions[0]], abs=0.3)


@pytest.mark.parametrize("shape", [SMALL, Shape(256, 1, 200), Shape(64, 1, 60, stages=2), Shape(96, 1, 50, stages=3)])
def test_every_rank_has_a_step_of_so_many_collectives_and_every_message_two_ends(shape: Shape) -> None:
    plans = [StagePlan(shape, stage) for stage in range(shape.stages)]
    assert [plan.kind.size for plan in plans] == [shape.collectives] * shape.stages
    ways = [
        (min(stage, stage + step), plan.op[plan.peer == step].size)
        for stage, plan in enumerate(plans)
        for step in (-1, 1)
    ]
    for boundary in range(shape.stages - 1):  # a send and a receive of each micro-batch, there and back
        assert [count for at, count in ways if at == boundary and count] == [2 * shape.micro_batches] * 2
    assert len(set(in_order(plans))) == sum(len(plan.segments) for plan in plans)


def test_groups_part_the_ranks() -> None:
    shape = Shape(256, 1, 200)
    for kind, size in ((TENSOR, 8), (DATA, shape.replicas), (PIPELINE, shape.stages)):
        groups = {shape.group(kind, rank): shape.members(kind, rank) for rank in range(256)}
        assert sorted(rank for members in groups.values() for rank in members) == list(range(256))
        assert {len(members) for members in groups.values()} == {size}
        assert all(rank in groups[shape.group(kind, rank)] for rank in range(256))


@pytest.mark.parametrize("wrong", [{"ranks": 24}, {"ranks": 16}, {"collectives": 17}, {"steps": 0}])
def test_shapes_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give"):
        Shape(**{"ranks": 32, "steps": 1, "collectives": 40} | wrong)
