"""Which runs are refused, which are warned of, and what is said to differ between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blocking_job import even_job
from noisy_job import side_of
from synthetic import RankTruth, training_rank, without_phases, write_run

from commlens.analyzers.comparison import Comparison, Side, compare, side
from commlens.analyzers.stages import examine
from commlens.trace import open_run

PARAMETER = {"name": "weight", "shape": [3, 4], "dtype": "float32", "trainable": True}
DDP = {"kind": "DDP", "name": "DDP", "flags": {"bucket_bytes_cap": 1000, "static_graph": False}, "bucket_bytes": [5, 7]}


@pytest.fixture
def whole(tmp_path: Path) -> Side:
    return side_of(tmp_path / "whole", even_job(ranks=2))


def with_info(tmp_path: Path, name: str, **info: Any) -> Side:
    """A job of two ranks whose rank.json says so."""
    truths = even_job(ranks=2).truths()
    own = {rank: replace(truth, info=truth.info | info) for rank, truth in truths.items()}
    return side(examine(open_run(write_run(tmp_path / name, own))))


def with_run(of: Side, **facts: Any) -> Side:
    return replace(of, report=replace(of.report, run=replace(of.report.run, **facts)))


def changes(found: Comparison) -> dict[str, tuple[str | None, str | None]]:
    return {each.name: (each.before, each.after) for each in found.changed}


def test_other_parameters_are_another_model(tmp_path: Path) -> None:
    one, other, unknown = (
        with_info(tmp_path, str(shape), models=[DDP | {"parameters": [PARAMETER | {"shape": shape}] if shape else []}])
        for shape in ([3, 4], [4, 3], None)
    )
    assert compare(one, other).refusals == ("different models: their parameters are not the same",)
    assert compare(one, one).refusals == ()
    assert compare(one, unknown).refusals == ()  # of which nothing is known


def test_a_run_without_steps_is_refused(whole: Side, tmp_path: Path) -> None:
    empty = side(examine(open_run(write_run(tmp_path / "empty", {0: RankTruth(), 1: RankTruth()}))))
    assert compare(whole, empty).refusals == ("the second run has no step that could be analysed",)
    assert compare(empty, whole).refusals == ("the first run has no step that could be analysed",)


def test_steps_that_were_told_apart_otherwise_are_other_steps(whole: Side, tmp_path: Path) -> None:
    truths = {rank: without_phases(truth) for rank, truth in even_job(ranks=2, count=3).truths().items()}
    guessed = side(examine(open_run(write_run(tmp_path / "guessed", truths))))
    (refusal,) = compare(whole, guessed).refusals
    assert refusal.startswith("a step means something else: from one end of the optimizer's step to the next in the")


def test_standstill_of_devices_is_not_that_of_threads(whole: Side) -> None:
    budget = replace(whole.report.time_budget, other_parts_ms={"gaps": 1.0})
    device = replace(whole, report=replace(whole.report, time_budget=budget))
    assert compare(whole, device).refusals == (
        "exposed time means something else: of the training thread in the first run, of the devices in the second",
    )
    assert compare(device, device).refusals == ()


def test_issue_times_alone_are_no_times(tmp_path: Path) -> None:
    """A run that knows no ends still has steps, which may be compared; the rest is said to be unknown."""
    known = training_rank(14)
    blind = replace(
        known, collectives=[replace(row, timing="enqueue_only", completed_ns=-1) for row in known.collectives]
    )
    one, other = (
        side(examine(open_run(write_run(tmp_path / name, {0: truth, 1: truth}))))
        for name, truth in (("known", known), ("blind", blind))
    )
    found = compare(one, other)
    assert found.refusals == ()
    assert "the second run does not tell exposed time" in found.warnings
    assert found.step.change_ms == 0
    assert found.parts["exposed_ms"].verdict is None


def test_what_does_not_forbid_a_comparison_is_said(whole: Side) -> None:
    other = with_run(whole, world_size=8, backend="nccl", torch="3.0", hosts=("elsewhere",))
    found = compare(whole, other)
    assert found.refusals == ()
    assert [each.split(":")[0] for each in found.warnings] == [
        "different world sizes, 2 and 8",
        "different versions of torch",
        "different backends",
        "different hosts",
    ]
    assert compare(whole, with_run(whole, torch=None, backend=None)).warnings == ()


def test_settings_that_differ(tmp_path: Path) -> None:
    launch = {"RANK": "0", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "a", "NCCL_ALGO": "Ring"}
    other = {"RANK": "1", "MASTER_PORT": "2", "TORCHELASTIC_RUN_ID": "b", "OMP_NUM_THREADS": "4"}
    flags = DDP | {"flags": {"bucket_bytes_cap": 2000, "static_graph": True}, "bucket_bytes": [12]}
    one = with_info(tmp_path, "one", environment=launch, models=[DDP], python="3.11", nccl="2.20", cpus=2)
    two = with_info(tmp_path, "two", environment=other, models=[flags], python="3.11", nccl="2.21", cpus=4)
    assert changes(compare(one, two)) == {
        "nccl": ("2.20", "2.21"),
        "cores": ("2", "4"),
        "bucket_bytes": ("5, 7", "12"),
        "bucket_bytes_cap": ("1000", "2000"),
        "static_graph": ("no", "yes"),
        "NCCL_ALGO": ("Ring", "not set"),
        "OMP_NUM_THREADS": ("not set", "4"),
    }
    assert compare(one, one).changed == ()


def test_settings_of_single_ranks_are_said_with_their_ranks(whole: Side) -> None:
    infos = {
        rank: dict(info) | {"environment": {"GLOO_SOCKET_IFNAME": f"eth{rank}"}} for rank, info in whole.infos.items()
    }
    found = compare(whole, replace(whole, infos=infos))
    assert changes(found) == {"GLOO_SOCKET_IFNAME": ("not set", "eth0 (rank 0); eth1 (rank 1)")}


def test_what_reports_alone_tell_of_the_job(whole: Side) -> None:
    other = with_run(whole, command=("train.py", "--lr", "1 0"), fix=("ddp.bucket_cap_mb=1",)).report
    found = compare(whole.report, other)
    assert changes(found) == {
        "command": ("torchrun train.py", "train.py --lr '1 0'"),
        "fix": ("none", "ddp.bucket_cap_mb=1"),
    }
    assert {each.kind for each in found.changed} == {"job"}
