"""`commlens export`: every table, all ranks."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from command_line import commlens
from pyarrow import csv, parquet
from synthetic import training_rank, write_run

from commlens.trace.schema import TABLES


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_every_table_with_a_rank_column(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {rank: training_rank(4) for rank in (0, 2)}, world_size=3)
    out = tmp_path / "new" / "out"
    assert commlens(monkeypatch, "export", run, "--to", kind, "-o", out) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(out / f"{name}.{kind}") for name in TABLES]
    read = parquet.read_table if kind == "parquet" else csv.read_csv
    table: pa.Table = read(out / f"collectives.{kind}")
    assert table.column_names == ["rank", *TABLES["collectives"]]
    assert table.column("rank").to_pylist() == [0] * 8 + [2] * 8
    assert set(table.column("op").to_pylist()) == {"all_reduce"}
    assert table.column("in_bytes").to_pylist()[:2] == [1024, 2048]


def test_files_are_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {0: training_rank(4)})
    command = ("export", run, "--to", "csv", "-o", tmp_path)
    (tmp_path / "phases.csv").write_text("mine")
    assert commlens(monkeypatch, *command) == 1
    assert not (tmp_path / "collectives.csv").exists()
    assert capsys.readouterr().err.count("\n") == 1
    assert commlens(monkeypatch, *command, "--force") == 0


def test_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {0: training_rank(4)})
    (tmp_path / "file").write_text("")
    assert commlens(monkeypatch, "export", run, "--to", "csv", "-o", tmp_path / "file") == 1
    assert "cannot make the folder" in capsys.readouterr().err
