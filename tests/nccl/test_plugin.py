"""The plugin, driven as NCCL does: what comes out of the file is what was driven in, and what is lost is counted."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import driven
import numpy as np
import pytest

from commlens.analyzers import analyze
from commlens.errors import RunNotFoundError
from commlens.profiler.nccl_plugin import SOURCES, tables
from commlens.trace.nccl import layout
from commlens.trace.nccl.log import Log
from commlens.trace.nccl.operations import device_ops
from commlens.trace.reader import open_run
from commlens.trace.schema import MISSING, OPS

WORLD, PAIR = 0xAB01, 0xAB02
SLOTS = 16384  # in plugin.h


def word(columns: dict[str, Any], name: str, row: int) -> str | None:
    codes, words = columns[name]
    return None if codes[row] == MISSING else words[codes[row]]


def rows_of(log: Log, id: int) -> list[int]:
    own = [index for index, each in log.communicators.items() if each.id == id]
    return np.flatnonzero(np.isin(log.operations["communicator"], own)).tolist()


def test_every_table_is_exported_and_nothing_else() -> None:
    library, _ = driven.built()
    assert tables(library) == [f"ncclProfiler_v{version}" for version in driven.VERSIONS]
    found = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in found.splitlines()}
    own = {f"commlens_nccl_{name}" for name in ("hold", "mask", "open", "pause", "resume", "stats")}
    assert names == own | set(tables(library))


def test_what_is_no_plugin_has_no_tables(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    assert tables(tmp_path / "text.so") == []


def test_sources_say_what_the_reader_says() -> None:
    text = (SOURCES / "records.h").read_text()
    assert f'FILE_MAGIC "{layout.MAGIC.decode()}"' in text
    sizes = (
        f"FILE_VERSION = {layout.VERSION}, HEADER_BYTES = {layout.HEADER_BYTES}, RECORD_BYTES = {layout.RECORD_BYTES}"
    )
    assert sizes in text
    for record in (layout.COMMUNICATOR_RECORD, layout.NAME_RECORD, layout.OPERATION_RECORD, layout.TALLY_RECORD):
        assert record.itemsize == layout.RECORD_BYTES


@pytest.mark.parametrize("version", driven.VERSIONS)
def test_operations_come_out_as_driven(version: int, tmp_path: Path) -> None:
    done = driven.drive(tmp_path, "plain", version, 3)
    log = driven.the_log(tmp_path)
    columns = device_ops(log, 0)
    assert (log.torn, log.damaged) == (0, 0)
    assert log.tallies["operations"] == len(done) == len(log.operations)
    assert not any(log.tallies[name] for name in ("no_slot", "no_room", "no_step", "late", "foreign", "cut_off"))
    for id in (WORLD, PAIR):
        expected = [each for each in done if each["id"] == id]
        own = rows_of(log, id)
        assert [int(columns["order"][row]) for row in own] == list(range(len(expected)))
        for row, each in zip(own, expected, strict=True):
            check(columns, row, each)


def check(columns: dict[str, Any], row: int, each: dict[str, Any]) -> None:
    words = {"AllReduce": "all_reduce", "AllGather": "all_gather", "ReduceScatter": "reduce_scatter"}
    assert word(columns, "op", row) == words.get(each["func"], each["func"].lower())
    assert columns["copy_engine"][row] == bool(each.get("copies"))
    if each.get("copies"):
        assert word(columns, "state", row) == "ended"
        assert word(columns, "clock", row) == "none"
        return
    assert columns["bytes"][row] == each["count"] * (2 if each["message"] else 4)
    assert columns["peer"][row] == each["peer"]
    assert columns["graph"][row] == each["captured"]
    if each["message"]:
        assert columns["seq"][row] == MISSING
        assert word(columns, "algorithm", row) is word(columns, "protocol", row) is None
    else:
        assert columns["seq"][row] == each["seq"]
        assert word(columns, "algorithm", row) == ("TREE", "RING")[each["seq"] % 2]
        assert word(columns, "protocol", row) == ("LL", "LL128", "SIMPLE")[each["seq"] % 3]
    names = ("send_gpu", "send_peer", "send_network", "recv_network", "recv_flush", "recv_gpu")
    waits = sum(int(columns[f"{name}_ns"][row]) for name in names)
    if not each["proxies"]:
        assert waits == len(names) * MISSING
    elif each["proxies"] == 1:  # a receiver's
        assert 0 < waits <= each["waited_ns"]
        assert columns["send_network_ns"][row] == 0


@pytest.mark.parametrize("version", [5, 6, 7])
def test_device_times_are_within_their_error(version: int, tmp_path: Path) -> None:
    done = driven.drive(tmp_path, "plain", version, 20)
    log = driven.the_log(tmp_path)
    columns = device_ops(log, 0)
    expected = [each for each in done if each["id"] == WORLD]
    checked = 0
    for row, each in zip(rows_of(log, WORLD), expected, strict=True):
        if each.get("copies"):
            continue
        assert word(columns, "clock", row) == "device"
        error = int(columns["error_ns"][row])
        assert 0 <= error < 1_000_000_000
        assert abs(int(columns["start_ns"][row]) - each["began_ns"]) <= error + 2
        assert abs(int(columns["end_ns"][row]) - each["ended_ns"]) <= error + 2
        lasted = each["ended_ns"] - each["began_ns"]
        assert abs(int(columns["device_ns"][row]) - lasted) <= lasted * driven.DRIFT + 2
        checked += 1
    assert checked >= 7 * 20


def test_without_launches_times_are_the_latest_they_can_be(tmp_path: Path) -> None:
    done = driven.drive(tmp_path, "plain", 4, 5)
    log = driven.the_log(tmp_path)
    columns = device_ops(log, 0)
    for row, each in zip(rows_of(log, WORLD), [each for each in done if each["id"] == WORLD], strict=True):
        assert word(columns, "clock", row) == "device_late"
        assert columns["error_ns"][row] == MISSING
        assert columns["start_ns"][row] >= each["began_ns"] - 2


@pytest.mark.parametrize(("version", "clock"), [(1, "proxy_seen"), (2, "proxy_seen"), (3, "kernel_seen")])
def test_old_tables_tell_what_the_host_saw(version: int, clock: str, tmp_path: Path) -> None:
    done = driven.drive(tmp_path, "plain", version, 2)
    log = driven.the_log(tmp_path)
    columns = device_ops(log, 0)
    assert {each.rank for each in log.communicators.values()} == {1}
    for row, each in zip(rows_of(log, WORLD), [each for each in done if each["id"] == WORLD], strict=True):
        told = clock == "kernel_seen" or each["proxies"] > 0
        assert word(columns, "clock", row) == (clock if told else "none")
        assert (columns["end_ns"][row] != MISSING) == told
        assert columns["device_ns"][row] == MISSING
        if clock == "kernel_seen":
            assert columns["start_ns"][row] >= each["began_ns"]
            assert columns["end_ns"][row] >= each["ended_ns"]


@pytest.mark.parametrize("version", driven.VERSIONS)
def test_threads_lose_nothing_while_there_is_room(version: int, tmp_path: Path) -> None:
    (done,) = driven.drive(tmp_path, "threads", version, 4, 1500)
    log = driven.the_log(tmp_path)
    assert log.tallies["operations"] == done["operations"] == len(log.operations) == 6000
    assert log.tallies["no_slot"] == log.tallies["no_room"] == 0
    for index in log.communicators:
        own = log.operations[log.operations["communicator"] == index]
        assert own["order"].tolist() == own["seq"].tolist() == list(range(1500))


@pytest.mark.parametrize("version", driven.WITH_DEVICE_TIMES)
def test_what_has_no_slot_is_counted_exactly(version: int, tmp_path: Path) -> None:
    (done,) = driven.drive(tmp_path, "exhaust", version, SLOTS + 500)
    log = driven.the_log(tmp_path)
    assert done["none"] == log.tallies["no_slot"] == 500
    kept = log.operations[(log.operations["flags"] & layout.COMPLETE) > 0]
    assert len(kept) + log.tallies["no_room"] == SLOTS + 1
    assert log.operations["order"][-1] == SLOTS + 500  # what was lost is a gap in the numbers


@pytest.mark.parametrize("version", driven.VERSIONS)
def test_a_communicator_that_ends_first_leaves_its_operations_cut_off(version: int, tmp_path: Path) -> None:
    driven.drive(tmp_path, "cut_off", version)
    log = driven.the_log(tmp_path)
    flags = {log.communicators[int(each["communicator"])].id: int(each["flags"]) for each in log.operations}
    assert flags[0xBB01] & layout.CUT_OFF
    assert not flags[0xBB02] & layout.CUT_OFF
    assert len(log.operations) == 3
    assert log.tallies["foreign"] == 1
    assert log.tallies["cut_off"] == 1


def test_pausing_under_load_loses_nothing_that_began(tmp_path: Path) -> None:
    (done,) = driven.drive(tmp_path, "toggled", 6, 3, 20000)
    log = driven.the_log(tmp_path)
    assert 0 < log.tallies["operations"] == len(log.operations) < done["operations"]
    assert ((log.operations["flags"] & layout.COMPLETE) > 0).all()
    assert (log.operations["channels_ended"] == 2).all()


def test_finalize_races_with_events(tmp_path: Path) -> None:
    driven.drive(tmp_path, "race", 6)
    log = driven.the_log(tmp_path)
    assert log.tallies["operations"] == len(log.operations) + log.tallies["no_slot"] + log.tallies["no_room"]


def test_a_fork_is_a_process_of_its_own(tmp_path: Path) -> None:
    said = driven.drive(tmp_path, "forks", 6)
    pids = {"child": said[0]["child"], "parent": said[1]["parent"]}
    logs = {log.pid: log for log in map(driven.read_log, tmp_path.glob("*.events"))}
    assert logs.keys() == set(pids.values())
    child, parent = logs[pids["child"]], logs[pids["parent"]]
    assert [each.id for each in child.communicators.values()] == [0xFF02]
    assert [each.id for each in parent.communicators.values()] == [0xFF01]
    assert len(child.operations) == len(parent.operations) == 2


def test_killed_jobs_show_what_they_were_in(tmp_path: Path) -> None:
    library, driver = driven.built()
    process = subprocess.Popen([driver, library, "hang", "6"], env=driven.environment(tmp_path), stdout=subprocess.PIPE)
    try:
        for _ in range(200):  # it is written as under way when it has been for a second
            if (
                any(each.stat().st_size for each in tmp_path.glob("*.events"))
                and len(driven.the_log(tmp_path).operations) == 2
            ):
                break
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    columns = device_ops(driven.the_log(tmp_path), 0)
    assert [word(columns, "state", row) for row in (0, 1)] == ["ended", "under_way"]
    assert columns["end_ns"][1] == MISSING
    assert columns["start_ns"][1] != MISSING


def test_what_runs_at_exit_is_written(tmp_path: Path) -> None:
    driven.drive(tmp_path, "leave", 6)
    columns = device_ops(driven.the_log(tmp_path), 0)
    assert [word(columns, "state", row) for row in (0, 1)] == ["ended", "under_way"]


def test_a_folder_named_later_gets_all_of_it(tmp_path: Path) -> None:
    driven.drive(tmp_path, "later", 6, tmp_path / "rank-00000", COMMLENS_NCCL_FOLDER="")
    log = driven.the_log(tmp_path / "rank-00000")
    assert [each.name for _, each in sorted(log.communicators.items())] == ["later", "again"]
    assert len(log.operations) == log.tallies["operations"] == 201
    assert not list(tmp_path.glob("*.events"))


def test_without_an_operation_there_is_no_file(tmp_path: Path) -> None:
    driven.drive(tmp_path, "threads", 6, 1, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("value", "folder"), [("1", "commlens-runs"), ("here/it", "here/it"), ("0", None)])
def test_a_program_without_python_writes_where_commlens_says(value: str, folder: str | None, tmp_path: Path) -> None:
    library, driver = driven.built()
    environment = driven.environment(Path(), COMMLENS=value)
    environment["COMMLENS_NCCL_FOLDER"] = ""
    subprocess.run([driver, library, "plain", "6", "1"], env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert [str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.events")] == (
        [folder] if folder else []
    )


def test_a_full_disk_costs_the_recording_with_one_line(tmp_path: Path) -> None:
    said = driven.drive(tmp_path, "full_disk", 6, layout.HEADER_BYTES + 10 * layout.RECORD_BYTES + 7, 20000)
    assert said[1]["error"] == errno.EFBIG
    lines = [line for line in said[1]["said"].splitlines() if "commlens" in line]
    assert len(lines) == 1
    assert "no longer recorded" in lines[0]
    log = driven.the_log(tmp_path)
    assert log.torn == 7
    assert log.damaged == 0
    assert 0 < len(log.operations) < 10


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("version", driven.VERSIONS)
def test_sanitizers_find_nothing(sanitizer: str, version: int, tmp_path: Path) -> None:
    scenarios: list[tuple[object, ...]] = [
        ("plain",),
        ("cut_off",),
        ("threads", 4, 2000),
        ("toggled", 3, 3000),
        ("race",),
    ]
    if version in driven.WITH_DEVICE_TIMES:
        scenarios.append(("exhaust", SLOTS + 100))
    for name, *numbers in [*scenarios, ("leave",)]:
        driven.drive(tmp_path / str(name), str(name), version, *numbers, sanitizer=sanitizer)


@pytest.mark.parametrize("version", driven.VERSIONS)
def test_a_program_without_torch_is_a_run(version: int, tmp_path: Path) -> None:
    driven.drive(tmp_path, "plain", version, 3)
    run = open_run(tmp_path)
    assert list(run.ranks) == [1] if version >= 4 else len(run.ranks) == 1
    (rank,) = run.ranks.values()
    table = rank.table("collectives")
    assert set(table.column("source").to_pylist()) == {"nccl_plugin"}
    assert rank.table("device_ops").num_rows == table.num_rows
    timings = set(table.column("timing").to_pylist())
    assert timings <= ({"device", "enqueue_only"} if version >= 4 else {"host", "enqueue_only"})
    own = [row for row in table.to_pylist() if row["group"] == "0xab01" and row["op"] not in ("send", "recv")]
    assert [row["seq"] for row in own] == list(range(len(own)))
    assert {row["op"] for row in own} <= set(OPS)


def test_a_process_with_two_devices_is_two_ranks(tmp_path: Path) -> None:
    driven.drive(tmp_path, "devices", 6, 5)
    run = open_run(tmp_path)
    assert list(run.ranks) == [0, 1]
    assert run.world_size == 4
    for rank in run.ranks.values():
        assert rank.table("collectives").num_rows == 10
        assert {group["name"] for group in rank.info["groups"]} == {"0xdd01", "0xdd02"}


def test_ranks_of_a_job_make_a_report(tmp_path: Path) -> None:
    for rank in range(4):
        driven.drive(tmp_path, "plain", 6, 10, DRIVE_RANK=str(rank))
    run = open_run(tmp_path)
    assert list(run.ranks) == [0, 1, 2, 3]
    assert run.missing == []
    groups = {group["name"]: group["ranks"] for group in run.ranks[0].info["groups"]}
    assert groups["0xab01"] == [0, 1, 2, 3]
    said = [each["analysis"] for each in analyze(run).to_dict()["abstentions"]]
    assert "time-budget" in said
    rows = run.ranks[0].table("collectives").to_pylist()
    assert {row["group"] for row in rows} == {"0xab01", "0xab02"}


def test_an_empty_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError):
        open_run(tmp_path / "nothing")


@pytest.mark.skipif(sys.platform != "linux", reason="NCCL is for Linux")
def test_a_disk_that_refuses_everything(tmp_path: Path) -> None:
    """A folder that cannot be made: one line, and the job goes on."""
    (tmp_path / "file").write_text("")
    said = driven.drive(tmp_path / "file" / "below", "threads", 6, 1, 50)
    assert os.strerror(errno.ENOTDIR) in said[0]["said"]
    assert said[0]["said"].count("commlens") == 1
