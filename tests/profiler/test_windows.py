"""Deep windows: which steps they hold, what the job's own profiler does to them, and that the job survives both."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from commlens.profiler import live, phases, torch_profiler, windows
from commlens.profiler.chosen_steps import ChosenSteps
from commlens.profiler.control import Control, Pauses
from commlens.profiler.phases import Phases
from commlens.profiler.window_plan import MOST, VARIABLE, Plan, read_plan
from commlens.profiler.windows import NEVER, Windows
from commlens.trace.control import CAPTURE, CONTROL_FILE, PAUSE, RESUME, Request, add_request, read_requests
from commlens.trace.sampling import parse_choice

FORWARD, BACKWARD, OPTIMIZER = range(3)


class Adam:
    pass


class Job:
    """A training loop whose steps the book of phases counts; step n multiplies matrices of n + 1 rows."""

    def __init__(self, folder: Path) -> None:
        self.phases = Phases(lambda: 0)
        self.changes = 0
        self.windows = Windows(self.phases, self._changed)
        self.windows.place(folder)
        self.optimizer = Adam()

    def _changed(self) -> None:
        self.changes += 1

    def step(self, work: Callable[[], object] | None = None) -> None:
        (work or (lambda: torch.addmm(torch.ones(4), torch.ones(self.phases.step + 1, 4), torch.ones(4, 4))))()
        self.phases.enter(OPTIMIZER, self.optimizer)
        self.phases.leave(OPTIMIZER, self.optimizer)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def end(self) -> list[dict[str, object]]:
        self.windows.close()
        self.windows.wait_for_file()
        return self.windows.described(0)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    torch_profiler.watch()
    yield lambda text: monkeypatch.setenv(VARIABLE, text)
    assert not torch_profiler.in_use()


def operators(path: Path) -> int:
    with gzip.open(path, "rt") as file:
        return sum(event.get("name") == "aten::addmm" for event in json.load(file)["traceEvents"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps=3,every=500", Plan(3, 500, ())),
        ("every=500", Plan(3, 500, ())),
        ("steps=2, at=20, at=9, at=20", Plan(2, 0, (9, 20))),
        ("20", Plan(3, 0, (20,))),
    ],
)
def test_what_a_plan_says(text: str, expected: Plan) -> None:
    assert read_plan(text) == expected


@pytest.mark.parametrize(
    "text", ["", "steps=3", "every=0", "every=-5", "at=x", "steps=3,every=3", "often=2", "1=", "steps=99999,at=1"]
)
def test_a_plan_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_plan(text)


def test_when_the_next_window_begins() -> None:
    plan = Plan(3, 100, (20, 250))
    assert [plan.next(after) for after in (0, 20, 100, 200, 250)] == [20, 100, 200, 250, 300]
    assert plan.next(100 * MOST) is None
    assert Plan(3, 0, (20,)).next(20) is None


def test_nonsense_is_one_line_and_no_window(
    tmp_path: Path, plan: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    plan("every=often")
    job = Job(tmp_path)
    job.steps(6)
    assert job.end() == []
    assert capfd.readouterr().err.count("\n") == 1


def test_without_a_plan_a_step_costs_one_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    job = Job(tmp_path)
    job.phases.at_boundary = job.phases.at_limit = lambda: pytest.fail("asked")
    job.steps(20)
    assert (job.phases.boundary, job.phases.limit_ns) == (NEVER, NEVER)


def test_windows_hold_exactly_their_steps(tmp_path: Path, plan: Callable[[str], None]) -> None:
    plan("steps=2,at=3,at=9")
    job = Job(tmp_path)
    job.steps(7)
    job.windows.wait_for_file()
    job.steps(8)
    first, second = job.end()
    assert [(w["first_step"], w["steps"], w["state"], w["why"]) for w in (first, second)] == [
        (3, 2, "done", None),
        (9, 2, "done", None),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["window-3.kineto.json.gz", "window-9.kineto.json.gz"]
    assert [operators(tmp_path / str(w["file"])) for w in (first, second)] == [2, 2]
    assert first["bytes"] == (tmp_path / "window-3.kineto.json.gz").stat().st_size
    assert isinstance(first["clear_step"], int) and 6 <= first["clear_step"] <= 9
    assert isinstance(first["stop_ns"], int) and first["stop_ns"] > 0
    assert job.windows.held_ns > 0
    assert job.changes > 0


def test_a_window_asked_for_while_the_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    job = Job(tmp_path)
    job.steps(4)
    assert job.windows.ask(8, 1)
    assert not job.windows.ask(5, 1)
    job.steps(6)
    (window,) = job.end()
    assert (window["first_step"], window["state"]) == (8, "done")
    assert job.phases.boundary == NEVER


def test_a_window_whose_steps_take_too_long_is_cut(
    tmp_path: Path, plan: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "LIMIT_NS", -1)
    plan("steps=5,at=2")
    job = Job(tmp_path)
    job.steps(4)
    (window,) = job.end()
    assert window["state"] == "cut"
    assert operators(tmp_path / str(window["file"])) == 1
    assert job.phases.limit_ns == NEVER


def test_what_is_left_open_is_discarded(tmp_path: Path, plan: Callable[[str], None]) -> None:
    plan("steps=5,at=2")
    job = Job(tmp_path)
    job.steps(4)
    (window,) = job.end()
    assert (window["state"], window["file"]) == ("discarded", None)
    assert list(tmp_path.iterdir()) == []
    with profile(activities=[ProfilerActivity.CPU]) as own:
        job.step()
    assert any(event.name == "aten::addmm" for event in own.events())


def test_the_jobs_own_profiler_goes_on_undisturbed(tmp_path: Path, plan: Callable[[str], None]) -> None:
    plan("steps=2,at=3")
    job = Job(tmp_path)
    with profile(activities=[ProfilerActivity.CPU]) as own:
        job.steps(7)
    (window,) = job.end()
    assert (window["state"], window["why"]) == ("skipped", "the job has a torch.profiler of its own")
    assert sum(event.name == "aten::addmm" for event in own.events()) == 7


def test_a_profiler_that_is_only_prepared_is_the_jobs_too(tmp_path: Path, plan: Callable[[str], None]) -> None:
    """To run another session between the two halves of one crashes the process (torch 2.13)."""
    plan("steps=1,at=3")
    job = Job(tmp_path)
    schedule = torch.profiler.schedule(wait=1, warmup=4, active=2, repeat=1)
    with profile(activities=[ProfilerActivity.CPU], schedule=schedule) as own:
        for _ in range(8):
            job.step()
            own.step()
    (window,) = job.end()
    assert window["state"] == "skipped"
    assert sum(event.name == "aten::addmm" for event in own.events()) == 2


@pytest.mark.parametrize("at", [2, 3, 4], ids=["before the window is prepared", "prepared", "running"])
def test_a_profiler_that_the_job_starts_wins(tmp_path: Path, plan: Callable[[str], None], at: int) -> None:
    plan("steps=3,at=4")
    job = Job(tmp_path)
    job.steps(at)
    with profile(activities=[ProfilerActivity.CPU]) as own:
        job.step()
    job.steps(6)
    (window,) = job.end()
    assert sum(event.name == "aten::addmm" for event in own.events()) == 1
    assert window["state"] == ("discarded" if at > 2 else "skipped")
    assert "of its own" in str(window["why"])


def test_another_thread_gets_no_window(tmp_path: Path, plan: Callable[[str], None]) -> None:
    """The process crashes where a thread ends inside a session (torch 2.13)."""
    plan("steps=1,at=2")
    job = Job(tmp_path)
    thread = threading.Thread(target=job.steps, args=(6,))
    thread.start()
    thread.join()
    (window,) = job.end()
    assert window["state"] == "skipped"
    assert "another thread" in str(window["why"])


OTHER_THREAD = """
    import sys, threading
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_windows import Job, torch_profiler
    from torch.profiler import ProfilerActivity, profile

    torch_profiler.watch()
    job = Job(Path(sys.argv[2]))
    job.steps(5)
    seen = []

    def own():
        with profile(activities=[ProfilerActivity.CPU]) as session:
            job.step() if sys.argv[3] == "over" else __import__("torch").ones(3).sum()
            if sys.argv[3] == "open":
                begun.set()
                finish.wait()
        seen.append(len(session.events()))

    begun, finish = threading.Event(), threading.Event()
    thread = threading.Thread(target=own)
    thread.start()
    if sys.argv[3] == "open":
        begun.wait()
        job.steps(4)
        finish.set()
    thread.join()
    job.steps(4)
    (window,) = job.end()
    print(window["state"], seen[0] > 0)
"""


@pytest.mark.parametrize("how", ["over", "open"], ids=["and ends it", "and goes on"])
def test_the_job_may_start_a_profiler_on_another_thread(tmp_path: Path, how: str) -> None:
    """Which crashes the process where the first session is then ended as usual (torch 2.13)."""
    command = [sys.executable, "-c", dedent(OTHER_THREAD), str(Path(__file__).parent), str(tmp_path), how]
    environment = {**os.environ, VARIABLE: "steps=3,at=4"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "discarded True"), done.stderr[-2000:]


def test_paused_steps_are_left_out_and_counted_on() -> None:
    pauses = Pauses()
    pauses.begin(5)
    pauses.begin(9)  # it is paused already
    steps = np.arange(12)
    assert steps[pauses.written(steps)].tolist() == [0, 1, 2, 3, 4]
    pauses.end(8)
    pauses.end(10)  # it goes on already
    pauses.begin(10)
    pauses.end(11)
    assert steps[pauses.written(steps)].tolist() == [0, 1, 2, 3, 4, 8, 9, 11]
    assert pauses.described() == [{"from_step": 5, "to_step": 8}, {"from_step": 10, "to_step": 11}]


def test_many_pauses_are_told_in_few_words_that_name_no_unrecorded_step_as_recorded() -> None:
    pauses = Pauses()
    for first in range(0, 2000, 10):
        pauses.begin(first)
        pauses.end(first + 3)
    pauses.begin(2000)
    told = pauses.described()
    assert len(told) == 64
    assert told[0] == {"from_step": 0, "to_step": 1373, "pauses": 138}
    assert told[-1] == {"from_step": 2000, "to_step": None}
    spans = [(each["from_step"], each["to_step"]) for each in told]
    for step in range(2010):
        said = any(first is not None and first <= step < (end or step + 1) for first, end in spans)
        assert said or pauses.include(step)
        assert said == (not pauses.include(step)) or step < 1373


def test_chosen_steps_have_those_of_windows_beside_them(tmp_path: Path, plan: Callable[[str], None]) -> None:
    """A window is known when the step before it begins, and one that is skipped adds nothing."""
    plan("steps=2,at=4,at=12")
    job = Job(tmp_path)
    chosen, said = ChosenSteps(parse_choice("::9"), job.windows.spans), []
    job.phases.after_step = lambda step, _: said.append((step, chosen.include(step)))
    job.steps(10)
    with profile(activities=[ProfilerActivity.CPU]):
        job.steps(5)
    job.end()
    assert [step for step, included in said if included] == [3, 4, 5, 9]
    assert job.windows.spans() == [(3, 6)]


def test_requests_are_taken_once_and_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    job = Job(tmp_path)
    control = Control(job.windows, lambda: job.phases.step, lambda: None)
    control.look(tmp_path)
    assert control.answers == []
    job.steps(5)
    for request in (Request(1, CAPTURE, 20, 2), Request(2, CAPTURE, 5, 2), Request(3, PAUSE, 9), Request(4, RESUME, 3)):
        add_request(tmp_path, request)
        control.look(tmp_path)
        control.look(tmp_path)
    told = [(a["number"], a["kind"], a["late"], a["in_step"], a["from_step"]) for a in control.answers]
    assert told == [
        (1, CAPTURE, False, 5, 20),
        (2, CAPTURE, True, 5, None),
        (3, PAUSE, False, 5, 9),
        (4, RESUME, True, 5, 6),
    ]
    assert control.pauses.spans == [(9, 9)]  # it was to go on before it would have paused
    assert job.phases.boundary == 19


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"requests": 3}', '{"requests": [{"kind": "capture", "step": "x"}]}']
)
def test_a_damaged_control_file_asks_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / CONTROL_FILE).write_text(content)
    assert read_requests(tmp_path) == []
    add_request(tmp_path, Request(7, PAUSE, 3))
    assert read_requests(tmp_path) == [Request(7, PAUSE, 3)]


def test_a_recording_that_ends_on_another_thread_leaves_the_session_to_its_own(
    tmp_path: Path, plan: Callable[[str], None]
) -> None:
    plan("steps=50,at=2")
    job = Job(tmp_path)
    job.steps(5)
    thread = threading.Thread(target=job.windows.close)
    thread.start()
    thread.join()
    assert torch.autograd._profiler_enabled()
    phases._leave(OPTIMIZER, job.optimizer)  # as at the end of the next step, when nothing is recorded any more
    assert not torch.autograd._profiler_enabled()
    assert live.leftover is None
    (window,) = job.windows.described(0)
    assert window["state"] == "discarded"


def test_no_session_begins_or_ends_while_a_graph_is_captured(
    tmp_path: Path, plan: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan("steps=1,at=3,at=9")
    job = Job(tmp_path)
    capturing = [False] * 4 + [True] * 2 + [False] * 2 + [True] * 20  # by the step that has ended
    monkeypatch.setattr(windows, "is_capturing", lambda: capturing[job.phases.step])
    job.steps(12)
    first, second = job.end()
    assert (first["first_step"], first["state"]) == (3, "done")
    assert operators(tmp_path / str(first["file"])) == 3  # it went on until the capture was over
    assert (second["state"], second["why"]) == ("skipped", "a CUDA graph was being captured")
