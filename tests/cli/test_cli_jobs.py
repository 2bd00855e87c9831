"""run, demo and doctor: commands that start jobs of their own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMLENS = [sys.executable, "-m", "commlens"]
ONE_RANK = """
import sys, torch, torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
dist.all_reduce(torch.ones(4))
dist.destroy_process_group()
sys.exit(int(sys.argv[1]))
"""


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    command = [*COMMLENS, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.job
@pytest.mark.parametrize("code", [0, 7])
def test_run_records_and_ends_as_the_job_does(tmp_path: Path, code: int) -> None:
    (tmp_path / "job.py").write_text(ONE_RANK)
    done = call("run", "-o", "out", "--", sys.executable, "job.py", str(code), cwd=tmp_path)
    assert done.returncode == code
    (run,) = (tmp_path / "out").iterdir()
    assert f"commlens report out/{run.name}" in done.stderr
    assert call("report", "out", cwd=tmp_path).returncode == 0


def test_run_says_when_there_was_nothing_to_record(tmp_path: Path) -> None:
    done = call("run", "--", sys.executable, "-c", "print('hello')", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "nothing was recorded" in done.stderr
    assert not (tmp_path / "commlens-runs").exists()


def test_run_of_no_such_command_is_one_line(tmp_path: Path) -> None:
    done = call("run", "--", "no-such-command", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no-such-command" in done.stderr


def test_a_job_killed_by_a_signal_is_reported_as_shells_do(tmp_path: Path) -> None:
    done = call("run", "--", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)", cwd=tmp_path)
    assert done.returncode == 128 + signal.SIGKILL


def test_sigterm_reaches_the_job(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [*COMMLENS, "run", "--", sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        job.terminate()
        assert job.wait(60) == 5


@pytest.mark.job
def test_the_demos_report_shows_its_planted_problem(tmp_path: Path) -> None:
    done = call("demo", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Communication" in done.stdout
    report = json.loads(call("report", "out", "--format", "json", cwd=tmp_path).stdout)
    assert report["run"]["ranks_present"] == [0, 1]
    budget = report["time_budget"]
    assert budget["overlap"] < 0.2  # every all_reduce comes after the backward and is waited for
    assert budget["exposed_ms"] > 0
    assert {line["count_per_step"] for line in report["collectives"]} == {12.0}  # 12 weights, 12 biases


@pytest.mark.job
def test_doctor_tries_recording_and_finds_it_working(tmp_path: Path) -> None:
    done = call("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 9 kinds seen" in done.stdout
    assert "FAIL" not in done.stdout


def test_doctor_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('broken build')")
    done = call("doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken build" in done.stdout
    assert "Traceback" not in done.stderr
