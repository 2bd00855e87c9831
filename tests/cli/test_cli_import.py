"""`commlens import`, and reports on files of other profilers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commlens.cli import app
from commlens.trace import open_run


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMLENS_CACHE", str(tmp_path / "kept"))


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    (tmp_path / "traces").mkdir()
    for rank in (0, 1):
        trace(tmp_path / "traces" / f"{rank}.json", rank)
    return tmp_path / "traces"


def trace(path: Path, rank: int | None, kernels: int = 20) -> Path:
    """Writes a trace with some all-reduces on a rank of two, or of one that is not said."""
    names = {"ph": "X", "cat": "kernel", "name": "ncclDevKernel_AllReduce_Sum_f32_RING_LL", "tid": 7}
    events = [names | {"ts": 100 + 10 * place, "dur": 5, "args": {"device": 0}} for place in range(kernels)]
    said = {} if rank is None else {"rank": rank, "world_size": 2}
    path.write_text(json.dumps({"schemaVersion": 1, "distributedInfo": said, "traceEvents": events}))
    return path


class Said:
    """Exit code, lines of stdout and lines of stderr of a command."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["commlens", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        self.code = ended.value.code or 0
        captured = capsys.readouterr()
        self.out, self.err = captured.out.splitlines(), captured.err.splitlines()


@pytest.mark.parametrize("command", [["report"], ["doctor"], ["whatif"], ["import", "x", "-o", "y"]])
def test_a_pattern_that_is_none_is_said_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    said = Said(monkeypatch, capsys, *command, "--rank-regex", "[")
    assert (said.code, said.out, len(said.err)) == (2, [], 1)
    assert said.err[0].startswith("commlens: --rank-regex '[' is no regular expression")


def test_a_run_is_made(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (traces / "notes.txt").write_text("hello")
    said = Said(monkeypatch, capsys, "import", traces, "-o", tmp_path / "run")
    assert (said.code, said.out) == (0, [str(tmp_path / "run")])
    assert said.err == [
        f"commlens: left out: {traces / 'notes.txt'}: of no format that commlens reads",
        "commlens: 2 files: collectives that name no process group were taken to be of all ranks",
    ]
    run = open_run(tmp_path / "run")
    assert (run.world_size, sorted(run.ranks), run.run_id[:9]) == (2, [0, 1], "imported-")
    assert [run.ranks[rank].table("collectives").num_rows for rank in (0, 1)] == [20, 20]


def test_what_exists_is_left_alone(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        said = Said(monkeypatch, capsys, "import", traces, "-o", tmp_path / name)
        assert (said.code, said.out) == (1, [])
        assert said.err == [f"commlens: {tmp_path / name} exists; give the name of a new folder"]
    said = Said(monkeypatch, capsys, "import", traces, "-o", tmp_path / "file" / "run")
    assert (said.code, len(said.err)) == (1, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "traces"]


def test_a_report_on_files(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the run made of them; by a folder, by names and by a pattern."""
    Said(monkeypatch, capsys, "import", traces, "-o", tmp_path / "run")
    made = Said(monkeypatch, capsys, "report", tmp_path / "run")
    for paths in ([traces], [traces / "0.json", traces / "1.json"], [traces / "*.json"]):
        said = Said(monkeypatch, capsys, "report", *paths)
        assert (said.code, said.err) == (0, [])
        assert len(said.out) == len(made.out)
        assert any("all_reduce" in line for line in said.out)


def test_a_run_is_not_imported(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Said(monkeypatch, capsys, "import", traces, "-o", tmp_path / "run")
    said = Said(monkeypatch, capsys, "import", tmp_path / "run", "-o", tmp_path / "again")
    assert said.code == 2
    assert said.err == [f"commlens: {tmp_path / 'run'} is a run already; report it as it is"]


@pytest.mark.parametrize("command", ["import", "report"])
@pytest.mark.parametrize("name", ["absent", "*.absent", "x" * 300])
def test_a_wrong_path(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["-o", tmp_path / "run"] if command == "import" else []
    said = Said(monkeypatch, capsys, command, tmp_path / name, *output)
    assert said.code in (1, 2)
    assert len(said.err) == 1
    assert name in said.err[0]
    assert "internal error" not in said.err[0]


@pytest.mark.parametrize("command", ["import", "report"])
@pytest.mark.parametrize("content", [b"", b"hello", b"{}", b"\x00" * 99, b"\x1f\x8b\x08"])
def test_a_file_of_no_format(
    command: str,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    output = ["-o", tmp_path / "run"] if command == "import" else []
    said = Said(monkeypatch, capsys, command, path, *output)
    assert (said.code, said.out, len(said.err)) == (2, [], 1)
    assert said.err[0].startswith(f"commlens: {path} is no run, and of no format that commlens reads: torch.profiler")


def test_files_without_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [trace(tmp_path / f"{name}.json", None) for name in ("first", "second")]
    said = Said(monkeypatch, capsys, "import", *paths, "-o", tmp_path / "run")
    assert (said.code, len(said.err)) == (2, 1)
    assert said.err[0].startswith("commlens: 2 files do not say which rank they are (first.json, second.json")
    one = trace(tmp_path / "n1-of2.json", None)
    two = trace(tmp_path / "n0-of2.json", None)
    said = Said(monkeypatch, capsys, "import", one, two, "-o", tmp_path / "run", "--rank-regex", r"n(\d)-of")
    assert (said.code, said.err) == (0, [])
    assert sorted(open_run(tmp_path / "run").ranks) == [0, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_nothing_behind(traces: Path, tmp_path: Path) -> None:
    """When one worker is done, and the other in the midst of a long file."""
    script = (
        "import os\nfrom commlens.trace.importers import side_by_side as s\ns._WORTH = dict.fromkeys(s._WORTH, 0)\n"
        "os.cpu_count = lambda: 2\nfrom commlens.cli.app import main\nmain()\n"
    )
    trace(traces / "0.json", 0, kernels=400_000)
    command = [sys.executable, "-c", script, "import", str(traces), "-o", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as job:
        while not any(tmp_path.glob(".run.*/part-000001-0")):
            assert job.poll() is None
            time.sleep(0.01)
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert said == "commlens: interrupted; run it again for the whole result\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["traces"]
