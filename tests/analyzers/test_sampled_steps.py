"""COMMLENS_STEPS in the analysis: steps left out on purpose are neither analysed nor taken for steps without waits."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from synthetic import MS, optimizer_columns
from test_hangs import SECOND, Told, at, calls, find, only
from test_window_steps import STEPS, reason, report, window
from test_window_steps import write as write_steps

from commlens import analyze, open_run
from commlens.analyzers.findings.naming import step_of
from commlens.analyzers.ranks import rank_facts
from commlens.analyzers.recent import recent
from commlens.analyzers.windows import Sampled, Unfit, unfit_steps
from commlens.render.report import header
from commlens.trace import RankWriter, write_run_info


def write(path: Path, kept: Sequence[int], said: Any, **infos: Any) -> Path:
    without = [step for step in range(STEPS) if step not in kept]
    return write_steps(path, without=without, sampled_steps=said, **infos)  # type: ignore[arg-type]


def words(path: Path) -> str:
    console = Console(width=200)
    with console.capture() as caught:
        console.print(header(report(path)))
    return " ".join(caught.get().split())


def test_chosen_steps_are_analysed_as_in_a_whole_recording(tmp_path: Path) -> None:
    whole, told = report(write_steps(tmp_path / "whole")), report(write(tmp_path / "run", range(0, STEPS, 5), "::5"))
    steps = told.run.steps
    assert (steps.count, steps.analyzed, steps.sampled_out, steps.sampled_steps) == (STEPS, 5, 24, "::5")
    assert whole.run.steps.sampled_out == 0 and whole.run.steps.sampled_steps is None
    assert whole.by_step is not None and told.by_step is not None
    chosen = [line for line in whole.by_step if line.step % 5 == 0]
    assert [(line.step, line.step_ms, line.exposed_ms) for line in told.by_step] == [
        (line.step, line.step_ms, line.exposed_ms) for line in chosen
    ]
    assert [line.exposed_ms for line in chosen] == [2.0] * 5
    assert "24 of 30 steps were left out on purpose (COMMLENS_STEPS=::5)" in reason(told, "sampled-steps")
    assert reason(whole, "sampled-steps") == ""
    assert "24 left out on purpose (COMMLENS_STEPS=::5)" in words(tmp_path / "run")


def test_a_single_step_is_analysed(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", [20], "20"))
    assert (told.run.steps.analyzed, told.time_budget.step_ms, told.time_budget.exposed_ms) == (1, 10, 2)


def test_a_job_shorter_than_its_choice_lacks_nothing(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", range(STEPS), ":1000"))
    assert (told.run.steps.analyzed, told.run.steps.sampled_out) == (STEPS - 2, 0)
    assert reason(told, "sampled-steps") == ""


def test_where_no_chosen_step_came_that_is_said(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", [0], "::5000"))
    assert (told.run.steps.analyzed, told.run.steps.sampled_out) == (0, STEPS - 1)
    assert reason(told, "time-budget") == "no whole step after the job's first two was recorded"
    assert told.time_budget.exposed_ms is None


def test_only_steps_that_all_ranks_recorded_are_analysed(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", range(0, STEPS, 2), ("::2", "::3")))
    assert told.by_step is not None
    assert [line.step for line in told.by_step] == [6, 12, 18, 24]
    assert "COMMLENS_STEPS=::2; ::3" in reason(told, "sampled-steps")


def test_steps_of_windows_were_recorded_beside_the_chosen_ones(tmp_path: Path) -> None:
    kept = [0, 15, 19, 20, 21]
    windows = [window(20, 2, 22), window(25, 2, 25, "skipped")]
    told = report(write(tmp_path / "run", kept, "::15", windows=windows))
    assert (told.run.steps.sampled_out, told.run.steps.analyzed) == (STEPS - len(kept), 1)
    unfit = unfit_steps([{"sampled_steps": "::15", "windows": windows}])
    assert np.flatnonzero(~unfit.is_absent(np.arange(30))).tolist() == kept


def test_pauses_and_choices_come_together(tmp_path: Path) -> None:
    paused = [{"from_step": 8, "to_step": 18}]
    told = report(write(tmp_path / "run", [0, 5, 20, 25], "::5", paused=paused))
    assert told.by_step is not None
    assert [line.step for line in told.by_step] == [5, 20, 25]
    assert reason(told, "paused") and reason(told, "sampled-steps")


def test_pauses_told_as_one_are_said_to_be(tmp_path: Path) -> None:
    told = report(write_steps(tmp_path / "run", paused=[{"from_step": 8, "to_step": 18, "pauses": 9}]))
    assert told.run.steps.analyzed == STEPS - 2 - 10
    assert "the oldest pauses count as one: nothing is used of collectives in steps 8-17" in reason(told, "paused")


@pytest.mark.parametrize("said", [None, 3, ["::5"], "nonsense", ""])
def test_a_damaged_choice_is_none(tmp_path: Path, said: Any) -> None:
    told = report(write(tmp_path / "run", range(STEPS), said))
    assert (told.run.steps.analyzed, told.run.steps.sampled_steps) == (STEPS - 2, None)


def test_what_is_not_analysed_travels_to_other_processes() -> None:
    unfit = unfit_steps([{"sampled_steps": "::50,7"}, {"sampled_steps": "::50,7"}, {"sampled_steps": "::100"}])
    assert [each.said for each in unfit.sampled] == ["::50,7", "::100"]
    assert pickle.loads(pickle.dumps(unfit)) == unfit
    assert len({unfit, pickle.loads(pickle.dumps(unfit)), Unfit()}) == 2
    assert Sampled("x", (range(3),)) in {Sampled("x", (range(3),))}


def test_without_an_optimizer_the_whole_job_is_step_0(tmp_path: Path) -> None:
    ranks = {rank: Told(calls("ab" * 20), info={"sampled_steps": "::50"}, ended=at(41)) for rank in range(4)}
    find(tmp_path, ranks)
    told = analyze(open_run(tmp_path))
    assert "no optimizer step was seen" in reason(told, "sampled-steps")
    assert told.run.steps.sampled_out == 0


def test_watch_looks_at_steps_that_were_recorded(tmp_path: Path) -> None:
    run = open_run(write(tmp_path / "run", range(0, STEPS, 3), "::3"))
    end = int(run.ranks[0].columns("phases", ["end_ns"])["end_ns"][-1])
    (line, _) = recent(run, end).ranks
    chosen = range(3, STEPS, 3)
    assert (line.steps, line.sampled, line.steps_ended) == (len(chosen), "::3", STEPS)
    slow = sum(step in range(9, 15) for step in chosen)
    assert line.standstill == pytest.approx(2 * len(chosen) / (100 * slow + 10 * (len(chosen) - slow)))
    assert line.per_second == pytest.approx(STEPS / 10)  # all that were issued, written or not


def test_watch_looks_no_further_back_than_it_does_without_a_choice(tmp_path: Path) -> None:
    write_run_info(tmp_path, {"run_id": "made", "world_size": 1, "backend": "gloo"})
    writer = RankWriter(tmp_path, 0)
    writer.write_info({"rank": 0, "run_id": "made", "sampled_steps": "::2"})
    writer.append("phases", optimizer_columns(np.arange(1, 301) * 10 * MS))
    writer.close()
    (line,) = recent(open_run(tmp_path), 301 * 10 * MS).ranks
    assert line.steps == 50


def test_a_hang_in_a_step_that_was_not_chosen_names_who_did_not_come(tmp_path: Path) -> None:
    """What the recorder writes of such a step: where each rank stands."""
    every = calls("ab" * 50, open_=1)
    ends = [at(2 * step + 1) + 5 * MS for step in range(48)]
    stood = {
        "notes": [at(99) + second * SECOND for second in range(60)],
        "optimizer_ends": ends,
        "info": {"sampled_steps": "::20"},
    }
    chosen = [row for step in (0, 20, 40) for row in every[2 * step : 2 * step + 2]]
    waiting = {rank: Told([*chosen, *every[94:]], **stood) for rank in (0, 1, 3)}
    found = only(tmp_path / "tail", {**waiting, 2: Told([*chosen, *every[93:99]], **stood)})
    assert (found.id, found.ranks, found.steps) == ("hang", (2,), (48,))
    assert "rank 2 was alive but did not come" in found.title and "sequence 99" in found.title
    evidence = {each.name: each.value for each in found.evidence}
    assert evidence["number that rank 2 had issued at least"] == 98


def test_a_job_that_stands_in_a_step_of_which_nothing_was_written_is_not_called_hanging(tmp_path: Path) -> None:
    """It was killed before half a minute was over: the last that was written has ended on all ranks."""
    chosen = [row for step in (0, 20, 40) for row in calls("ab" * 50)[2 * step : 2 * step + 2]]
    told = Told(chosen, notes=(at(99) + 20 * SECOND,), info={"sampled_steps": "::20"})
    findings, _, abstentions = find(tmp_path, dict.fromkeys(range(4), told))
    assert findings == ()
    assert "has no end" in abstentions[0].reason or "have no end" in abstentions[0].reason


def test_a_row_that_one_rank_alone_wrote_is_no_desync_and_no_loss(tmp_path: Path) -> None:
    """A collective that ended on one rank before a chosen step began, and on another after."""
    every = calls("ab" * 30)
    chosen = every[40:42]
    info = {"info": {"sampled_steps": "20"}, "ended": at(60), "notes": (at(60),)}
    ranks = {rank: Told([*(every[39:40] if rank else []), *chosen], **info) for rank in range(4)}
    findings, _, abstentions = find(tmp_path, ranks)
    assert (findings, abstentions) == ((), ())


def test_step_numbers_count_steps_that_are_not_analysed(tmp_path: Path) -> None:
    run = open_run(write(tmp_path / "run", range(0, STEPS, 10), "::10"))
    facts = rank_facts(run.ranks[0])
    rows = facts.columns.collectives["issued_ns"].size
    assert [step_of(facts, row) for row in range(rows)] == [None, 10, 20]
