"""Commands on a cluster, and what goes wrong with one, as a user meets it."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocking_job import even_job
from command_line import commlens, stop
from synthetic import write_run

from commlens.analyzers.stages import analyze
from commlens.cluster import connect
from commlens.cluster.connect import connected
from commlens.cluster.engine import Cluster
from commlens.errors import ClusterError
from commlens.trace import open_run

Patch = pytest.MonkeyPatch
Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", even_job(ranks=6).truths())


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Dask cluster as others run it: a scheduler and a worker that know nothing of us; its address."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    dask = [sys.executable, "-m", "dask"]
    first = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    second = [
        *dask,
        "worker",
        "--scheduler-file",
        str(file),
        "--host",
        "127.0.0.1",
        "--nthreads",
        "1",
        "--no-dashboard",
    ]
    with subprocess.Popen(first, **quiet) as head:  # type: ignore[call-overload]
        try:
            yield from _with_worker(second, file, quiet)
        finally:
            head.terminate()


def _with_worker(command: list[str], file: Path, quiet: dict[str, object]) -> Iterator[str]:
    import json

    while not file.exists():
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    with subprocess.Popen(command, **quiet) as worker:  # type: ignore[call-overload]
        try:
            from distributed import Client

            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            yield address
        finally:
            worker.terminate()


def test_the_json_of_a_local_cluster_is_the_same(run: Path) -> None:
    plain, workers = (_report(run, "--format", "json", *more) for more in ((), ("--workers", "2")))
    assert plain.returncode == workers.returncode == 0, workers.stderr
    assert workers.stdout == plain.stdout
    assert workers.stderr == ""


def test_the_json_of_a_cluster_that_is_there_is_the_same(run: Path, scheduler: str) -> None:
    plain, there = (_report(run, "--format", "json", *more) for more in ((), ("--cluster", scheduler)))
    assert there.returncode == 0, there.stderr
    assert there.stdout == plain.stdout


@pytest.mark.parametrize("command", (["whatif"], ["compare"]))
def test_other_commands_say_the_same(
    command: list[str],
    run: Path,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = [write_run(tmp_path / "other", even_job(ranks=6, seed=2).truths())] if command == ["compare"] else []
    texts = []
    for where in ([], ["--cluster", scheduler]):
        assert commlens(monkeypatch, *command, run, *more, *where, "--format", "json") == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""


def test_a_killed_worker_is_replaced(run: Path) -> None:
    killed: list[int] = []
    pids: list[int] = []

    def kill_one(part: str, done: int, total: int) -> None:
        if pids and not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    with connected(2, None, progress=kill_one) as engine:
        pids += engine._client.run(os.getpid).values()
        report = analyze(open_run(run), engine)
    assert killed
    assert report.to_dict() == analyze(open_run(run)).to_dict()


@pytest.mark.parametrize(("number", "code"), ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_nothing_is_left_when_it_is_stopped(number: signal.Signals, code: int, run: Path, tmp_path: Path) -> None:
    command = _start(run, "--workers", "2", "--scratch", str(tmp_path))
    while not any(tmp_path.glob("*/*/0000.0-*")):  # the first part of the analysis was done
        assert command.poll() is None, command.communicate()
        time.sleep(0.01)
    stop(command, number)
    _, said = command.communicate(timeout=60)
    assert command.returncode == code, said
    assert said == ("commlens: interrupted; run it again for the whole result\n" if code == 130 else "")
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_that_does_not_answer(run: Path, monkeypatch: Patch, capsys: Printed) -> None:
    assert commlens(monkeypatch, "report", run, "--cluster", "tcp://127.0.0.1:9") == 1
    said = capsys.readouterr().err
    assert said.startswith("commlens: no Dask scheduler at tcp://127.0.0.1:9: nobody answers; check the address")
    assert said.count("\n") == 1


@pytest.mark.parametrize("address", ("tcp://127.0.0.1:9", "http://x:1"))
def test_nothing_is_left_that_closes_later(address: str, monkeypatch: Patch) -> None:
    """Dask's client takes a lock of all clients as it closes; collected amid the making of another it waits for it."""
    from distributed import Client

    monkeypatch.setattr(connect, "_PATIENCE", "1s")
    before = [each for each in gc.get_objects() if issubclass(type(each), Client)]
    gc.disable()
    try:
        with pytest.raises(ClusterError), connected(None, address):
            pass
        left = [
            each for each in gc.get_objects() if issubclass(type(each), Client) and not any(each is b for b in before)
        ]
    finally:
        gc.enable()
    assert left == []


@pytest.mark.parametrize("address", ("nowhere", "http://x:1", "tcp://", ""))
def test_an_address_that_is_none(address: str, run: Path, monkeypatch: Patch, capsys: Printed) -> None:
    assert commlens(monkeypatch, "report", run, "--cluster", address) == 1
    said = capsys.readouterr().err
    assert said.startswith("commlens: no Dask scheduler at ") and said.count("\n") == 1


def test_two_places_at_once(run: Path, monkeypatch: Patch, capsys: Printed) -> None:
    assert commlens(monkeypatch, "report", run, "--cluster", "tcp://a:1", "--workers", 2) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert commlens(monkeypatch, "report", run, "--scratch", "/tmp") == 2
    assert "give one of these as well" in capsys.readouterr().err


def test_a_cluster_without_workers(run: Path) -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(ClusterError, match="has no workers; start some with: dask worker tcp://"),
        connected(None, empty.scheduler_address),
    ):
        pass


def test_workers_of_another_version(scheduler: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr("commlens.cluster.connect.__version__", "0.0.1")
    with (
        pytest.raises(ClusterError, match=r"runs commlens \S+, this process 0\.0\.1: install the same"),
        connected(None, scheduler),
    ):
        pass


def test_workers_of_another_python(scheduler: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "7", "1"))
    with (
        pytest.raises(ClusterError, match=r"runs Python 3\.\d+, this process 3\.7: install the same"),
        connected(None, scheduler),
    ):
        pass


def test_a_scratch_folder_that_workers_do_not_see(scheduler: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr("commlens.cluster.connect.Path.write_text", lambda *_: None)  # as if on another machine
    with (
        pytest.raises(ClusterError, match=r"1 of 1 workers of the cluster at tcp://.* do not see .*: give --scratch"),
        connected(None, scheduler),
    ):
        pass


def test_a_full_scratch_folder(run: Path) -> None:
    said = _report(run, "--workers", "1", preexec_fn=_little_room)
    assert said.returncode == 1
    assert said.stderr.startswith("commlens: cannot write to the scratch folder ")
    assert said.stderr.count("\n") == 1, said.stderr


def _little_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_without_dask_one_line_says_what_to_install(run: Path, monkeypatch: Patch, capsys: Printed) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert commlens(monkeypatch, "report", run, "--workers", 2) == 1
    assert capsys.readouterr().err == (
        "commlens: analysis on a cluster needs Dask, which is not installed: pip install 'commlens[cluster]'\n"
    )


def test_imported_files_are_read_by_workers(scheduler: str, tmp_path: Path, cluster: Cluster) -> None:
    from commlens.trace.importers.cache import import_run

    dump = tmp_path / "nccl_trace_rank_0.json"
    dump.write_text('{"version": "2.4", "entries": []}')
    assert import_run([dump], tmp_path / "run", spread=cluster.each).ranks


def _report(run: Path, *more: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "commlens", "report", str(run), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


def _start(run: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "commlens", "report", str(run), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _connect(address: str) -> None:
    with connected(None, address):
        pass
