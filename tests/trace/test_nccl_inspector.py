"""Reading logs of NCCL Inspector: lines as each version writes them, damage, and what a log does not tell."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commlens.errors import TraceError
from commlens.trace.importers.content import Content
from commlens.trace.importers.imported import ImportedRank
from commlens.trace.importers.nccl_inspector import read, recognise
from commlens.trace.importers.nccl_inspector_groups import fill_members
from commlens.trace.ops import message_bytes
from commlens.trace.schema import OPS

T = 1752867229000000  # us
NAN = "nan"  # what the plugin writes for one


def header(rank: int = 4, id: str = "0xe6", size: int = 8, **more: Any) -> dict[str, Any]:
    return {"id": id, **more, "rank": rank, "n_ranks": size, "nnodes": 1}


def metadata(dumped: int = T, **more: Any) -> dict[str, Any]:
    about = {
        "inspector_output_format_version": "v4.0",
        "git_rev": "9019a1912",
        "rec_mechanism": "nccl_profiler_interface",
    }
    return {**about, "dump_timestamp_us": dumped, "hostname": "node-7", "pid": 438776, **more}


def line(coll: str = "AllReduce", number: int = 0, lasted: int = 100, dumped: int = T, **more: Any) -> dict[str, Any]:
    """A collective as NCCL 2.28 writes it; `more` goes to the header."""
    perf = {
        "coll": coll,
        "coll_sn": number,
        "coll_msg_size_bytes": 1 << 20,
        "coll_exec_time_us": lasted,
        "coll_timing_source": "kernel_gpu",
        "coll_algobw_gbs": 1.5,
        "coll_busbw_gbs": NAN,
    }
    return {"header": header(**more), "metadata": metadata(dumped), "coll_perf": perf}


def message(p2p: str, number: int, peer: int, lasted: int = 10, dumped: int = T, **more: Any) -> dict[str, Any]:
    """A message as NCCL 2.30 writes it."""
    perf = {
        "p2p": p2p,
        "p2p_sn": number,
        "p2p_peer": peer,
        "p2p_msg_size_bytes": 4096,
        "p2p_exec_time_us": lasted,
        "p2p_timing_source": "kernel_cpu",
        "p2p_algobw_gbs": 1.5,
        "p2p_busbw_gbs": 1.5,
    }
    return {"header": header(**more, comm_name="unknown"), "metadata": metadata(dumped), "p2p_perf": perf}


def traced(each: dict[str, Any], start: int, *stops: int) -> dict[str, Any]:
    """The same line of a verbose log."""
    kind = "coll" if "coll_perf" in each else "p2p"
    events = [
        {"channel_id": n, "kernel_start_ts": start + 5, "kernel_stop_ts": stop, "kernel_record_ts": max(stop - 1, 0)}
        for n, stop in enumerate(stops)
    ]
    counts = [
        {"channel_id": n, "kernel_start_sn": 3, "kernel_stop_sn": 5, "kernel_record_sn": 4} for n in range(len(stops))
    ]
    trace = {f"{kind}_start_ts": start, f"{kind}_stop_ts": start + 2, "kernel_events": events}
    numbers = {f"{kind}_start_sn": 1, f"{kind}_stop_sn": 2, "kernel_events": counts}
    return {**each, f"{kind}_perf": {**each[f"{kind}_perf"], "event_trace_sn": numbers, "event_trace_ts": trace}}


def text(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in lines)


def read_text(folder: Path, content: bytes) -> list[ImportedRank]:
    path = folder / "node-7-pid438776.log"
    path.write_bytes(content)
    return read(path)


def one(folder: Path, *lines: dict[str, Any]) -> ImportedRank:
    (rank,) = read_text(folder, text(*lines))
    return rank


def words(rank: ImportedRank, column: str) -> list[str | None]:
    codes, vocabulary = rank.tables["collectives"][column]
    return [None if code == -1 else vocabulary[code] for code in codes.tolist()]


def numbers(rank: ImportedRank, column: str) -> list[int]:
    values = rank.tables["collectives"][column]
    assert isinstance(values, np.ndarray)
    return [int(value) for value in values]


def times(rank: ImportedRank) -> list[tuple[int, ...]]:
    """Issued, started, completed of each row, us after T."""
    columns = [numbers(rank, name) for name in ("issued_ns", "started_ns", "completed_ns")]
    return [tuple(-1 if t == -1 else t // 1000 - T for t in row) for row in zip(*columns, strict=True)]


def test_a_verbose_log_of_nccl_2_28(tmp_path: Path) -> None:
    rank = one(
        tmp_path,
        traced(line("ReduceScatter", 1231, 400, T + 2000), T + 1000, T + 1480, T + 1500),
        traced(line("AllReduce", 7, 50, T + 2000), T + 100, T + 160),
    )
    assert (rank.source, rank.rank, rank.world_size) == (tmp_path / "node-7-pid438776.log", 4, 8)
    assert rank.run == {"backend": "nccl"}
    members = list(range(8))
    assert rank.info == {
        "host": "node-7",
        "pid": 438776,
        "clock": {"comparable": True},
        "groups": [
            {"name": "0xe6/ReduceScatter", "desc": "", "ranks": members, "size": 8, "rank": 4},
            {"name": "0xe6/AllReduce", "desc": "", "ranks": members, "size": 8, "rank": 4},
        ],
    }
    assert numbers(rank, "event") == [0, 1]
    assert words(rank, "group") == ["0xe6/AllReduce", "0xe6/ReduceScatter"]
    assert words(rank, "group_desc") == ["", ""]
    assert numbers(rank, "seq") == [7, 1231]
    assert words(rank, "op") == ["all_reduce", "reduce_scatter"]
    assert numbers(rank, "in_bytes") == [1 << 20, 8 << 20]
    assert numbers(rank, "out_bytes") == [1 << 20, 1 << 20]
    assert numbers(rank, "group_size") == [8, 8]
    assert numbers(rank, "peer") == [-1, -1]
    assert times(rank) == [(100, 110, 160), (1000, 1100, 1500)]
    assert numbers(rank, "completed_ns")[0] == (T + 160) * 1000
    assert words(rank, "source") == ["nccl_inspector"] * 2
    assert words(rank, "timing") == ["device"] * 2
    assert rank.notes == ["its rank is that in the largest communicator of the process, of 8 ranks"]


def test_a_log_that_is_not_verbose_has_durations_only(tmp_path: Path) -> None:
    """The first two lines were written at the same time, long after their ends."""
    rank = one(
        tmp_path,
        line("AllReduce", 0, 100, T + 1000),
        line("AllGather", 0, 300, T + 1001),
        line("AllReduce", 1, 50, T + 5000),
        line("AllReduce", 0, 30, T + 5001, id="0x77", size=2, rank=1),
    )
    assert times(rank) == [(601, 601, 701), (701, 701, 1001), (4950, 4950, 5000), (4971, 4971, 5001)]
    assert words(rank, "group") == ["0xe6/AllReduce", "0xe6/AllGather", "0xe6/AllReduce", "0x77/AllReduce"]
    assert words(rank, "timing") == ["device"] * 4
    assert rank.info["clock"] == {"comparable": False}
    assert rank.info["clock"] == {"comparable": False}
    assert any(note.startswith("4 of 4 operations have no time, only a duration") for note in rank.notes)


def test_messages_of_nccl_2_30(tmp_path: Path) -> None:
    rank = one(
        tmp_path,
        traced(message("Send", 1, 5), T, T + 20),
        traced(message("Recv", 2, 3), T + 30, T + 50),
        traced(message("Send", 4, 5), T + 90, T + 120),
        traced(message("Send", 3, 6), T + 60, T + 80),
        traced(line("AllReduce", 0, 10, comm_name="DP Group 0", id="0xdp", size=4, rank=2), T + 200, T + 210),
    )
    assert words(rank, "op") == ["send", "recv", "send", "send", "all_reduce"]
    assert words(rank, "group") == ["0xe6"] * 4 + ["0xdp/AllReduce"]
    assert words(rank, "group_desc") == ["", "", "", "", "DP Group 0"]
    assert numbers(rank, "peer") == [5, 3, 6, 5, -1]
    assert numbers(rank, "seq") == [0, 0, 0, 1, 0]
    assert numbers(rank, "in_bytes") == [4096, 0, 4096, 4096, 1 << 20]
    assert numbers(rank, "out_bytes") == [0, 4096, 0, 0, 1 << 20]
    assert words(rank, "timing") == ["host"] * 4 + ["device"]
    assert rank.info["groups"] == [
        {"name": "0xe6", "desc": "", "ranks": list(range(8)), "size": 8, "rank": 4},
        {"name": "0xdp/AllReduce", "desc": "DP Group 0", "ranks": [], "size": 4, "rank": 2},
    ]


def test_messages_whose_lines_are_lost_have_no_number(tmp_path: Path) -> None:
    """The lost one may have been to any peer."""
    rank = one(tmp_path, *(traced(message("Send", n, 5), T + n, T + n + 10) for n in (1, 3)))
    assert numbers(rank, "seq") == [-1, -1]
    whole = one(tmp_path, *(traced(message("Send", n, 5), T + n, T + n + 10) for n in (1, 2)))
    assert numbers(whole, "seq") == [0, 1]


def test_the_peer_is_a_global_rank_only_in_the_world(tmp_path: Path) -> None:
    rank = one(tmp_path, message("Send", 1, 0, id="0xpp", size=2, rank=1), line(), line(id="0xother", number=2))
    assert numbers(rank, "peer") == [-1, -1, -1]


@pytest.mark.parametrize(
    ("coll", "op", "handed_in", "received", "size"),
    [
        ("AllReduce", "all_reduce", 1, 1, 1),
        ("AllGather", "all_gather", 1, 8, 8),
        ("ReduceScatter", "reduce_scatter", 8, 1, 8),
        ("Broadcast", "broadcast", 1, 1, 1),
        ("Reduce", "reduce", 1, 1, 1),
    ],
)
def test_sizes(tmp_path: Path, coll: str, op: str, handed_in: int, received: int, size: int) -> None:
    """The plugin writes a rank's own part and multiplies it by the ranks for its bandwidths."""
    rank = one(tmp_path, line(coll))
    assert words(rank, "op") == [op]
    assert (numbers(rank, "in_bytes"), numbers(rank, "out_bytes")) == ([handed_in << 20], [received << 20])
    assert message_bytes(op, handed_in << 20, received << 20, 8) == size << 20


@pytest.mark.parametrize(("coll", "op"), [("All2All", "all_to_all"), ("AllGatherV", None), ("Invalid", None)])
def test_operations_of_unknown_size_or_kind(tmp_path: Path, coll: str, op: str | None) -> None:
    rank = one(tmp_path, line(coll))
    assert words(rank, "op") == [op]
    assert words(rank, "group") == [f"0xe6/{coll}"]
    assert (numbers(rank, "in_bytes"), numbers(rank, "out_bytes")) == ([-1], [-1])
    assert tuple(rank.tables["collectives"]["op"][1]) == OPS


def test_a_size_that_the_plugin_got_wrong_is_unknown(tmp_path: Path) -> None:
    """Of types it does not know the size is -1, and the product wraps."""
    broken = line()
    broken["coll_perf"]["coll_msg_size_bytes"] = 2**64 - 4096
    assert numbers(one(tmp_path, broken), "in_bytes") == [-1]


def test_the_end_is_no_earlier_than_launch_and_duration_say(tmp_path: Path) -> None:
    rank = one(tmp_path, traced(line(lasted=100), T, T + 90), traced(line(number=1, lasted=0), T + 200, T + 201))
    assert times(rank) == [(0, 0, 100), (200, 201, 201)]


def test_traces_with_holes(tmp_path: Path) -> None:
    unlaunched = traced(line(lasted=30), 0, T + 90)
    recorded = traced(line(number=1, lasted=30), T + 100, 0)
    recorded["coll_perf"]["event_trace_ts"]["kernel_events"][0]["kernel_record_ts"] = T + 150
    blind = traced(line(number=2, lasted=30, dumped=T + 400), T + 300)  # no channel was seen
    assert times(one(tmp_path, unlaunched, recorded, blind)) == [(60, 60, 90), (100, 120, 150), (300, 370, 400)]


def test_without_duration_or_time_there_is_none(tmp_path: Path) -> None:
    timeless, endless, early = line(), traced(line(number=1), T, T + 9), line(number=2, lasted=500, dumped=100)
    del timeless["metadata"]["dump_timestamp_us"], endless["coll_perf"]["coll_exec_time_us"]
    assert times(one(tmp_path, timeless, endless, early)) == [(-1, -1, -1), (-1, -1, -1), (0, -1, 9)]


def test_the_documented_first_version_has_no_timing_source(tmp_path: Path) -> None:
    old = line()
    del old["coll_perf"]["coll_timing_source"]
    assert words(one(tmp_path, old), "timing") == ["host"]


def test_the_rank_is_that_in_the_largest_communicator(tmp_path: Path) -> None:
    rank = one(
        tmp_path, line(id="0xa", rank=1, size=2), line(id="0xb", rank=5, size=16), line(id="0xc", rank=5, size=16)
    )
    assert (rank.rank, rank.world_size) == (5, 16)
    split = one(tmp_path, line(id="0xa", rank=1, size=4), message("Send", 1, 3, id="0xb", rank=2, size=4))
    assert numbers(split, "peer") == [-1, -1]
    assert (split.rank, split.world_size) == (None, 4)
    assert "its rank cannot be told: it differs between its largest communicators, of 4 ranks" in split.notes
    assert [group["ranks"] for group in split.info["groups"]] == [[], []]


def test_all_logs_together_tell_the_members(tmp_path: Path) -> None:
    """Two pairs in a world of four; the log of rank 3 is not there."""
    infos = {}
    for rank, pair, place in ((0, "0xa", 1), (2, "0xa", 0), (1, "0xb", 0)):
        world = line(id="0xw", rank=rank, size=4)
        infos[rank] = one(tmp_path, world, line(id=pair, rank=place, size=2)).info
    assert [group["ranks"] for group in infos[2]["groups"]] == [[0, 1, 2, 3], []]
    fill_members(infos)
    members = {rank: [group["ranks"] for group in info["groups"]] for rank, info in infos.items()}
    assert members == {0: [[0, 1, 2, 3], [2, 0]], 2: [[0, 1, 2, 3], [2, 0]], 1: [[0, 1, 2, 3], []]}


def test_a_process_with_several_devices_is_several_ranks(tmp_path: Path) -> None:
    lines = [line(rank=rank, id=id, number=n) for n, id in enumerate(("0xa", "0xb")) for rank in (1, 0)]
    other = line(rank=0, id="0xc", size=2)
    first, second = read_text(tmp_path, text(*lines, other))
    assert (first.rank, second.rank) == (0, 1)
    assert [words(rank, "group") for rank in (first, second)] == [["0xa/AllReduce", "0xb/AllReduce"]] * 2
    assert first.notes[0].startswith("1 operations are of communicators that tell no device of the process")


def test_recognises_its_own_first_lines_only(tmp_path: Path) -> None:
    for each in (line(), message("Send", 1, 2), traced(line(), T, *range(T, T + 64))):
        assert recognise(text(each))
    assert not recognise(b'{"schemaVersion":1,"traceEvents":[{"header":{}}]}')
    assert not recognise(b"")
    assert not recognise(text({"header": header(), "metadata": metadata()}))


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    bad_rank, wrong_type, negative = line(rank=8), line(), line(number=-1)
    wrong_type["coll_perf"]["coll_exec_time_us"] = "fast"
    neither = {"header": header(), "metadata": metadata()}
    content = text(line(), bad_rank, wrong_type, negative, neither) + b"\n\xff\n[1]\n{}\n" + text(line(number=1))[:-40]
    (rank,) = read_text(tmp_path, content)
    assert numbers(rank, "seq") == [0]
    assert rank.notes[0] == "8 of its 9 lines are damaged or cut off: left out"


def test_no_log_at_all(tmp_path: Path) -> None:
    for content in (b"", b"hello\n", b"{}\n", b"[" * 100_000, b"\0" * 100):
        with pytest.raises(TraceError, match="holds no operation"):
            read_text(tmp_path, content)
    with pytest.raises(TraceError, match="lines longer than"):
        read_text(tmp_path, b"x" * (3 << 20))
    with pytest.raises(TraceError, match="cannot read"):
        read(tmp_path / "absent.log")


def test_gzipped_and_cut_off(tmp_path: Path) -> None:
    dice = random.Random(1)
    lines = [line(number=n, lasted=dice.randrange(1000)) for n in range(3000)]
    packed = gzip.compress(text(*lines))
    path = tmp_path / "x.log.gz"
    path.write_bytes(packed)
    assert recognise(Content(path).head())
    (rank,) = read(path)
    assert sorted(numbers(rank, "seq")) == list(range(3000))
    path.write_bytes(packed[: len(packed) // 2])
    (part,) = read(path)
    assert 0 < len(numbers(part, "seq")) < 3000
    assert any("within its gzip" in note for note in part.notes)


WHOLE = text(
    traced(line("AllGather", 3, 70), T, T + 80),
    line("AllReduce", 4),
    message("Send", 1, 5),
    line(id="0x2", rank=1, size=2, comm_name="x"),
)
ODD = st.sampled_from([b"-1", b"1e999", b"99999999999999999999", b"null", b'"x"', b"[]", b"{}", b"true", b"\xff", b""])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.lists(st.tuples(st.integers(0, len(WHOLE)), ODD), max_size=8), cut=st.integers(0, len(WHOLE)))
def test_damage_is_told_in_one_line(tmp_path: Path, at: list[tuple[int, bytes]], cut: int) -> None:
    content = WHOLE[: cut or None]
    for place, odd in at:
        content = content[:place] + odd + content[place + len(odd) :]
    recognise(content)
    try:
        ranks = read_text(tmp_path, content)
    except TraceError as error:
        assert "\n" not in str(error)
    else:
        for rank in ranks:
            started, completed = np.array(numbers(rank, "started_ns")), np.array(numbers(rank, "completed_ns"))
            assert ((started == -1) | (started <= completed)).all()


VALUE = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.none(), st.booleans(), st.just([]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from(["header", "metadata", "coll_perf"]), place=st.integers(0, 6), value=VALUE)
def test_any_value_in_any_field(tmp_path: Path, part: str, place: int, value: object) -> None:
    odd = traced(line(), T, T + 9)
    fields = list(odd[part])
    odd[part][fields[place % len(fields)]] = value
    (rank, *_) = read_text(tmp_path, text(odd, line(number=1)))
    assert all(
        np.array(column).max(initial=-1) < 2**63
        for column in rank.tables["collectives"].values()
        if isinstance(column, np.ndarray)
    )
