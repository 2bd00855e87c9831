from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from synthetic_run import Maker, batch

from commlens.errors import (
    CommlensError,
    DamagedRunError,
    NewerFormatError,
    RunNotFoundError,
    TraceError,
)
from commlens.trace import Rank, RankWriter, open_run
from commlens.trace.schema import ALIVE_FILE, FORMAT_VERSION, MISSING, TABLES, arrow_schema

COLLECTIVES = "collectives.arrows"


def test_a_run_opens_with_its_ranks(make: Maker) -> None:
    run = open_run(str(make.run("job", ranks=(2, 0, 1), rows=7)))
    assert (run.run_id, run.world_size, run.missing, run.notes) == ("job", 3, [], [])
    assert list(run.ranks) == [0, 1, 2]
    rank = run.ranks[2]
    assert rank.rank == rank.info["rank"] == 2
    assert rank.table("collectives").num_rows == 7
    assert rank.table("collectives") is rank.table("collectives")
    assert not rank.truncated


def test_every_table_has_its_columns_even_without_a_file(make: Maker) -> None:
    rank = open_run(make.run()).ranks[0]
    for table, columns in TABLES.items():
        assert rank.table(table).schema.equals(arrow_schema(table))
        values = rank.columns(table, list(columns))
        assert [len(each) for each in values.values()] == [rank.table(table).num_rows] * len(columns)
    assert rank.vocabulary("phases", "phase") == []
    assert not rank.truncated


def test_columns_are_numbers_and_codes_with_missing(make: Maker) -> None:
    rank = open_run(make.run(rows=3)).ranks[0]
    columns = rank.columns("collectives", ["event", "peer", "op", "dtype"])
    assert columns["event"].tolist() == [0, 1, 2]
    assert columns["peer"].tolist() == columns["dtype"].tolist() == [MISSING] * 3
    words = rank.vocabulary("collectives", "op")
    assert [words[code] for code in columns["op"]] == ["all_reduce"] * 3


@pytest.mark.parametrize(
    "ask",
    [
        lambda rank: rank.table("nonsense"),
        lambda rank: rank.columns("nonsense", ["event"]),
        lambda rank: rank.columns("collectives", ["nonsense"]),
        lambda rank: rank.vocabulary("collectives", "event"),
    ],
)
def test_unknown_names_are_key_errors(make: Maker, ask: Callable[[Rank], object]) -> None:
    with pytest.raises(KeyError):
        ask(open_run(make.run()).ranks[0])


def test_columns_of_another_version_are_ignored_or_null(make: Maker) -> None:
    path = make.run()
    rows = pa.table({"time_ns": pa.array([4, 5]), "novel": pa.array(["x", "y"])})
    with pa.ipc.new_stream(path / "rank-00000" / "overhead.arrows", rows.schema) as stream:
        stream.write_table(rows)
    rank = open_run(path).ranks[0]
    assert rank.table("overhead").column_names == list(TABLES["overhead"])
    assert rank.table("overhead").column("time_ns").to_pylist() == [4, 5]
    assert rank.columns("overhead", ["events"])["events"].tolist() == [MISSING, MISSING]
    assert not rank.truncated


def written_in_batches(path: Path) -> tuple[Path, list[int]]:
    """A table file without an end mark, and where its batches end."""
    writer = RankWriter(path, 0)
    ends = [0]
    for i, words in enumerate((["a"], ["a", "b"], ["a", "b", "c"])):
        group = (np.full(4, i, np.int16), words)
        rows = batch(4 * i, 4, group=group, started_ns=np.arange(4 * i, 4 * i + 4))
        ends.append(ends[-1] + writer.append("collectives", rows))
    return writer.path / COLLECTIVES, ends


def phases_in_batches(path: Path) -> tuple[Path, list[int]]:
    """The same of a table small enough to try every byte."""
    writer = RankWriter(path, 0)
    ends = [0]
    for i, words in enumerate((["a"], ["a", "b"], ["a", "b", "c"])):
        start = np.arange(4 * i, 4 * i + 4)
        ends.append(ends[-1] + writer.append("phases", {"phase": (np.full(4, i), words), "start_ns": start}))
    return writer.path / "phases.arrows", ends


@pytest.mark.parametrize(
    ("write", "column", "step"), [(phases_in_batches, "phase", 1), (written_in_batches, "group", 17)]
)
def test_a_file_cut_at_any_byte_gives_its_whole_batches(
    tmp_path: Path, write: Callable[[Path], tuple[Path, list[int]]], column: str, step: int
) -> None:
    path, ends = write(tmp_path)
    table = path.stem
    data, rows = path.read_bytes(), Rank(0, path.parent, {}).table(table).to_pylist()
    assert [row[column] for row in rows] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    schema_end = next(n for n in range(8, len(data), 8) if is_stream(data[:n]))
    around = [end + by for end in (*ends, schema_end) for by in (-1, 0, 1)]
    for size in sorted({*range(0, len(data), step), *around} - {-1, len(data) + 1}, reverse=True):
        os.truncate(path, size)
        rank = Rank(0, path.parent, {})
        whole = sum(end <= size for end in ends[1:])
        found = rank.columns(table, [*TABLES[table]])
        assert {len(each) for each in found.values()} == {4 * whole}, size
        assert (not rank.truncated) == (size in (*ends, schema_end)), size
        if size in around:
            assert rank.table(table).to_pylist() == rows[: 4 * whole], size


def is_stream(data: bytes) -> bool:
    try:
        pa.ipc.open_stream(data)
    except pa.ArrowInvalid:
        return False
    return True


@pytest.mark.parametrize("closed", [False, True])
def test_flipped_bits_never_raise(tmp_path: Path, closed: bool) -> None:
    path, _ = written_in_batches(tmp_path)
    if closed:
        shutil.rmtree(path.parent)
        writer = RankWriter(tmp_path, 0)
        writer.append("collectives", batch(0, 100))
        writer.close()
    data, dice = path.read_bytes(), random.Random(7)
    noticed = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(dice.choice((1, 1, 8))):
            damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        rank = Rank(0, path.parent, {"groups": [{"name": "a", "workers": 2}]})
        values = rank.columns("collectives", list(TABLES["collectives"]))
        assert {len(each) for each in values.values()} == {rank.table("collectives").num_rows}
        assert all(isinstance(word, str) for word in rank.vocabulary("collectives", "group"))
        noticed += bool(rank.truncated)
    assert noticed > 30


def test_a_file_of_something_else_is_damaged(make: Maker) -> None:
    path = make.run()
    for content in (b"\0" * 100, b"hello", b"\xff" * 100, os.urandom(1000)):
        (path / "rank-00000" / COLLECTIVES).write_bytes(content)
        rank = open_run(path).ranks[0]
        assert rank.table("collectives").num_rows == 0
        assert rank.truncated == {"collectives"}


def test_a_batch_that_decodes_to_nonsense_ends_the_table(make: Maker) -> None:
    path, words, schema = make.run(), pa.array(["forward"]), arrow_schema("phases").field("phase")
    with pa.ipc.new_stream(path / "rank-00000" / "phases.arrows", pa.schema([schema])) as stream:
        for code in (0, 9, 0):
            codes = pa.DictionaryArray.from_arrays(pa.array([code], pa.int8()), words, safe=False)
            stream.write_batch(pa.record_batch([codes], schema=pa.schema([schema])))
    rank = open_run(path).ranks[0]
    assert rank.table("phases").column("phase").to_pylist() == ["forward"]
    assert rank.truncated == {"phases"}


def test_the_newest_of_several_runs_is_opened(make: Maker, tmp_path: Path) -> None:
    for name, start in (("a", 1), ("b", 30), ("c", 2)):
        make.run(name, start_ns=start)
    run = open_run(tmp_path)
    assert run.run_id == "b"
    assert run.path == tmp_path / "b"
    assert any("3 runs" in note for note in run.notes)


def test_without_a_start_the_time_of_the_folder_counts(make: Maker, tmp_path: Path) -> None:
    for name, seconds in (("a", 300), ("b", 100)):
        os.utime(make.run(name), (seconds, seconds))
    make.run("c", start_ns=200 * 10**9)
    assert open_run(tmp_path).run_id == "a"


def test_the_only_run_in_a_folder_needs_no_note(make: Maker, tmp_path: Path) -> None:
    make.run()
    (tmp_path / "other").mkdir()
    assert open_run(tmp_path).notes == []


def test_folders_of_one_run_are_merged(make: Maker, tmp_path: Path) -> None:
    first = make.run("n0/job", ranks=(0, 1), run_id="job", world_size=4)
    second = tmp_path / "n1" / "job"
    make.rank(second, 2)  # run.json is only on the first node
    run = open_run([second, first, second])
    assert run.notes == []
    assert (run.path, run.info["world_size"]) == (second, 4)
    run = open_run([first, second, first])
    assert list(run.ranks) == [0, 1, 2]
    assert (run.world_size, run.missing, run.path, run.run_id) == (4, [3], first, "job")
    alone = open_run(second)
    assert (alone.run_id, alone.missing, len(alone.notes)) == ("job", [0, 1], 1)


def test_a_rank_there_twice_counts_once(make: Maker, tmp_path: Path) -> None:
    first = make.run("n0/job", run_id="job", rows=5)
    second = tmp_path / "n1" / "job"
    make.rank(second, 0, rows=9)
    for paths in ([first, second], [second, first]):
        run = open_run(paths)
        assert run.ranks[0].path.is_relative_to(second)
        assert sum("is there twice" in note for note in run.notes) == 1


def test_a_rank_of_an_earlier_run_is_left_out(make: Maker) -> None:
    path = make.run(ranks=(0, 1))
    info = json.loads((path / "rank-00001" / "rank.json").read_text())
    (path / "rank-00001" / "rank.json").write_text(json.dumps({**info, "run_id": "old"}))
    run = open_run(path)
    assert (list(run.ranks), run.damaged, run.missing) == ([0], [1], [1])
    assert any("another run, old" in note for note in run.notes)


VERSIONED = {"format_version": FORMAT_VERSION}
DAMAGED = {
    "empty": b"",
    "cut": b'{"format_version": 1, "rank": 1',
    "zeros": bytes(64),
    "not text": b"\xff\xfe\xfa",
    "list": b"[1, 2]",
    "string": b'"run"',
    "deep": b"[" * 100_000,
    "no version": b'{"rank": 1}',
    "version true": b'{"rank": 1, "format_version": true}',
    "version text": b'{"rank": 1, "format_version": "1"}',
    "version 0": b'{"rank": 1, "format_version": 0}',
}
DAMAGED_RANK = {
    **DAMAGED,
    "no rank": json.dumps(VERSIONED).encode(),
    "rank text": json.dumps({**VERSIONED, "rank": "1"}).encode(),
    "rank true": json.dumps({**VERSIONED, "rank": True}).encode(),
    "other rank": json.dumps({**VERSIONED, "rank": 2}).encode(),
}


@pytest.mark.parametrize("content", DAMAGED_RANK.values(), ids=DAMAGED_RANK.keys())
def test_one_damaged_rank_leaves_the_others(make: Maker, content: bytes) -> None:
    path = make.run(ranks=(0, 1, 2))
    (path / "rank-00001" / "rank.json").write_bytes(content)
    run = open_run(path)
    assert (list(run.ranks), run.damaged, run.missing) == ([0, 2], [1], [1])
    assert len(run.notes) == 1
    assert "rank 1 is left out" in run.notes[0]


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_ranks_answer_for_a_damaged_run_file(make: Maker, content: bytes) -> None:
    path = make.run("job", ranks=(0, 1))
    (path / "run.json").write_bytes(content)
    run = open_run(path)
    assert (list(run.ranks), run.world_size, run.run_id, run.info) == ([0, 1], 2, "job", {})
    assert "run.json" in run.notes[0]
    shutil.rmtree(path / "rank-00000")
    (path / "rank-00001" / "rank.json").unlink()
    with pytest.raises(DamagedRunError):
        open_run(path)


@pytest.mark.parametrize("size", [-1, 0, True, "4", 10**18, None])
def test_an_absurd_world_size_is_not_believed(make: Maker, size: object) -> None:
    assert open_run(make.run(ranks=(0, 1), world_size=size)).world_size == 2


def test_a_run_without_ranks_yet_is_a_run(make: Maker) -> None:
    run = open_run(make.run(ranks=(), world_size=2))
    assert (run.ranks, run.missing, len(run.notes)) == ({}, [0, 1], 1)


def damaged_everywhere(make: Maker) -> Path:
    path = make.run(ranks=(0, 1))
    for rank in (0, 1):
        (path / f"rank-0000{rank}" / "rank.json").write_bytes(b"{")
    return path


def newer(make: Maker, file: str) -> Path:
    path = make.run()
    (path / file).write_text(json.dumps({"format_version": FORMAT_VERSION + 1, "rank": 0}))
    return path


def folder(make: Maker, *files: str) -> Path:
    path = make.parent / "folder"
    path.mkdir()
    for file in files:
        (path / file).touch()
    return path


WRONG: dict[str, tuple[Callable[[Maker], object], type[CommlensError], str]] = {
    "absent": (lambda make: make.parent / "absent", RunNotFoundError, "no such file or folder"),
    "below a file": (lambda make: folder(make, "f") / "f" / "x", RunNotFoundError, "no such file or folder"),
    "a file": (lambda make: make.run() / "run.json", RunNotFoundError, "run.json is no run, and of no format"),
    "empty": (folder, RunNotFoundError, "is an empty folder"),
    "no run": (lambda make: folder(make, "notes.txt"), RunNotFoundError, "notes.txt is no run, and of no format"),
    "a rank": (lambda make: make.run() / "rank-00000", RunNotFoundError, "one rank of a run"),
    "nothing": (lambda make: [], RunNotFoundError, "no path"),
    "one absent": (lambda make: [make.run(), make.parent / "x"], RunNotFoundError, "no such folder"),
    "damaged": (damaged_everywhere, DamagedRunError, "nothing readable"),
    "newer run": (lambda make: newer(make, "run.json"), NewerFormatError, "pip install -U commlens"),
    "newer rank": (lambda make: newer(make, "rank-00000/rank.json"), NewerFormatError, "version 2.* 1;"),
    "two runs": (lambda make: [make.run("a"), make.run("b")], TraceError, r"different runs \(a and b\)"),
}


@pytest.mark.parametrize(("paths", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_errors_say_what_and_where_in_one_line(
    make: Maker, paths: Callable[[Maker], object], error: type[CommlensError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        open_run(paths(make))  # type: ignore[arg-type]
    message = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in message
    assert ";" in message  # what to do next
    assert str(make.parent) in message or "no path" in message


def unwritten(path: Path, *signs: str) -> Path:
    """A recording that got no further than its ranks' signs of life."""
    for rank, sign in enumerate(signs):
        (path / f"rank-{rank:05d}").mkdir(parents=True)
        (path / f"rank-{rank:05d}" / ALIVE_FILE).write_text(sign)
    return path


@pytest.mark.parametrize("given", ["runs", "runs/job"])
def test_a_recording_of_which_nothing_was_written_is_known_as_such(tmp_path: Path, given: str) -> None:
    job = unwritten(tmp_path / "runs" / "job", "", f"{5:020d}\n")
    said = f"{job} is a recording of commlens of which nothing was written: "
    with pytest.raises(RunNotFoundError) as caught:
        open_run(tmp_path / given)
    assert str(caught.value).startswith(f"{said}the disk was full, or the job was killed in its first second; make")
    (job / "rank-00001" / ALIVE_FILE).write_text(f"{5:020d}\nOSError: no space\n")
    with pytest.raises(RunNotFoundError) as caught:
        open_run(tmp_path / given)
    assert str(caught.value).startswith(f"{said}the recorder stopped (OSError: no space); make room")


def test_beside_a_run_a_recording_of_nothing_is_noted(make: Maker) -> None:
    run = make.run("job")
    empty = unwritten(run.parent / "empty", "")
    opened = open_run(run.parent)
    assert opened.run_id == "job"
    assert [note.partition(" is ")[0] for note in opened.notes] == [f"left out: {empty}"]


def test_a_recorder_that_gave_up_says_why_behind_its_sign_of_life(make: Maker) -> None:
    run = make.run()
    (run / "rank-00000" / ALIVE_FILE).write_text(f"{5:020d}\nOSError: no space\n")
    info = open_run(run).ranks[0].info
    assert (info["alive_ns"], info["gave_up"]) == (5, {"error": "OSError: no space"})


def as_nobody(action: Callable[[], object]) -> None:
    """Root may read everything, so give up being root for a moment."""
    if os.geteuid():
        action()
        return
    os.seteuid(65534)
    try:
        action()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("locked", [".", "run.json", "rank-00000", "rank-00000/rank.json"])
def test_what_may_not_be_read_is_a_trace_error(make: Maker, locked: str) -> None:
    path = make.run()
    for parent in list(path.parents)[:3]:
        parent.chmod(0o755)
    (path / locked).chmod(0)

    def check() -> None:
        with pytest.raises(TraceError, match="ermission denied; make it readable") as caught:
            open_run(path)
        assert "\n" not in str(caught.value)

    try:
        as_nobody(check)
    finally:
        (path / locked).chmod(0o755)


def test_a_table_that_may_not_be_read_is_a_trace_error(make: Maker) -> None:
    path = make.run()
    for parent in list(path.parents)[:3]:
        parent.chmod(0o755)
    (path / "rank-00000" / COLLECTIVES).chmod(0)
    rank = open_run(path).ranks[0]

    def check() -> None:
        with pytest.raises(TraceError, match=r"cannot read .*collectives\.arrows"):
            rank.table("collectives")

    as_nobody(check)


def test_a_run_still_being_written_is_readable(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 0)
    writer.write_info({"rank": 0})
    for i in range(3):
        writer.append("collectives", batch(5 * i, 5))
        rank = open_run(tmp_path).ranks[0]
        assert rank.table("collectives").num_rows == 5 * (i + 1)
        assert not rank.truncated
    writer.abandon()
