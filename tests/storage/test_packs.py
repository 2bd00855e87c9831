"""Runs whose ranks lie in packs are read as those in folders."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made import RANKS, packed, report_of, write_hosts, write_windowed
from synthetic import MS, START, optimizer_columns

from commlens.errors import TraceError
from commlens.trace import Rank, RankWriter, open_run, write_run_info
from commlens.trace.pack import write_pack
from commlens.trace.schema import OPS, TABLES
from commlens.trace.storage import parquet
from commlens.trace.storage.files import Span
from commlens.trace.storage.packs import PackFiles


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hosts(tmp_path_factory.mktemp("packs") / "run")


@pytest.mark.parametrize("nodes", [None, 2])
def test_the_report_is_that_of_the_folders(tmp_path: Path, run: Path, nodes: int | None) -> None:
    packs = packed(run, tmp_path / "packs", nodes)
    assert report_of(packs, packs_too=True) == report_of(run, packs_too=True)


def test_every_table_is_that_of_the_folder(tmp_path: Path, run: Path) -> None:
    plain, packs = open_run(run), open_run(packed(run, tmp_path / "packs"))
    assert list(packs.ranks) == list(range(RANKS))
    for number, rank in packs.ranks.items():
        assert rank.files.packed
        assert rank.info == plain.ranks[number].info
        for table in TABLES:
            assert rank.table(table).to_pylist() == plain.ranks[number].table(table).to_pylist()
            assert rank.table(table).schema == plain.ranks[number].table(table).schema
        assert not rank.truncated


def test_a_deep_window_in_a_pack_tells_the_same(tmp_path: Path) -> None:
    run = write_windowed(tmp_path / "run")
    packs = packed(run, tmp_path / "packs")
    rank, other = open_run(run).ranks[0], open_run(packs).ranks[0]
    assert other.columns("collectives", ["started_ns"])["started_ns"][9:20].tolist() == [
        at * MS + 50_000 for at in range(10, 21)
    ]
    assert rank.table("collectives").to_pylist() == other.table("collectives").to_pylist()
    assert sorted(each.name for each in packs.iterdir()) == ["node-00000.zip", "run.json"]  # nothing is kept beside it


def test_a_pack_alone_is_a_run_in_a_folder_of_runs(tmp_path: Path, run: Path) -> None:
    packs = packed(run, tmp_path / "runs" / "packs")
    (packs / "run.json").unlink()
    found = open_run(tmp_path / "runs")
    assert (found.path, list(found.ranks)) == (packs, list(range(RANKS)))


def test_only_the_columns_that_are_asked_for_are_decoded(tmp_path: Path, run: Path) -> None:
    rank = open_run(packed(run, tmp_path / "packs")).ranks[3]
    columns = rank.columns("collectives", ["issued_ns", "started_ns", "dtype"])
    assert set(rank._tables["collectives"].column_names) < set(TABLES["collectives"]) - {"thread", "bucket", "peer"}
    whole = open_run(run).ranks[3].columns("collectives", list(TABLES["collectives"]))
    assert all((values == whole[name]).all() for name, values in columns.items())
    more = rank.columns("collectives", ["peer", "issued_ns"])
    assert (more["peer"] == whole["peer"]).all()
    assert rank.vocabulary("collectives", "dtype") == open_run(run).ranks[3].vocabulary("collectives", "dtype")
    with pytest.raises(KeyError):
        rank.columns("collectives", ["nonsense"])


def written(path: Path, rows: int) -> Path:
    """A run of one rank with so many collectives, hard to compress."""
    write_run_info(path, {"run_id": "large", "world_size": 1})
    writer = RankWriter(path, 0)
    writer.write_info({"rank": 0, "run_id": "large", "end": {"how": "exit"}})
    dice = np.random.default_rng(0)
    issued = START + np.cumsum(dice.integers(1, MS, rows))
    columns = {name: dice.integers(0, 1 << 62, rows) for name in ("in_bytes", "out_bytes", "blocked_ns")}
    columns |= {"event": np.arange(rows), "issued_ns": issued, "completed_ns": issued + 10, "started_ns": issued + 1}
    words = {"group": (np.zeros(rows, np.int64), ["0"]), "timing": (np.zeros(rows, np.int64), ["host"])}
    writer.append("collectives", {**columns, **words, "op": (dice.integers(0, len(OPS), rows), list(OPS))})
    writer.append("phases", optimizer_columns(issued[::100]))
    writer.close()
    return path


def test_of_a_large_table_only_the_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written(tmp_path / "run", 100_000)
    plain = open_run(run).ranks[0].columns("collectives", ["issued_ns", "op", "event"])
    write_pack(run, [0], run / "node-00000.zip")
    shutil.rmtree(run / "rank-00000")
    rank = open_run(run).ranks[0]
    size = rank.files.sizes()["collectives.parquet"]
    assert size > 2 << 20
    read: list[int] = []

    def counted(spans: list[Span]) -> list[bytes | Exception]:
        read.extend(span.end - span.start for span in spans if span.end is not None)
        return reading(spans)

    reading = parquet.read_spans
    monkeypatch.setattr(parquet, "read_spans", counted)
    found = rank.columns("collectives", ["issued_ns", "op", "event"])
    assert all((found[name] == plain[name]).all() for name in plain)
    assert sum(read) < size / 2
    everything = rank.table("collectives")  # what is read later does not lose what was read before
    assert everything.num_rows == 100_000
    assert everything.column("issued_ns").to_numpy().tolist() == plain["issued_ns"].tolist()


@pytest.mark.parametrize("table", ["collectives", "phases"])
@pytest.mark.parametrize("rows", [1_000, 100_000])
def test_a_pack_that_is_replaced_meanwhile_is_noticed(tmp_path: Path, table: str, rows: int) -> None:
    run = written(tmp_path / "run", rows)
    write_pack(run, [0], run / "node-00000.zip")
    shutil.rmtree(run / "rank-00000")
    rank = open_run(run).ranks[0]
    other = written(tmp_path / "other", rows + 7)
    write_pack(other, [0], run / "node-00000.zip")
    with pytest.raises(TraceError, match=r"node-00000.zip changed while it was read; open the run again$"):
        rank.table(table)
    assert open_run(run).ranks[0].table("collectives").num_rows == rows + 7
    (run / "node-00000.zip").unlink()
    with pytest.raises(TraceError, match=r"node-00000.zip"):
        rank.table(table)


def test_a_damaged_table_is_truncated_and_the_others_stay(tmp_path: Path, run: Path) -> None:
    packs = packed(run, tmp_path / "packs")
    pack = packs / "node-00002.zip"
    with zipfile.ZipFile(pack) as archive:
        at = archive.getinfo("rank-00003/collectives.parquet").header_offset
    data = bytearray(pack.read_bytes())
    data[at + 100 : at + 140] = bytes(40)
    pack.write_bytes(data)
    rank = open_run(packs).ranks[3]
    assert (rank.table("collectives").num_rows, rank.truncated) == (0, {"collectives"})
    assert rank.table("phases").num_rows == open_run(run).ranks[3].table("phases").num_rows


@pytest.mark.parametrize("content", [b"", b"no zip at all"])
def test_what_is_no_pack_is_left_out_and_named(tmp_path: Path, run: Path, content: bytes) -> None:
    packs = packed(run, tmp_path / "packs")
    (packs / "node-00002.zip").write_bytes(content)
    found = open_run(packs)
    assert found.missing == [2, 3]
    why = "it is damaged (File is not a zip file); pack its node again"
    assert found.notes == [f"{packs / 'node-00002.zip'} is left out: {why}"]


@pytest.mark.parametrize("cut", [1, 30, 1000])
def test_a_pack_that_is_cut_off_is_left_out(tmp_path: Path, run: Path, cut: int) -> None:
    packs = packed(run, tmp_path / "packs")
    data = (packs / "node-00004.zip").read_bytes()
    (packs / "node-00004.zip").write_bytes(data[:-cut])
    found = open_run(packs)
    assert found.missing == [4, 5]
    assert "node-00004.zip is left out: it is damaged" in found.notes[0]


def test_a_compressed_zip_is_no_pack(tmp_path: Path, run: Path) -> None:
    packs = packed(run, tmp_path / "packs")
    with zipfile.ZipFile(packs / "node-00002.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rank-00002/rank.json", (run / "rank-00002" / "rank.json").read_text())
    found = open_run(packs)
    assert found.missing == [2, 3]
    assert "rank-00002/rank.json is not stored as it is" in found.notes[0]


def test_a_rank_in_a_pack_and_a_folder_counts_once(tmp_path: Path, run: Path) -> None:
    packs = packed(run, tmp_path / "packs")
    shutil.copytree(run / "rank-00005", packs / "rank-00005")
    found = open_run(packs)
    assert list(found.ranks) == list(range(RANKS))
    assert found.ranks[5].path == packs / "rank-00005"
    assert found.notes[0] == f"rank 5 is there twice; {packs / 'rank-00005'} is used, it has the most collectives"


def test_a_rank_is_pickled_without_what_was_read(tmp_path: Path, run: Path) -> None:
    for path in (run, packed(run, tmp_path / "packs")):
        rank = open_run(path).ranks[1]
        before = len(pickle.dumps(rank))
        rows = rank.table("collectives").to_pylist()
        sent = pickle.dumps(rank)
        assert len(sent) < before + 200
        again: Rank = pickle.loads(sent)
        assert again.table("collectives").to_pylist() == rows
        assert (again.rank, again.path, again.info) == (rank.rank, rank.path, rank.info)
        assert isinstance(again.files, PackFiles) == rank.files.packed


def test_watch_reads_packs_too(tmp_path: Path, run: Path) -> None:
    from commlens.trace.recent import RecentRun

    packs = packed(run, tmp_path / "packs", nodes=1)
    found = RecentRun([packs]).read()
    assert [rank.table("collectives").num_rows for rank in found.ranks.values()] == [24] * RANKS
