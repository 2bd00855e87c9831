"""verify: what it refuses, a real fix on a synthetic link, and how it ends when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import stop
from synthetic import RankTruth, write_run

from commlens.cli.verify_probe import interpreter_of
from commlens.cli.verify_rounds import Job as JobOf
from commlens.cli.verify_rounds import Losses, Rounds, Side, mean_losses
from commlens.trace.ledger import read

COMMLENS = [sys.executable, "-m", "commlens"]
TESTS = Path(__file__).parent.parent
LAB_JOB = TESTS / "lab" / "jobs" / "bucketed.py"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """That of a user whose temporary files and ledger are ours to look at."""
    temporary = tmp_path / "tmp"
    temporary.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMMLENS", "LAB_"))}
    return {**clean, "TMPDIR": str(temporary), "COMMLENS_LEDGER": str(tmp_path / "ledger.jsonl"), **more}


def call(tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMLENS, "verify", *arguments]
    known = environment(tmp_path, **more)
    return subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=240)


def left_behind(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "tmp").glob("commlens-verify-*")]


@pytest.mark.job
def test_a_fix_that_helps_is_confirmed(tmp_path: Path) -> None:
    """The last of few large buckets is sent when backward is over; of small ones, little is left then."""
    options = ["--steps=20", "--layers=20", "--mib=5", "--cap-mb=2", "--load=2", "--forward=8", "--backward=40"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    plan = json.dumps({"alpha_us": 1000.0, "gb_s": 0.05})
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    lab = {"LAB_PLAN": plan, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    fix = "ddp.bucket_cap_mb=0.5"
    done = call(tmp_path, "--fix", fix, "--format", "json", "--", *torchrun, str(LAB_JOB), *options, **lab)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.keys() == {"fix", "predicted", "measured", "verdict", "losses"} and said["losses"] is None
    assert (said["fix"], said["verdict"]) == (fix, "confirmed")
    predicted, measured = said["predicted"], said["measured"]
    if predicted is not None:  # nothing is predicted from a recording on a machine that was too busy
        close = max(0.03 * measured["before_ms"], 0.2 * measured["gain_ms"])
        assert predicted["gain_ms"] == pytest.approx(measured["gain_ms"], abs=close)
    entries, damaged = read(tmp_path / "ledger.jsonl")
    kept = [(each.fix, each.predicted, each.measured, each.verdict, each.world_size) for each in entries]
    assert (kept, damaged) == ([(fix, predicted, measured, "confirmed", 2)], 0)
    assert left_behind(tmp_path) == []


def test_losses_are_means_unless_one_is_no_number() -> None:
    before, after = Side([], [4.0, 2.0], [1.0, 0.0]), Side([], [], [1.0, None])
    rounds = Rounds(before, after, JobOf(None, None, 2, None))
    assert mean_losses(rounds) == {"before": Losses(3.0, 0.5), "after": Losses(None, None)}


ALONE = """
import os, sys, torch, torch.distributed as dist
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(int(sys.argv[1])):
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
dist.destroy_process_group()
"""


@pytest.mark.job
@pytest.mark.parametrize(
    ("script", "steps", "says"),
    [
        (ALONE, "20", "rank 0 did not apply ddp.bucket_cap_mb=50: no DistributedDataParallel was made"),
        (ALONE, "6", "the job as it is had 4 steps after its warm-up, 5 are the fewest"),
        ("print('hello')", "", "nothing was recorded: no process of the job called init_process_group"),
        (
            "raise ValueError('of the job')",
            "",
            "the job as it is: the launcher ended with code 1: ValueError: of the job",
        ),
    ],
)
def test_a_job_that_cannot_be_judged(tmp_path: Path, script: str, steps: str, says: str) -> None:
    (tmp_path / "job.py").write_text(script)
    done = call(tmp_path, "--fix", "ddp.bucket_cap_mb=50", "--", sys.executable, "job.py", steps)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr.splitlines()[-1]
    assert read(tmp_path / "ledger.jsonl") == ([], 0)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--fix", "ddp.bucket_cap_mb=0", "--", "true"], 2, "takes MiB above 0"),
        (["--fix", "ddp.bucket_cap_mb=5"], 2, "the whole command"),
        (["--fix", "ddp.bucket_cap_mb=5", "--", "no-such-command"], 2, "no-such-command"),
        (["nowhere", "--fix", "ddp.bucket_cap_mb=5", "--", "true"], 2, "nowhere"),
        (["--fix", "ddp.no_sync_every=4", "--", "true"], 2, "ddp.no_sync_every=4 cannot be tried: it is changed in"),
        (["--fix", "link.bandwidth=x2", "--", "true"], 2, "no setting of a job"),
        (["run", "--fix", "ddp.comm_hook=powersgd", "--", "true"], 2, "over Gloo"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_run(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    write_run(tmp_path / "run", {0: RankTruth()})
    done = call(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_a_python_without_commlens_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "import sys; sys.exit(3)"\n')
    python.chmod(0o755)
    done = call(tmp_path, "--fix", "ddp.static_graph=1", "--", str(python), "job.py")
    assert done.returncode == 1
    assert f"{python} cannot apply a fix" in done.stderr


def test_the_interpreter_is_that_of_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = sys.executable
    heads = {
        "torchrun": f"#!{python}\nimport torch\n",
        "long": f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
        "shell": "#!/bin/bash\necho python3\n",
        "env": "#!/usr/bin/env python3\n",
    }
    for name, head in heads.items():
        (tmp_path / name).write_text(head)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python3").symlink_to(python)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreter_of(["torchrun", "train.py"]) == python
    assert interpreter_of(["long", "train.py"]) == python
    assert interpreter_of(["env", "train.py"]) == str(tmp_path / "python3")
    assert interpreter_of([python, "-m", "torch.distributed.run"]) == python
    assert interpreter_of(["shell", "-n", "2", "python3", "train.py"]) == str(tmp_path / "python3")
    assert interpreter_of(["shell", "train.py"]) is None


@pytest.mark.job
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "job.py").write_text("import os, time\nprint('commlens:', os.getpid(), flush=True)\ntime.sleep(100)\n")
    command = [*COMMLENS, "verify", "--fix", "env.NCCL_ALGO=Tree", "--", sys.executable, "job.py"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as verify:
        assert verify.stderr is not None
        assert verify.stderr.readline() == "commlens: round 1 of 2, as it is\n"
        child = int(verify.stderr.readline().split()[1])
        assert len(left_behind(tmp_path)) == 1
        stop(verify, number)
        assert verify.wait(60) == code
        assert "Traceback" not in verify.stderr.read()
    assert not Path(f"/proc/{child}").exists()
    assert left_behind(tmp_path) == []
