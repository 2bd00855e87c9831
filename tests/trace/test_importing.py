"""From files of other profilers to a run: which files, which ranks, kept where, and what becomes of bad ones."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic import RankTruth, write_run

from commlens.errors import CommlensError, RunNotFoundError, TraceError, UsageError, WriteError
from commlens.trace import Run, open_run
from commlens.trace.importers import cache, convert, side_by_side, trace_events
from commlens.trace.importers.cache import FOLDER, import_run

BASE = 1_735_632_360_000_000_000


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are kept, out of the way."""
    monkeypatch.setenv("COMMLENS_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces"


def trace(path: Path, rank: int | None = None, size: int | None = None, start: float = 100, kernels: int = 1) -> Path:
    """Writes a trace with some all-reduces; gzipped where the name says so."""
    names = {"ph": "X", "cat": "kernel", "name": "ncclDevKernel_AllReduce_Sum_f32_RING_LL", "tid": 7}
    args = {"device": 0, "Process Group Name": "0"}
    events = [names | {"ts": start + 10 * place, "dur": 5, "args": args} for place in range(kernels)]
    said = {key: value for key, value in (("rank", rank), ("world_size", size)) if value is not None}
    about = {"schemaVersion": 1, "baseTimeNanoseconds": BASE, "distributedInfo": said}
    text = json.dumps({**about, "traceEvents": events}).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


def starts(run: Run) -> dict[int, list[int]]:
    """First kernel of each rank, us after the base."""
    times = {rank: run.ranks[rank].columns("kernels", ["start_ns"])["start_ns"] for rank in run.ranks}
    return {rank: ((each - BASE) // 1000).tolist() for rank, each in times.items()}


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def one_line(error: pytest.ExceptionInfo[CommlensError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_ranks_that_the_files_say(traces: Path) -> None:
    for rank in (1, 0, 3):
        trace(traces / f"rank{9 - rank}.json.gz", rank, 4, start=100 * rank)
    run = open_run(traces)
    assert (run.world_size, run.missing, run.notes) == (4, [2], [])
    assert starts(run) == {0: [0], 1: [100], 3: [300]}
    assert run.info["imported"] == "kineto"
    assert run.info["start_ns"] == BASE
    assert run.ranks[3].info["source"] == str(traces / "rank6.json.gz")


@pytest.mark.parametrize(
    "names",
    [
        ["trace_rank_0.json", "trace_rank_1.json", "trace_rank_10.json"],
        ["w4_r0_s2.json", "w4_r1_s2.json", "w4_r10_s2.json"],
        ["host_gpu0.json", "host_gpu1.json", "host_gpu10.json"],
        ["kineto_0.json", "kineto_1.json", "kineto_10.json"],
        ["step12.rank-0.json", "step12.rank-1.json", "step12.rank-10.json"],
        ["ip-10-0-0-7_worker0.169.json", "ip-10-0-0-7_worker1.170.json", "ip-10-0-0-7_worker10.171.json"],
    ],
)
def test_ranks_by_the_names(traces: Path, names: list[str]) -> None:
    for place, name in enumerate(names):
        trace(traces / name, start=100 * place)
    assert starts(open_run(traces)) == {0: [0], 1: [100], 10: [200]}


def test_ranks_by_a_pattern(traces: Path) -> None:
    for place, name in enumerate(["n1-gpus8-2.json", "n1-gpus8-3.json"]):
        trace(traces / name, start=100 * place)
    assert starts(open_run(traces, rank_regex=r"-(\d+)\.json")) == {2: [0], 3: [100]}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("rank(", "is no regular expression"),
        (r"rank\d+", "has no group around the number"),
        (r"(rank)", "finds no number in a-"),
        (r"x(\d+)?", "finds no number in a-"),
        (r"(\d{12,})", "in a-169895536438020031.json"),
    ],
)
def test_patterns_that_find_no_rank(traces: Path, pattern: str, problem: str) -> None:
    for number in (1, 2):
        trace(traces / f"a-16989553643802003{number}.json")
    with pytest.raises(UsageError) as error:
        open_run(traces, rank_regex=pattern)
    assert problem in one_line(error)


@pytest.mark.parametrize("pattern", ["[", r"rank\d+", ""])
def test_a_pattern_that_is_none_is_refused_of_a_recorded_run_too(tmp_path: Path, pattern: str) -> None:
    run = write_run(tmp_path / "run", {0: RankTruth()})
    with pytest.raises(UsageError, match="--rank-regex"):
        open_run(run, rank_regex=pattern)
    with pytest.raises(UsageError, match="--rank-regex"):
        import_run([tmp_path], tmp_path / "out", rank_regex=pattern)


def test_ranks_that_cannot_be_told(traces: Path) -> None:
    trace(traces / "first.json")
    trace(traces / "second.json", start=200)
    with pytest.raises(UsageError) as error:
        open_run(traces)
    assert "2 files do not say which rank they are (first.json, second.json" in one_line(error)
    assert r"--rank-regex 'rank(\d+)'" in one_line(error)


def test_one_file_is_rank_0(traces: Path) -> None:
    run = open_run(trace(traces / "any.json"))
    assert (run.world_size, starts(run)) == (1, {0: [100]})
    assert run.notes == ["any.json does not say which rank it is; it is taken for rank 0"]


def test_of_several_files_of_a_rank_the_newest(traces: Path) -> None:
    trace(traces / "a.json", 0, 1, start=300)
    trace(traces / "b.json", 0, 1, start=100)
    run = open_run(traces)
    assert starts(run) == {0: [300]}
    assert run.notes == ["rank 0 is there 2 times; the newest, a.json, was used, not b.json"]


def test_files_of_another_job_are_left_out(traces: Path) -> None:
    for rank in (0, 1):
        trace(traces / f"{rank}.json", rank, 2)
    trace(traces / "other.json", 0, 8)
    run = open_run(traces)
    assert (run.world_size, sorted(run.ranks)) == (2, [0, 1])
    assert run.notes == ["other.json is of another job (8 ranks, not 2) and was left out; give it by itself"]


def test_the_best_format_is_read_and_the_others_are_named(traces: Path) -> None:
    trace(traces / "0.json", 0, 1)
    (traces / "dump_0").write_text(json.dumps({"version": "2.10", "pg_config": {}, "pg_status": {}, "entries": []}))
    (traces / "readme.txt").write_text("hello")
    (traces / "empty").touch()
    (traces / ".hidden").write_text("never looked at")
    run = open_run(traces)
    assert sorted(run.ranks) == [0]
    assert run.notes == [
        "left out: " + str(traces / "dump_0") + ": Flight Recorder dumps; give them by themselves",
        "left out: empty, readme.txt: of no format that commlens reads",
    ]


@pytest.mark.parametrize("content", [b"", b"hello", b"{}", bytes(100), b"\x1f\x8b", gzip.compress(bytes(1 << 20))])
def test_files_of_no_format(traces: Path, content: bytes) -> None:
    (traces / "file").write_bytes(content)
    with pytest.raises(RunNotFoundError) as error:
        open_run(traces / "file")
    assert one_line(error).startswith(f"{traces / 'file'} is no run, and of no format that commlens reads: torch.prof")


def bad_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Writes files that look like traces; what is said of each."""
    monkeypatch.setattr(trace_events, "_LONGEST", 1 << 20)
    whole = gzip.compress(trace(folder / "t.json", 3).read_bytes(), 0)
    (folder / "t.json").unlink()
    head = b'{"schemaVersion": 1, '
    contents = {
        "no-events.json": (head + b'"a": 1}', "holds no traceEvents"),
        "endless.json": (head + b'"traceEvents": [{"name": "' + b"x" * (2 << 20), "holds something of over"),
        "bomb.json.gz": (gzip.compress(head + b" " * (2 << 20)), "holds something of over"),
        "cut.json.gz": (whole[:60], "holds no traceEvents"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: problem for name, (_, problem) in contents.items()}


def test_bad_files_are_named_and_the_others_read(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = bad_files(traces, monkeypatch)
    trace(traces / "good.json", 0, 1)
    run = open_run(traces)
    assert starts(run) == {0: [100]}
    assert len(run.notes) == len(problems)
    for name, problem in problems.items():
        (note,) = [note for note in run.notes if name in note]
        assert note.startswith(f"left out: {traces / name} {problem}")
        assert note.endswith("leave it out")


def test_bad_files_only(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = bad_files(traces, monkeypatch)
    with pytest.raises(TraceError) as error:
        open_run(traces)
    assert one_line(error).startswith("none of 4 files could be read: ")
    for name, problem in problems.items():
        with pytest.raises(TraceError) as error:
            open_run(traces / name)
        assert one_line(error).startswith(f"{traces / name} {problem}")


def test_a_file_that_may_not_be_read(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        trace(traces / f"{rank}.json", rank, 2)
    real = Path.open

    def refuse(path: Path, *args: Any, **named: Any) -> Any:
        if path.name == "1.json":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **named)

    monkeypatch.setattr(Path, "open", refuse)
    run = open_run(traces)
    assert (run.missing, starts(run)) == ([1], {0: [100]})
    path = traces / "1.json"
    assert run.notes == [f"left out: cannot read {path}: Permission denied; make it readable for this user"]
    with pytest.raises(TraceError, match=r"^cannot read .*1\.json: Permission denied"):
        open_run(path)


def test_links_that_lead_nowhere_are_passed_over(traces: Path) -> None:
    trace(traces / "0.json", 0, 1)
    (traces / "lost").symlink_to(traces / "absent")
    (traces / "round").symlink_to(traces)
    assert sorted(open_run(traces).ranks) == [0]


def test_folders_patterns_and_the_same_file_twice(traces: Path) -> None:
    (traces / "host").mkdir()
    trace(traces / "host" / "0.json", 0, 3, start=0)
    trace(traces / "1.json", 1, 3)
    trace(traces / "2.txt", 2, 3)
    assert sorted(open_run([traces, traces / "1.json"]).ranks) == [0, 1, 2]
    assert sorted(open_run(traces / "*.json").ranks) == [1]
    assert sorted(open_run([traces / "host", traces / "?.txt"]).ranks) == [0, 2]


@pytest.mark.parametrize("name", ["absent", "*.absent", "x" * 300])
def test_paths_that_are_not_there(traces: Path, tmp_path: Path, name: str) -> None:
    for read in (open_run, lambda path: import_run([path], tmp_path / "run")):
        with pytest.raises(TraceError) as error:
            read(traces / name)
        assert name in one_line(error)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one each time a run is made."""
    made: list[int] = []
    real = cache.convert

    def count(*args: Any) -> None:
        made.append(1)
        real(*args)

    monkeypatch.setattr(cache, "convert", count)
    return made


def test_a_run_is_made_once_and_again_when_a_file_changes(
    traces: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    path = trace(traces / "0.json", 0, 1)
    first = open_run(traces)
    os.utime(path, ns=(1, 1))
    assert open_run(path).path == first.path
    assert len(made) == 1
    trace(path, 0, 1, start=101)
    assert starts(open_run(traces)) == {0: [101]}
    path.rename(traces / "1.json")
    open_run(traces)
    open_run(traces, rank_regex="(.)")
    assert len(made) == 4
    assert sorted(kept.iterdir()) == sorted(each for each in kept.iterdir() if (each / "run.json").is_file())


def test_kept_beside_the_files_else_for_the_user(traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMMLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = trace(traces / "0.json", 0, 1)
    assert open_run(path).path.parent == traces / FOLDER
    shutil.rmtree(traces / FOLDER)
    traces.chmod(0o555)
    try:
        assert open_run(path).path.parent == tmp_path / "home" / "commlens"
        assert listed(traces) == ["0.json"]
    finally:
        traces.chmod(0o755)


def test_without_a_home(traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMMLENS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    path = trace(traces / "0.json", 0, 1)
    assert open_run(path).path.parent == traces / FOLDER


def test_where_nothing_can_be_kept(traces: Path, kept: Path) -> None:
    kept.write_text("a file")
    with pytest.raises(WriteError) as error:
        open_run(trace(traces / "0.json", 0, 1))
    assert one_line(error).endswith("name another folder with COMMLENS_CACHE")


def test_several_make_the_same_run_at_once(traces: Path, kept: Path) -> None:
    path = trace(traces / "0.json", 0, 1, kernels=500)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(open_run, [path] * 8))
    assert len({run.path for run in runs}) == 1
    assert {len(starts(run)[0]) for run in runs} == {500}
    assert listed(kept) == [runs[0].path.name]


def test_half_a_kept_run_is_replaced(traces: Path) -> None:
    path = trace(traces / "0.json", 0, 1)
    run = open_run(path)
    (run.path / "run.json").unlink()
    assert starts(open_run(path)) == {0: [100]}


def test_the_runs_not_used_for_longest_go(traces: Path, kept: Path) -> None:
    paths = [trace(traces / f"{number}.json", 0, 1, start=number) for number in range(18)]
    runs = [open_run(path).path for path in paths[:16]]
    for age, run in enumerate(runs):
        os.utime(run, ns=(age, age))
    open_run(paths[0])  # is used again
    new = [open_run(path).path for path in paths[16:]]
    assert sorted(kept.iterdir()) == sorted([runs[0], *runs[3:], *new])


def test_a_run_is_not_left_half_made(traces: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "_write_run", interrupted)
    path = trace(traces / "0.json", 0, 1)
    with pytest.raises(KeyboardInterrupt):
        open_run(path)
    with pytest.raises(KeyboardInterrupt):
        import_run([path], tmp_path / "run")
    assert listed(kept) == []
    assert listed(tmp_path) == ["kept", "traces"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_side_by_side_make_the_same_run(
    method: str, traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(3):
        trace(traces / f"{rank}.json.gz", rank, 4, start=50 * rank, kernels=1 + rank)
    (traces / "bad.json").write_text('{"schemaVersion": 1}')
    told: list[tuple[int, int]] = []
    serial = import_run([traces], tmp_path / "serial")
    monkeypatch.setattr(side_by_side, "_method", lambda: method)
    monkeypatch.setattr(side_by_side, "_WORTH", dict.fromkeys(side_by_side._WORTH, 0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    parallel = import_run([traces], tmp_path / "parallel", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert _content(tmp_path / "parallel") == _content(tmp_path / "serial")
    assert parallel.notes == serial.notes
    assert starts(parallel) == {0: [0], 1: [50, 60], 2: [100, 110, 120]}


def _content(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_processes_do_not_run_the_callers_script(method: str, traces: Path, tmp_path: Path) -> None:
    """Scripts without a main guard are common; a training script must not begin anew."""
    for rank in (0, 1):
        trace(traces / f"{rank}.json", rank, 2)
    script = tmp_path / "script.py"
    script.write_text(
        "print('began')\nimport sys, os\nfrom commlens.trace import open_run\n"
        "from commlens.trace.importers import side_by_side as s\ns._WORTH = dict.fromkeys(s._WORTH, 0)\n"
        "os.cpu_count = lambda: 2\ns._method = lambda: sys.argv[2]\n"
        "print(sorted(open_run(sys.argv[1]).ranks))\n"
    )
    done = subprocess.run(
        [sys.executable, script, traces, method], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("began\n[0, 1]\n", "")


def killed(_: object) -> None:
    os._exit(9)


def test_a_process_that_is_killed(traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        trace(traces / f"{rank}.json", rank, 2)
    monkeypatch.setattr(side_by_side, "_WORTH", dict.fromkeys(side_by_side._WORTH, 0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(convert, "_read_one", killed)
    with pytest.raises(TraceError) as error:
        import_run([traces], tmp_path / "run")
    assert "was killed" in one_line(error)
    assert listed(tmp_path) == ["traces"]


def test_a_run_of_its_own(traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace(traces / "0.json", 0, 1)
    for output in (tmp_path / "new", tmp_path / "deep" / "er", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert starts(import_run([traces], output)) == {0: [100]}
        assert starts(open_run(output)) == {0: [100]}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert starts(import_run([traces], Path())) == {0: [100]}
    shutil.rmtree(traces)
    assert starts(open_run(tmp_path / "here")) == {0: [100]}


def test_a_run_is_no_file_to_import(traces: Path, tmp_path: Path) -> None:
    import_run([trace(traces / "0.json", 0, 1)], tmp_path / "run")
    with pytest.raises(UsageError) as error:
        import_run([traces, tmp_path / "run"], tmp_path / "again")
    assert one_line(error) == f"{tmp_path / 'run'} is a run already; report it as it is"
    with pytest.raises(WriteError) as written:
        import_run([traces], tmp_path / "run")
    assert one_line(written) == f"{tmp_path / 'run'} exists; give the name of a new folder"


def test_many_small_files(traces: Path) -> None:
    for number in range(300):
        trace(traces / f"rank{number}.json", number, 512)
        (traces / f"log{number}.txt").write_text("hello")
    run = open_run(traces)
    assert (len(run.ranks), len(run.missing)) == (300, 212)
    assert run.notes == ["left out: log0.txt, log1.txt, log10.txt and 297 more: of no format that commlens reads"]


def test_a_pools_worker_reads_by_itself(traces: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a pool are daemons, which may start no processes."""
    for rank in (0, 1):
        trace(traces / f"{rank}.json", rank, 2)
    monkeypatch.setattr(side_by_side, "_WORTH", dict.fromkeys(side_by_side._WORTH, 0))
    monkeypatch.setattr(side_by_side, "current_process", lambda: SimpleNamespace(daemon=True))
    assert side_by_side.workers_for(2, 10**9) == 1
    assert sorted(open_run(traces).ranks) == [0, 1]
