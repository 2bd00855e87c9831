"""watch, capture, pause and resume where there is no job to ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import commlens
from synthetic import MS, optimizer_columns

from commlens.trace import RankWriter, write_run_info
from commlens.trace.control import CONTROL_FILE

LIVE = ["capture", "pause", "resume"]


def write(path: Path, **info: object) -> Path:
    """One rank that has ended ten steps of 10 ms."""
    write_run_info(path, {"run_id": "made", "world_size": 2, "backend": "gloo", "commlens": "0.1"})
    writer = RankWriter(path, 0)
    writer.write_info({"rank": 0, "run_id": "made", "host": "one", **info})
    writer.append("phases", optimizer_columns(1_000 * MS + np.arange(10) * 10 * MS))
    writer.close(compact=False)
    return path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("command", ["watch", *LIVE])
def test_no_run_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commlens(monkeypatch, command) == 2
    assert "record one with" in one_line(capsys)
    assert commlens(monkeypatch, command, tmp_path / "none") == 2
    assert "no such folder" in one_line(capsys)


@pytest.mark.parametrize("command", LIVE)
def test_a_run_that_has_ended_takes_no_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run = write(tmp_path / "run", control=[], end={"ns": 5, "how": "exit"})
    assert commlens(monkeypatch, command, run) == 1
    assert "has ended" in one_line(capsys)
    assert not (run / CONTROL_FILE).exists()


@pytest.mark.parametrize("command", LIVE)
def test_an_older_recorder_takes_no_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert commlens(monkeypatch, command, write(tmp_path / "run")) == 1
    assert "commlens 0.1 takes no requests" in one_line(capsys)


def test_a_rank_that_was_killed_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("commlens.cli.requests.ANSWER_S", 0.1)
    assert commlens(monkeypatch, "pause", write(tmp_path / "run", control=[])) == 1
    assert "rank 0" in (told := one_line(capsys))
    assert "did not answer" in told


@pytest.mark.parametrize("steps", ["0", "1001", "many"])
def test_a_capture_of_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: str) -> None:
    run = write(tmp_path / "run", control=[])
    assert commlens(monkeypatch, "capture", run, "--steps", steps) == 2
    assert not (run / CONTROL_FILE).exists()


def test_watch_shows_a_run_that_has_ended_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = [{"first_step": 4, "steps": 2, "state": "done", "clear_step": 7}]
    told = {"windows": windows, "paused": [{"from_step": 9}], "sampled_steps": ":9"}
    run = write(tmp_path / "run", end={"ns": 2_000 * MS, "how": "exit"}, **told)
    assert commlens(monkeypatch, "watch", run) == 0
    shown = capsys.readouterr().out
    for words in (
        "nothing is known of rank 1",
        "this is the end",
        "steps 4-5",
        "rank 0 are not written",
        "COMMLENS_STEPS=:9",
        "ended",
    ):
        assert words in " ".join(shown.split())
    assert " 10 " in shown  # steps, and ms of each


def test_watch_of_a_run_that_begins_shows_that_there_is_nothing_yet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run_info(tmp_path / "run", {"run_id": "made", "world_size": 2})
    assert commlens(monkeypatch, "watch", "--once", tmp_path) == 0
    assert "none has written anything yet" in capsys.readouterr().out
