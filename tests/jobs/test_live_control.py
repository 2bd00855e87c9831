"""Deep windows in real jobs, and what a user asks of a job while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
from job_runs import FIRST, LAST, Job, Launch

from commlens import analyze, open_run
from commlens.cli import requests
from commlens.trace import Run
from commlens.trace.recent import RecentRun

pytestmark = pytest.mark.job

TRAIN = (
    FIRST
    + """
import os, sys, time
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(0)
model = DistributedDataParallel(nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)]), bucket_cap_mb=0.02)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
losses = []


def step():
    optimizer.zero_grad()
    loss = model(torch.randn(8, 64)).square().mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item().hex())


def say(word, *words):
    os.write(1, (" ".join(map(str, (word, *words))) + "\\n").encode())

"""
)
END = "\nsay('losses', dist.get_rank(), *losses)\n" + LAST
FIXED = TRAIN + "for _ in range(int(sys.argv[1])):\n    step()\n" + END
# A window is skipped while the file of the one before is being written, which on a busy machine takes many such steps.
# Where the job is not recorded there is no such module, and nothing to wait for.
BETWEEN = """
live = sys.modules.get("commlens.profiler.live")
if live is not None:
    live.recorder.windows.wait_for_file()
"""
TWO_WINDOWS = FIXED.replace(END, BETWEEN + "for _ in range(20):\n    step()\n" + END)
# Until the test has seen what it waits for: rank 0 tells the others when to stop. Requests name a step that is 4 s off
# at the pace so far; the pause sets the pace, so that a job that gets more of the machine does not run ahead of them.
UNTIL_TOLD = (
    TRAIN
    + """
go_on = torch.ones(1)
while go_on.item():
    step()
    time.sleep(0.05)
    go_on[0] = float(not Path("stop").exists())
    dist.broadcast(go_on, 0)
"""
    + END
)


def infos(path: Path) -> dict[int, dict[str, Any]]:
    return {number: rank.info for number, rank in open_run(path).ranks.items()}


def windows(run: Run) -> list[list[tuple[int, int, str, str | None]]]:
    return [
        [(w["first_step"], w["steps"], w["state"], w["why"]) for w in rank.info["windows"]]
        for rank in run.ranks.values()
    ]


def test_windows_are_the_same_steps_on_all_ranks_and_change_nothing(launch: Launch, tmp_path: Path) -> None:
    plain = launch(TWO_WINDOWS, 2, "20")
    job = launch(TWO_WINDOWS, 2, "20", env={"COMMLENS": "out", "COMMLENS_WINDOW": "steps=2,at=10,at=25"})
    assert (job.rc, job.warnings) == (0, [])
    assert job.said("losses") == plain.said("losses")
    assert [len(said.split()) for said in job.said("losses")] == [1 + 40] * 2
    run = open_run(tmp_path / "out")
    assert windows(run) == [[(10, 2, "done", None), (25, 2, "done", None)]] * 2
    disturbed = set()
    for rank in run.ranks.values():
        seen = [trace.rank.table("collectives").num_rows for trace in rank.windows]
        rows = rank.columns("collectives", ["step", "started_ns", "issued_ns", "completed_ns"])
        inside = [int(np.isin(rows["step"], [first, first + 1]).sum()) for first in (10, 25)]
        assert seen == inside
        assert rank.notes == []
        known = rows["completed_ns"] >= 0
        assert (rows["started_ns"] >= rows["issued_ns"])[known].all()
        assert (rows["completed_ns"] >= rows["started_ns"])[known].all()
        disturbed |= {step for w in rank.info["windows"] for step in range(w["first_step"] - 1, w["clear_step"])}
    report = analyze(run)
    assert report.run.steps.analyzed == len(set(range(2, 40)) - disturbed)
    assert [line.recorded_ranks for line in report.coverage.windows] == [(0, 1), (0, 1)]
    assert report.overhead.windows_ms is not None and report.overhead.windows_ms > 0


DISCARDED = [(10, 50, "discarded", "the recording ended within it")]


def test_a_job_that_ends_inside_a_window_ends_as_it_would(launch: Launch, tmp_path: Path) -> None:
    """torch crashes a process that is left with its profiler on (torch 2.13)."""
    job = launch(FIXED, 2, "20", env={"COMMLENS": "out", "COMMLENS_WINDOW": "steps=50,at=10"})
    assert (job.rc, job.warnings) == (0, [])
    assert windows(open_run(tmp_path / "out")) == [DISCARDED] * 2


def test_a_job_that_fails_inside_a_window_fails_as_it_would(launch: Launch, tmp_path: Path) -> None:
    script = FIXED.replace(END, "\nif dist.get_rank() == 1:\n    raise SystemExit(7)\ntime.sleep(60)\n" + END)
    job = launch(script, 2, "20", env={"COMMLENS": "out", "COMMLENS_WINDOW": "steps=50,at=10"})
    assert job.exit_codes == {0: -signal.SIGTERM, 1: 7}, job.stderr[-2000:]  # torchrun ends the other one
    assert job.warnings == []
    assert windows(open_run(tmp_path / "out"))[1] == DISCARDED


@pytest.fixture
def running(launch: Launch, tmp_path: Path) -> Iterator[Callable[[], Job]]:
    """A job that trains until the function that is given is called; it returns what the job left behind."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(launch, UNTIL_TOLD, 2, env={"COMMLENS": "out"}, timeout=100)

        def stop() -> Job:
            (tmp_path / "stop").touch()
            return future.result()

        try:
            _wait_for_steps(tmp_path / "out", future.done)
            yield stop
        finally:
            stop()


def _wait_for_steps(path: Path, is_over: Callable[[], bool]) -> None:
    """Until both ranks have written some."""
    while not is_over():
        time.sleep(0.1)
        if path.is_dir() and list(path.glob("*/run.json")):
            run = RecentRun([path]).read()
            if len(run.ranks) == 2 and all(rank.table("phases").num_rows > 20 for rank in run.ranks.values()):
                return
    pytest.fail("the job ended by itself")


def commlens(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "commlens", *arguments]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, timeout=60)


def test_capture_watch_pause_and_resume(running: Callable[[], Job], tmp_path: Path) -> None:
    captured = commlens(tmp_path, "capture", "out", "--steps", "2")
    assert captured.returncode == 0, captured.stderr
    assert captured.stdout.count("window-") == 2
    watched = commlens(tmp_path, "watch", "out", "--once")
    assert (watched.returncode, watched.stderr) == (0, "")
    assert "2 of 2" in watched.stdout
    assert watched.stdout.count("running") == 2
    assert "recorded on 2 ranks" in watched.stdout
    paused, resumed = commlens(tmp_path, "pause", "out"), commlens(tmp_path, "resume", "out")
    assert (paused.returncode, resumed.returncode) == (0, 0), paused.stderr + resumed.stderr
    span = infos(tmp_path / "out")[0]["paused"][0]
    while _steps(tmp_path / "out").max(initial=0) <= span["to_step"] + 2:
        time.sleep(0.1)
    job = running()
    assert (job.rc, job.warnings) == (0, [])
    run = open_run(tmp_path / "out")
    assert windows(run)[0] == windows(run)[1]
    assert [state for _, _, state, _ in windows(run)[0]] == ["done"]
    assert [rank.info["paused"] for rank in run.ranks.values()] == [[span]] * 2
    rows = _steps(tmp_path / "out")
    assert not ((rows >= span["from_step"]) & (rows < span["to_step"])).any()
    assert (rows < span["from_step"]).any()
    report = analyze(run)
    assert report.coverage.match_confidence in (None, 1.0)
    assert report.coverage.collectives_unmatched == 0
    assert [a.analysis for a in report.abstentions if "paused" in a.reason] == ["paused"]
    over = commlens(tmp_path, "capture", "out")
    assert (over.returncode, over.stderr.count("\n"), over.stdout) == (1, 1, "")
    assert "has ended" in over.stderr
    assert "this is the end" in commlens(tmp_path, "watch", "out", "--once").stdout


def _steps(path: Path) -> Any:
    return np.concatenate([rank.columns("collectives", ["step"])["step"] for rank in open_run(path).ranks.values()])


def test_a_killed_job_does_not_answer(
    running: Callable[[], Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for info in infos(tmp_path / "out").values():
        os.kill(info["pid"], signal.SIGKILL)
    monkeypatch.setattr(requests, "ANSWER_S", 1.0)  # it never comes, however long one waits
    assert command_line.commlens(monkeypatch, "pause", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ranks 0-1" in said
    assert "did not answer" in said
    (path,) = (tmp_path / "out").iterdir()
    assert json.loads((path / "control.json").read_text())["requests"][0]["kind"] == "pause"
