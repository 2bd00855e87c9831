"""`commlens report`, as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import commlens
from synthetic import RankTruth, training_rank, write_run

from commlens.cli import app
from commlens.trace.schema import RANK_FOLDER, TABLE_FILE


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", {rank: training_rank(6) for rank in range(2)})


def test_text(run_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert commlens(monkeypatch, "report", run_path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "costs 45.0 ms of each 100 ms step (45 %)" in " ".join(out.split())
    assert "all_reduce of 1.0 kB in group 0 (desc 0), 1 a step, 22.5 ms" in " ".join(out.split())
    assert "links" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert "\x1b" not in out


def test_json(run_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert commlens(monkeypatch, "report", run_path, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["time_budget"]["exposed_ms"] == 45


@pytest.mark.parametrize("arguments", [("text",), ("json",)])
def test_a_file_is_not_overwritten(
    run_path: Path, arguments: tuple[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = run_path.parent / "report.out"
    command = ("report", run_path, "--format", *arguments, "-o", target)
    assert commlens(monkeypatch, *command) == 0
    first = target.read_text(encoding="utf-8")
    assert "45" in first
    target.write_text("mine")
    assert commlens(monkeypatch, *command) == 1
    assert target.read_text() == "mine"
    assert commlens(monkeypatch, *command, "--force") == 0
    assert target.read_text(encoding="utf-8") == first
    out, err = capsys.readouterr()
    assert out == ""
    assert "--force" in err


def test_parts_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [write_run(tmp_path / str(rank), {rank: training_rank(6)}, world_size=2) for rank in range(2)]
    assert commlens(monkeypatch, "report", *parts, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["run"]["ranks_present"] == [0, 1]


def test_the_newest_run_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commlens(monkeypatch, "report") == 2
    assert "commlens-runs" in capsys.readouterr().err
    write_run(tmp_path / "commlens-runs" / "a", {0: training_rank(6)})
    assert commlens(monkeypatch, "report", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["run"]["path"] == "commlens-runs/a"


def _file(path: Path) -> Path:
    path.write_text("not a run")
    return path


def _newer(path: Path) -> Path:
    run = write_run(path, {0: training_rank(3)})
    (run / "run.json").write_text('{"format_version": 99}')
    return run


def _damaged(path: Path) -> Path:
    run = write_run(path, {0: training_rank(3)})
    for name in ("run.json", "rank-00000/rank.json"):
        (run / name).write_text("{")
    return run


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD = {
    "missing": (lambda path: path, 2),
    "empty folder": (_folder, 2),
    "file": (_file, 2),
    "newer": (_newer, 1),
    "damaged": (_damaged, 1),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", ["report", "export"])
def test_errors_are_one_line(
    case: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, code = BAD[case]
    extra = ("--to", "csv", "-o", tmp_path / "out") if command == "export" else ()
    assert commlens(monkeypatch, command, make(tmp_path / "bad"), *extra) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("commlens: ")
    assert err.count("\n") == 1


def test_a_truncated_table_is_reported_not_fatal(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = run_path / RANK_FOLDER.format(rank=1) / TABLE_FILE.format(table="collectives")
    os.truncate(table, table.stat().st_size // 2)
    assert commlens(monkeypatch, "report", run_path, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["coverage"]["truncated"] == [{"rank": 1, "tables": ["collectives"]}]
    assert commlens(monkeypatch, "report", run_path) == 0
    assert "cut short" in capsys.readouterr().out


def test_a_bug_is_one_line_too(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(run: object, engine: object) -> None:
        raise ValueError("a\nbug")

    monkeypatch.setattr("commlens.analyzers.analyze", broken)
    assert commlens(monkeypatch, "report", run_path) == 1
    err = capsys.readouterr().err
    assert err.startswith("commlens: internal error: ValueError: a bug (set COMMLENS_DEBUG=1")
    assert err.count("\n") == 1
    monkeypatch.setenv("COMMLENS_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["commlens", "report", str(run_path)])
    with pytest.raises(ValueError, match="bug"):
        app.main()


def test_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert commlens(monkeypatch, "report", "--no-such-option") == 2
    assert commlens(monkeypatch, "report", "--format", "xml") == 2
    capsys.readouterr()
    assert commlens(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("commlens 0.")


def test_a_run_with_nothing_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commlens(monkeypatch, "report", write_run(tmp_path / "run", {0: RankTruth()})) == 0
    assert "cannot be told: no collective was recorded" in " ".join(capsys.readouterr().out.split())


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = "from commlens.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=os.environ | environment, timeout=60, check=False)


def test_a_terminal_without_unicode(run_path: Path) -> None:
    ended = process("report", run_path, PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr
    assert b"#####" in ended.stdout
    assert b"?" not in ended.stdout


def test_the_report_loads_no_heavy_module(run_path: Path) -> None:
    script = (
        "import sys\nfrom commlens.cli import app\nsys.argv = ['commlens', 'report', sys.argv[1]]\n"
        "try:\n    app.main()\nfinally:\n"
        "    heavy = {'torch', 'pandas', 'dash', 'plotly', 'pyarrow.parquet'} & set(sys.modules)\n"
        "    sys.stderr.write(','.join(sorted(heavy)))"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(run_path)], capture_output=True, timeout=60, check=False)
    assert ended.stderr == b""


def test_a_reader_that_goes_away(run_path: Path) -> None:
    code = "from commlens.cli.app import main; main()"
    command = [sys.executable, "-c", code, "report", str(run_path), "--format", "json"]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert ended.stderr == b""
