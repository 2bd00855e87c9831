"""Reading exports of Nsight Systems: hand-written ones, variants, damage, and a real one with its known answers."""

import gzip
import json
import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commlens.errors import TraceError
from commlens.trace.importers.content import Content
from commlens.trace.importers.imported import ImportedRank
from commlens.trace.importers.nsys import read, recognise
from commlens.trace.schema import OPS

REAL = Path(__file__).parents[2].parent / "shared" / "traces" / "nsys-2gpu-sendrecv"
HERE = REAL / "mfu_2gpu_before.sqlite.gz"
needs_real = pytest.mark.skipif(not HERE.is_file(), reason=f"the real export is not here: {HERE}")

PID = 7 << 24  # global id of a process; that of its thread n is PID + n
ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<(unsigned long)4096>)"
SEND_RECV = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<(unsigned long)4096>)"
GEMM = "void cutlass::Kernel2<gemm>(T1::Params)"

Rows = Sequence[Mapping[str, Any]]


def kernel(start: int, end: int, name: int = 1, **more: Any) -> dict[str, Any]:
    about = {"deviceId": 0, "streamId": 7, "correlationId": start, "globalPid": PID, "shortName": name}
    return {"start": start, "end": end, "demangledName": name, **about, **more}


def launch(start: int, correlation: int, thread: int = PID + 1) -> dict[str, Any]:
    return {"start": start, "end": start + 5, "correlationId": correlation, "globalTid": thread}


def nvtx(start: int, end: int | None, text: str | None, thread: int = PID + 1, **more: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "eventType": 59, "text": text, "textId": None, "globalTid": thread, **more}


def strings(*texts: str) -> Rows:
    return [{"id": number, "value": text} for number, text in enumerate(texts, 1)]


def named(**values: str) -> Rows:
    return [{"name": name, "value": value} for name, value in values.items()]


def export(path: Path, tables: Mapping[str, Rows]) -> Path:
    """A database with these rows; a table has the columns of its first row."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        for table, rows in tables.items():
            columns = list(rows[0])
            quoted = ", ".join('"' + name + '"' for name in columns)
            connection.execute(f"CREATE TABLE {table} ({quoted})")
            marks = ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {table} VALUES ({marks})", [[row[name] for name in columns] for row in rows]
            )
    connection.close()
    return path


SMALL: dict[str, Rows] = {
    "StringIds": strings(GEMM, ALL_REDUCE, SEND_RECV, "step 3"),
    "CUPTI_ACTIVITY_KIND_KERNEL": [
        kernel(3000, 3900, 2, streamId=16, correlationId=12),
        kernel(1000, 2500, 1, correlationId=11),
        kernel(4000, 4100, 3, streamId=16, correlationId=99),
    ],
    "CUPTI_ACTIVITY_KIND_MEMCPY": [kernel(100, 200, correlationId=10) | {"copyKind": 1}],
    "CUPTI_ACTIVITY_KIND_MEMSET": [kernel(300, 310, correlationId=10)],
    "CUPTI_ACTIVITY_KIND_RUNTIME": [launch(90, 10), launch(900, 11), launch(950, 12), launch(960, 12)],
    "NVTX_EVENTS": [
        nvtx(50, 4200, None, textId=4),
        nvtx(60, 70, "aten::add"),
        nvtx(80, 90, "Optimizer.step#AdamW.step"),
        nvtx(55, None, "step 4"),
    ],
    "TARGET_INFO_SESSION_START_TIME": [{"utcEpochNs": 10**18, "utcTime": "", "localTime": ""}],
    "TARGET_INFO_SYSTEM_ENV": named(Hostname="one"),
    "TARGET_INFO_GPU": [{"id": 4, "cuDevice": 0, "name": "NVIDIA H100"}],
    "META_DATA_EXPORT": named(EXPORT_PRODUCT_NAME="NVIDIA Nsight Systems", EXPORT_PRODUCT_VERSION="2026.2"),
}


def words(rank: ImportedRank, table: str, column: str) -> list[str | None]:
    codes, vocabulary = rank.tables[table][column]
    return [None if code == -1 else vocabulary[code] for code in codes.tolist()]


def numbers(rank: ImportedRank, table: str, column: str) -> list[int]:
    values = rank.tables[table][column]
    assert isinstance(values, np.ndarray)
    return [int(value) for value in values]


def ops(folder: Path, *events: Mapping[str, Any], thread: int = PID + 1) -> list[str | None]:
    """What one SendRecv kernel is, launched at 500 with these ranges around."""
    tables = {
        "StringIds": strings(SEND_RECV),
        "CUPTI_ACTIVITY_KIND_KERNEL": [kernel(1000, 2000, correlationId=5)],
        "CUPTI_ACTIVITY_KIND_RUNTIME": [launch(500, 5, thread)],
        "NVTX_EVENTS": events,
    }
    (rank,) = read(export(folder / "x.sqlite", {name: rows for name, rows in tables.items() if rows}))
    return words(rank, "collectives", "op")


def test_a_small_export(tmp_path: Path) -> None:
    path = export(tmp_path / "small.sqlite", SMALL)
    assert recognise(Content(path).head())
    (rank,) = read(path)
    assert (rank.source, rank.rank, rank.world_size) == (path, None, None)
    assert rank.info == {"host": "one", "device": "NVIDIA H100", "device_index": 0}
    assert rank.run == {"backend": "nccl", "profiler": "NVIDIA Nsight Systems 2026.2"}
    t = 10**18
    assert words(rank, "kernels", "kind") == ["copy", "copy", "compute", "communication", "communication"]
    assert words(rank, "kernels", "name") == ["memcpy HtoD", "memset", GEMM, ALL_REDUCE, SEND_RECV]
    assert numbers(rank, "kernels", "device") == [0] * 5
    assert numbers(rank, "kernels", "stream") == [7, 7, 7, 16, 16]
    assert numbers(rank, "kernels", "start_ns") == [t + 100, t + 300, t + 1000, t + 3000, t + 4000]
    assert numbers(rank, "kernels", "end_ns") == [t + 200, t + 310, t + 2500, t + 3900, t + 4100]
    assert numbers(rank, "kernels", "launched_ns") == [t + 90, t + 90, t + 900, t + 950, -1]
    assert numbers(rank, "collectives", "event") == [0, 1]
    assert words(rank, "collectives", "group") == ["", ""]
    assert words(rank, "collectives", "op") == ["all_reduce", None]
    assert numbers(rank, "collectives", "issued_ns") == [t + 950, t + 4000]
    assert numbers(rank, "collectives", "started_ns") == [t + 3000, t + 4000]
    assert numbers(rank, "collectives", "completed_ns") == [t + 3900, t + 4100]
    assert words(rank, "collectives", "source") == ["nsys", "nsys"]
    assert words(rank, "collectives", "timing") == ["device", "device"]
    assert "seq" not in rank.tables["collectives"]
    assert words(rank, "phases", "phase") == ["step", "optimizer"]
    assert words(rank, "phases", "name") == ["step 3", "Optimizer.step#AdamW.step"]
    assert numbers(rank, "phases", "start_ns") == [t + 50, t + 80]
    assert numbers(rank, "phases", "end_ns") == [t + 4200, t + 90]
    assert numbers(rank, "phases", "thread") == [0, 0]
    assert rank.notes == [
        "the operation of 1 of 2 collectives cannot be told",
        "an Nsight Systems export tells neither sizes nor sequence numbers of collectives",
    ]


def test_a_group_is_the_one_operation_in_it(tmp_path: Path) -> None:
    start, end = nvtx(100, 110, "ncclGroupStart"), nvtx(400, 600, "ncclGroupEnd")
    send, recv = nvtx(120, 130, "ncclSend"), nvtx(140, 150, "ncclRecv")
    count, inner = nvtx(90, 99, "ncclCommCount"), [nvtx(111, 112, "ncclGroupStart"), nvtx(160, 170, "ncclGroupEnd")]
    assert ops(tmp_path, start, send, send, end) == ["send"]
    assert ops(tmp_path, start, recv, end) == ["recv"]
    assert ops(tmp_path, start, send, recv, end) == [None]  # may be any exchange
    assert ops(tmp_path, count, start, send, recv, end) == ["all_to_all"]
    assert ops(tmp_path, count, start, inner[0], send, inner[1], end) == ["send"]
    assert ops(tmp_path, count, start, end) == [None]
    assert ops(tmp_path, nvtx(1, 2, "ncclGroupEnd"), start, send, end) == ["send"]  # the recording began in a group
    assert ops(tmp_path, count, nvtx(99, 99, "ncclCommUserRank"), start, send, recv, end) == [None]


def test_the_call_around_the_launch_tells_the_operation(tmp_path: Path) -> None:
    send = nvtx(450, 550, "ncclSend")
    assert ops(tmp_path, send) == ["send"]
    assert ops(tmp_path, nvtx(450, 550, "ncclAlltoAll")) == ["all_to_all"]
    assert ops(tmp_path, nvtx(450, 550, "nccl:all_to_all, op_id = 991144"), send) == ["all_to_all"]
    assert ops(tmp_path, nvtx(450, 550, "nccl:recv 0<-1"), nvtx(460, 540, "ncclGroupEnd")) == ["recv"]
    assert ops(tmp_path, nvtx(450, 550, "nccl:coalesced"), send) == ["send"]
    assert ops(tmp_path, nvtx(450, 499, "ncclSend")) == [None]
    assert ops(tmp_path, nvtx(501, 550, "ncclSend")) == [None]
    assert ops(tmp_path, send, thread=PID + 2) == [None]
    assert ops(tmp_path, nvtx(450, 550, "ncclSend", eventType=34)) == [None]  # a mark is no range
    assert ops(tmp_path) == [None]


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["ProfilerStep#3", "step 3", "train_step"], ["ProfilerStep#3"]),
        (["iteration 12", "Iteration: 13", "train_step", "iterator"], ["iteration 12", "Iteration: 13"]),
        (["train_step", "train_step", "timestep"], ["train_step", "train_step"]),
        (["step_7", "global_step=8", "steps 9"], ["step_7", "global_step=8"]),
        (["Optimizer.step#SGD.step", "aten::step"], []),
    ],
)
def test_only_the_surest_kind_of_range_is_a_step(tmp_path: Path, texts: list[str], kept: list[str]) -> None:
    events = [nvtx(10 * n, 10 * n + 9, text) for n, text in enumerate(texts)]
    (rank,) = read(export(tmp_path / "x.sqlite", {**SMALL, "NVTX_EVENTS": events}))
    found = zip(words(rank, "phases", "phase"), words(rank, "phases", "name"), strict=True)
    assert [name for phase, name in found if phase == "step"] == kept


def test_ranks_are_the_devices_of_processes(tmp_path: Path) -> None:
    """Two processes; the second also copied on the first one's device, and ran a kernel there."""
    other = PID + (1 << 24)
    tables = {
        "StringIds": SMALL["StringIds"],
        "CUPTI_ACTIVITY_KIND_KERNEL": [
            kernel(20, 30, 2, deviceId=1, globalPid=other, streamId=15),
            kernel(21, 31, 2),
            kernel(5, 6, 1, globalPid=other),
        ],
        "CUPTI_ACTIVITY_KIND_MEMCPY": [kernel(1, 2, deviceId=3) | {"copyKind": 77}],
        "NVTX_EVENTS": [nvtx(1, 40, "step 1", other + 5), nvtx(2, 41, "step 1")],
    }
    first, second = read(export(tmp_path / "x.sqlite", tables))
    assert [rank.info["device_index"] for rank in (first, second)] == [0, 1]
    assert [rank.info["host"] for rank in (first, second)] == ["x.sqlite"] * 2
    assert numbers(first, "kernels", "start_ns") == [21]
    assert numbers(second, "kernels", "stream") == [15]
    assert (numbers(first, "phases", "start_ns"), numbers(second, "phases", "start_ns")) == ([2], [1])
    assert "2 times a process touched a device without its own kernels there; that was left out" in first.notes
    assert any("cannot be compared" in note for note in first.notes)


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"PROCESS_0:ENVIRONMENT_VARIABLE": 'RANK="3"', "x": 'WORLD_SIZE="9"'}, (3, None)),
        ({"DeviceEnvironment": "HOME=/root;OMPI_COMM_WORLD_RANK=2;OMPI_COMM_WORLD_SIZE=4"}, (2, 4)),
        ({"DeviceEnvironment": "SLURM_PROCID=1;RANK=5;WORLD_SIZE=16;PATH=RANK=7"}, (5, 16)),
        ({"DeviceEnvironment": "LOCAL_RANK=1;MY_RANK=2;RANK=12345678901"}, (None, None)),
    ],
)
def test_the_launcher_tells_the_rank(
    tmp_path: Path, environment: dict[str, str], place: tuple[int | None, int | None]
) -> None:
    table = "META_DATA_CAPTURE" if "x" in environment else "TARGET_INFO_SYSTEM_ENV"
    (rank,) = read(export(tmp_path / "x.sqlite", {**SMALL, table: named(**environment)}))
    assert (rank.rank, rank.world_size) == place
    # The launcher of several ranks has an environment, but no rank of its own.
    kernels = [*SMALL["CUPTI_ACTIVITY_KIND_KERNEL"], kernel(1, 2, 2, deviceId=1)]
    both = {**SMALL, table: named(**environment), "CUPTI_ACTIVITY_KIND_KERNEL": kernels}
    assert [rank.rank for rank in read(export(tmp_path / "y.sqlite", both))] == [None, None]


def test_times_that_are_utc_already(tmp_path: Path) -> None:
    utc = named(EXPORT_PARAM_TIME_NORMALIZE="true")
    (rank,) = read(export(tmp_path / "x.sqlite", {**SMALL, "META_DATA_EXPORT": utc}))
    assert numbers(rank, "collectives", "started_ns") == [3000, 4000]


def test_old_versions_have_fewer_columns_and_tables(tmp_path: Path) -> None:
    def without(table: str, *names: str) -> Rows:
        return [{name: row[name] for name in row if name not in names} for row in SMALL[table]]

    old = {
        "StringIds": SMALL["StringIds"],
        "CUPTI_ACTIVITY_KIND_KERNEL": without("CUPTI_ACTIVITY_KIND_KERNEL", "globalPid", "demangledName"),
        "CUPTI_ACTIVITY_KIND_RUNTIME": SMALL["CUPTI_ACTIVITY_KIND_RUNTIME"],
        "NVTX_EVENTS": without("NVTX_EVENTS", "text"),
        "TARGET_INFO_GPU": without("TARGET_INFO_GPU", "cuDevice"),
    }
    (rank,) = read(export(tmp_path / "old.sqlite", old))
    assert words(rank, "kernels", "name") == [GEMM, ALL_REDUCE, SEND_RECV]
    assert numbers(rank, "kernels", "launched_ns") == [900, 950, -1]
    assert words(rank, "phases", "name") == ["step 3"]
    assert rank.info == {"host": "old.sqlite", "device": None, "device_index": 0}
    bare = {"StringIds": SMALL["StringIds"], "CUPTI_ACTIVITY_KIND_KERNEL": [{"start": 1, "end": 2, "deviceId": 3}]}
    (rank,) = read(export(tmp_path / "bare.sqlite", bare))
    assert (numbers(rank, "kernels", "stream"), words(rank, "kernels", "name")) == ([-1], [""])
    assert rank.tables["collectives"]["event"].size == 0  # type: ignore[union-attr]


def test_cells_of_other_types(tmp_path: Path) -> None:
    kernels = [
        kernel(10, 20),
        kernel(10, "20"),  # type: ignore[arg-type]
        kernel(30, 20),
        kernel(-5, 20),
        kernel(1, 2**62),
        kernel(1, 2, deviceId=None),
        kernel(1, 2, deviceId=1 << 20),
        kernel(11, 21, streamId=b"x", correlationId=1.5, demangledName=None, shortName=77),
    ]
    odd = {**SMALL, "CUPTI_ACTIVITY_KIND_KERNEL": kernels, "StringIds": [{"id": 1, "value": b"\xff"}]}
    (rank,) = read(export(tmp_path / "x.sqlite", odd))
    assert numbers(rank, "kernels", "start_ns")[-1] == 10**18 + 300
    assert [row - 10**18 for row in numbers(rank, "kernels", "start_ns")] == [10, 11, 100, 300]
    assert numbers(rank, "kernels", "stream") == [7, -1, 7, 7]
    assert words(rank, "kernels", "name") == ["", "", "memcpy HtoD", "memset"]
    assert "6 of its rows make no sense and were left out" in rank.notes


def test_calls_and_kernels_without_correlation_are_no_pairs(tmp_path: Path) -> None:
    tables = {
        "StringIds": SMALL["StringIds"],
        "CUPTI_ACTIVITY_KIND_KERNEL": [kernel(10, 20, correlationId=None)],
        "CUPTI_ACTIVITY_KIND_RUNTIME": [launch(5, 1) | {"correlationId": None}],
    }
    (rank,) = read(export(tmp_path / "x.sqlite", tables))
    assert numbers(rank, "kernels", "launched_ns") == [-1]


def test_no_export_at_all(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("SELECT 1")
    assert not recognise(b"SELECT 1")
    with pytest.raises(TraceError, match="no SQLite database"):
        read(text)
    with pytest.raises(TraceError, match="database of something else"):
        read(export(tmp_path / "other.sqlite", {"users": [{"id": 1}]}))
    with pytest.raises(TraceError, match="no GPU kernel"):
        read(export(tmp_path / "cpu.sqlite", {"StringIds": SMALL["StringIds"]}))
    with pytest.raises(TraceError, match="cannot read"):
        read(tmp_path / "absent.sqlite")
    assert not (tmp_path / "absent.sqlite").exists()
    with pytest.raises(TraceError, match="cannot read"):
        read(tmp_path)


def test_a_view_is_no_table(tmp_path: Path) -> None:
    """A query of this one would never end."""
    path = export(tmp_path / "x.sqlite", {"StringIds": SMALL["StringIds"]})
    endless = "WITH RECURSIVE r(start) AS (SELECT 1 UNION ALL SELECT start + 1 FROM r) SELECT start FROM r"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS {endless}")
        connection.execute("CREATE VIRTUAL TABLE NVTX_EVENTS USING fts5(text)")
    connection.close()
    with pytest.raises(TraceError, match="no GPU kernel"):
        read(path)


def test_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = export(tmp_path / "a #1?%20.sqlite", SMALL)
    before = path.read_bytes()
    read(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_gzipped_and_cut_off(tmp_path: Path) -> None:
    whole = export(tmp_path / "x.sqlite", SMALL).read_bytes()
    packed = tmp_path / "x.sqlite.gz"
    packed.write_bytes(gzip.compress(whole))
    assert recognise(Content(packed).head())
    (rank,) = read(packed)
    assert numbers(rank, "kernels", "stream") == [7, 7, 7, 16, 16]
    packed.write_bytes(gzip.compress(whole)[:-200])
    with pytest.raises(TraceError, match="cut off or damaged within its gzip"):
        read(packed)
    (tmp_path / "x.sqlite").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match=r"damaged .*; export it again"):
        read(tmp_path / "x.sqlite")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("nsys") / "x.sqlite", SMALL)


def test_a_message_of_sqlite_that_quotes_the_file_is_one_line(whole: Path, tmp_path: Path) -> None:
    part, path = b'TABLE StringIds ("id"', tmp_path / "x.sqlite"
    path.write_bytes(whole.read_bytes().replace(part, b"TABLE StringIds [\n\x1b[]"))
    with pytest.raises(TraceError) as quoting:
        read(path)
    path.write_bytes(whole.read_bytes().replace(part, b'TABLE StringIds \xff("id'))
    with pytest.raises(TraceError) as undecodable:
        read(path)
    assert all(str(error.value).isprintable() for error in (quoting, undecodable))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 40), cut=st.booleans())
def test_damage_is_told_in_one_line(whole: Path, tmp_path: Path, seed: int, changes: int, cut: bool) -> None:
    dice, content = random.Random(seed), bytearray(whole.read_bytes())
    for _ in range(changes):
        content[dice.randrange(len(content))] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
    path = tmp_path / "mutant.sqlite"
    path.write_bytes(content[: dice.randrange(len(content))] if cut else content)
    recognise(bytes(content[: 1 << 16]))
    try:
        ranks = read(path)
    except TraceError as error:
        assert "\n" not in str(error)
    else:
        assert all((rank.tables["kernels"]["start_ns"] >= 0).all() for rank in ranks)  # type: ignore[operator]


@needs_real
def test_the_real_export_has_its_known_answers() -> None:
    known = json.loads((REAL / "reference.json").read_text())["per_device"]
    ranks = read(HERE)
    assert [rank.info["device_index"] for rank in ranks] == [0, 1]
    for rank, answer, memory in zip(ranks, known.values(), (643, 646), strict=True):
        kinds = words(rank, "kernels", "kind")
        assert kinds.count("communication") == answer["nccl_kernels"] == 33
        assert kinds.count("compute") == answer["kernels"] - 33
        assert kinds.count("copy") == memory
        assert set(numbers(rank, "kernels", "stream")) == set(answer["streams"])
        collectives = rank.tables["collectives"]
        started, completed = np.array(collectives["started_ns"]), np.array(collectives["completed_ns"])
        assert int((completed - started).sum()) == answer["comm_busy_ns"]
        assert (np.array(collectives["issued_ns"]) <= started).all()
        # The first was launched before the authors' cut.
        assert words(rank, "collectives", "op") == [None, *["all_to_all"] * 32]
        assert (rank.rank, rank.info["host"]) == (None, "modal")
    both = [np.array(rank.tables["collectives"]["completed_ns"]) for rank in ranks]
    assert np.abs(both[0] - both[1]).max() < 50_000  # one clock: they end together


def test_every_operation_has_a_code(tmp_path: Path) -> None:
    (rank,) = read(export(tmp_path / "x.sqlite", SMALL))
    assert tuple(rank.tables["collectives"]["op"][1]) == OPS
