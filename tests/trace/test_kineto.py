"""Traces of torch.profiler: small ones with every column known, and real ones counted elsewhere."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commlens.trace.importers import kineto
from commlens.trace.importers.imported import ImportedRank

REAL = Path(__file__).parents[2].parent / "shared" / "traces"
NOW = 1_700_000_000_000_000  # us since 1970
Event = dict[str, Any]
Row = dict[str, Any]


def read(folder: Path, events: list[Event], **about: Any) -> ImportedRank:
    path = folder / "trace.json"
    path.write_text(json.dumps({"schemaVersion": 1, **about, "traceEvents": events}))
    (rank,) = kineto.read(path)
    return rank


def rows(rank: ImportedRank, table: str) -> list[Row]:
    """Rows by column; names as words, None for what is not known."""
    columns = {name: _words(column) for name, column in rank.tables[table].items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _words(column: Any) -> list[Any]:
    if isinstance(column, tuple):
        codes, words = column
        return [None if code == -1 else words[code] for code in codes.tolist()]
    return [None if value == -1 else value for value in column.tolist()]


def span(cat: str, name: str, ts: float, dur: float, tid: Any = 1, **args: Any) -> Event:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": args}


def kernel(name: str, ts: float, dur: float, **args: Any) -> Event:
    return span("kernel", name, ts, dur, 20, **{"device": 0, "stream": 20, "correlation": 5} | args)


def launch(ts: float, tid: Any = 1, correlation: Any = 5, name: str = "cudaLaunchKernelExC") -> Event:
    return span("cuda_runtime", name, ts, 2, tid, correlation=correlation)


def comm(name: str = "allreduce", **args: Any) -> Row:
    """What the profiler says of a collective since torch 2.2."""
    words = {"Collective name": name, "In msg nelems": 1000, "Out msg nelems": 1000, "Group size": 4, "dtype": "Float"}
    group = {
        "Process Group Name": "0",
        "Process Group Description": "default_pg",
        "Process Group Ranks": "[0, 1, 2, 3]",
    }
    return words | group | args


ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
SEND_RECV = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"


def test_a_kernel_that_says_everything(tmp_path: Path) -> None:
    events = [launch(100), kernel(ALL_REDUCE, 110, 30, grid=[24, 1, 1], **comm(Seq=7))]
    rank = read(tmp_path, events, distributedInfo={"backend": "nccl", "rank": 2, "world_size": 4})
    assert (rank.rank, rank.world_size, rank.notes, rank.run["backend"]) == (2, 4, [], "nccl")
    assert rows(rank, "collectives") == [
        {
            "event": 0,
            "group": "0",
            "group_desc": "default_pg",
            "seq": 7,
            "op": "all_reduce",
            "dtype": "float32",
            "in_bytes": 4000,
            "out_bytes": 4000,
            "group_size": 4,
            "peer": None,
            "issued_ns": 100_000,
            "started_ns": 110_000,
            "completed_ns": 140_000,
            "thread": 0,
            "source": "kineto",
            "timing": "device",
        }
    ]
    assert rows(rank, "kernels") == [
        {
            "kind": "communication",
            "name": ALL_REDUCE,
            "device": 0,
            "stream": 20,
            "blocks": 24,
            "launched_ns": 100_000,
            "start_ns": 110_000,
            "end_ns": 140_000,
        }
    ]
    assert rank.info["groups"] == [{"name": "0", "desc": "default_pg", "ranks": [0, 1, 2, 3], "size": 4}]
    assert rows(rank, "phases") == []


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("allreduce", "all_reduce"),
        ("_allgather_base", "all_gather"),
        ("allgather_into_tensor_coalesced", "all_gather"),
        ("_reduce_scatter_base", "reduce_scatter"),
        ("reduce_scatter_tensor_coalesced", "reduce_scatter"),
        ("all_to_all", "all_to_all"),
        ("all_to_allv", "all_to_all"),
        ("broadcast", "broadcast"),
        ("reduce", "reduce"),
        ("gather", "gather"),
        ("scatter", "scatter"),
        ("barrier", "barrier"),
        ("allreduce_coalesced", "all_reduce"),
    ],
)
def test_the_name_of_the_collective_comes_before_the_kernels(tmp_path: Path, name: str, op: str) -> None:
    (row,) = rows(read(tmp_path, [kernel(SEND_RECV, 1, 1, **comm(name))]), "collectives")
    assert row["op"] == op


@pytest.mark.parametrize(
    ("dtype", "name", "each"),
    [
        ("Float", "float32", 4),
        ("BFloat16", "bfloat16", 2),
        ("Half", "float16", 2),
        ("Double", "float64", 8),
        ("Long", "int64", 8),
        ("Byte", "uint8", 1),
        ("Bool", "bool", 1),
        ("Float8_e4m3fn", "float8", 1),
        ("Float8_e5m2fnuz", "float8", 1),
        ("ComplexFloat", "complex64", 8),
        ("unheard of", None, None),
    ],
)
def test_types_and_bytes(tmp_path: Path, dtype: str, name: str | None, each: int | None) -> None:
    args = comm("_allgather_base", dtype=dtype) | {"In msg nelems": 10, "Out msg nelems": 40}
    (row,) = rows(read(tmp_path, [kernel(ALL_REDUCE, 1, 1, **args)]), "collectives")
    assert row["dtype"] == name
    assert (row["in_bytes"], row["out_bytes"]) == ((10 * each, 40 * each) if each else (None, None))


@pytest.mark.parametrize(
    ("args", "ranks", "size"),
    [
        ({"Process Group Ranks": "[0, 1, 2, 3]"}, [0, 1, 2, 3], 4),
        ({"Process Group Ranks": [0, 1, 2, 3]}, [0, 1, 2, 3], 4),
        ({"Process Group Ranks": "[0, 2, 4, ..., 14]", "Group size": 8}, [], 8),
        (
            {"Process Group Ranks": "[0, 2, 4, ..., 14]", "Group size": 8}
            | {"Global rank start": 0, "Global rank stride": 2},
            list(range(0, 16, 2)),
            8,
        ),
        (  # the stride is that of the first two and no more
            {"Process Group Ranks": "[0, 2, 5, ..., 14]", "Group size": 8}
            | {"Global rank start": 0, "Global rank stride": 2},
            [],
            8,
        ),
        ({"Process Group Ranks": None, "Group size": 8}, [], 8),
        ({"Process Group Ranks": "²", "Group size": 3}, [], 3),
    ],
)
def test_members_of_a_group(tmp_path: Path, args: Row, ranks: list[int], size: int) -> None:
    rank = read(tmp_path, [kernel(ALL_REDUCE, 1, 1, **comm() | args)])
    assert rank.info["groups"] == [{"name": "0", "desc": "default_pg", "ranks": ranks, "size": size}]
    assert rows(rank, "collectives")[0]["group_size"] == size


def test_several_groups(tmp_path: Path) -> None:
    """Those the header describes, and those that only kernels name."""
    config = [
        {"pg_name": "0", "pg_desc": "default_pg", "pg_size": 4, "ranks": [0, 1, 2, 3]},
        {"pg_name": "5", "pg_desc": "tp", "pg_size": 2, "ranks": [2, 3]},
        {"pg_name": "never used", "pg_size": 2},
        "no group",
    ]
    other = {"Process Group Name": "9", "Process Group Description": "dp", "Process Group Ranks": "[1, 3]"}
    events = [
        kernel(ALL_REDUCE, 10, 1, **comm(**{"Process Group Name": "5", "Group size": 2})),
        kernel(ALL_REDUCE, 20, 1, **comm(**other, **{"Group size": 2})),
        kernel(ALL_REDUCE, 30, 1),
    ]
    rank = read(tmp_path, events, distributedInfo={"rank": 3, "world_size": 4, "pg_config": config})
    assert [group["name"] for group in rank.info["groups"]] == ["0", "5", "never used", "9"]
    assert rank.info["groups"][1] == {"name": "5", "desc": "tp", "ranks": [2, 3], "size": 2}
    assert rank.info["groups"][2] == {"name": "never used", "desc": "", "ranks": [], "size": 2}
    found = rows(rank, "collectives")
    assert [(row["group"], row["group_size"]) for row in found] == [("5", 2), ("9", 2), ("", None)]


def test_more_groups_than_the_format_has_room_for(tmp_path: Path) -> None:
    from commlens.trace.writer import write_table

    args = [comm(**{"Process Group Name": f"{number:05}"}) for number in range(33_000)]
    rank = read(tmp_path, [kernel(ALL_REDUCE, 10 * place, 5, **each) for place, each in enumerate(args)])
    write_table(tmp_path, "collectives", rank.tables["collectives"])
    found = [row["group"] for row in rows(rank, "collectives")]
    assert (found[0], found[32_766], found[32_767]) == ("00000", "32766", None)


@pytest.mark.parametrize(
    ("name", "args", "op", "peer"),
    [
        ("send", {"Dst Rank": 1, "Src Rank": 0}, "send", 6),
        ("recv", {"Dst Rank": 1, "Src Rank": 0}, "recv", 4),
        ("send", {"Dst Rank": 2}, "send", None),
        ("send", {}, "send", None),
        ("allreduce", {"Dst Rank": 1, "Src Rank": 0}, "all_reduce", None),
    ],
)
def test_peers_are_global_ranks(tmp_path: Path, name: str, args: Row, op: str, peer: int | None) -> None:
    group = {"Process Group Ranks": "[4, 6]", "Group size": 2}
    (row,) = rows(read(tmp_path, [kernel(SEND_RECV, 1, 1, **comm(name, **group, **args))]), "collectives")
    assert (row["op"], row["peer"]) == (op, peer)


def recorded(ts: float, seq: str, group: str, size: str, tid: int = 1) -> Event:
    inputs = ["", seq, group, "0", "", "[]", "[]", size]
    return span("cpu_op", "record_param_comms", ts, 90, tid, **{"Concrete Inputs": inputs})


def spanned(name: str, ts: float, shape: Any, kind: Any, tid: int = 1) -> Event:
    return span("user_annotation", name, ts, 60, tid, **{"Input Dims": shape, "Input type": kind})


def test_as_torch_recorded_before_2_2(tmp_path: Path) -> None:
    """The host's record says number and group, its span type and shape; groups go by the order in which they come."""
    events = [
        recorded(100, "337", "93825114103440", "8"),
        spanned("nccl:all_reduce", 110, [[4, 2048]], ["c10::Half"]),
        launch(120, correlation=1),
        recorded(200, "12", "77", "8"),
        spanned("nccl:_all_gather_base", 210, [[16]], ["float"]),
        launch(220, correlation=2),
        recorded(300, "338", "93825114103440", "8"),
        spanned("nccl:_reduce_scatter_base", 310, [[16]], ["float"]),
        launch(320, correlation=3),
        kernel(ALL_REDUCE, 400, 10, correlation=1),
        kernel("ncclKernel_AllGather_RING_LL_Sum_int8_t", 410, 10, correlation=2),
        kernel("ncclKernel_ReduceScatter_RING_LL_Sum_float", 420, 10, correlation=3),
    ]
    found = rows(read(tmp_path, events), "collectives")
    keys = ("op", "seq", "group", "group_size", "dtype", "in_bytes", "out_bytes", "issued_ns")
    assert [tuple(row[key] for key in keys) for row in found] == [
        ("all_reduce", 337, "8 ranks #0", 8, "float16", 16384, 16384, 120_000),
        ("all_gather", 12, "8 ranks #1", 8, "float32", 64, 512, 220_000),
        ("reduce_scatter", 338, "8 ranks #0", 8, "float32", 64, 8, 320_000),
    ]


@pytest.mark.parametrize(
    "inputs",
    [[], ["", "1"], ["", "²", "7", "0", "", "", "", "8"], ["", "-1", "7", "0", "", "", "", "8"], [1] * 8, "x", None],
)
def test_records_of_another_form_say_nothing(tmp_path: Path, inputs: Any) -> None:
    record = span("cpu_op", "record_param_comms", 100, 90, **{"Concrete Inputs": inputs})
    (row,) = rows(read(tmp_path, [record, launch(120), kernel(ALL_REDUCE, 400, 10)]), "collectives")
    assert (row["seq"], row["group"], row["op"]) == (None, "", "all_reduce")


def test_the_innermost_span_of_the_same_thread(tmp_path: Path) -> None:
    events = [
        spanned("nccl:all_reduce", 100, [[4]], ["float"], tid=1),
        spanned("nccl:all_reduce", 100, [[8]], ["float"], tid=2),
        span("user_annotation", "nccl:coalesced", 90, 200, 2),
        launch(120, tid=2),
        kernel(ALL_REDUCE, 400, 10),
    ]
    (row,) = rows(read(tmp_path, events), "collectives")
    assert row["in_bytes"] == 32


@pytest.mark.parametrize("shape", [None, [], [[-1]], ["x"], [[True]], [[1.5]], [[[4]]], [[2**40, 2**40]]])
def test_shapes_that_cannot_be(tmp_path: Path, shape: Any) -> None:
    events = [spanned("nccl:all_reduce", 100, shape, ["float"]), launch(120), kernel(ALL_REDUCE, 400, 10)]
    (row,) = rows(read(tmp_path, events), "collectives")
    assert (row["dtype"], row["in_bytes"], row["out_bytes"]) == ("float32", None, None)


def test_names_only(tmp_path: Path) -> None:
    """Kernels whose launches are not in the trace were issued before it began, or when they started."""
    names = [ALL_REDUCE, SEND_RECV, "ncclDevKernel_AllGather_RING_LL", "ncclDevKernel_ReduceScatter_Sum_f32_RING_LL"]
    events = [kernel(name, 100 + 10 * place, 5, correlation=place) for place, name in enumerate(names)]
    found = rows(read(tmp_path, [*events, launch(115, correlation=77)]), "collectives")
    assert [row["op"] for row in found] == ["all_reduce", None, "all_gather", "reduce_scatter"]
    assert [row["issued_ns"] for row in found] == [100_000, 110_000, 120_000, 130_000]
    assert {(row["group"], row["seq"], row["in_bytes"], row["group_size"]) for row in found} == {("", None, None, None)}
    known = rows(read(tmp_path, [*events, launch(115, correlation=2)]), "collectives")
    assert [row["issued_ns"] for row in known] == [100_000, 110_000, 115_000, 115_000]
    assert [row["launched_ns"] for row in rows(read(tmp_path, [events[0]]), "kernels")] == [None]


def test_where_there_is_one_group_it_is_everybodys(tmp_path: Path) -> None:
    config = [{"pg_name": "0", "pg_desc": "all", "pg_size": 2, "ranks": [0, 1]}]
    rank = read(tmp_path, [kernel(ALL_REDUCE, 1, 1)], distributedInfo={"rank": 0, "world_size": 2, "pg_config": config})
    (row,) = rows(rank, "collectives")
    assert (row["group"], row["group_desc"], row["group_size"]) == ("0", "all", 2)


def test_gloo_spans_and_the_calls_before_them(tmp_path: Path) -> None:
    """A call of c10d issues, a span of Gloo executes; the first span was issued before the trace began."""
    shape = {"Input Dims": [[100]], "Input type": ["float"]}
    events = [
        span("user_annotation", "gloo:all_reduce", 50, 20, 9, **shape),
        span("cpu_op", "c10d::allreduce_", 100, 5),
        span("cpu_op", "c10d::allreduce_", 110, 5),
        span("cpu_op", "c10d::broadcast_", 115, 5),
        span("user_annotation", "gloo:all_reduce", 120, 20, 9, **shape),
        span("user_annotation", "gloo:all_reduce", 150, 20, 9, **shape),
        span("user_annotation", "gloo:barrier", 180, 20, 9),
    ]
    keys = ("op", "issued_ns", "started_ns", "completed_ns", "in_bytes", "out_bytes", "timing")
    rank = read(tmp_path, events)
    assert [tuple(row[key] for key in keys) for row in rows(rank, "collectives")] == [
        ("all_reduce", 50_000, 50_000, 70_000, 400, 400, "wait"),
        ("all_reduce", 100_000, 120_000, 140_000, 400, 400, "wait"),
        ("all_reduce", 110_000, 150_000, 170_000, 400, 400, "wait"),
        ("barrier", 180_000, 180_000, 200_000, None, None, "wait"),
    ]
    assert rows(rank, "kernels") == []


def test_times_since_1970_in_whole_microseconds_are_exact(tmp_path: Path) -> None:
    starts = [NOW + place * 1_000_003 for place in range(50)]
    events = [kernel(ALL_REDUCE, start, 7, correlation=start) for start in starts]
    events += [launch(start - 3, correlation=start) for start in starts]
    found = rows(read(tmp_path, events[::-1]), "kernels")[::-1]
    times = [(row["launched_ns"], row["start_ns"], row["end_ns"]) for row in found]
    assert times == [((start - 3) * 1000, start * 1000, (start + 7) * 1000) for start in starts]


def test_nanoseconds_on_a_base_are_exact(tmp_path: Path) -> None:
    base, quarter = 1_735_632_360_000_000_000, 7_776_000_000_000  # Kineto's base is at most three months back, us
    spans = [(quarter * 1000 + place * 1_000_000_007, 1_000_001 + place) for place in range(200)]
    texts = [(f"{start // 1000}.{start % 1000:03}", f"{length // 1000}.{length % 1000:03}") for start, length in spans]
    events = [kernel(ALL_REDUCE, float(start), float(length)) for start, length in texts]
    found = rows(read(tmp_path, events, baseTimeNanoseconds=base), "kernels")
    assert [row["start_ns"] - base for row in found] == [start for start, _ in spans]
    assert [row["end_ns"] - base for row in found] == [start + length for start, length in spans]


def test_graphs_have_one_launch_for_many_kernels(tmp_path: Path) -> None:
    events = [launch(100, name="cudaGraphLaunch"), *(kernel(ALL_REDUCE, 200 + 10 * place, 5) for place in range(3))]
    found = rows(read(tmp_path, events), "collectives")
    assert [(row["issued_ns"], row["started_ns"]) for row in found] == [
        (100_000, 200_000),
        (100_000, 210_000),
        (100_000, 220_000),
    ]


def test_numbers_that_are_strings(tmp_path: Path) -> None:
    event = kernel(ALL_REDUCE, 0, 0, device="1", stream="3", correlation="9", grid=["2", 3, 1])
    event |= {"ts": "110.5", "dur": "2.5", "tid": "stream 3"}
    (row,) = rows(read(tmp_path, [launch(100, correlation="9"), event]), "kernels")
    assert (row["device"], row["stream"], row["blocks"], row["launched_ns"]) == (1, 3, 6, 100_000)
    assert (row["start_ns"], row["end_ns"]) == (110_500, 113_000)


def test_rocms_launches(tmp_path: Path) -> None:
    """Their streams are addresses, and their sizes strings."""
    start = span("cuda_runtime", "hipLaunchKernel", 100, 2, stream="0x0", correlation=117, size="2560", cid=153)
    found = read(tmp_path, [start, kernel(ALL_REDUCE, 110, 5, correlation=117)])
    assert rows(found, "kernels")[0]["launched_ns"] == 100_000
    assert rows(found, "collectives")[0]["issued_ns"] == 100_000


def test_arguments_of_another_form_cost_themselves(tmp_path: Path) -> None:
    bad = [kernel("k", 10, 1, **args) for args in ({"stream": "0x0"}, {"grid": "big"}, {"correlation": 10**30})]
    events = [launch(5), *bad, {**bad[0], "args": 5}, {**bad[0], "args": []}, kernel("k", 20, 1, grid=[7])]
    found = rows(read(tmp_path, events), "kernels")
    assert [row["blocks"] for row in found] == [None, None, None, None, None, 7]
    assert found[-1]["launched_ns"] == 5_000


def test_copies_and_other_kernels(tmp_path: Path) -> None:
    events = [
        span("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 10, 5, 7, device=0, stream=7, correlation=3),
        span("gpu_memset", "Memset (Device)", 20, 5, 7, device=0, stream=7, correlation=4),
        kernel("void at::native::vectorized_elementwise_kernel<4>(int)", 30, 5, stream=7),
        kernel("nccl_of_tomorrow", 40, 5),
    ]
    rank = read(tmp_path, events)
    assert [row["kind"] for row in rows(rank, "kernels")] == ["copy", "copy", "compute", "unclassified"]
    assert rows(rank, "collectives") == []


def test_marks_of_steps_and_phases(tmp_path: Path) -> None:
    events = [
        span("user_annotation", "Optimizer.step#AdamW.step", 180, 10, "main"),
        span("user_annotation", "ProfilerStep#3", 100, 100, "main"),
        span("user_annotation", "DistributedDataParallel.forward", 110, 20, "main"),
        span("gpu_user_annotation", "ProfilerStep#3", 105, 95, 7),
        span("user_annotation", "ProfilerStep#4", 200, 100, "main"),
        span("user_annotation", "Optimizer.step#SGD.step", 280, 10, "other"),
        span("user_annotation", "mine", 0, 1000),
    ]
    keys = ("phase", "name", "start_ns", "end_ns", "thread")
    assert [tuple(row[key] for key in keys) for row in rows(read(tmp_path, events), "phases")] == [
        ("step", "ProfilerStep#3", 100_000, 200_000, 0),
        ("forward", "DistributedDataParallel.forward", 110_000, 130_000, 0),
        ("optimizer", "Optimizer.step#AdamW.step", 180_000, 190_000, 0),
        ("step", "ProfilerStep#4", 200_000, 300_000, 0),
        ("optimizer", "Optimizer.step#SGD.step", 280_000, 290_000, 1),
    ]


def test_times_that_cannot_be(tmp_path: Path) -> None:
    good = [launch(100), kernel(ALL_REDUCE, 110, 5), spanned("nccl:all_reduce", 90, [[4]], ["float"])]
    bad = [
        kernel(ALL_REDUCE, 120, -5),
        kernel(ALL_REDUCE, 1e300, 5),
        kernel(ALL_REDUCE, 120, 1e300),
        spanned("gloo:all_reduce", 1e18, [[4]], ["float"]),
        span("user_annotation", "ProfilerStep#1", 0, -1),
        {**kernel(ALL_REDUCE, 0, 1), "ts": "nan"},
        {**kernel(ALL_REDUCE, 0, 1), "ts": "inf"},
    ]
    rank = read(tmp_path, [*bad, *good])
    assert [(row["start_ns"], row["end_ns"]) for row in rows(rank, "kernels")] == [(110_000, 115_000)]
    assert rows(rank, "collectives")[0]["in_bytes"] == 16
    (note,) = rank.notes
    assert note.startswith("7 of its events have a negative duration")


@pytest.mark.parametrize(
    "args",
    [
        {"Group size": 10**30},
        {"Seq": 10**30},
        {"In msg nelems": 10**30},
        {"Process Group Ranks": f"[{10**30}, {'9' * 5000}]"},
        {"Process Group Ranks": [10**30, -5]},
        {"Global rank start": 10**30, "Global rank stride": 10**30},
        {"Group size": 2**40},
        {"Process Group Name": None},
    ],
)
def test_numbers_beyond_any_job(tmp_path: Path, args: Row) -> None:
    from commlens.trace.writer import write_table

    rank = read(tmp_path, [kernel(ALL_REDUCE, 1, 1, **comm("send", **{"Dst Rank": 0} | args))])
    for table, columns in rank.tables.items():
        write_table(tmp_path, table, columns)
    assert rows(rank, "collectives")[0]["started_ns"] == 1000


@pytest.mark.parametrize(
    "about",
    [
        {"distributedInfo": None},
        {"distributedInfo": []},
        {"distributedInfo": {"rank": "0", "world_size": -1, "pg_config": 5}},
        {"distributedInfo": {"rank": True, "pg_config": [None, {"pg_name": 5}]}},
        {"baseTimeNanoseconds": 10**40, "deviceProperties": 5, "host_name": 5},
        {"baseTimeNanoseconds": "x", "deviceProperties": [5, {"name": 5}], "distributedInfo": {"rank": 10**30}},
    ],
)
def test_headers_of_another_form_say_nothing(tmp_path: Path, about: Row) -> None:
    rank = read(tmp_path, [kernel(ALL_REDUCE, 1, 1)], **about)
    assert (rank.rank, rank.world_size, rank.info["groups"], rank.info["device"]) == (None, None, [], None)
    assert rows(rank, "kernels")[0]["start_ns"] == 1000


def test_the_device_and_the_host(tmp_path: Path) -> None:
    rank = read(tmp_path, [], deviceProperties=[{"id": 0, "name": "NVIDIA H100"}, {"id": 1}], host_name="node7")
    assert (rank.info["device"], rank.info["host"], rank.notes) == ("NVIDIA H100", "node7", [])


def test_a_trace_that_is_cut_off(tmp_path: Path) -> None:
    read(tmp_path, [kernel(ALL_REDUCE, 1, 1), kernel(ALL_REDUCE, 2, 1)])
    path = tmp_path / "trace.json"
    path.write_bytes(path.read_bytes()[:-30])
    (rank,) = kineto.read(path)
    assert len(rows(rank, "kernels")) == 1
    assert rank.notes == ["it is cut off or damaged at its end; the events before that were used"]


@pytest.mark.parametrize(
    ("head", "known"),
    [
        (b'{\n  "schemaVersion": 1,\n  "deviceProperties": [', True),
        (b'{"displayTimeUnit": "ms", "traceEvents": [', True),
        (b' [ {"ph": "X"', True),
        (b'[{"name": "x"', True),
        (b'[{"pid": 1, "ph": "X"', True),
        (b'[{"args": {}, "ph": "X"', True),
        (b"[]", False),
        (b'{"version": "2.10", "pg_config": {}', False),
        (b'{"header": {}, "metadata": {}}', False),
        (b"schemaVersion", False),
        (b"\x80\x02}q\x00", False),
    ],
)
def test_recognised_by_its_beginning(head: bytes, known: bool) -> None:
    assert kineto.recognise(head) == known


def checked() -> list[tuple[Path, Row]]:
    """The real files, each with what plain arithmetic on it found."""
    found = []
    for reference in sorted(REAL.glob("*/hta_reference.json")):
        files = json.loads(reference.read_text())["independent_check"]["files"]
        found += [(reference.with_name(name), check) for name, check in files.items()]
    return found


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real traces are not here: {REAL}")
@pytest.mark.parametrize(("path", "check"), [pytest.param(*each, id=each[0].name) for each in checked()])
def test_real_traces(path: Path, check: Row) -> None:
    (rank,) = kineto.read(path)
    found = rows(rank, "kernels")
    kernels = [row for row in found if row["kind"] != "copy"]
    collectives = [row for row in rows(rank, "collectives") if row["timing"] == "device"]
    more = {"eager_trace.json.gz": 73}.get(path.name, 0)  # multimem_all_reduce_kernel, which the arithmetic passed over
    assert (len(kernels), len(collectives)) == (check["gpu_kernels"], check["comm_kernels"] + more)
    assert (rank.rank, rank.world_size) == (check["rank"], check["world_size"])
    steps = [row for row in rows(rank, "phases") if row["phase"] == "step"]
    assert [row["name"] for row in steps] == [name for name, _, _ in check["profiler_steps"]]
    codes, groups = rank.tables["collectives"]["group"]
    unnamed = codes.size > 0 and "" in groups and (rank.world_size or 0) > 1
    assert rank.notes == (["collectives that name no process group were taken to be of all ranks"] if unnamed else [])
    _times_are_exact(path, rank)


def _times_are_exact(path: Path, rank: ImportedRank) -> None:
    """Against the file's own decimals."""
    from decimal import Decimal

    with gzip.open(path) as file:
        trace = json.load(file, parse_float=Decimal)
    base = trace.get("baseTimeNanoseconds", 0)
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    cats = ("kernel", "Kernel", "gpu_memcpy", "gpu_memset", "Memcpy", "Memset")
    spans = [event for event in events if event.get("ph") == "X" and event.get("cat") in cats]
    exact = [(int(e["ts"] * 1000) + base, int((e["ts"] + e["dur"]) * 1000) + base) for e in spans]
    table: Any = rank.tables["kernels"]
    times = np.column_stack([table["start_ns"], table["end_ns"]])
    assert times.tolist() == [list(each) for each in exact]
