"""commlens pack: what a job left behind on a node; and what users can ask of a job that is recorded on its nodes."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import commlens
from synthetic import MS, optimizer_columns

from commlens import open_run
from commlens.profiler.packing.presence import Presence
from commlens.trace import RankWriter, write_run_info
from commlens.trace.control import CONTROL_FILE, read_requests
from commlens.trace.node_local import pack_node


def leave_behind(local: Path, run: Path, run_id: str = "made", rank: int = 1, **info: Any) -> Path:
    """A node's folder with one rank that has ended ten steps of 10 ms."""
    places = {"local": str(local), "run": str(run), "every_s": None}
    write_run_info(local, {"run_id": run_id, "world_size": 2, "backend": "gloo", "commlens": "0.1", "pack": places})
    writer = RankWriter(local, rank)
    writer.write_info({"rank": rank, "run_id": run_id, "host": "one", **info})
    writer.append("phases", optimizer_columns(1_000 * MS + np.arange(10) * 10 * MS))
    writer.close(compact=False)
    return local


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_what_was_left_is_packed_where_it_belongs_and_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "made"
    local = leave_behind(tmp_path / "node" / "made", run)
    assert commlens(monkeypatch, "pack", local) == 0
    assert capsys.readouterr().out.strip() == str(run / "node-00001.zip")
    assert not local.exists()
    assert open_run(run).ranks[1].table("phases").num_rows == 10


def test_every_run_of_a_node_goes_to_its_own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("one", "two"):
        leave_behind(tmp_path / "node" / name, tmp_path / "runs" / name, run_id=name)
    assert commlens(monkeypatch, "pack", tmp_path / "node") == 0
    assert {open_run(tmp_path / "runs" / name).run_id for name in ("one", "two")} == {"one", "two"}
    assert list((tmp_path / "node").iterdir()) == []


def test_another_place_can_be_named_and_the_folder_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    local = leave_behind(tmp_path / "made", tmp_path / "gone")
    assert commlens(monkeypatch, "pack", local, "-o", tmp_path / "here", "--keep") == 0
    assert (tmp_path / "here" / "node-00001.zip").exists()
    assert open_run(local).ranks[1].table("phases").num_rows == 10


def test_what_cannot_be_packed_is_one_line_and_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = leave_behind(tmp_path / "node" / "made", tmp_path / "file" / "made")
    (tmp_path / "file").write_text("")
    assert commlens(monkeypatch, "pack", local) == 1
    assert "Not a directory" in told(capsys)
    leave_behind(tmp_path / "node" / "other", tmp_path / "runs", run_id="other")
    assert commlens(monkeypatch, "pack", tmp_path / "node", "-o", tmp_path / "runs") == 2
    assert "holds 2 runs" in told(capsys)
    write_run_info(tmp_path / "runs", {"run_id": "another"})
    assert commlens(monkeypatch, "pack", local, "-o", tmp_path / "runs") == 2
    assert "is another run, another" in told(capsys)
    assert commlens(monkeypatch, "pack", local, "-o", local) == 2
    assert "itself" in told(capsys)
    assert commlens(monkeypatch, "pack", tmp_path / "runs") == 2
    assert "does not say which run" in told(capsys)
    assert commlens(monkeypatch, "pack", tmp_path / "none") == 2
    assert "holds no run" in told(capsys)
    assert open_run(local).ranks[1].table("phases").num_rows == 10


def test_nothing_is_packed_while_somebody_else_works_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = leave_behind(tmp_path / "made", tmp_path / "runs" / "made")
    rank = Presence(local, 1)
    assert commlens(monkeypatch, "pack", local) == 1
    assert "still recording" in told(capsys)
    rank.let_go()
    with (local / ".packer").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711\n")
        held.flush()
        assert commlens(monkeypatch, "pack", local) == 1
        assert "process 4711" in told(capsys)
    assert commlens(monkeypatch, "pack", local) == 0


# --- a job that is recorded on its nodes -----------------------------------------------------------------------------


def test_a_request_on_a_node_goes_to_all_nodes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("commlens.cli.requests.ANSWER_S", 0.1)
    run = tmp_path / "runs" / "made"
    local = leave_behind(tmp_path / "node", run, control=[])
    write_run_info(run, json.loads((local / "run.json").read_bytes()))
    monkeypatch.chdir(tmp_path)
    for given in (local, run, "runs", "node"):
        assert commlens(monkeypatch, "pause", given) == 1
        assert "rank 1" in told(capsys)  # nobody is there who could answer
    assert len(read_requests(run)) == 4
    assert not (local / CONTROL_FILE).exists()  # its packing process puts it there


@pytest.mark.parametrize("command", ["capture", "pause", "resume"])
def test_elsewhere_a_node_is_named_where_it_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run = tmp_path / "runs" / "made"
    local = leave_behind(tmp_path / "node", run, control=[])
    pack_node(local, run)
    local.replace(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for given in (run, "runs"):
        assert commlens(monkeypatch, command, given) == 1
        assert f"commlens {command} {local}" in told(capsys)
    assert not (run / CONTROL_FILE).exists()


def test_watch_shows_a_node_live_and_elsewhere_the_last_packs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "made"
    local = leave_behind(tmp_path / "node", run, control=[])
    pack_node(local, run)
    for given in (run, local):
        assert commlens(monkeypatch, "watch", "--once", given) == 0
        assert "of this node only" in " ".join(capsys.readouterr().out.split())
    local.replace(tmp_path / "elsewhere")
    assert commlens(monkeypatch, "watch", "--once", run) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "as of the last pack" in shown and "1 of 2" in shown
