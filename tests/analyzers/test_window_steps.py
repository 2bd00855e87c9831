"""Which steps deep windows and pauses leave to be analysed, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import MS, optimizer_columns

from commlens import Report, analyze, open_run
from commlens.analyzers.recent import ENDED, RUNNING, SILENT, recent, step_to_come
from commlens.analyzers.windows import NEVER, unfit_steps, window_lines
from commlens.trace import RankWriter, write_run_info
from commlens.trace.schema import ALIVE_FILE

STEPS = 30
SLOW = range(9, 15)  # steps that take ten times as long: torch.profiler was on, or writing its file


def window(first: int, steps: int, clear: int | None, state: str = "done", **more: Any) -> dict[str, Any]:
    return {"first_step": first, "steps": steps, "state": state, "clear_step": clear, **more}


def write(path: Path, ranks: int = 2, without: range = range(0), **infos: Any) -> Path:
    """Ranks that all-reduce once a step of 10 ms and wait 2 ms for it; nothing of the collectives in `without`."""
    write_run_info(path, {"run_id": "made", "world_size": ranks, "backend": "gloo"})
    lengths = np.where(np.isin(np.arange(STEPS), SLOW), 100 * MS, 10 * MS)
    ends = np.cumsum(lengths) + 1_000 * MS
    for rank in range(ranks):
        writer = RankWriter(path, rank)
        about = {key: value[rank] if isinstance(value, tuple) else value for key, value in infos.items()}
        writer.write_info({"rank": rank, "run_id": "made", "boot_id": "one", **_groups(ranks), **about})
        writer.append("phases", optimizer_columns(ends))
        zeros = np.zeros(STEPS, np.int64)
        kept = ~np.isin(np.arange(STEPS), without)
        columns: dict[str, Any] = {
            "event": np.arange(STEPS),
            "seq": np.arange(STEPS),
            "in_bytes": np.full(STEPS, 4096),
            "out_bytes": np.full(STEPS, 4096),
            "group_size": np.full(STEPS, ranks),
            "issued_ns": ends - 5 * MS,
            "started_ns": ends - 5 * MS,
            "completed_ns": ends - 3 * MS,
            "waited_ns": ends - 5 * MS,
            "blocked_ns": np.full(STEPS, 2 * MS),
            "step": np.arange(STEPS),
            "thread": zeros,
        }
        columns = {name: values[kept] for name, values in columns.items()}
        columns["group"] = (zeros[kept], ["0"])
        columns["op"] = (zeros[kept], ["all_reduce"])
        columns["timing"] = (zeros[kept], ["host"])
        columns["source"] = (zeros[kept], ["dispatcher"])
        writer.append("collectives", columns)
        writer.append("overhead", {"time_ns": ends[-1:], "events": np.array([STEPS]), "window_ns": np.array([3 * MS])})
        writer.close()
    return path


def _groups(ranks: int) -> dict[str, Any]:
    return {"groups": [{"name": "0", "desc": "", "ranks": list(range(ranks)), "size": ranks, "backend": "gloo"}]}


def report(path: Path) -> Report:
    return analyze(open_run(path))


def reason(of: Report, analysis: str) -> str:
    return "; ".join(each.reason for each in of.abstentions if each.analysis == analysis)


def test_steps_that_a_window_disturbed_are_not_analysed(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", windows=([window(10, 3, 15)], [window(10, 3, 14)])))
    assert told.run.steps.count == STEPS
    assert told.run.steps.analyzed == STEPS - 2 - len(SLOW)
    # No step is slow any more, and none lies where another was left out.
    assert told.critical_path is not None
    assert told.critical_path.step_ms == told.time_budget.step_ms == 10


def test_they_are_analysed_where_there_are_no_others(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", windows=[window(1, 3, None, "exporting")]))
    assert told.run.steps.analyzed == STEPS - 2


def test_a_window_that_was_skipped_disturbs_nothing(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", windows=[window(10, 3, 10, "skipped", why="the job has its own")]))
    assert told.run.steps.analyzed == STEPS - 2
    (line,) = told.coverage.windows
    assert (line.recorded_ranks, line.not_recorded) == ((), {"skipped: the job has its own": (0, 1)})
    assert told.overhead.windows_ms == 3


@pytest.mark.parametrize("spans", [[(8, 20)], [(8, 20), (22, None)]])
def test_paused_steps_are_never_analysed(tmp_path: Path, spans: list[tuple[int, int | None]]) -> None:
    paused = [{"from_step": first, "to_step": end} for first, end in spans]
    gone = [step for first, end in spans for step in range(first, STEPS if end is None else end)]
    told = report(write(tmp_path / "run", without=range(8, 20), paused=(paused, paused[:1])))
    assert told.run.steps.analyzed == STEPS - 2 - len(gone)
    assert told.time_budget.exposed_ms == 2
    assert "8-19" in reason(told, "paused")
    assert ("22 on" in reason(told, "paused")) == (len(spans) > 1)


def test_where_all_was_paused_nothing_is_said_of_steps(tmp_path: Path) -> None:
    told = report(write(tmp_path / "run", without=range(2, STEPS), paused=[{"from_step": 2, "to_step": None}]))
    assert told.run.steps.analyzed == 0
    assert told.time_budget.exposed_ms is None


@pytest.mark.parametrize("junk", [None, 3, [3], [{}], [{"first_step": "x", "steps": None, "clear_step": 1.5}]])
def test_a_damaged_description_is_no_error(tmp_path: Path, junk: Any) -> None:
    path = write(tmp_path / "run", ranks=1, windows=junk, paused=junk, cuda_graphs=junk, control=junk)
    assert report(path).run.steps.count == STEPS


def test_replays_of_graphs_were_not_seen(tmp_path: Path) -> None:
    graphs = {"captured": 1, "replays": 40, "collectives_captured": 6}
    told = reason(report(write(tmp_path / "run", cuda_graphs=graphs)), "graph-replays")
    assert "6 at most" in told
    assert "ranks 0-1" in told
    for harmless in ({"captured": 1, "replays": 40, "collectives_captured": 0}, None):
        assert reason(report(write(tmp_path / str(harmless), cuda_graphs=harmless)), "graph-replays") == ""


def test_disturbed_and_absent_steps_are_those_of_any_rank() -> None:
    infos = [
        {"windows": [window(10, 3, 15), window(40, 3, 40, "skipped")], "paused": [{"from_step": 50, "to_step": 60}]},
        {"windows": [window(10, 3, None, "exporting")], "paused": []},
        {},
    ]
    unfit = unfit_steps(infos)
    assert unfit.disturbed == ((9, 15), (9, NEVER))
    assert unfit.absent == ((50, 60),)
    (first, second) = window_lines(dict(enumerate(infos)))
    assert (first.first_step, first.recorded_ranks, first.not_recorded) == (10, (0,), {"not finished": (1,)})
    assert second.not_recorded == {"skipped": (0,)}


def test_what_a_run_does_now(tmp_path: Path) -> None:
    path = write(tmp_path / "run", end=(None, {"ns": 5, "how": "exit"}))
    run = open_run(path)
    end = int(run.ranks[0].columns("phases", ["end_ns"])["end_ns"][-1])
    for later_s, state in ((1, RUNNING), (60, SILENT)):
        first, second = recent(run, end + later_s * 1000 * MS).ranks
        assert (first.state, second.state) == (state, ENDED)
        assert (first.steps_ended, first.step_ms, first.silent_s) == (STEPS, 10, later_s)
    (run.ranks[0].path / ALIVE_FILE).write_text(f"{end + 58_000 * MS:020d}\n")  # it computes for a minute
    first = recent(open_run(path), end + 60_000 * MS).ranks[0]
    assert (first.state, first.silent_s) == (RUNNING, 2)
    assert first.standstill == pytest.approx(2 * 28 / (10 * 22 + 100 * 6), rel=1e-6)
    assert recent(run, end).ranks[0].per_second == pytest.approx(STEPS / 10)
    assert not recent(run, end).ended


def test_a_step_to_come_leaves_the_fastest_rank_time(tmp_path: Path) -> None:
    run = open_run(write(tmp_path / "run"))
    assert step_to_come(run, within_s=4.0, ahead=2) == STEPS + 400 + 2
    empty = tmp_path / "empty"
    write_run_info(empty, {"run_id": "made", "world_size": 1})
    assert step_to_come(open_run(empty), 4.0, 2) is None
