"""A pack holds what the rank folders held: every row in its order, every other file as it was; or it is not there."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commlens.trace import RankWriter, open_run, write_run_info
from commlens.trace.node_local import difference, pack_node, remove, size
from commlens.trace.pack import TRUNCATED, write_pack
from commlens.trace.schema import TABLES, arrow_schema
from commlens.trace.stream import parse

STEPS, A_STEP = 100, 200


def random_columns(table: str, rows: int, seed: int) -> dict[str, object]:
    """Every column of a table with values of its whole range, and unknown ones."""
    random = np.random.default_rng(seed)
    columns: dict[str, object] = {}
    for column, kind in TABLES[table].items():
        if kind.startswith("name"):
            columns[column] = (random.integers(-1, 40, rows), [f"{column} {each}" for each in range(40)])
        else:
            limits = np.iinfo(kind)
            columns[column] = random.integers(limits.min, limits.max, rows, kind, endpoint=True)
    return columns


def realistic(rank: int) -> dict[str, object]:
    """The collectives of 100 steps of 200, as ranks of a job see them: jitter in every time."""
    random = np.random.default_rng(rank)
    rows = STEPS * A_STEP
    issued = 1_700_000_000_000_000_000 + np.cumsum(random.integers(20_000, 4_000_000, rows))
    started = issued + random.integers(1_000, 300_000, rows)
    completed = started + random.integers(10_000, 3_000_000, rows)
    place = np.arange(rows) % A_STEP
    sizes = np.random.default_rng(0).integers(1, 50_000_000, A_STEP)[place]
    return {
        "event": np.arange(rows), "seq": np.arange(rows) // 3, "in_bytes": sizes, "out_bytes": sizes,
        "group": (place % 3, ["0", "tp", "dp"]), "group_desc": (place % 3, ["default", "tensor", "data"]),
        "op": (place % 4, ["all_reduce", "all_gather", "reduce_scatter", "broadcast"]),
        "dtype": (place % 2, ["float32", "bfloat16"]), "group_size": np.full(rows, 1024),
        "issued_ns": issued, "started_ns": started, "completed_ns": completed,
        "waited_ns": issued + random.integers(1_000, 100_000, rows), "blocked_ns": random.integers(0, 3_000_000, rows),
        "step": np.arange(rows) // A_STEP, "bucket": place, "thread": np.zeros(rows, int),
        "source": (np.zeros(rows, int), ["dispatcher"]), "timing": (np.zeros(rows, int), ["host"]),
    }  # fmt: skip


def write_rank(run: Path, rank: int) -> Path:
    """A rank with every table in several batches, a table in part, an empty one, and files of other kinds."""
    write_run_info(run, {"run_id": "made", "world_size": 16})
    writer = RankWriter(run, rank)
    writer.write_info({"rank": rank, "run_id": "made", "host": "one", "control": []})
    for table in TABLES:
        for batch in range(3):
            writer.append(table, random_columns(table, 50 + batch, rank + batch))
    writer.abandon()  # as one that was killed: no end marks, nothing compacted
    (writer.path / "window-7.kineto.json.gz").write_bytes(os.urandom(3000))
    (writer.path / ".half.part").write_bytes(b"x")
    (writer.path / "phases.arrows").write_bytes(b"")
    return writer.path


def packed_table(pack: Path, rank: int, table: str) -> pa.Table:
    with zipfile.ZipFile(pack) as archive:
        return pq.read_table(io.BytesIO(archive.read(f"rank-{rank:05d}/{table}.parquet")))


def is_truncated(pack: Path, table: str) -> bool:
    with zipfile.ZipFile(pack) as archive:
        return TRUNCATED in pq.read_metadata(io.BytesIO(archive.read(f"rank-00000/{table}.parquet"))).metadata


def rows_of(folder: Path, table: str) -> list[dict[str, object]]:
    """Every row of a table's stream, in the order in which they were written."""
    with pa.OSFile(str(folder / f"{table}.arrows")) as source:
        return pa.ipc.open_stream(source).read_all().to_pylist()


def test_every_row_and_file_comes_back_as_it_was(tmp_path: Path) -> None:
    folders = {rank: write_rank(tmp_path / "run", rank) for rank in (3, 12)}
    write_pack(tmp_path / "run", [3, 12], tmp_path / "node-00003.zip")
    for rank, folder in folders.items():
        for table in set(TABLES) - {"phases"}:
            found = packed_table(tmp_path / "node-00003.zip", rank, table)
            assert found.schema.equals(arrow_schema(table))
            assert found.to_pylist() == rows_of(folder, table)
    with zipfile.ZipFile(tmp_path / "node-00003.zip") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        for name in ("rank.json", "window-7.kineto.json.gz"):
            assert archive.read(f"rank-00012/{name}") == (folders[12] / name).read_bytes()
        assert not [name for name in archive.namelist() if "part" in name]
    assert packed_table(tmp_path / "node-00003.zip", 3, "phases").num_rows == 0


def test_a_reader_sees_no_difference(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for rank in (0, 1):
        write_rank(run, rank)
    pack_node(run, tmp_path / "packed")
    before, after = open_run(run), open_run(tmp_path / "packed")
    assert (after.run_id, list(after.ranks), after.world_size) == ("made", [0, 1], 16)
    for table in set(TABLES) - {"collectives"}:
        assert after.ranks[1].table(table).to_pylist() == before.ranks[1].table(table).to_pylist()
    assert after.ranks[0].table("collectives").to_pylist() == before.ranks[0].table("collectives").to_pylist()


def test_many_batches_are_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commlens.trace.pack._GROUP_ROWS", 100)
    folder = write_rank(tmp_path / "run", 0)
    write_pack(tmp_path / "run", [0], tmp_path / "pack.zip")
    with zipfile.ZipFile(tmp_path / "pack.zip") as archive:
        found = pq.read_metadata(io.BytesIO(archive.read("rank-00000/collectives.parquet")))
    assert [found.row_group(each).num_rows for each in range(found.num_row_groups)] == [100, 1, 52]
    assert packed_table(tmp_path / "pack.zip", 0, "collectives").to_pylist() == rows_of(folder, "collectives")


@pytest.mark.parametrize("cut", [1, 100, 700])
def test_a_table_that_was_cut_off_says_so_and_keeps_its_whole_batches(tmp_path: Path, cut: int) -> None:
    path = write_rank(tmp_path / "run", 0) / "collectives.arrows"
    path.write_bytes(path.read_bytes()[:-cut])
    write_pack(tmp_path / "run", [0], tmp_path / "pack.zip")
    found = packed_table(tmp_path / "pack.zip", 0, "collectives")
    rows, whole = parse(path.read_bytes(), "collectives")
    assert not whole and found.num_rows == rows.num_rows == 101
    assert is_truncated(tmp_path / "pack.zip", "collectives")
    assert not is_truncated(tmp_path / "pack.zip", "overhead")


def test_a_collective_takes_at_most_40_bytes(tmp_path: Path) -> None:
    for rank in range(2):
        writer = RankWriter(tmp_path / "run", rank)
        writer.write_info({"rank": rank, "padding": "x" * 15_000})
        writer.append("collectives", realistic(rank))
        writer.close()
    write_pack(tmp_path / "run", [0, 1], tmp_path / "pack.zip")
    assert (tmp_path / "pack.zip").stat().st_size < 40 * 2 * STEPS * A_STEP


def test_what_fails_leaves_the_pack_before_and_nothing_else(tmp_path: Path) -> None:
    write_rank(tmp_path / "run", 0)
    pack = tmp_path / "shared" / "node-00000.zip"
    pack.parent.mkdir()
    write_pack(tmp_path / "run", [0], pack)
    before = pack.read_bytes()
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom commlens.trace.pack import write_pack\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: write_pack(Path(sys.argv[1]), [0], Path(sys.argv[2]))\nexcept OSError as error: print(error.errno)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run", pack], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["27"]  # EFBIG, as of a quota
    assert pack.read_bytes() == before
    assert list(pack.parent.iterdir()) == [pack]


def test_a_pack_is_whole_at_any_instant(tmp_path: Path) -> None:
    write_rank(tmp_path / "run", 0)
    pack = tmp_path / "node-00000.zip"
    code = (
        "import sys\nfrom pathlib import Path\nfrom commlens.trace.pack import write_pack\n"
        "while True: write_pack(Path(sys.argv[1]), [0], Path(sys.argv[2])); print(flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "run", pack], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(50):
            with zipfile.ZipFile(pack) as archive:
                assert archive.testzip() is None and len(archive.namelist()) == len(TABLES) + 2
        writer.kill()
    assert difference(tmp_path / "run", pack) is None


def test_memory_is_that_of_some_rows_however_many_there_are(tmp_path: Path) -> None:
    writer = RankWriter(tmp_path / "run", 0)
    for _ in range(40):
        writer.append("collectives", realistic(0))  # 800,000 rows, 114 MB of columns
    writer.close(compact=False)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom commlens.trace.pack import write_pack\n"
        "import pyarrow.parquet\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "write_pack(Path(sys.argv[1]), [0], Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run", tmp_path / "pack.zip"],
        capture_output=True, text=True, check=True, env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )  # fmt: skip
    assert int(told.stdout) < 80 * 1024  # KiB


# --- of a node -----------------------------------------------------------------------------------------------------


def test_a_node_is_named_by_its_lowest_rank_and_compared_with_its_pack(tmp_path: Path) -> None:
    local, run = tmp_path / "local", tmp_path / "runs" / "made"
    for rank in (9, 4):
        write_rank(local, rank)
    pack = pack_node(local, run)
    assert pack == run / "node-00004.zip"
    assert sorted(path.name for path in run.iterdir()) == ["node-00004.zip", "run.json"]
    assert difference(local, pack) is None


def test_what_came_later_or_reads_back_damaged_is_found(tmp_path: Path) -> None:
    local = tmp_path / "local"
    folder = write_rank(local, 0)
    pack = pack_node(local, tmp_path / "run")
    assert pack is not None
    content = pack.read_bytes()

    writer = RankWriter(local, 1)
    writer.write_info({"rank": 1})
    assert "rank-00001/rank.json is not packed" in str(difference(local, pack))
    remove_folder(writer.path)
    (folder / "nccl-1.events").write_bytes(b"x")
    assert "nccl-1.events is not packed" in str(difference(local, pack))
    (folder / "nccl-1.events").unlink()
    path = folder / "kernels.arrows"
    stream = path.read_bytes()
    path.write_bytes(stream[:-200])
    assert "kernels.parquet has changed" in str(difference(local, pack))
    path.write_bytes(stream)
    assert difference(local, pack) is None

    pack.write_bytes(content[:5000] + b"\xff\x00\xff" + content[5003:])
    assert "reads back damaged" in str(difference(local, pack))
    pack.write_bytes(content[:5000])
    assert "cannot be read back" in str(difference(local, pack))
    pack.unlink()
    assert "cannot be read back" in str(difference(local, pack))


def remove_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_node_without_ranks_has_no_pack(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    assert pack_node(tmp_path / "local", tmp_path / "run") is None
    assert not (tmp_path / "run").exists()


def test_a_removal_leaves_nothing_behind(tmp_path: Path) -> None:
    write_rank(tmp_path / "local", 0)
    assert size(tmp_path / "local") > 3000
    remove(tmp_path / "local")
    assert list(tmp_path.iterdir()) == []
