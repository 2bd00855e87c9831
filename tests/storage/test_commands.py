"""Every command that takes a run takes its address, and what writes a file writes there too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import commlens
from made import write_hosts
from object_server import Bucket, Server

from commlens.trace import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hosts(tmp_path_factory.mktemp("commands") / "run", ranks=4)


Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.mark.parametrize(
    "command",
    [
        ("report", "RUN"),
        ("report", "RUN", "--format", "html"),
        ("doctor", "RUN"),
        ("whatif", "RUN", "--set", "link.bandwidth=x2"),
        ("watch", "RUN", "--once"),
        ("compare", "RUN", "OTHER"),
    ],
)
def test_a_command_says_the_same(
    tmp_path: Path, run: Path, bucket: Bucket, command: tuple[str, ...], monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    said = []
    other = write_hosts(tmp_path / "other", ranks=4)
    there = bucket.put(run), bucket.put(other, "other")
    for first, second in ((str(run), str(other)), there):
        words = [{"RUN": first, "OTHER": second}.get(word, word) for word in command]
        code = commlens(monkeypatch, *words)
        out, err = capsys.readouterr()
        plain = [text.replace(first, "RUN").replace(second, "OTHER") for text in (out, err)]
        said.append((code, [text.split() for text in plain]))  # lines are broken where the path's length has it
    assert said[0] == said[1]
    assert said[0][0] == 0


def test_a_report_is_written_there(run: Path, bucket: Bucket, monkeypatch: Patch, capsys: Captured) -> None:
    target = f"s3://{bucket.name}/out/report.json"
    command = ("report", run, "--format", "json", "-o", target)
    assert commlens(monkeypatch, *command) == 0
    first = bucket.read("out/report.json")
    assert json.loads(first)["run"]["path"] == str(run)
    bucket.replace("out/report.json", b"mine")
    assert commlens(monkeypatch, *command) == 1
    assert bucket.read("out/report.json") == b"mine"
    assert f"{target} exists; give another name, or --force to overwrite it" in capsys.readouterr().err
    assert commlens(monkeypatch, *command, "--force") == 0
    assert bucket.read("out/report.json") == first
    assert commlens(monkeypatch, "report", run, "-o", f"s3://{bucket.name}/out") == 1
    assert "is a folder; give a file" in capsys.readouterr().err
    assert bucket.keys() == ["out/report.json"]


def test_tables_and_traces_are_exported_there(
    tmp_path: Path, run: Path, bucket: Bucket, monkeypatch: Patch, capsys: Captured
) -> None:
    there = f"s3://{bucket.name}/tables"
    assert commlens(monkeypatch, "export", bucket.put(run), "--to", "parquet", "-o", there) == 0
    assert commlens(monkeypatch, "export", run, "--to", "parquet", "-o", tmp_path / "tables") == 0
    assert f"{there}/collectives.parquet" in capsys.readouterr().out
    for file in sorted((tmp_path / "tables").iterdir()):
        assert bucket.read(f"tables/{file.name}") == file.read_bytes()
    assert commlens(monkeypatch, "export", run, "--to", "perfetto", "-o", f"s3://{bucket.name}/t.json.gz") == 0
    assert bucket.read("t.json.gz")[:2] == b"\x1f\x8b"


TRACE = {
    "distributedInfo": {"rank": 0, "world_size": 1},
    "traceEvents": [
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 10.0 + each * 20, "dur": 5.0, "pid": 0, "tid": 7}
        for each in range(3)
    ],
}


def test_other_tools_files_are_imported_there(
    tmp_path: Path, bucket: Bucket, server: Server, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setenv("COMMLENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rank0.json").write_text(json.dumps(TRACE))
    there = f"s3://{bucket.name}/imported"
    assert commlens(monkeypatch, "import", tmp_path / "rank0.json", "-o", there) == 0
    assert capsys.readouterr().out.strip() == there
    assert [path for method, path, _ in server.asked if method == "PUT"][-1].endswith("/run.json")
    assert open_run(there).ranks[0].table("kernels").num_rows == 3
    assert commlens(monkeypatch, "import", tmp_path / "rank0.json", "-o", there) == 1
    assert f"{there} exists; give the name of a new folder" in capsys.readouterr().err
    assert commlens(monkeypatch, "import", f"{there}/x.json", "-o", tmp_path / "here") == 2
    assert "other tools' files are read on this machine only; copy them here" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("run", "-o", "ADDRESS", "--", "true"), ("demo", "-o", "ADDRESS")])
def test_a_job_records_into_folders_only(
    tmp_path: Path, bucket: Bucket, command: tuple[str, ...], monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"s3://{bucket.name}/runs"
    assert commlens(monkeypatch, *(address if word == "ADDRESS" else word for word in command)) == 2
    assert f"a job writes to folders that its hosts see, not to {address}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["capture", "pause"])
def test_nothing_is_asked_of_a_job_elsewhere(
    run: Path, bucket: Bucket, command: str, monkeypatch: Patch, capsys: Captured
) -> None:
    assert commlens(monkeypatch, command, bucket.put(run)) == 2
    assert "a running job looks for requests in its own folder" in capsys.readouterr().err
