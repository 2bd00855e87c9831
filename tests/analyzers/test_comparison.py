"""Two reports side by side, and the command that prints them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocking_job import BlockingJob, even_job, slower
from command_line import commlens
from synthetic import MS, RankTruth, write_run

from commlens import Report, analyze, open_run
from commlens.analyzers.comparison import Comparison, Pair, compare

PARAMETER = {"name": "weight", "shape": [3, 4], "dtype": "float32", "trainable": True}


def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A healthy job of four ranks, and the same with rank 2 late by 20 ms and other message sizes."""
    even = even_job()
    late = replace(slower(even, 2, 20 * MS), bytes=[4096, 8192, 8192])
    return tuple(write_run(tmp_path / name, job.truths()) for name, job in (("even", even), ("late", late)))


def compared(tmp_path: Path) -> Comparison:
    return compare(*(analyze(open_run(path)) for path in runs(tmp_path)))


def test_a_pair() -> None:
    assert (Pair(80.0, 100.0).change_ms, Pair(80.0, 100.0).change_percent) == (20.0, 25.0)
    assert (Pair(None, 1.0).change_ms, Pair(0.0, 1.0).change_percent) == (None, None)


def test_what_became_slower(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert found.step.change_ms == pytest.approx(20, abs=1)
    assert found.parts["compute_ms"].change_ms == pytest.approx(5, abs=1)  # one rank's 20 ms, mean over four
    assert found.parts["exposed_wait_ms"].change_ms == pytest.approx(15, abs=1)
    assert found.parts["exposed_transfer_ms"].change_ms == pytest.approx(0, abs=0.1)
    assert found.notes == ()


def test_collectives_are_matched_by_group_operation_and_size(tmp_path: Path) -> None:
    sizes = {each.bytes: each for each in compared(tmp_path).collectives}
    assert {size: each.count_per_step for size, each in sizes.items()} == {4096: (3, 1), 8192: (None, 2)}
    assert sizes[4096].exposed.change_ms is not None
    assert sizes[8192].transfer == Pair(None, pytest.approx(2.0, abs=0.01))


def test_ranks_and_findings(tmp_path: Path) -> None:
    found = compared(tmp_path)
    caused = [each.caused_wait.change_ms for each in found.ranks]
    assert np.argmax(caused) == 2
    assert caused[2] == pytest.approx(20, abs=1)
    assert [(each.id, each.ranks) for each in found.appeared] == [("straggler-rank", (2,))]
    assert found.gone == ()


def test_the_other_way_round_what_was_found_is_gone(tmp_path: Path) -> None:
    even, late = (analyze(open_run(path)) for path in runs(tmp_path))
    back = compare(late, even)
    assert [each.id for each in back.gone] == ["straggler-rank"]
    assert back.appeared == ()
    assert back.step.change_percent is not None
    assert back.step.change_percent < 0


def test_a_run_beside_itself_has_not_changed(tmp_path: Path) -> None:
    report = analyze(open_run(runs(tmp_path)[1]))
    same = compare(report, report)
    assert {same.step.change_ms, *(pair.change_ms for pair in same.parts.values())} <= {0.0, None}
    assert (same.appeared, same.gone, same.notes) == ((), (), ())


def test_different_jobs_are_told_apart(tmp_path: Path) -> None:
    one = analyze(open_run(runs(tmp_path)[0]))
    other = replace(one, run=replace(one.run, world_size=8, backend="nccl", torch=None))
    assert compare(one, other, ("a", "b")).notes == (
        "different world sizes: 4 and 8",
        "different backends: gloo and nccl",
        "different models: their parameters are not the same",
    )
    assert compare(one, one, ("a", None)).notes == ()


def test_reports_that_know_nothing(tmp_path: Path) -> None:
    empty: Report = analyze(open_run(write_run(tmp_path / "empty", {0: RankTruth()})))
    found = compare(empty, empty)
    assert found.step == Pair(None, None)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    even, late = runs(tmp_path)
    assert commlens(monkeypatch, "compare", even, late) == 0
    out = capsys.readouterr().out
    step = next(line for line in out.splitlines() if line.startswith("step "))
    assert step.split() == ["step", "102", "122", "+19.9", "+19.6", "%"]
    assert "New finding: rank 2 is always late" in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80


@pytest.mark.parametrize(("gate", "code"), [("25%", 0), ("19", 3), ("5.5 %", 3), ("x", 2), ("-3%", 2)])
def test_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gate: str, code: int
) -> None:
    assert commlens(monkeypatch, "compare", *runs(tmp_path), "--max-regress", gate, "--format", "json") == code
    out, err = capsys.readouterr()
    assert err.count("\n") == (code > 0)
    if code != 2:
        said = json.loads(out)
        assert (said["schema_version"], said["findings"]["appeared"][0]["ranks"]) == (1, [2])


def test_the_gate_judges_nothing_it_could_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_run(tmp_path / "empty", {0: RankTruth()})
    assert commlens(monkeypatch, "compare", empty, empty, "--max-regress", "5%") == 1
    assert "cannot be judged" in capsys.readouterr().err


def test_other_parameters_are_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, shape in (("one", [3, 4]), ("other", [4, 3])):
        models = [{"kind": "DDP", "parameters": [PARAMETER | {"shape": shape}]}]
        truths: BlockingJob = even_job(ranks=2)
        own = {rank: replace(truth, info=truth.info | {"models": models}) for rank, truth in truths.truths().items()}
        paths.append(write_run(tmp_path / name, own))
    assert commlens(monkeypatch, "compare", *paths) == 0
    assert "Not the same job: different models" in capsys.readouterr().out
