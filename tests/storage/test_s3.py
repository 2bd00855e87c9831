"""Runs on a real S3 server read as the same runs in folders do, with few requests."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from made import RANKS, packed, report_of, write_hosts, write_windowed
from object_server import Bucket, Server

from commlens.errors import TraceError
from commlens.trace import open_run
from commlens.trace.schema import RANK_FILE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hosts(tmp_path_factory.mktemp("s3") / "run")


def half(run: Path, into: Path) -> Path:
    """The run without every second rank."""
    shutil.copytree(run, into)
    for number in range(0, RANKS, 2):
        shutil.rmtree(into / f"rank-{number:05d}")
    return into


@pytest.mark.parametrize("kind", ["folders", "packs", "both", "half", "window", "packed window"])
def test_the_report_is_that_of_the_local_copy(tmp_path: Path, run: Path, bucket: Bucket, kind: str) -> None:
    kinds = {
        "folders": lambda into: shutil.copytree(run, into),
        "packs": lambda into: packed(run, into),
        "both": lambda into: packed(run, into, nodes=2),
        "half": lambda into: half(run, into),
        "window": write_windowed,
        "packed window": lambda into: packed(write_windowed(tmp_path / "run"), into),
    }
    local = kinds[kind](tmp_path / "copy")
    assert report_of(bucket.put(local)) == report_of(local)


def test_a_run_is_listed_once_and_each_file_asked_for_once(run: Path, bucket: Bucket, server: Server) -> None:
    there = bucket.put(run)
    opened = open_run(there)
    asked = Counter(path.rpartition("/")[2] for path in server.gets())
    assert asked == {bucket.name: 2, "run.json": 1, RANK_FILE: RANKS}  # listed: what it is, then all that is in it
    assert {method for method, *_ in server.asked} == {"GET"}
    server.asked.clear()
    assert opened.ranks[3].table("phases").num_rows == 8
    assert server.gets() == [f"/{bucket.name}/run/rank-00003/phases.arrows"]
    server.asked.clear()
    assert opened.ranks[2].table("collectives").num_rows == 24
    opened.ranks[2].table("phases"), opened.ranks[2].table("overhead")
    assert len(server.asked) == 3  # side by side, for they are small


def test_ranks_are_opened_side_by_side(run: Path, bucket: Bucket, server: Server) -> None:
    there = bucket.put(run)
    together = threading.Barrier(RANKS, timeout=60)
    server.before = lambda method, path: path.endswith(RANK_FILE) and together.wait() >= 0
    assert open_run(there).missing == []  # none is answered before all are asked for


def test_a_pack_is_opened_by_its_end_and_a_table_is_one_range(
    tmp_path: Path, run: Path, bucket: Bucket, server: Server
) -> None:
    local = packed(run, tmp_path / "packs")
    opened = open_run(bucket.put(local))
    packs = [(path, part) for method, path, part in server.asked if path.endswith(".zip")]
    assert len(packs) == RANKS // 2 + RANKS  # ends, and descriptions
    server.asked.clear()
    assert opened.ranks[3].table("phases").num_rows == 8
    ((_, path, part),) = server.asked
    assert path.endswith("/run/node-00002.zip")
    begin, end = map(int, part.removeprefix("bytes=").split("-"))
    assert end - begin < opened.ranks[3].files.sizes()["phases.parquet"] + 256


def test_the_newest_of_a_folder_of_runs_is_taken(tmp_path: Path, run: Path, bucket: Bucket, server: Server) -> None:
    for name, start in (("a", 3), ("b", 9), ("c", 5)):
        other = shutil.copytree(run, tmp_path / name)
        text = (run / "run.json").read_text().replace('"start_ns": 1700000000000000000', f'"start_ns": {start}')
        (other / "run.json").write_text(text)
        bucket.put(other, f"runs/{name}")
    bucket.replace("runs/notes.txt", b"nothing")
    bucket.replace("runs/empty/notes.txt", b"nothing")
    server.asked.clear()
    found = open_run(f"s3://{bucket.name}/runs")
    assert str(found.path) == f"s3://{bucket.name}/runs/b"
    assert found.notes == [f"s3://{bucket.name}/runs holds 3 runs; this is the newest, b"]
    assert str(open_run(f"s3://{bucket.name}/runs/").path) == f"s3://{bucket.name}/runs/b"
    (tmp_path / "c" / "run.json").write_text(text.replace('"start_ns": 5', '"start_ns": 11'))
    bucket.put(tmp_path / "c", "runs/c")
    assert str(open_run(f"s3://{bucket.name}/runs").path) == f"s3://{bucket.name}/runs/c"  # no listing is kept


def test_parts_of_a_run_may_lie_here_and_there(tmp_path: Path, run: Path, bucket: Bucket) -> None:
    here, there = shutil.copytree(run, tmp_path / "here"), shutil.copytree(run, tmp_path / "there")
    for number in range(RANKS):
        shutil.rmtree((here if number % 2 else there) / f"rank-{number:05d}")
    found = open_run([here, bucket.put(there)])
    assert (list(found.ranks), found.missing) == (list(range(RANKS)), [])


def test_a_rank_sent_elsewhere_reads_itself(tmp_path: Path, run: Path, bucket: Bucket) -> None:
    """As a worker does: in a process of its own, with credentials of its own environment."""
    opened = open_run(bucket.put(packed(run, tmp_path / "packs", nodes=1)))
    for number in (1, 7):
        sent = pickle.dumps(opened.ranks[number])
        assert b"the-secret" not in sent and b"AKIA" not in sent
        (tmp_path / f"{number}.pickle").write_bytes(sent)
    code = (
        "import pickle, sys, pathlib\n"
        "for path in sys.argv[1:]:\n"
        "    print(pickle.loads(pathlib.Path(path).read_bytes()).table('collectives').num_rows)"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / f"{number}.pickle") for number in (1, 7))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.split(), done.stderr) == (["24", "24"], "")


def test_a_file_is_read_in_one_request_and_so_is_of_one_time(run: Path, bucket: Bucket, server: Server) -> None:
    there = bucket.put(run)
    rank = open_run(there).ranks[0]
    fuller = (run / "rank-00007" / "collectives.arrows").read_bytes()
    bucket.replace("run/rank-00000/collectives.arrows", fuller + b"more")
    assert rank.table("collectives").num_rows == 24  # the new one, whole
    assert rank.truncated == {"collectives"}


def test_a_file_that_goes_meanwhile_is_no_empty_table(run: Path, bucket: Bucket) -> None:
    opened = open_run(bucket.put(run))
    bucket.client.delete_object(Bucket=bucket.name, Key="run/rank-00002/collectives.arrows")
    with pytest.raises(TraceError, match=r"collectives.arrows has gone since the run was opened; open it again$"):
        opened.ranks[2].table("collectives")


def test_a_pack_that_changes_meanwhile_is_noticed(tmp_path: Path, run: Path, bucket: Bucket) -> None:
    there = bucket.put(packed(run, tmp_path / "packs"))
    opened = open_run(there)
    other = packed(write_hosts(tmp_path / "other", 6), tmp_path / "others")
    bucket.replace("run/node-00002.zip", (other / "node-00002.zip").read_bytes())
    with pytest.raises(TraceError, match=r"node-00002.zip changed while it was read; open the run again$"):
        opened.ranks[2].table("collectives")
    assert opened.ranks[4].table("collectives").num_rows == 24
    assert open_run(there).ranks[2].table("collectives").num_rows == 24


def test_the_pages_show_a_run(run: Path, bucket: Bucket) -> None:
    pytest.importorskip("dash")
    from commlens.trace.storage.places import place
    from commlens.ui.dashboard.runs import Runs

    bucket.put(run, "runs/one")
    runs = Runs([place(f"s3://{bucket.name}/runs")])
    assert runs.keys == ("one",)
    assert runs.view("one").examined.report.run.path == f"s3://{bucket.name}/runs/one"
    assert not runs.view("one").growing


def test_a_name_with_odd_characters(run: Path, bucket: Bucket, server: Server) -> None:
    there = bucket.put(run, "runs of März/a+b %41#1")
    assert open_run(there).missing == []
    assert all("a+b %41#1" in path for path in server.gets("run.json"))


def test_an_address_in_the_environment_alone(run: Path, bucket: Bucket) -> None:
    """AWS_ENDPOINT_URL is all that another server takes: no option of commlens names it."""
    done = subprocess.run(
        [sys.executable, "-m", "commlens", "report", bucket.put(run), "--format", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f'"path": "s3://{bucket.name}/run"' in done.stdout
