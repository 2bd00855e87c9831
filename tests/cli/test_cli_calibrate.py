"""calibrate: what it plans, a real job, and how it ends when it cannot."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import stop
from synthetic import START, US, Collective, RankTruth, write_run

from commlens.cli.calibrate_plan import TOOK_PART, Measurement, measurements_for, ranks_label
from commlens.errors import UsageError
from commlens.trace import open_run
from commlens.trace.calibration import CALIBRATION_FILE, INTRA, read_calibration

COMMLENS = [sys.executable, "-m", "commlens"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
MIB = 2**20
JOB = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
data = torch.ones(2048)
for _ in range(3):
    dist.all_reduce(data)
    dist.broadcast(data, 1)
    dist.send(data, 1) if dist.get_rank() == 0 else dist.recv(data, 0)
    dist.all_gather_into_tensor(torch.empty(4096), data)
    dist.all_to_all_single(torch.empty_like(data), data)
    dist.barrier()
dist.destroy_process_group()
"""


def call(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    command, known = [*COMMLENS, *arguments], clean | (environment or {})
    return subprocess.run(command, cwd=cwd, env=known, capture_output=True, text=True, timeout=timeout)


def two_ranks(path: Path, **replaced: object) -> Path:
    """A run in which two ranks did one all_reduce."""
    group = {"name": "0", "desc": "", "ranks": [0, 1], "size": 2, "backend": "gloo"}
    row = Collective(START, START + 10 * US, **replaced)  # type: ignore[arg-type]
    return write_run(path, dict.fromkeys(range(2), RankTruth([row], info={"groups": [group]})))


def test_sizes_are_powers_of_four_up_to_what_the_run_sent() -> None:
    assert Measurement("all_reduce", (0, 1), 0).sizes() == [256 * 4**step for step in range(9)]  # 256 B .. 16 MiB
    assert Measurement("all_reduce", (0, 1), 100 * MIB).sizes()[-3:] == [16 * MIB, 64 * MIB, 100 * MIB]
    assert Measurement("all_reduce", (0, 1), 64 * MIB).sizes()[-2:] == [16 * MIB, 64 * MIB]


def test_the_plan_is_what_the_run_used(tmp_path: Path) -> None:
    groups = [
        {"name": "0", "desc": "", "ranks": [0, 1, 2], "size": 3, "backend": "gloo"},
        {"name": "1", "desc": "", "ranks": [2, 1], "size": 2, "backend": "gloo"},
        {"name": "2", "desc": "", "ranks": [0], "size": 1, "backend": "gloo"},
    ]
    world = [
        Collective(START, START + US, in_bytes=size, out_bytes=size, group_size=3) for size in (64, 50 * MIB, 4096)
    ]
    part = Collective(START + 5 * US, START + 6 * US, op="all_gather", group="1", in_bytes=10, out_bytes=20)
    alone = Collective(START, START + US, group="2", group_size=1)
    gathered = Collective(START, START + US, op="gather", group_size=3)
    truths = {
        0: RankTruth([*world, alone, gathered], info={"groups": [groups[0], groups[2]]}),
        1: RankTruth([*world, part, gathered], info={"groups": groups[:2]}),
        2: RankTruth([*world, part, gathered], info={"groups": groups[:2]}),
    }
    assert measurements_for(open_run(write_run(tmp_path / "run", truths))) == (
        Measurement("all_gather", (1, 2), 20),
        Measurement("all_reduce", (0, 1, 2), 50 * MIB),
    )


def test_of_many_groups_alike_a_few_are_measured(tmp_path: Path) -> None:
    truths = {}
    for rank in range(16):
        pair = [rank - rank % 2, rank - rank % 2 + 1]
        group = {"name": str(rank // 2), "desc": "", "ranks": pair, "size": 2, "backend": "gloo"}
        row = Collective(START, START + US, group=str(rank // 2))
        truths[rank] = RankTruth([row], info={"groups": [group]})
    planned = measurements_for(open_run(write_run(tmp_path / "run", truths)))
    assert [each.ranks for each in planned] == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_a_run_with_nothing_to_measure(tmp_path: Path) -> None:
    run = open_run(two_ranks(tmp_path / "run", op="barrier"))
    with pytest.raises(UsageError, match="can be calibrated"):
        measurements_for(run)


def test_ranks_as_text() -> None:
    assert [ranks_label(each) for each in ((0, 1), (0, 1, 2, 3), (0, 2, 4))] == ["0,1", "0-3", "0,2,4"]


@pytest.mark.job
def test_a_real_run_is_calibrated_unrecorded(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    ranks = [*TORCHRUN, "--nproc-per-node=2"]
    assert call("run", "-o", "out", "--", *ranks, "job.py", cwd=tmp_path).returncode == 0
    (run,) = (tmp_path / "out").iterdir()
    recording = {"COMMLENS": str(tmp_path / "recorded")}
    done = call("calibrate", "out", "--seconds", "2", "--", *ranks, cwd=tmp_path, environment=recording)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "recorded").exists()
    made = open_run(run).calibration
    assert made is not None
    assert made == read_calibration(run / CALIBRATION_FILE)
    assert made.made_with.backend == "gloo"
    assert made.made_with.torch.startswith("2.")
    assert made.source.startswith("commlens calibrate ")
    assert [each.op for each in made.entries] == ["all_gather", "all_reduce", "all_to_all", "broadcast", "send"]
    for entry in made.entries:
        assert (entry.ranks, entry.group_size, entry.scope) == ((0, 1), 2, INTRA)
        assert entry.bytes[0] == 256
        assert entry.time_us[-1] / entry.bytes[-1] < entry.time_us[0] / entry.bytes[0]
        assert f"measuring {entry.op} on ranks 0,1" in done.stderr
        assert f"{entry.op} " in done.stdout
    assert "busbw GB/s" in done.stdout
    again = call("calibrate", "out", "--", *ranks, cwd=tmp_path)
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert call("report", "out", "--calibration", str(run / CALIBRATION_FILE), cwd=tmp_path).returncode == 0


@pytest.mark.job
def test_the_launcher_must_start_as_many_ranks(tmp_path: Path) -> None:
    two_ranks(tmp_path / "run")
    done = call("calibrate", "run", "--", *TORCHRUN, "--nproc-per-node=1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "commlens: the run had 2 ranks, the launcher started 1; start as many\n"
    assert not (tmp_path / "run" / CALIBRATION_FILE).exists()


def launcher(folder: Path, script: str) -> list[str]:
    (folder / "launcher.py").write_text(script)
    return [sys.executable, "launcher.py"]


def test_a_failing_launcher_is_one_line(tmp_path: Path) -> None:
    two_ranks(tmp_path / "run")
    words = launcher(tmp_path, "print('noise')\nraise ValueError('no such host')\n")
    done = call("calibrate", "run", "--", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "ended with code 1: ValueError: no such host; all it said is in " in done.stderr
    log = Path(done.stderr.rsplit(" in ", 1)[1].strip())
    assert "noise" in log.read_text()
    log.unlink()


def test_rank_0_on_another_host(tmp_path: Path) -> None:
    two_ranks(tmp_path / "run")
    sign = f"pathlib.Path(sys.argv[-1]).with_name({TOOK_PART!r}).touch()"
    script = f"import pathlib, sys\nprint('commlens: elsewhere')\n{sign}\n"
    done = call("calibrate", "run", "--", *launcher(tmp_path, script), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[0] == "commlens: elsewhere"
    assert "rank 0 is on another host" in done.stderr


def test_a_command_that_starts_no_rank_has_measured_nothing(tmp_path: Path) -> None:
    two_ranks(tmp_path / "run")
    done = call("calibrate", "run", "--", "true", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("commlens: nothing was measured: true ended without starting a rank")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / CALIBRATION_FILE).exists()


def test_the_launcher_gets_the_job_and_no_settings_of_ours(tmp_path: Path) -> None:
    two_ranks(tmp_path / "run")
    script = (
        "import json, os, sys\n"
        "plan = json.load(open(sys.argv[-1]))\n"
        "seen = [n for n in os.environ if n.startswith('COMMLENS')]\n"
        "json.dump([sys.argv[1:-1], plan, seen], open('seen.json', 'w'))\n"
    )
    words = [*launcher(tmp_path, script), "--standalone", "-o", "x"]  # what follows -- is never taken for ours
    environment = {"COMMLENS": "1", "COMMLENS_LOG": "x"}
    done = call("calibrate", "--seconds=7", "run", "--", *words, cwd=tmp_path, environment=environment)
    assert done.returncode == 1, done.stderr  # it started no rank
    arguments, plan, seen = json.loads((tmp_path / "seen.json").read_text())
    assert arguments == ["--standalone", "-o", "x", "-m", "commlens.cli.calibrate_job"]
    assert (plan["world_size"], plan["backend"], plan["seconds"]) == (2, "gloo", 7.0)
    assert plan["measurements"] == [{"op": "all_reduce", "ranks": [0, 1], "largest_bytes": 4096}]
    assert seen == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["calibrate", "run"], 2, "no launcher given"),
        (["calibrate", "run", "--"], 2, "no launcher given"),
        (["calibrate", "run", "--", "no-such-command"], 2, "no-such-command"),
        (["calibrate", "nowhere", "--", "true"], 2, "nowhere"),
        (["calibrate", "--", "true"], 2, "no run given"),
        (["calibrate", "run", "-o", "run", "--", "true"], 1, "is a folder"),
        (["calibrate", "run", "-o", "none/x.json", "--", "true"], 1, "cannot write into none"),
        (["report", "run", "--calibration", "none.json"], 1, "none.json"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    two_ranks(tmp_path / "run")
    done = call(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_when_it_is_stopped_the_launcher_ends_too(tmp_path: Path, number: signal.Signals, code: int) -> None:
    two_ranks(tmp_path / "run")
    script = "import os, time\nprint('commlens:', os.getpid(), flush=True)\ntime.sleep(100)\n"
    command = [*COMMLENS, "calibrate", "run", "--", *launcher(tmp_path, script)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as command_run:
        assert command_run.stderr is not None
        child = int(command_run.stderr.readline().split()[1])
        stop(command_run, number)
        assert command_run.wait(60) == code
        assert "Traceback" not in command_run.stderr.read()
    assert not Path(f"/proc/{child}").exists()
    assert not (tmp_path / "run" / CALIBRATION_FILE).exists()
