"""Reading dumps of the Flight Recorder: hand-written ones as NCCL makes them, real ones of Gloo, and broken ones."""

from __future__ import annotations

import copy
import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commlens.errors import TraceError
from commlens.trace import open_run, write_run_info
from commlens.trace.importers.flight_recorder import read, recognise
from commlens.trace.importers.imported import ImportedRank
from commlens.trace.schema import MISSING, TABLES
from commlens.trace.writer import RankWriter

START = 1_724_779_239_936_775_119
MS = 1_000_000
WRITTEN = START + 900_000 * MS
WORLD = {"name": "0", "desc": "default_pg", "ranks": "[0, 1, 2, 3]"}
PAIR = {"name": "7", "desc": "tp", "ranks": "[2, 3]"}
SHAPES = {
    "all_reduce": ([[3, 4]], [[3, 4]]),
    "_all_gather_base": ([[8]], [[32]]),
    "all_gather": ([[8]], [[4, 8]]),
    "_reduce_scatter_base": ([[32]], [[8]]),
    "reduce_scatter_tensor_coalesced": ([[32], [8]], [[8], [2]]),
    "all_to_all_v_single": ([[16]], [[20]]),
    "broadcast": ([[5]], [[5]]),
    "all_reduce_barrier": ([[1]], [[1]]),
}


def entry(title: str, seq: int = 0, p2p: int = 0, **changed: Any) -> dict[str, Any]:
    """An entry of a dump as torch 2.13 with NCCL makes it; it completed."""
    sizes = SHAPES.get(title.split()[0], ([[6]], [[6]]))
    message = title.startswith(("send", "recv"))
    said = {
        "record_id": 0,
        "pg_id": 0,
        "process_group": ("0", "default_pg"),
        "thread_name": "pt_main_thread",
        "thread_id": "139858798795648",
        "collective_seq_id": seq,
        "p2p_seq_id": p2p,
        "op_id": 0,
        "profiling_name": f"nccl:{title}",
        "time_created_ns": START + (seq + p2p) * MS,
        "input_sizes": sizes[0],
        "input_dtypes": ["Float"] * len(sizes[0]),
        "output_sizes": sizes[1],
        "output_dtypes": ["Float"] * len(sizes[1]),
        "state": "completed",
        "time_discovered_started_ns": None,
        "time_discovered_completed_ns": START + (seq + p2p + 90) * MS,
        "retired": True,
        "timeout_ms": 600_000,
        "is_p2p": message,
        "frames": [{"name": "step", "filename": "train.py", "line": 12}],
    }
    return said | changed


UNDER_WAY = {"state": "scheduled", "retired": False, "time_discovered_completed_ns": None}
PART = UNDER_WAY  # torch does not watch the parts of a coalesced call


def dump(*entries: dict[str, Any], first: int = 0, **changed: Any) -> dict[str, Any]:
    """A dump of these, numbered as torch does."""
    operations: dict[Any, int] = {}
    for place, each in enumerate(entries):
        group = each["process_group"][0], each["pg_id"]
        operations[group] = operations.get(group, first) + (
            "coalesced" not in each["profiling_name"].split(":")[1][-9:]
        )
        each |= {"record_id": first + place, "op_id": operations[group]}
    head = {"version": "2.10", "pg_config": {"0": WORLD, "7": PAIR}, "comm_lib_version": "2.27.5", "pg_status": {}}
    return {**head, "entries": list(entries), **changed}


def imported(folder: Path, content: Any) -> ImportedRank:
    """The rank in a dump, written as torch writes it."""
    path = folder / "nccl_trace_rank_2"
    path.write_bytes(pickle.dumps(content, 2))
    os.utime(path, ns=(WRITTEN, WRITTEN))
    assert recognise(path.read_bytes()[:65536])
    (rank,) = read(path)
    assert rank.source == path
    check(rank)
    return rank


def check(rank: ImportedRank) -> None:
    """It fits the schema."""
    json.dumps(rank.info, allow_nan=False)
    json.dumps(rank.run, allow_nan=False)
    assert not any("\n" in note for note in rank.notes)
    lengths = {len(each[0] if isinstance(each, tuple) else each) for each in table(rank).values()}
    assert len(lengths) <= 1
    assert table(rank).keys() <= TABLES["collectives"].keys()


def table(rank: ImportedRank) -> dict[str, Any]:
    return dict(rank.tables.get("collectives", {}))


def column(rank: ImportedRank, name: str) -> list[Any]:
    """A column, words as words."""
    values = table(rank)[name]
    if isinstance(values, tuple):
        return [None if code == MISSING else values[1][code] for code in values[0].tolist()]
    return values.tolist()


def states(rank: ImportedRank) -> dict[str, list[int]]:
    found: dict[str, list[int]] = rank.info["flight_recorder"]["states"]
    return found


def test_collectives(tmp_path: Path) -> None:
    rank = imported(tmp_path, dump(*(entry(title, seq) for seq, title in enumerate(SHAPES, 1))))
    assert {name: column(rank, name) for name in table(rank)} == {
        "event": [0, 1, 2, 3, 4, 5, 6, 7],
        "group": ["0"] * 8,
        "group_desc": ["default_pg"] * 8,
        "seq": [1, 2, 3, 4, 5, 6, 7, 8],
        "op": [
            *["all_reduce", "all_gather", "all_gather", "reduce_scatter", "reduce_scatter", "all_to_all", "broadcast"],
            "barrier",
        ],
        "dtype": ["float32"] * 7 + [None],
        "in_bytes": [48, 32, 32, 128, 160, 64, 20, 0],
        "out_bytes": [48, 128, 128, 32, 40, 80, 20, 0],
        "group_size": [4] * 8,
        "peer": [MISSING] * 8,
        "issued_ns": [START + seq * MS for seq in range(1, 9)],
        "source": ["flight_recorder"] * 8,
        "timing": ["enqueue_only"] * 8,
    }
    assert (rank.rank, rank.world_size, rank.run) == (None, 4, {"backend": "nccl", "nccl": "2.27.5"})
    assert rank.info == {
        "groups": [
            {"name": "0", "desc": "default_pg", "ranks": [0, 1, 2, 3], "size": 4},
            {"name": "7", "desc": "tp", "ranks": [2, 3], "size": 2},
        ],
        "flight_recorder": {"version": "2.10", "states": {}, "timeout_ms": None, "written_ns": WRITTEN},
    }
    assert rank.notes == []


def test_the_tables_can_be_written_and_read(tmp_path: Path) -> None:
    rank = imported(tmp_path, dump(entry("all_reduce", 1), entry("all_gather", 2)))
    write_run_info(tmp_path / "run", {"run_id": "x", "world_size": 4})
    writer = RankWriter(tmp_path / "run", 2)
    writer.write_info({"rank": 2, "run_id": "x", "world_size": 4, **rank.info})
    writer.append("collectives", rank.tables["collectives"])
    writer.close()
    rows = open_run(tmp_path / "run").ranks[2].table("collectives").to_pylist()
    assert [(row["op"], row["issued_ns"], row["started_ns"], row["completed_ns"]) for row in rows] == [
        ("all_reduce", START + MS, None, None),  # no time is made up
        ("all_gather", START + 2 * MS, None, None),
    ]


def test_dtypes_and_sizes_that_are_not_told(tmp_path: Path) -> None:
    cases: dict[tuple[str | None, int], dict[str, Any]] = {
        ("bfloat16", 24): {"input_dtypes": ["BFloat16"]},
        ("float8", 12): {"input_dtypes": ["Float8_e4m3fn"]},
        ("other", 24): {"input_dtypes": ["UInt16"]},
        ("other", MISSING): {"input_dtypes": ["QUInt4x2"]},
        ("float32", MISSING): {"input_dtypes": [7]},
        ("float32", 0): {"input_sizes": [], "input_dtypes": []},
        ("float32", 4): {"input_sizes": [[]]},  # a number
        ("int64", 56): {"input_sizes": [[3], [4]], "input_dtypes": ["Long"]},
        ("int32", MISSING): {"input_sizes": [[3], [4]], "input_dtypes": ["Int", "Long", "Long"]},
        ("float32", MISSING + 0): {"input_sizes": [[2**62, 2**62]]},
    }
    for (dtype, size), changed in cases.items():
        rank = imported(tmp_path, dump(entry("all_reduce", 1, **changed)))
        assert (column(rank, "dtype"), column(rank, "in_bytes")) == ([dtype], [size]), changed


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (([[4, 6]], [[6]]), (96, 24)),  # Gloo's root
        (([[6]], [[6], [6], [6], [6]]), (96, 24)),  # NCCL notes them the other way round
        (([], [[6]]), (0, 24)),  # not the root
        (([[6]], [[0]]), (0, 24)),
    ],
)
def test_scatter(tmp_path: Path, sizes: Any, expected: tuple[int, int]) -> None:
    changed = {"input_sizes": sizes[0], "output_sizes": sizes[1]}
    rank = imported(tmp_path, dump(entry("scatter", 1, **changed)))
    assert (column(rank, "in_bytes"), column(rank, "out_bytes")) == ([expected[0]], [expected[1]])


def test_messages(tmp_path: Path) -> None:
    """They are counted by direction; torch has one number for all of a group, and peers by their place in it."""
    pair = {"process_group": ("7", "tp"), "pg_id": 1}
    rank = imported(
        tmp_path,
        dump(
            entry("send 2->0", p2p=1),
            entry("all_reduce", 1),
            entry("send 2->3", p2p=2),
            entry("send 2->0", p2p=3),
            entry("recv 2<-0", p2p=4),
            entry("recv 0<-1", p2p=1, **pair),
        ),
    )
    assert column(rank, "seq") == [0, 1, 0, 1, 0, 0]
    assert column(rank, "peer") == [0, MISSING, 3, 0, 0, 3]
    assert column(rank, "in_bytes") == [24, 48, 24, 24, 0, 0]
    assert column(rank, "out_bytes") == [0, 48, 0, 0, 24, 24]
    assert column(rank, "group") == ["0", "0", "0", "0", "0", "7"]
    assert rank.rank == 2
    assert rank.notes == []


def test_messages_that_cannot_be_counted(tmp_path: Path) -> None:
    rank = imported(tmp_path, dump(entry("send 2->0", p2p=8), entry("all_reduce", 30), first=40))
    assert column(rank, "seq") == [MISSING, 30]
    assert rank.notes == [
        "of what the rank issued the first 40 were overwritten",
        "sends and receives without a number, as earlier ones are not in the dump: 1",
    ]


def test_peers_of_a_group_that_is_not_told(tmp_path: Path) -> None:
    other = {"process_group": ("9", "pp"), "pg_id": 1}
    content = dump(entry("send 1->0", p2p=1), entry("send 1->0", p2p=1, **other), pg_config={})
    rank = imported(tmp_path, content)
    assert column(rank, "peer") == [0, MISSING]
    assert column(rank, "group_size") == [MISSING, MISSING]
    assert (rank.rank, rank.world_size, rank.info["groups"]) == (1, None, [])


def test_states(tmp_path: Path) -> None:
    entries = [
        entry("all_reduce", 1),
        entry("all_reduce", 2, state="started", retired=True, time_discovered_completed_ns=None),
        entry("all_gather", 3, **UNDER_WAY | {"state": "started"}),
        entry("all_reduce", 4, **UNDER_WAY),
        entry("all_reduce", 5, **UNDER_WAY | {"state": 3}),
    ]
    rank = imported(tmp_path, dump(*entries))
    assert states(rank) == {"timed_out": [1], "started": [2], "scheduled": [3], "unknown": [4]}
    assert rank.info["flight_recorder"]["timeout_ms"] == 600_000
    assert rank.notes == [
        "3 of 5 operations had not completed when this was dumped, the first was all_reduce"
        " (sequence 2 of group 0; timed out, torch had given it up)"
    ]


@pytest.mark.parametrize(("state", "expected"), [({}, {}), (UNDER_WAY, {"scheduled": [1, 2, 3]})])
def test_the_parts_of_a_coalesced_call_have_its_state(
    tmp_path: Path, state: dict[str, Any], expected: dict[str, list[int]]
) -> None:
    """Two messages and an uneven all-gather; torch leaves their own entries as scheduled for ever."""
    entries = [
        entry("recv 2<-1", p2p=1),
        entry("send 2->3", p2p=2, **PART),
        entry("recv 2<-1", p2p=2, **PART),
        entry("coalesced", p2p=2, input_sizes=[], output_sizes=[], is_p2p=True, **state),
        entry("_broadcast_oop", 1, 2, **PART),
        entry("_broadcast_oop", 1, 2, input_sizes=[[9]], output_sizes=[[9]], **PART),
        entry("ALLGATHER_coalesced", 1, 2, input_sizes=[], output_sizes=[]),
    ]
    rank = imported(tmp_path, dump(*entries))
    assert column(rank, "op") == ["recv", "send", "recv", "broadcast", "broadcast"]
    assert column(rank, "seq") == [0, 0, 1, 1, 1]
    assert column(rank, "out_bytes") == [24, 0, 24, 24, 36]
    assert states(rank) == {name: [1, 2] for name in expected}


def test_coalesced_calls_without_parts_or_end(tmp_path: Path) -> None:
    """Before torch 2.7 the parts are not in the dump; where only what is active was asked for, the end is not."""
    none = {"input_sizes": [], "output_sizes": [], "input_dtypes": [], "output_dtypes": []}
    entries = [entry("REDUCE_SCATTER_coalesced", 1, **none), entry("coalesced", 2, **none)]
    entries += [entry("broadcast", 3, **PART), entry("broadcast", 3, **PART)]
    rank = imported(tmp_path, dump(*entries))
    assert column(rank, "op") == ["reduce_scatter", "broadcast", "broadcast"]
    assert column(rank, "seq") == [1, 3, 3]
    assert states(rank) == {"unknown": [1, 2]}
    assert rank.notes == ["entries of operations that have no row, left out: coalesced (1)"]


def test_only_what_is_active(tmp_path: Path) -> None:
    content = dump(entry("all_reduce", 1, **UNDER_WAY), entry("send 2->0", p2p=1, **PART), entry("all_reduce", 2))
    content["entries"][2]["record_id"] = 9
    rank = imported(tmp_path, content)
    assert states(rank) == {"scheduled": [0], "unknown": [1]}
    assert rank.notes[0] == "of what the rank issued 7 between others are not in the dump"


def test_a_group_name_used_again(tmp_path: Path) -> None:
    entries = [entry("all_reduce", 1), entry("all_reduce", 1, pg_id=1), entry("all_reduce", 2, pg_id=1)]
    rank = imported(tmp_path, dump(*entries))
    assert column(rank, "group") == ["0", "0#2", "0#2"]
    assert column(rank, "group_size") == [4, 4, 4]
    assert [group["name"] for group in rank.info["groups"]] == ["0", "7", "0#2"]
    assert rank.world_size == 4


def test_durations_are_no_times(tmp_path: Path) -> None:
    rank = imported(tmp_path, dump(entry("all_reduce", 1, duration_ms=1.5)))
    assert rank.notes == ["durations that are not used, as no time says when they began: 1"]


def test_operations_without_a_row(tmp_path: Path) -> None:
    entries = [entry("split", 1), entry("new_window", 2), entry("split", 3), entry("all_reduce", 4)]
    rank = imported(tmp_path, dump(*entries))
    assert (column(rank, "seq"), column(rank, "event")) == ([4], [0])
    assert rank.notes == ["entries of operations that have no row, left out: split (2), new_window (1)"]


def test_version_2_3(tmp_path: Path) -> None:
    """torch 2.5: "undefined" descriptions, the version of NCCL under its old name, no threads."""
    each = entry("all_reduce", 1, process_group=("0", "undefined"))
    for name in ("thread_id", "thread_name", "frames"):
        del each[name]
    content = dump(each, version="2.3", nccl_version="2.21.5", pg_config={"0": WORLD | {"desc": "undefined"}})
    del content["comm_lib_version"]
    rank = imported(tmp_path, content)
    assert (column(rank, "group"), column(rank, "group_desc"), column(rank, "in_bytes")) == (["0"], [""], [48])
    assert (rank.world_size, rank.run) == (4, {"backend": "nccl", "nccl": "2.21.5"})
    assert rank.info["flight_recorder"]["version"] == "2.3"


@pytest.mark.parametrize("bare", [False, True], ids=["1.4", "a list"])
def test_version_1(tmp_path: Path, bare: bool) -> None:
    """Groups have numbers, tensors no dtypes; torch 2.2 dumped the entries alone."""
    kept = ("pg_id", "profiling_name", "time_created_ns", "input_sizes", "output_sizes", "state")
    entries = [{name: entry("all_reduce", 1)[name] for name in kept} | {"seq_id": seq} for seq in (1, 2)]
    rank = imported(tmp_path, entries if bare else {"version": "1.4", "entries": entries})
    assert (column(rank, "group"), column(rank, "seq")) == (["0", "0"], [1, 2])
    assert (column(rank, "in_bytes"), column(rank, "dtype")) == ([MISSING, MISSING], [None, None])
    assert rank.notes == []


def test_a_version_to_come(tmp_path: Path) -> None:
    rank = imported(tmp_path, dump(entry("all_reduce", 1), version="3.0"))
    assert rank.notes == ["the dump has format version 3.0, known are those up to 2: it may be misread"]


@pytest.mark.parametrize(
    ("config", "ranks", "world_size"),
    [
        ({"0": {"desc": "default_pg", "ranks": [0, 1]}}, [0, 1], 2),
        ({"0": {"name": "0", "desc": "default_pg", "ranks": (1, 0)}}, [1, 0], 2),
        ({"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 2]"}}, [0, 2], None),
        ({"0": {"name": "0", "desc": "default_pg", "ranks": "[]"}}, None, None),  # Gloo
        ({"0": {"name": "0", "desc": "default_pg", "ranks": "[1, 1]"}}, None, None),
        ({"0": {"name": "0", "desc": "default_pg", "ranks": [0, -1]}}, None, None),
        ({"0": {"name": "0", "desc": "default_pg", "ranks": [0, True]}}, None, None),
        ({"0": {"name": 0, "desc": "default_pg", "ranks": [0, 1]}}, None, None),
        ({"0": "[0, 1]"}, None, None),
        ([], None, None),
    ],
)
def test_groups(tmp_path: Path, config: Any, ranks: list[int] | None, world_size: int | None) -> None:
    rank = imported(tmp_path, dump(entry("all_reduce", 1), pg_config=config))
    groups = rank.info["groups"]
    assert [group["ranks"] for group in groups] == ([ranks] if ranks else [])
    assert rank.world_size == world_size


def test_names_that_are_no_names(tmp_path: Path) -> None:
    """They neither break a line nor reach a terminal as they are; a version nested deeply is none."""
    odd = entry("all_reduce", 1, process_group=("a\nb\x1b[2J", "x"), **UNDER_WAY)
    rank = imported(tmp_path, dump(odd, entry("x" + "\n" * 80, 2), version=None))
    assert rank.notes == [
        f"entries of operations that have no row, left out: x{'?' * 59} (1)",
        "1 of 1 operations had not completed when this was dumped, the first was all_reduce"
        " (sequence 1 of group a?b?[2J; scheduled)",
    ]
    nested = b"\x80\x02}(X\x07\x00\x00\x00entries]X\x07\x00\x00\x00version)" + b"\x85" * 100_000 + b"u."
    (tmp_path / "nested").write_bytes(nested)
    assert read(tmp_path / "nested")[0].info["flight_recorder"]["version"] == ""


def test_many_entries_of_one_launch(tmp_path: Path) -> None:
    """Time grows with the entries, not with their square."""
    rank = imported(tmp_path, [{"profiling_name": "nccl:send 0->1", "seq_id": 1, "state": "scheduled"}] * 50_000)
    assert states(rank) == {"unknown": list(range(50_000))}


def test_no_entries(tmp_path: Path) -> None:
    rank = imported(tmp_path, dump())
    assert (rank.tables, rank.notes, rank.world_size) == ({}, ["the dump has no entries"], 4)


def test_json_and_gzip_tell_the_same(tmp_path: Path) -> None:
    content = dump(entry("all_reduce", 1), entry("send 2->3", p2p=1, **UNDER_WAY))
    pickled = imported(tmp_path, content)
    for name, packed in (("a.json", json.dumps(content).encode()), ("b.gz", gzip.compress(pickle.dumps(content)))):
        (tmp_path / name).write_bytes(packed)
        os.utime(tmp_path / name, ns=(WRITTEN, WRITTEN))
        (rank,) = read(tmp_path / name)
        assert {each: column(rank, each) for each in table(rank)} == {
            each: column(pickled, each) for each in table(pickled)
        }
        assert (rank.info, rank.rank, rank.notes) == (pickled.info, pickled.rank, pickled.notes)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x80\x02}q\x00", True),
        (b"\x80\x05\x95", True),
        (b"\x80\x01}", False),
        (b"\x80", False),
        (b"", False),
        (b"PK\x03\x04", False),
        (b'{"version": "2.10", "pg_config": {}}', True),
        (b' \n{"comm_lib_version": "2", "entries": [{"state": "sch', True),
        (b'{"a\\"entries": 1, "b": {"entries": []}', False),
        (b'{"distributedInfo": {"pg_config": []}, "schemaVersion": 1', False),
        (b'{"entries": [], "traceEvents": [', False),
        (b'{"kind": "commlens calibration", "entries": []', False),
        (b'["entries"]', False),
        (b'{"x": "entries", "y": "' + b'\\"' * 30_000, False),
        (b"}" * 60_000, False),
    ],
)
def test_recognise(head: bytes, expected: bool) -> None:
    assert recognise(head) is expected


@given(st.binary(max_size=300) | st.text('{}[]":,\\ entriespg_config').map(str.encode))
def test_recognise_never_raises(head: bytes) -> None:
    assert recognise(head) in (True, False)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged JSON"),
        (b"\x80", "damaged JSON"),
        (b"{", "damaged JSON"),
        (b'{"entries": [' + b"[" * 100_000, "damaged JSON"),
        (b'{"entries": ' + b"9" * 5000 + b"}", "damaged JSON"),
        (b"\xff\xfe\x00", "damaged JSON"),
        (b"[]", None),
        (b"3", "no dump"),
        (b"{}", "no dump"),
        (b'{"entries": 3}', "no list of entries"),
        (b'{"entries": null}', "no list of entries"),
        (pickle.dumps(dump(entry("all_reduce", 1)))[:-30], "damaged pickle"),
        (pickle.dumps({"entries": {1, 2}}), "no list of entries"),
        (gzip.compress(pickle.dumps(dump(entry("all_reduce", 1))))[:-40], "damaged"),
        (pickle.dumps({"entries": [Path("x")]}, 2), "names code to run"),
        (pickle.dumps([{"profiling_name": "nccl:x", "pg_id": n} for n in range(32_768)]), "32768 process groups"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, why: str | None) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    if why is None:
        assert read(path)[0].notes == ["the dump has no entries"]
        return
    with pytest.raises(TraceError, match=why) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entries_that_are_none(tmp_path: Path) -> None:
    rank = imported(tmp_path, {"entries": [None, 3, {}, {"profiling_name": 3}, {"profiling_name": "nccl:all_reduce"}]})
    assert rank.notes == ["entries that cannot be read, left out: 4 of 5"]
    assert (column(rank, "op"), column(rank, "group"), column(rank, "seq")) == (["all_reduce"], [""], [MISSING])
    assert states(rank) == {"unknown": [0]}


WHOLE = dump(
    entry("all_reduce", 1),
    entry("send 2->3", p2p=1, **PART),
    entry("coalesced", p2p=1, input_sizes=[], output_sizes=[]),
    entry("scatter", 2, process_group=["7", "tp"], pg_id=1),
)
ODD = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["0", "nccl:send 1->2", "gloo:recv 99999999999<-1", "Half", "default_pg", "[9]", "\ud800"])
)
ODDER = st.recursive(ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dump_with_anything_in_it(tmp_path: Path, data: st.DataObject) -> None:
    content = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(ODDER)
    for packed in (pickle.dumps(content), json.dumps(content).encode()):
        (tmp_path / "odd").write_bytes(packed)
        try:
            (rank,) = read(tmp_path / "odd")
        except TraceError as error:
            assert "\n" not in str(error)
            continue
        check(rank)
        folder = RankWriter(tmp_path / str(len(list(tmp_path.iterdir()))), 0)
        if rank.tables:
            folder.append("collectives", rank.tables["collectives"])
        folder.close()


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dump_with_broken_bytes(tmp_path: Path, data: st.DataObject) -> None:
    packed = bytearray(data.draw(st.sampled_from([pickle.dumps(WHOLE, 2), json.dumps(WHOLE).encode()])))
    for place in data.draw(st.lists(st.integers(0, len(packed) - 1), min_size=1, max_size=5)):
        packed[place] = data.draw(st.integers(0, 255))
    (tmp_path / "broken").write_bytes(packed)
    try:
        (rank,) = read(tmp_path / "broken")
    except TraceError as error:
        assert "\n" not in str(error)
    else:
        check(rank)


JOB = """
from pathlib import Path
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace, _dump_fr_trace_json
dist.init_process_group("gloo")
rank = dist.get_rank()
pair = dist.new_group([0, 1], group_desc="pair")
ones = torch.ones(100)
dist.all_reduce(ones)
dist.all_gather_into_tensor(torch.ones(200), ones)
dist.reduce_scatter_tensor(torch.ones(50), ones)
dist.broadcast(ones, 0)
dist.scatter(ones, [torch.ones(100)] * 2 if rank == 0 else None, src=0)
dist.gather(ones, [torch.ones(100)] * 2 if rank == 0 else None, dst=0)
dist.all_reduce(torch.ones(3, 5, dtype=torch.bfloat16), group=pair)
dist.barrier()
Path(f"rank_{rank}").write_bytes(_dump_fr_trace())
Path(f"rank_{rank}.json").write_bytes(_dump_fr_trace_json())
dist.barrier()
"""


@pytest.mark.job
def test_real_dumps_of_gloo(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "job.py"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COMMLENS")}
    subprocess.run(command, cwd=tmp_path, env=env | {"OMP_NUM_THREADS": "1"}, check=True, timeout=120)
    for number in (0, 1):
        for name in (f"rank_{number}", f"rank_{number}.json"):
            assert recognise((tmp_path / name).read_bytes()[:65536])
            (rank,) = read(tmp_path / name)
            check(rank)
            ops = ["all_reduce", "all_gather", "all_reduce", "broadcast", "scatter", "gather", "all_reduce", "barrier"]
            assert column(rank, "op") == ops  # Gloo's reduce_scatter is an all_reduce
            assert column(rank, "seq") == [1, 2, 3, 4, 5, 6, 1, 7]
            assert column(rank, "group") == ["0"] * 6 + ["1", "0"]
            assert column(rank, "group_desc") == ["default_pg"] * 6 + ["pair", "default_pg"]
            assert column(rank, "in_bytes") == [400, 400, 400, 400, 0 if number else 800, 400, 30, 0]
            assert column(rank, "out_bytes") == [400, 800, 400, 400, 400, 0 if number else 800, 30, 0]
            assert column(rank, "dtype") == ["float32"] * 6 + ["bfloat16", None]
            issued = column(rank, "issued_ns")
            assert issued == sorted(issued)
            assert issued[0] > START
            assert states(rank).get("scheduled", [7]) == [7]  # Gloo may not have let go of the barrier yet
            assert rank.run == {"backend": "gloo"}
