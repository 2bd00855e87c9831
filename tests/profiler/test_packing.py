"""One process a node packs what its ranks wrote, whoever is killed, leaves at once, or finds storage that fails."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from commlens.profiler import live
from commlens.profiler.output import Output
from commlens.profiler.packing import process
from commlens.profiler.packing.asked import Packing, asked, local_folder, read_packing
from commlens.profiler.packing.presence import PACKER, Presence, gate, is_present, is_recording, take
from commlens.profiler.packing.process import Packer
from commlens.profiler.packing.rank import Node
from commlens.profiler.packing.schedule import FIRST_S, LONGEST_S, Schedule
from commlens.profiler.packing.state import FAILED, PACKED, WAITING, State, read_state, write_state
from commlens.profiler.phase import first_flush, phase
from commlens.trace import RankWriter, open_run, write_run_info
from commlens.trace.control import CONTROL_FILE, PAUSE, Request, add_request, read_requests

PATIENCE_S = 60.0
_SPAWN = multiprocessing.get_context("spawn")


def until(holds: Callable[[], bool]) -> None:
    """Waits for other processes."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write_rank(local: Path, rank: int, rows: int = 10) -> RankWriter:
    writer = RankWriter(local, rank)
    writer.write_info({"rank": rank, "run_id": "made"})
    if rows:
        add_rows(writer, rows)
    return writer


def add_rows(writer: RankWriter, rows: int) -> None:
    writer.append("phases", {"start_ns": np.arange(rows), "end_ns": np.arange(rows) + 1})


def members(pack: Path) -> list[str]:
    with zipfile.ZipFile(pack) as archive:
        return sorted({name.split("/")[0] for name in archive.namelist()})


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "node" / "made"
    write_run_info(path, {"run_id": "made", "world_size": 2})
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "made"


# --- what is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("node", Packing()), ("NODE", Packing()), (" node , keep ", Packing(keep=True)),
        ("node:600", Packing(600.0)), ("node:1,keep", Packing(1.0, True)),
    ],
)  # fmt: skip
def test_what_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, said: str, means: Packing) -> None:
    monkeypatch.setenv("COMMLENS_PACK", said)
    assert asked() == means


@pytest.mark.parametrize("said", ["", "0", "off", " No "])
def test_nothing_asked_for(monkeypatch: pytest.MonkeyPatch, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMMLENS_PACK", said)
    assert asked() is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "said", ["rank", "node:", "node:0", "node:x", "node:-5", "node:1e3", "node:9999999", "node,all"]
)
def test_what_means_nothing_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "_warned", set())
    monkeypatch.setenv("COMMLENS_PACK", said)
    assert asked() is None
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ValueError, match=r"seconds|give"):
        read_packing(said)


def test_the_local_folder_is_the_schedulers_or_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("COMMLENS_LOCAL", "SLURM_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert local_folder() == tmp_path / "tmp" / f"commlens-{os.getuid()}"
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job"))
    assert local_folder() == tmp_path / "job" / f"commlens-{os.getuid()}"
    monkeypatch.setenv("COMMLENS_LOCAL", str(tmp_path / "named"))
    assert local_folder() == tmp_path / "named"


# --- when ----------------------------------------------------------------------------------------------------------


def test_ranks_and_nodes_write_at_times_of_their_own() -> None:
    for stride in (1, 4, 8, 16):
        phases = [phase(rank) for rank in range(0, 4096, stride)]
        in_bins, _ = np.histogram(phases, 16, (0, 1))
        assert in_bins.max() <= 1.25 * len(phases) / 16  # evenly spread, whatever the ranks a node
    assert phase(0) == 0
    firsts = np.array([first_flush(rank, 100_000) for rank in range(0, 100_000, 7)])
    assert firsts.min() > 0 and firsts.max() <= 5
    small = [first_flush(rank, 64) for rank in range(64)]
    assert small[0] == max(small) == 1


def packs(schedule: Schedule, hours: float, bytes_a_second: float) -> list[tuple[int, float]]:
    """When a node that grows evenly is packed, and how large it is then."""
    found = []
    for second in range(int(hours * 3600)):
        if schedule.is_time(second):
            if schedule.has_grown(int(second * bytes_a_second)):
                found.append((second, second * bytes_a_second))
                schedule.packed(int(second * bytes_a_second))
            schedule.go_on(second)
    return found


def test_all_packs_of_a_long_run_are_a_few_times_its_size() -> None:
    for hours in (0.5, 3, 24, 24 * 7):
        found = packs(Schedule(None, 0.0), hours, 1e4)
        assert found[0][0] == FIRST_S
        assert sum(size for _, size in found) < 5 * hours * 3600 * 1e4
    begun = [second for second, _ in found]
    assert begun[1:5] == [900, 2100, 4500, 8100]
    assert begun[5] - begun[4] == LONGEST_S


def test_an_interval_that_was_asked_for_is_kept_but_for_what_has_not_grown() -> None:
    assert [second for second, _ in packs(Schedule(600.0, 0.0), 1, 10.0)] == [600, 1200, 1800, 2400, 3000]
    assert packs(Schedule(600.0, 0.0), 1, 0.0) == []
    assert packs(Schedule(600.0, 0.5), 1, 10.0)[0][0] == 540


# --- who is there --------------------------------------------------------------------------------------------------


def test_a_rank_is_there_until_it_leaves_and_present_until_it_ends(local: Path) -> None:
    assert not is_recording(local) and not is_present(local)
    first, second = Presence(local, 0), Presence(local, 1)
    first.leave()
    assert is_recording(local)
    second.leave()
    assert not is_recording(local) and is_present(local)
    second.let_go()
    first.let_go()
    assert not is_present(local)


def test_a_killed_rank_is_not_there(local: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom commlens.profiler.packing.presence import Presence\n"
        "held = Presence(Path(sys.argv[1]), 0); print(flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, local], stdout=subprocess.PIPE) as rank:
        assert rank.stdout is not None
        rank.stdout.readline()
        assert is_recording(local)
        rank.kill()
    assert not is_recording(local)


def test_a_forked_child_that_lets_go_leaves_the_parent_there(local: Path) -> None:
    presence = Presence(local, 0)
    child = os.fork()
    if not child:
        presence.let_go()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_recording(local)
    presence.let_go()
    assert not is_recording(local)


def test_nobody_is_the_same_rank_twice(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commlens.profiler.packing.presence._PATIENCE_S", 0.02)
    presence = Presence(local, 0)
    with pytest.raises(FileExistsError):
        Presence(local, 0)
    presence.let_go()
    Presence(local, 0).let_go()


def test_a_rank_that_comes_while_the_folder_goes_makes_it_anew(local: Path, tmp_path: Path) -> None:
    with gate(local):
        rank = _SPAWN.Process(target=_come, args=(local,))
        rank.start()
        time.sleep(0.1)
        local.replace(tmp_path / "gone")
    rank.join(PATIENCE_S)
    assert rank.exitcode == 0
    assert (local / ".live-00000").exists()


def _come(local: Path) -> None:
    Presence(local, 0)


# --- the packing process, in this one --------------------------------------------------------------------------------


class Script:
    """A clock; what happens at certain seconds of it."""

    def __init__(self, **at: Callable[[], object]) -> None:
        self.now = 1000.0
        self._at = {float(second.lstrip("s")): action for second, action in at.items()}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for second in sorted(self._at):
            if self.now - 1000 >= second:
                self._at.pop(second)()


def packer(local: Path, run: Path, script: Script, every_s: float | None = None, keep: bool = False) -> Packer:
    return Packer(local, run, every_s, keep, clock=script.clock, sleep=script.sleep)


def test_a_node_is_packed_when_its_last_rank_has_left_and_gone_when_that_has_ended(local: Path, run: Path) -> None:
    ranks = [Presence(local, rank) for rank in (2, 5)]
    writers = [write_rank(local, rank) for rank in (2, 5)]
    seen: list[bool] = []

    def last_leaves() -> None:
        add_rows(writers[1], 7)
        writers[1].close()
        ranks[1].leave()

    def last_ends() -> None:
        seen.append(read_state(local).name == PACKED and local.exists())
        ranks[1].let_go()

    script = Script(s3=ranks[0].let_go, s50=last_leaves, s52=last_ends)
    assert packer(local, run, script).work()
    assert seen == [True]
    assert not local.exists()
    assert sorted(path.name for path in run.iterdir()) == ["node-00002.zip", "run.json"]
    read = open_run(run)
    assert {rank: each.table("phases").num_rows for rank, each in read.ranks.items()} == {2: 10, 5: 17}


def test_what_is_written_between_leaving_and_the_end_is_packed_too(local: Path, run: Path) -> None:
    """As by NCCL's plugin, whose thread ends with the process."""
    presence, folder = Presence(local, 0), write_rank(local, 0).path
    script = Script(s1=presence.leave, s4=lambda: (folder / "nccl-1.events").write_bytes(b"late"), s5=presence.let_go)
    assert packer(local, run, script).work()
    with zipfile.ZipFile(run / "node-00000.zip") as archive:
        assert archive.read("rank-00000/nccl-1.events") == b"late"


def test_a_process_that_goes_on_after_its_recording_is_not_waited_for(local: Path, run: Path) -> None:
    presence = Presence(local, 0)
    write_rank(local, 0)
    presence.leave()
    assert packer(local, run, Script()).work()
    assert not local.exists()
    presence.let_go()


def test_a_rank_that_comes_late_is_packed_with_the_others(local: Path, run: Path) -> None:
    first = Presence(local, 1)
    write_rank(local, 1)
    late: list[Presence] = []

    def comes() -> None:
        late.append(Presence(local, 0))
        write_rank(local, 0)

    script = Script(s1=first.leave, s3=comes, s60=lambda: late[0].let_go(), s61=first.let_go)
    assert packer(local, run, script).work()
    assert [path.name for path in run.glob("node-*")] == ["node-00000.zip"]
    assert members(run / "node-00000.zip") == ["rank-00000", "rank-00001"]


def test_ranks_that_have_yet_to_come_are_waited_for_shortly(local: Path, run: Path) -> None:
    write_rank(local, 0)
    Presence(local, 0).let_go()
    script = Script(s1=lambda: (write_rank(local, 1), Presence(local, 1).let_go()))
    assert Packer(local, run, ranks_here=2, clock=script.clock, sleep=script.sleep).work()
    assert members(run / "node-00000.zip") == ["rank-00000", "rank-00001"]
    assert script.now < 1002


def test_packs_come_meanwhile_and_replace_one_another(local: Path, run: Path) -> None:
    presence, writer = Presence(local, 0), write_rank(local, 0)
    seen: list[int] = []

    def look() -> None:
        seen.append(open_run(run).ranks[0].table("phases").num_rows if any(run.glob("node-*")) else 0)
        add_rows(writer, 100)

    at = {f"s{second}": look for second in (90, 190, 290)}
    assert packer(local, run, Script(**at, s300=presence.let_go), every_s=100.0).work()
    assert seen == [0, 110, 210]
    assert open_run(run).ranks[0].table("phases").num_rows == 310


def test_what_was_packed_can_be_kept(local: Path, run: Path) -> None:
    write_rank(local, 0)
    assert packer(local, run, Script(), keep=True).work()
    assert read_state(local) == State(PACKED)
    assert open_run(local).ranks[0].table("phases").num_rows == 10
    assert (run / "node-00000.zip").exists()


def test_storage_that_cannot_be_written_leaves_the_files_where_they_are(local: Path, run: Path) -> None:
    write_rank(local, 0)
    run.parent.write_text("")
    before = set(local.rglob("*"))
    assert not packer(local, run, Script()).work()
    assert read_state(local) == State(FAILED, "Not a directory")
    assert before <= set(local.rglob("*"))


def test_storage_without_room_leaves_the_files_where_they_are(local: Path, run: Path) -> None:
    (write_rank(local, 0).path / "window-1.kineto.json.gz").write_bytes(os.urandom(20_000))
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom commlens.profiler.packing.process import Packer\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # as a quota\n"
        "print(Packer(Path(sys.argv[1]), Path(sys.argv[2])).work())\n"
    )
    told = subprocess.run([sys.executable, "-c", code, local, run], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False"]
    assert read_state(local) == State(FAILED, "File too large")
    assert [path.name for path in run.iterdir()] == ["run.json"]
    assert open_run(local).ranks[0].table("phases").num_rows == 10


def test_storage_that_comes_back_gets_the_pack(local: Path, run: Path) -> None:
    presence = Presence(local, 0)
    write_rank(local, 0)
    run.parent.write_text("")
    seen: list[State] = []

    def comes_back() -> None:
        seen.append(read_state(local))
        run.parent.unlink()

    assert packer(local, run, Script(s150=comes_back, s400=presence.let_go), every_s=100.0).work()
    assert seen == [State(WAITING, "Not a directory")]
    assert (run / "node-00000.zip").exists()


def test_a_pack_that_reads_back_otherwise_is_not_relied_on(
    local: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rank(local, 0)
    monkeypatch.setattr("commlens.trace.node_local.write_pack", lambda _run, _ranks, pack: pack.write_bytes(b"PK"))
    assert not packer(local, run, Script()).work()
    assert "cannot be read back" in read_state(local).why
    assert open_run(local).ranks[0].table("phases").num_rows == 10


def test_one_node_describes_the_run_early_and_the_others_find_it(local: Path, run: Path) -> None:
    presence = Presence(local, 0)
    write_rank(local, 0, rows=0)
    seen: list[str] = []
    look = lambda: seen.extend(path.name for path in run.iterdir())  # noqa: E731
    script = Script(s9=look, s20=presence.let_go)
    assert Packer(local, run, rank=0, clock=script.clock, sleep=script.sleep).work()
    assert seen == ["run.json"]
    assert json.loads((run / "run.json").read_bytes())["run_id"] == "made"


def test_requests_are_passed_on_to_the_node(local: Path, run: Path) -> None:
    presence = Presence(local, 0)
    write_rank(local, 0)
    run.mkdir(parents=True)
    seen: list[list[Request]] = []
    asks = [Request(1, PAUSE, 30), Request(2, PAUSE, 60)]
    script = Script(
        s2=lambda: add_request(run, asks[0]), s5=lambda: seen.append(read_requests(local)),
        s6=lambda: add_request(run, asks[1]), s9=lambda: seen.append(read_requests(local)), s10=presence.let_go,
    )  # fmt: skip
    assert packer(local, run, script, keep=True).work()
    assert seen == [asks[:1], asks]
    assert (local / CONTROL_FILE).stat().st_ino != (run / CONTROL_FILE).stat().st_ino


# --- ranks and their packing process ---------------------------------------------------------------------------------


def node(local: Path, run: Path, rank: int) -> Node:
    made = Node(local, run, Packing(), rank)
    write_rank(local, rank)
    return made


def test_ranks_that_leave_at_once_are_packed_once_and_all(tmp_path: Path) -> None:
    """Thirty nodes of two ranks, in processes of their own, which leave in the same instant."""
    told = _SPAWN.Queue()
    pairs = [[(tmp_path / f"node-{i}" / "made", tmp_path / f"run-{i}") for i in range(30)[k::3]] for k in range(3)]
    barriers = [_SPAWN.Barrier(2) for _ in pairs]
    arguments = [(pair, rank, barrier, told) for pair, barrier in zip(pairs, barriers, strict=True) for rank in (0, 1)]
    ranks = [_SPAWN.Process(target=_come_and_leave, args=each) for each in arguments]
    for each in ranks:
        each.start()
    assert [told.get(timeout=PATIENCE_S) for _ in range(60)] == [""] * 60
    for each in ranks:
        each.join(PATIENCE_S)
    for local, run in itertools.chain(*pairs):
        until(lambda local=local: not local.exists())  # type: ignore[misc]
        assert sorted(path.name for path in run.iterdir()) == ["node-00000.zip"]
        assert members(run / "node-00000.zip") == ["rank-00000", "rank-00001"]


def _come_and_leave(nodes: list[tuple[Path, Path]], rank: int, barrier: Barrier, told: Queue[str]) -> None:
    said: list[str] = []
    live.warn = said.append  # type: ignore[assignment]
    for local, run in nodes:
        here = node(local, run, rank)
        here.look()
        barrier.wait(PATIENCE_S)
        here.leave()
        here.abandon()  # as if the process had ended
        told.put(" ".join(said))


def test_a_packing_process_that_was_killed_is_replaced(local: Path, run: Path) -> None:
    here = node(local, run, 0)
    here.look()
    until(lambda: (local / PACKER).read_text() != "")
    killed = int((local / PACKER).read_text())
    os.kill(killed, signal.SIGKILL)
    until(lambda: _is_free(local))
    here.leave()
    assert members(run / "node-00000.zip") == ["rank-00000"]
    here.abandon()
    until(lambda: not local.exists())


def _is_free(local: Path) -> bool:
    lock = take(local / PACKER)
    if lock is not None:
        os.close(lock)
    return lock is not None


def test_a_rank_that_nobody_packs_for_leaves_after_a_while_with_one_line(
    local: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where shared storage hangs, and the packing process with it."""
    here = node(local, run, 0)
    lock = take(local / PACKER)
    assert lock is not None
    here.look()
    here.leave(patience_s=0.1)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"commlens pack {local} -o {run}" in told
    assert open_run(local).ranks[0].table("phases").num_rows == 10
    os.close(lock)
    here.abandon()


def test_storage_that_hangs_holds_no_rank_and_gets_the_pack_when_it_goes_on(
    local: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.mkdir(parents=True)
    os.mkfifo(run / CONTROL_FILE)  # whoever reads it waits
    here = node(local, run, 0)
    here.look()
    until((run / "run.json").exists)  # requests are looked at next
    here.leave(patience_s=1.0)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "hangs" in told and f"commlens pack {local} -o {run}" in told
    assert not list(run.glob("*.zip"))
    here.abandon()
    os.close(os.open(run / CONTROL_FILE, os.O_WRONLY))
    until(lambda: not local.exists())
    assert members(run / "node-00000.zip") == ["rank-00000"]


def test_a_packing_process_that_cannot_run_costs_one_line(
    local: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commlens.profiler.packing.rank._PROGRAM", "raise SystemExit('broken')")
    here = node(local, run, 0)
    here.look()
    here.leave()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"ends by itself: {local / '.packer.log'}" in told and f"commlens pack {local} -o {run}" in told
    assert "broken" in (local / ".packer.log").read_text()
    here.abandon()


def test_a_recording_that_ends_while_the_job_goes_on_waits_for_nothing(local: Path, run: Path) -> None:
    here = node(local, run, 0)
    lock = take(local / PACKER)
    assert lock is not None
    here.leave(at_exit=False)  # without a limit of its own
    os.close(lock)
    here.leave(at_exit=False)
    here.abandon()
    until(lambda: not local.exists())
    assert members(run / "node-00000.zip") == ["rank-00000"]


def test_a_failure_is_told_once_on_a_node(local: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.parent.write_text("")
    nodes = [node(local, run, rank) for rank in range(2)]
    for each in nodes:
        each.look()
        each.leave()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Not a directory" in told and f"commlens pack {local} -o {run}" in told
    for each in nodes:
        each.abandon()


def test_the_packing_process_heeds_no_signal_of_the_jobs_end(local: Path, run: Path) -> None:
    here = node(local, run, 0)
    here.look()
    until(lambda: (local / PACKER).read_text() != "")
    pid = int((local / PACKER).read_text())
    assert os.getsid(pid) != os.getsid(0)
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert ignored >> (number - 1) & 1
    assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16]) == 19  # nice
    here.leave()
    here.abandon()


def made_output(folder: Path, rank: int) -> Output:
    import torch.distributed as dist  # not by the processes that this file starts

    return Output(str(folder), rank, dist.HashStore(), 1)


def test_an_output_writes_into_its_node_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMLENS_PACK", "node:3600,keep")
    monkeypatch.setenv("COMMLENS_LOCAL", str(tmp_path / "node"))
    output = made_output(tmp_path / "shared", 3)
    assert output.is_packed and output.is_placed()
    output.describe({"world_size": 4, "start_ns": 1}, {"rank": 3, "world_size": 4})
    local, run = tmp_path / "node" / output.run_id, tmp_path / "shared" / output.run_id
    assert output.folder == local / "rank-00003"
    assert not run.exists()
    output.look()
    output.close({"rank": 3, "world_size": 4, "end": {"ns": 5, "how": "exit"}})
    output.leave(at_exit=True)
    read = open_run(run)
    assert read.info["pack"] == {"local": str(local), "run": str(run), "every_s": 3600.0}
    assert read.ranks[3].info["end"] == {"ns": 5, "how": "exit"}


def test_a_folder_without_locks_is_not_packed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    monkeypatch.setenv("COMMLENS_PACK", "node")
    monkeypatch.setenv("COMMLENS_LOCAL", str(tmp_path / "node"))
    output = made_output(tmp_path / "shared", 0)
    assert output.is_placed()
    assert output.folder == tmp_path / "shared" / output.run_id / "rank-00000"
    assert capsys.readouterr().err.count("\n") == 1
    output.abandon()


def test_the_program_packs_what_its_arguments_say(
    local: Path, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "_step_back", lambda: None)
    write_rank(local, 0)
    lock = take(tmp_path / "lock")
    process.main([str(local), str(run), "0.0", "0", "0", "0", str(lock)])
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert members(run / "node-00000.zip") == ["rank-00000"]
    write_state(tmp_path, State(FAILED, "why"))
    assert read_state(tmp_path) == State(FAILED, "why")
