"""The job always survives: same results, same exit codes, whatever happens to the recorder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from job_runs import Launch, execute, torchrun
from torch.distributed import HashStore

from commlens.profiler.location import Agreement
from commlens.trace import Run, open_run

pytestmark = pytest.mark.job

START = """
import os, sys, threading, time
import torch, torch.distributed as dist

def loop(count, group=None):
    tensor = torch.ones(8)
    for _ in range(count):
        dist.all_reduce(tensor, group=group)
        tensor /= dist.get_world_size()
    return tensor.sum().item()

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

"""
INIT = START + "dist.init_process_group('gloo')\nrank = dist.get_rank()\n"
CLEAN = INIT + "say('result', rank, loop(30))\ndist.destroy_process_group()\n"
RESULTS = ["0 8.0", "1 8.0"]


def rows(run: Run) -> dict[int, int]:
    return {number: rank.table("collectives").num_rows for number, rank in run.ranks.items()}


def folders(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


# Where nothing is to be recorded.


@pytest.mark.parametrize("value", [None, "", "0", "off"])
def test_without_the_variable_nothing_of_commlens_is_loaded(tmp_path: Path, value: str | None) -> None:
    script = "import sys; print(sorted(name for name in sys.modules if name.startswith('commlens')))"
    job = execute([sys.executable, "-c", script], {"COMMLENS": value}, tmp_path)
    # A value that says no costs the one module that reads it.
    assert job.stdout.strip() == ("['commlens', 'commlens._boot']" if value else "[]")
    assert not folders(tmp_path)


@pytest.mark.parametrize("value", [None, "0"])
def test_a_job_without_the_variable_is_left_alone(launch: Launch, tmp_path: Path, value: str | None) -> None:
    end = "say('loaded', rank, [name for name in sys.modules if name.startswith('commlens.profiler')])"
    job = launch(CLEAN + end, env={"COMMLENS": value})
    assert (job.rc, job.said("result"), job.warnings) == (0, RESULTS, [])
    assert job.said("loaded") == ["0 []", "1 []"]
    assert [path.name for path in folders(tmp_path)] == ["job.py"]


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "print(6 * 7)"],
        ["-c", "import torch.distributed; torch.ones(3).sum()"],
        ["-m", "pip", "--version"],
        ["-m", "torch.distributed.run", "--help"],
    ],
    ids=["plain", "torch", "pip", "torchrun"],
)
def test_programs_that_are_no_job_leave_nothing(tmp_path: Path, command: list[str]) -> None:
    job = execute([sys.executable, *command], {"COMMLENS": "1"}, tmp_path)
    assert (job.rc, job.warnings, folders(tmp_path)) == (0, [], [])


def test_a_script_under_torchrun_without_a_group_leaves_nothing(launch: Launch, tmp_path: Path) -> None:
    env = {"COMMLENS": str(tmp_path / "runs")}
    job = launch(START + "say('result', os.environ['RANK'])", env=env, as_command=True)
    assert (job.rc, job.said("result"), job.warnings) == (0, ["0", "1"], [])
    assert not (tmp_path / "runs").exists()


CHILDREN = (
    START
    + """
import multiprocessing, subprocess
from torch.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor(float(index))

def spawned():
    torch.ones(3).sum()

if __name__ == "__main__":
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    loop(10)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            sys.exit(7)
        say("forked", rank, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        loop(10)
    say("batches", rank, sum(float(batch.sum()) for batch in DataLoader(Numbers(), 2, num_workers=2)))
    loop(10)
    process = multiprocessing.get_context("spawn").Process(target=spawned)
    process.start()
    process.join()
    say("spawned", rank, process.exitcode)
    subprocess.run([sys.executable, "-c", "import torch.distributed"], check=True)
    say("result", rank, loop(10))
    # Nobody but the job starts children of the job: its wait() and its SIGCHLD handler would see them.
    time.sleep(1.0)
    try:
        say("stranger", rank, os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        pass
"""
)


def test_children_leave_the_recording_of_their_parent_alone(launch: Launch, tmp_path: Path) -> None:
    job = launch(CHILDREN, env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result"), job.warnings) == (0, RESULTS, [])
    assert Counter(job.said("forked")) == {"0 7": 3, "1 7": 3}
    assert job.said("batches") == ["0 28.0", "1 28.0"]
    assert job.said("spawned") == ["0 0", "1 0"]
    assert len(folders(tmp_path / "runs")) == 1
    run = open_run(tmp_path / "runs")
    assert rows(run) == {0: 60, 1: 60}
    assert [rank.truncated for rank in run.ranks.values()] == [set(), set()]


def test_the_job_gets_no_signal_of_a_child_it_did_not_start(launch: Launch, tmp_path: Path) -> None:
    script = INIT.replace(
        "import os",
        "import signal\nsignals = []\nsignal.signal(signal.SIGCHLD, lambda *_: signals.append(1))\nimport os",
    )
    job = launch(script + "loop(10)\ntime.sleep(1.5)\nsay('signals', rank, len(signals))", env={"COMMLENS": "1"})
    assert job.said("signals") == ["0 0", "1 0"]


# Where it cannot be written.


def test_missing_folders_are_created(launch: Launch, tmp_path: Path) -> None:
    env = {"COMMLENS": str(tmp_path / "a" / "b c" / "runs"), "HOME": "/nonexistent"}
    job = launch(CLEAN, env=env)
    assert (job.rc, job.said("result"), job.warnings) == (0, RESULTS, [])
    assert rows(open_run(tmp_path / "a" / "b c" / "runs")) == {0: 30, 1: 30}


@pytest.mark.parametrize("where", ["a file", "proc", "no home"])
def test_a_folder_that_cannot_be_made_is_replaced_by_a_local_one(launch: Launch, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "local").mkdir()
    wanted = {"a file": str(tmp_path / "file" / "runs"), "proc": "/proc/x/runs", "no home": "~/runs"}[where]
    job = launch(CLEAN, env={"COMMLENS": wanted, "HOME": "/proc/nonexistent", "TMPDIR": str(tmp_path / "local")})
    assert (job.rc, job.said("result")) == (0, RESULTS)
    assert_one_warning_each(job.warnings, "cannot write to")
    assert rows(open_run(tmp_path / "local" / f"commlens-{os.getuid()}")) == {0: 30, 1: 30}


def test_without_any_writable_place_the_job_goes_on(launch: Launch) -> None:
    script = CLEAN.replace("dist.init", "import tempfile\ntempfile.tempdir = '/proc/y'\ndist.init", 1)
    job = launch(script, env={"COMMLENS": "/proc/x/runs", "TMPDIR": "/proc/y"})
    assert (job.rc, job.said("result")) == (0, RESULTS)
    assert_one_warning_each(job.warnings, "proc")


def assert_one_warning_each(lines: list[str], about: str, ranks: int = 2) -> None:
    assert len(lines) == ranks, lines
    for rank, line in enumerate(sorted(lines)):
        assert line.startswith(f"commlens: rank {rank}: "), line
        assert about in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "commlens-test", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_fills_ends_the_recording_only(launch: Launch, small_disk: Path) -> None:
    script = """
    for _ in range(10):
        total = loop(500)
        time.sleep(0.5)
    say('result', rank, total)
    """
    job = launch(INIT + dedent(script), env={"COMMLENS": str(small_disk / "runs")})
    assert (job.rc, job.said("result")) == (0, RESULTS)
    assert_one_warning_each(job.warnings, "No space left")
    run = open_run(small_disk / "runs")
    assert all(0 < count < 5000 for count in rows(run).values())


def test_the_folder_may_be_gone_and_the_path_relative(launch: Launch, tmp_path: Path) -> None:
    script = """
    os.mkdir(f"gone{os.environ['RANK']}")
    os.chdir(f"gone{os.environ['RANK']}")
    os.rmdir(os.getcwd())
    """
    job = launch(CLEAN.replace("dist.init", dedent(script) + "dist.init", 1), env={"COMMLENS": "runs"})
    assert (job.rc, job.said("result")) == (0, RESULTS)
    assert_one_warning_each(job.warnings, "")


# Runs beside one another.


def test_runs_in_one_folder_are_not_mixed(launch: Launch, tmp_path: Path) -> None:
    runs, path = tmp_path / "runs", tmp_path / "one.py"
    path.write_text(CLEAN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(path)]
    env = {**os.environ, "COMMLENS": str(runs), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as beside:
        job = launch(CLEAN.replace("loop(30)", "loop(40)"), env={"COMMLENS": str(runs)})
        _, stderr = beside.communicate(timeout=120)
    assert (job.rc, beside.returncode, job.warnings, "commlens" in stderr) == (0, 0, [], False)
    later = launch(CLEAN.replace("loop(30)", "loop(50)"), env={"COMMLENS": str(runs)})
    assert (later.rc, later.warnings) == (0, [])
    assert sorted(rows(open_run(path))[0] for path in folders(runs)) == [30, 40, 50]
    for path in folders(runs):
        run = open_run(path)
        assert set(rows(run).values()) == {rows(run)[0]}
        assert (run.missing, run.damaged) == ([], [])
    assert rows(open_run(runs)) == {0: 50, 1: 50}


def test_a_restarted_job_is_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not as a job: torch 2.13's Gloo itself fails on the store that torchrun keeps for the second attempt.
    store = HashStore()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    first = Agreement(store).run_id()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    second = Agreement(store).run_id()
    assert second == Agreement(store).run_id() != first


def test_four_ranks_share_one_run(launch: Launch, tmp_path: Path) -> None:
    job = launch(CLEAN, 4, env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.warnings) == (0, [])
    assert len(folders(tmp_path / "runs")) == 1
    assert rows(open_run(tmp_path / "runs")) == dict.fromkeys(range(4), 30)


def test_a_rank_that_does_not_record_is_reported_missing(launch: Launch, tmp_path: Path) -> None:
    script = '#!/bin/sh\n[ "$RANK" = 0 ] && unset COMMLENS\nexec "$@"\n'
    (tmp_path / "rank.sh").write_text(script)
    job = launch(
        CLEAN,
        3,
        env={"COMMLENS": str(tmp_path / "runs")},
        python=("sh", str(tmp_path / "rank.sh"), sys.executable),
    )
    assert (job.rc, job.warnings, len(job.said("result"))) == (0, [], 3)
    assert len(folders(tmp_path / "runs")) == 1
    run = open_run(tmp_path / "runs")
    assert (run.world_size, run.missing, rows(run)) == (3, [0], {1: 30, 2: 30})


# Faults of the recorder itself.

TRAIN = (
    START
    + """
import importlib, itertools

def plant(place, name, at):
    module, owner = place.split(":")
    owner = getattr(importlib.import_module(module), owner) if owner else importlib.import_module(module)
    original, calls = getattr(owner, name), itertools.count(1)
    def faulty(*args, **kwargs):
        if next(calls) == int(at):
            raise RuntimeError("planted")
        return original(*args, **kwargs)
    setattr(owner, name, faulty)

dist.init_process_group("gloo")
rank = dist.get_rank()
if len(sys.argv) > 1:
    plant(*sys.argv[1:])
torch.manual_seed(rank)
model = torch.nn.Linear(8, 4)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(20):
    optimizer.zero_grad()
    model(torch.randn(16, 8)).square().mean().backward()
    works = [dist.all_reduce(each.grad, async_op=True) for each in model.parameters()]
    for work in works:
        work.wait()
    dist.all_reduce(torch.ones(4))
    optimizer.step()
    time.sleep(0.06 if len(sys.argv) > 1 else 0)
say("result", rank, float.hex(sum(each.double().sum().item() for each in model.parameters())))
"""
)

FAULTS = {
    "begin": ("commlens.profiler.collectives:CollectiveLog", "begin", 10, 9),
    "finish": ("commlens.profiler.collectives:CollectiveLog", "finish", 10, 10),
    "waited": ("commlens.profiler.collectives:CollectiveLog", "waited", 10, 10),
    "done": ("commlens.profiler.slots:Slots", "completed", 10, 10),
    "phase": ("commlens.profiler.phases:Phases", "enter", 10, 1),
    "models": ("commlens.profiler.models:", "outermost", 1, 0),
    "drain": ("commlens.profiler.slots:Slots", "drain", 1, 0),
    "append": ("commlens.trace.writer:RankWriter", "append", 1, 0),
    "describe": ("commlens.trace.writer:RankWriter", "write_info", 1, None),
}


@pytest.fixture(scope="module")
def unrecorded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the training above prints when nothing records it."""
    folder = tmp_path_factory.mktemp("unrecorded")
    (folder / "job.py").write_text(TRAIN)
    job = torchrun(["--standalone", "--nproc-per-node=2", str(folder / "job.py")], {}, folder)
    assert job.rc == 0
    return job.said("result")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_recorder_costs_the_recording_only(
    launch: Launch, tmp_path: Path, unrecorded: list[str], fault: str
) -> None:
    place, name, at, kept = FAULTS[fault]
    job = launch(TRAIN, 2, place, name, str(at), env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result")) == (0, unrecorded)
    assert_one_warning_each(job.warnings, "planted")
    if kept is not None:
        run = open_run(tmp_path / "runs")
        assert all(count >= kept for count in rows(run).values())
        told = [rank.info for rank in run.ranks.values()]
        assert all(info["end"] is None and "planted" in info["gave_up"]["error"] for info in told)


def test_a_broken_installation_costs_one_line(launch: Launch, tmp_path: Path) -> None:
    broken = "import sys\nsys.modules['commlens.profiler.attach'] = None\n"
    job = launch(broken + CLEAN, env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result"), len(job.warnings)) == (0, RESULTS, 2)
    assert all(line.startswith("commlens: ") for line in job.warnings)


def test_a_recorder_that_gave_up_does_not_begin_again(launch: Launch, tmp_path: Path) -> None:
    script = """
    from commlens.profiler.collectives import CollectiveLog
    original = CollectiveLog.begin
    loop(5)
    if rank == 1:
        CollectiveLog.begin = None
    loop(1)
    CollectiveLog.begin = original
    dist.destroy_process_group()
    dist.init_process_group('gloo', f'file://{os.getcwd()}/store', rank=rank, world_size=2)
    say('result', rank, loop(5))
    """
    job = launch(INIT + dedent(script), env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result"), len(job.warnings)) == (0, RESULTS, 1)
    assert len(folders(tmp_path / "runs")) == 1
    assert rows(open_run(tmp_path / "runs")) == {0: 11, 1: 5}


# Endings.

ENDING = """
import signal
loop(100)
time.sleep(2.5)
loop(50)
# A rank that leaves at once after a collective is aborted by torch itself now and then.
time.sleep(0.3)
if rank == 0:
    {end}
loop(1)
"""
ENDINGS = {
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM, 100, None),
    "sigint": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", None, 150, "KeyboardInterrupt"),
    "sigkill": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, 100, None),
    "exit": ("sys.exit(3)", 3, 150, ""),
    "exception": ("raise ValueError('of the job')", 1, 150, "ValueError: of the job"),
    "quick exit": ("os._exit(4)", 4, 100, None),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_exit_code_is_that_of_the_job(launch: Launch, tmp_path: Path, ending: str) -> None:
    end, expected, kept, error = ENDINGS[ending]
    plain = launch(INIT + ENDING.format(end=end).replace("2.5", "0.1"))
    job = launch(INIT + ENDING.format(end=end), env={"COMMLENS": str(tmp_path / "runs")}, as_command=True)
    assert expected is None or plain.exit_codes[0] == expected
    assert (job.rc, job.exit_codes[0], job.warnings) == (plain.rc, plain.exit_codes[0], [])
    run = open_run(tmp_path / "runs")
    found, noted = rows(run), run.ranks[0].info["end"]
    assert error == (None if noted is None else noted.get("error", ""))
    assert kept <= found[0] <= 150
    assert 100 <= found[1] <= 151


IN_FLIGHT = """
loop(5)
if rank == 0:
    works = [dist.all_reduce(torch.ones(10), async_op=True) for _ in range(20)]
    {before}
    sys.exit(3)
time.sleep({late})
for _ in range(20):
    dist.all_reduce(torch.ones(10))
time.sleep(5)
"""
GIVE_UP = "from commlens.profiler import live; live.give_up(RuntimeError('planted'))"


@pytest.mark.parametrize(
    ("before", "late"),
    [("pass", 2), ("pass", 0.2), ("pass", 0), (GIVE_UP, 0.2), (GIVE_UP, 0.5)],
    ids=["late", "soon", "at once", "gave up, soon", "gave up"],
)
def test_leaving_while_collectives_are_under_way(launch: Launch, tmp_path: Path, before: str, late: float) -> None:
    script = INIT + IN_FLIGHT.format(before=before, late=late)
    job = launch(script, env={"COMMLENS": str(tmp_path / "runs")})
    assert job.exit_codes[0] == 3, job.stderr
    assert "terminate called" not in job.stderr
    assert rows(open_run(tmp_path / "runs"))[0] == 25


@pytest.mark.parametrize("end", ["", "dist.destroy_process_group()"], ids=["left", "destroyed"])
def test_a_short_job_is_recorded_to_its_end(launch: Launch, tmp_path: Path, end: str) -> None:
    job = launch(INIT + "say('result', rank, loop(7))\n" + end, env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result"), job.warnings) == (0, RESULTS, [])
    run = open_run(tmp_path / "runs")
    assert rows(run) == {0: 7, 1: 7}
    assert [rank.info["end"]["how"] for rank in run.ranks.values()] == ["exit", "exit"]


def test_a_group_made_anew_is_the_same_run(launch: Launch, tmp_path: Path) -> None:
    script = """
    rank = int(os.environ['RANK'])
    for attempt in range(3):  # a store each: Gloo meets its own old addresses in one it has used before
        dist.init_process_group('gloo', f'file://{os.getcwd()}/store{attempt}', rank=rank, world_size=2)
        total = loop(10)
        dist.destroy_process_group()
    say('result', rank, total)
    """
    job = launch(START + dedent(script), env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result"), job.warnings) == (0, RESULTS, [])
    run = open_run(tmp_path / "runs")
    for rank in run.ranks.values():
        groups = rank.table("collectives").column("group").to_pylist()
        assert Counter(groups) == {"0": 10, "0#2": 10, "0#3": 10}


# Surroundings.

SURROUNDINGS = {
    "stderr closed": "sys.stderr.close()",
    "no stderr": "sys.stderr = None",
    "odd stderr": "sys.stderr = type('Odd', (), {'write': lambda *_: 1 / 0, 'flush': lambda _: None})()",
    "stdin closed": "sys.stdin.close(); os.close(0)",
    "all closed": "os.close(0); os.close(2)",
}


@pytest.mark.parametrize("kind", SURROUNDINGS)
def test_closed_streams_do_no_harm(launch: Launch, tmp_path: Path, kind: str) -> None:
    # The folder cannot be written, so that there is something to say; the local one can.
    (tmp_path / "local").mkdir()
    script = CLEAN.replace("dist.init", f"{SURROUNDINGS[kind]}\ndist.init", 1)
    job = launch(script, env={"COMMLENS": "/proc/x", "TMPDIR": str(tmp_path / "local")})
    assert (job.rc, job.said("result")) == (0, RESULTS)
    assert rows(open_run(tmp_path / "local" / f"commlens-{os.getuid()}")) == {0: 30, 1: 30}


def test_warnings_as_errors_are_not_ours(launch: Launch, tmp_path: Path) -> None:
    env = {"COMMLENS": str(tmp_path / "runs")}
    job = launch(CLEAN, env=env, python=(sys.executable, "-W", "error"))
    assert (job.rc, job.said("result"), job.warnings) == (0, RESULTS, [])
    assert rows(open_run(tmp_path / "runs")) == {0: 30, 1: 30}


# Load.

THREADS = """
sys.setswitchinterval(1e-5)
groups = [dist.new_group([0, 1]) for _ in range(2)]
ready = threading.Barrier(2)

def work(group, extra):
    ready.wait()
    for index in range(500):
        dist.all_reduce(torch.ones(1 + (index * 7 + extra) % 64), group=group)

threads = [threading.Thread(target=work, args=(group, extra)) for extra, group in enumerate(groups)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say('result', rank, loop(1))
"""


def test_two_threads_on_two_groups(launch: Launch, tmp_path: Path) -> None:
    job = launch(INIT + THREADS, env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result"), job.warnings) == (0, RESULTS, [])
    run = open_run(tmp_path / "runs")
    for rank in run.ranks.values():
        table = rank.table("collectives").select(["group", "seq", "in_bytes"]).to_pylist()
        seen = {(row["group"], row["seq"]): row["in_bytes"] for row in table}
        assert len(table) == len(seen) == 1001
        names = [group["name"] for group in rank.info["groups"]]
        assert len(names) == len(set(names)) == 3
        for extra, name in enumerate(names_of_subgroups(rank.info["groups"])):
            sizes = [seen[name, seq] for seq in range(500)]
            assert sizes == [4 * (1 + (index * 7 + extra) % 64) for index in range(500)]


def names_of_subgroups(groups: list[dict[str, object]]) -> list[str]:
    """In the order of creation: torch numbers its groups."""
    return sorted((str(group["name"]) for group in groups if group["name"] != "0"), key=int)


OUTSTANDING = """
done = []
for wave in range(3):
    tensors = [torch.ones(4) for _ in range(2000)]
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    futures = [work.get_future().then(lambda future: done.append(future.value())) for work in works]
    for work in works:
        work.wait()
    torch.futures.wait_all(futures)
say('result', rank, len(done), sum(tensor.sum().item() for tensor in tensors))
"""


def test_thousands_of_collectives_under_way(launch: Launch, tmp_path: Path) -> None:
    job = launch(INIT + OUTSTANDING, env={"COMMLENS": str(tmp_path / "runs")})
    assert (job.rc, job.said("result"), job.warnings) == (0, ["0 6000 16000.0", "1 6000 16000.0"], [])
    for rank in open_run(tmp_path / "runs").ranks.values():
        table = rank.table("collectives")
        assert table.num_rows == 6000
        assert table.column("completed_ns").null_count == 0
        assert table.column("blocked_ns").null_count == 0
