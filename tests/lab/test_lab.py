"""The lab itself: its link keeps its promises, and its faults are where they were planted; then what commlens says."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest
from lab import plan, seen
from lab.board import VARIABLE as BOARD
from lab.board import Board
from lab.faults import CATALOGUE, scenario
from lab.lane import Lane, whose_turn
from lab.plan import Plan, Slow, port_bytes, read_plan
from lab.run import LAB, record, torchrun
from lab.scenario import Expected, verdict

import commlens

# The part of the matrix that runs with every test; bench/lab_matrix.py runs all of it.
SMALL = [
    ("healthy-ddp", 0),
    ("slow-forward", 0),
    ("rotating", 0),
    ("slow-group", 0),
    ("lost-folder-healthy", 0),
]
QUEUED = 6  # as in jobs/every_op.py
LINK = Plan(alpha_us=200, gb_s=0.02)
RANKS, REPEATS = 2, 9


def test_a_plan_survives_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Plan(jitter=0.1, seed=3, slow=(Slow((0, 1), gb_s=0.01),), faults=({"kind": "slow", "rank": 1},))
    monkeypatch.setenv(plan.VARIABLE, sent.to_json())
    assert read_plan() == sent


def test_the_slowest_link_that_a_group_uses_counts() -> None:
    link = Plan(
        alpha_us=100,
        gb_s=1,
        slow=(Slow((0, 1), gb_s=0.5), Slow((2,), alpha_us=900), Slow((0, 3), gb_s=0.1, exact=True)),
    )
    assert link.alpha_beta((0, 1, 3)) == (100e3, 2)
    assert link.alpha_beta((0, 1, 2, 3)) == (900e3, 2)
    assert link.alpha_beta((0, 3)) == (100e3, 10)
    assert Plan(alpha_us=10, gb_s=2).cost_ns((0, 1), port_bytes("all_reduce", 4, 1000, 1000), "0", 7) == 10_750


def test_jitter_is_the_same_on_every_rank_and_stays_within_bounds() -> None:
    link = Plan(alpha_us=1000, jitter=0.1, seed=1)
    costs = [link.cost_ns((0, 1), 0, "0", seq) for seq in range(200)]
    assert costs == [link.cost_ns((0, 1), 0, "0", seq) for seq in range(200)]
    assert 0.9e6 <= min(costs) < 0.95e6 < 1.05e6 < max(costs) <= 1.1e6


def test_a_board_tells_the_last_arrival_and_who_does_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BOARD, str(tmp_path))
    mine, theirs = Board("0", 2), Board("0", 2)
    mine.post(5, 0, 100, 8.0, 1)
    assert theirs.agree(5, (0, 1)) is None
    theirs.post(5, 1, 90, 16.0, 1)
    assert (mine.latest(5, (0, 1)), mine.agree(5, (0, 1))) == ((100, 16.0), True)
    theirs.post(5, 1, 90, 16.0, 2)
    assert mine.agree(5, (0, 1)) is False


def test_a_lane_makes_up_for_what_came_between() -> None:
    lane = Lane(Plan(), 0, 1, {"forward": 4.0}, released_ns=lambda: 0)
    before = lane._at_ns
    for _ in range(5):
        sum(range(20_000))
        lane.run("forward", parts=2)
    assert lane._at_ns - before == 10_000_000


def test_turns_go_to_every_rank_and_never_twice_in_a_row() -> None:
    turns = [whose_turn(7, step, 4) for step in range(60)]
    assert set(turns) == {0, 1, 2, 3}
    assert all(a != b for a, b in pairwise(turns))


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_fault_can_be_drawn(name: str) -> None:
    for seed in range(20):
        drawn = scenario(name, seed)
        again = scenario(name, seed)
        assert (drawn.plan, drawn.args, drawn.expected) == (again.plan, again.args, again.expected)
        assert drawn.expected.ids or "healthy" in name
        assert drawn.share is None or 0.02 < drawn.share < 3


def test_a_verdict_wants_the_right_finding_of_the_right_ranks() -> None:
    title = "rank 2: longer before forward"
    top = SimpleNamespace(id="straggler-rank", ranks=(2,), group=None, title=title, evidence=())
    report, nothing = SimpleNamespace(findings=(top,)), SimpleNamespace(findings=())
    wanted = Expected(("straggler-rank",), ranks=(2,), cause="longer before forward")
    assert verdict(wanted, report, {}) == ""
    assert verdict(Expected(), nothing, {}) == ""
    wrong = [Expected(), Expected(("hang",)), Expected(wanted.ids, ranks=(1,)), Expected(wanted.ids, cause="launch")]
    assert all(verdict(each, report, {}) for each in [*wrong, Expected(wanted.ids, members=(0, 1))])
    assert verdict(wanted, nothing, {})


@pytest.fixture(scope="module")
def every_op(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Recorded runs of the job that calls every operation, each made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*args: str) -> Path:
        if args not in made:
            folder = tmp_path_factory.mktemp("ops")
            env = {plan.VARIABLE: LINK.to_json(), "COMMLENS": str(folder)}
            ended = torchrun(LAB / "jobs" / "every_op.py", (f"--repeats={REPEATS}", *args), RANKS, env, 120)
            assert (ended.rc, ended.output.count("done")) == (0, RANKS), ended.output
            (made[args],) = folder.iterdir()
        return made[args]

    return run


@pytest.mark.job
def test_the_link_hides_no_call_from_the_recorder_and_adds_none(every_op: Callable[..., Path]) -> None:
    def calls(run: Path) -> dict[int, list[tuple[object, ...]]]:
        names = ("group", "seq", "op", "in_bytes", "out_bytes", "peer", "dtype")
        ranks = commlens.open_run(run).ranks
        return {
            n: [tuple(row[c] for c in names) for row in rank.table("collectives").to_pylist()]
            for n, rank in ranks.items()
        }

    assert calls(every_op()) == calls(every_op("--plain"))


@pytest.mark.job
def test_a_recorded_transfer_takes_what_the_plan_says(
    every_op: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "SKIPPED_STEPS", 0)
    size = 256 * 1024
    found = [each for each in seen.matched(every_op()) if each.num_bytes == size]
    for op, factor, count in (("all_reduce", 1.0, 2 * REPEATS + QUEUED), ("all_to_all", 0.5, REPEATS)):
        taken = [each.transfer_ms for each in found if each.op == op]
        assert len(taken) == count
        assert median(taken) == pytest.approx(0.2 + factor * size / 0.02e6, rel=0.1)
    queued = [each.transfer_ms for each in found if each.op == "all_reduce"][-QUEUED:]
    assert median(queued) == pytest.approx(0.2 + size / 0.02e6, rel=0.1)


@pytest.mark.job
@pytest.mark.parametrize(("name", "seed"), SMALL)
def test_the_planted_fault_is_the_top_finding(name: str, seed: int, tmp_path: Path) -> None:
    drawn = scenario(name, seed)
    run = record(drawn, tmp_path / "runs")
    if drawn.visible_ms is not None and drawn.planned_ms is not None:
        assert math.isclose(drawn.visible_ms(run), drawn.planned_ms, rel_tol=0.15, abs_tol=2.0)
    report = commlens.analyze(commlens.open_run(run))
    assert verdict(drawn.expected, report, seen.groups(run)) == ""
