from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import batch

from commlens.trace import Rank, RankWriter, write_run_info
from commlens.trace.schema import ALIVE_FILE, FORMAT_VERSION, MISSING, OPS

TESTS = str(Path(__file__).parent)


def events(writer: RankWriter) -> list[int]:
    rank = Rank(0, writer.path, {})
    return rank.columns("collectives", ["event"])["event"].tolist()


def test_every_column_comes_back(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 3)
    assert writer.path == tmp_path / "rank-00003"
    written = writer.append(
        "phases",
        {
            "phase": (np.array([1, MISSING, 0], np.int8), ["forward", "backward"]),
            "start_ns": np.array([5, MISSING, 2**62]),
            "step": np.array([0, 1, MISSING], np.int32),
        },
    )
    assert written == (writer.path / "phases.arrows").stat().st_size
    writer.close()
    rows = Rank(3, writer.path, {}).table("phases").to_pylist()
    assert [row["phase"] for row in rows] == ["backward", None, "forward"]
    assert [row["start_ns"] for row in rows] == [5, None, 2**62]
    assert [row["step"] for row in rows] == [0, 1, None]
    assert {row["name"] for row in rows} == {None} == {row["thread"] for row in rows}


def test_several_operations_of_one_collective_are_kept(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 0)
    writer.append("device_ops", {"event": np.array([7, 7]), "order": np.array([0, 1])})
    writer.close()
    assert Rank(0, writer.path, {}).table("device_ops").column("order").to_pylist() == [0, 1]


def test_vocabularies_grow_between_batches(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 0)
    words = ["w", "dp", "tp", "café"]
    for size in range(5):
        codes = np.array([MISSING, size - 1])
        writer.append("collectives", batch(2 * size, 2, group=(codes, words[:size])))
    uncompacted = Rank(0, writer.path, {}).table("collectives").column("group").to_pylist()
    writer.close()
    rank = Rank(0, writer.path, {})
    expected = [None, None, None, "w", None, "dp", None, "tp", None, "café"]
    assert uncompacted == expected == rank.table("collectives").column("group").to_pylist()
    assert rank.vocabulary("collectives", "group") == words


def test_a_new_word_costs_only_itself(tmp_path: Path) -> None:
    writer, words = RankWriter(tmp_path, 0), [f"{word * 7919 % 10_007:x}" * 3 for word in range(1001)]
    sizes = [
        writer.append("collectives", batch(0, 2, group=(np.zeros(2, int), words[:count])))
        for count in (1000, 1001, 1001)
    ]
    assert sizes[1] < sizes[0] / 2
    assert sizes[2] < sizes[1]
    writer.close()
    assert Rank(0, writer.path, {}).vocabulary("collectives", "group") == words


def test_a_buffer_used_again_does_not_change_what_was_appended(tmp_path: Path) -> None:
    writer, buffer = RankWriter(tmp_path, 0), np.arange(3)
    writer.append("collectives", batch(0, 3, event=buffer))
    buffer += 100
    writer.append("collectives", batch(3, 3, event=buffer))
    assert events(writer) == [0, 1, 2, 100, 101, 102]
    writer.close()


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"nonsense": np.arange(3)}, KeyError),
        ({"event": np.arange(4)}, ValueError),
        ({"op": np.zeros(3, np.int8)}, ValueError),
        ({"event": (np.arange(3), ["a"])}, ValueError),
        ({"op": (np.array([0, 1, 2]), ["a", "b"])}, IndexError),
        ({"event": np.zeros(3)}, TypeError),
        ({"step": np.array([0, 1, 2**31])}, OverflowError),
        ({"op": (np.array([0, 1, 200]), [str(i) for i in range(201)])}, OverflowError),
    ],
)
def test_a_wrong_batch_is_refused_and_harms_nothing(
    tmp_path: Path, columns: dict[str, object], error: type[Exception]
) -> None:
    writer = RankWriter(tmp_path, 0)
    with pytest.raises(error):
        writer.append("collectives", batch(0, 3, **columns))
    with pytest.raises(KeyError):
        writer.append("nonsense", {})
    writer.append("collectives", batch(0, 3))
    assert events(writer) == [0, 1, 2]
    writer.close()


def test_a_rank_is_written_once(tmp_path: Path) -> None:
    first = RankWriter(tmp_path, 0)
    second = RankWriter(tmp_path, 0)  # no table yet: both may try
    first.append("collectives", batch(0, 3))
    with pytest.raises(FileExistsError):
        RankWriter(tmp_path, 0)
    with pytest.raises(FileExistsError):
        second.append("collectives", batch(0, 3))
    first.close()


def test_infos_are_versioned_whole_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 0)
    writer.write_info({"rank": 0})
    writer.write_info({"rank": 0, "host": "a"})
    assert write_run_info(tmp_path, {"run_id": "first"})
    assert not write_run_info(tmp_path, {"run_id": "second"})
    info = json.loads((writer.path / "rank.json").read_text())
    assert info == {"rank": 0, "host": "a", "format_version": FORMAT_VERSION}
    assert json.loads((tmp_path / "run.json").read_text())["run_id"] == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank-00000", "run.json"]
    assert [path.name for path in writer.path.iterdir()] == ["rank.json"]


def test_run_info_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    assert write_run_info(tmp_path, {"run_id": "first"})
    assert not write_run_info(tmp_path, {"run_id": "second"})
    assert json.loads((tmp_path / "run.json").read_text())["run_id"] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_many_processes_make_one_run_info(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from commlens.trace import write_run_info as w;"
    code += "print(w(Path(sys.argv[1]), {'run_id': sys.argv[2]}))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    jobs = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE) for i in range(4)]
    won = [i for i, job in enumerate(jobs) if job.communicate(timeout=60)[0].strip() == b"True"]
    assert [json.loads((tmp_path / "run.json").read_text())["run_id"]] == [str(i) for i in won]


def disordered(path: Path) -> RankWriter:
    """Rows with ends that came later and times out of order."""
    writer = RankWriter(path, 0)
    writer.append("collectives", batch(0, 40, completed_ns=np.full(40, MISSING)))
    writer.append("collectives", batch(20, 40, group=(np.ones(40, np.int16), ["world", "dp"])))
    times = np.random.default_rng(0).integers(0, 10**6, 30)
    writer.append("collectives", batch(5, 30, issued_ns=times))
    writer.append("collectives", batch(0, 2, event=np.array([MISSING, MISSING])))
    writer.append("overhead", {"time_ns": np.arange(3), "events": np.arange(3)})
    return writer


def test_compaction_changes_no_row(tmp_path: Path) -> None:
    plain, compacted = disordered(tmp_path / "a"), disordered(tmp_path / "b")
    plain.close(compact=False)
    compacted.close()
    for table in ("collectives", "overhead"):
        one, other = (Rank(0, writer.path, {}).table(table) for writer in (plain, compacted))
        assert one.to_pylist() == other.to_pylist()
    file = "collectives.arrows"
    assert (compacted.path / file).stat().st_size < (plain.path / file).stat().st_size / 2


def test_a_later_row_replaces_the_earlier_and_issue_orders(tmp_path: Path) -> None:
    writer = disordered(tmp_path)
    rank = Rank(0, writer.path, {})
    columns = rank.columns("collectives", ["event", "issued_ns", "completed_ns"])
    assert sorted(columns["event"].tolist()) == [MISSING, MISSING, *range(60)]
    assert (np.diff(columns["issued_ns"]) >= 0).all()
    unfinished = columns["event"][columns["completed_ns"] == MISSING]
    assert sorted(unfinished.tolist()) == [0, 1, 2, 3, 4]
    writer.close()


def test_failed_compaction_leaves_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = disordered(tmp_path)
    before = Rank(0, writer.path, {}).table("collectives").to_pylist()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(Path, "replace", fail)
    writer.close()
    assert Rank(0, writer.path, {}).table("collectives").to_pylist() == before
    assert sorted(path.name for path in writer.path.iterdir()) == ["collectives.arrows", "overhead.arrows"]


def test_a_damaged_file_is_not_compacted(tmp_path: Path) -> None:
    writer = disordered(tmp_path)
    path = writer.path / "collectives.arrows"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    writer.close()
    assert path.read_bytes().startswith(bytes(data))


def test_closing_twice_is_fine_and_appending_after_is_not(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 0)
    writer.append("collectives", batch(0, 3))
    writer.close()
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.append("collectives", batch(3, 3))
    assert events(writer) == [0, 1, 2]


def test_the_child_of_a_fork_lets_go_without_writing(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 0)
    size = writer.append("collectives", batch(0, 3))
    writer.abandon()
    writer.close()
    assert (writer.path / "collectives.arrows").stat().st_size == size
    with pytest.raises(RuntimeError):
        writer.append("collectives", batch(3, 3))


def test_a_killed_writer_leaves_its_batches(tmp_path: Path) -> None:
    code = f"""
        import sys; sys.path.insert(0, {TESTS!r})
        from pathlib import Path
        from synthetic_run import batch
        from commlens.trace import RankWriter
        writer = RankWriter(Path(sys.argv[1]), 0)
        for i in range(1_000_000):
            writer.append("collectives", batch(i * 50, 50))
            print(i, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout
        lines = [next(job.stdout) for _ in range(20)]
        job.send_signal(signal.SIGKILL)
        done = int((job.stdout.read().split() or lines)[-1]) + 1
    rank = Rank(0, tmp_path / "rank-00000", {})
    found = rank.columns("collectives", ["event"])["event"]
    assert found.tolist() == list(range(found.size))
    assert found.size in (done * 50, done * 50 + 50)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "none", path]).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(writer: RankWriter) -> int:
    """Batches appended until the disk is full."""
    noise = np.random.default_rng(0)
    for count in range(1000):
        try:
            writer.append("collectives", batch(count * 200, 200, in_bytes=noise.integers(0, 2**60, 200)))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return count
    raise AssertionError("the disk did not fill up")


def test_a_full_disk_keeps_the_batches_before(tiny_disk: Path) -> None:
    writer = RankWriter(tiny_disk, 0)
    writer.sign(1)
    count = fill(writer)
    assert count > 2
    writer.give_up("OSError: no space")
    assert (writer.path / ALIVE_FILE).read_text() == f"{1:020d}\nOSError: no space\n"
    with pytest.raises(RuntimeError):
        writer.append("collectives", batch(0, 3))
    for _ in range(2):
        rank = Rank(0, writer.path, {})
        assert rank.columns("collectives", ["event"])["event"].tolist() == list(range(count * 200))
        assert not rank.truncated
        writer.close()
    assert [path.name for path in writer.path.iterdir()] == ["collectives.arrows"]


def test_a_write_in_parts_is_completed_or_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, budget = os.write, [10**9]

    def slow(fd: int, data: memoryview) -> int:
        if budget[0] <= 0:
            raise OSError(errno.ENOSPC, "full")
        budget[0] -= 100
        return write(fd, data[:100])

    monkeypatch.setattr(os, "write", slow)
    writer = RankWriter(tmp_path, 0)
    size = writer.append("collectives", batch(0, 3))
    budget[0] = 200
    with pytest.raises(OSError, match="full"):
        writer.append("collectives", batch(3, 3))
    assert (writer.path / "collectives.arrows").stat().st_size == size
    writer.close()
    assert events(writer) == [0, 1, 2]


def realistic(first: int, count: int) -> dict[str, object]:
    """What Gloo and DDP give: a few sizes, times with noise in every nanosecond."""
    noise = np.random.default_rng(first)
    issued = 1_790_000_000_000_000_000 + first * 250_000 + np.cumsum(noise.integers(100_000, 400_000, count))
    completed = issued + noise.lognormal(13, 1, count).astype(np.int64)
    buckets = np.arange(first, first + count) % 25
    return batch(
        first,
        count,
        seq=np.arange(first, first + count),
        in_bytes=4 * 1024 * (buckets + 1),
        out_bytes=4 * 1024 * (buckets + 1),
        group_size=np.full(count, 8),
        issued_ns=issued,
        completed_ns=completed,
        waited_ns=completed - noise.integers(0, 10**6, count),
        blocked_ns=noise.integers(0, 10**6, count),
        step=np.arange(first, first + count) // 25,
        bucket=buckets,
        thread=noise.integers(0, 2, count),
        op=(np.where(buckets == 24, 4, 0), list(OPS)),
    )


def test_a_collective_takes_less_than_64_bytes(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path, 0)
    for first in range(0, 20_000, 100):
        writer.append("collectives", realistic(first, 100))
    writer.close()
    assert len(events(writer)) == 20_000
    assert (writer.path / "collectives.arrows").stat().st_size / 20_000 < 64


def test_writing_loads_neither_pandas_nor_torch_and_the_schema_no_pyarrow(tmp_path: Path) -> None:
    code = f"""
        import sys; from pathlib import Path
        import commlens.trace.schema
        assert "pyarrow" not in sys.modules and "numpy" not in sys.modules
        import numpy as np
        from commlens.trace import RankWriter
        writer = RankWriter(Path({str(tmp_path)!r}), 0)
        for time in (np.array([3, -1]), np.array([3, 1])):
            writer.append("overhead", {{"time_ns": time}})
            op = (np.array([0, -1]), ["send"])
            writer.append("collectives", {{"event": np.array([7, 8]), "issued_ns": time, "op": op}})
        writer.close()
        assert not {{"pandas", "torch", "commlens.profiler", "commlens.analyzers"}} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
