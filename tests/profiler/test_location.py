"""The run's name and folder: agreed without waiting, local where the wanted place fails."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from commlens.profiler import live
from commlens.profiler.attach import _after_init, requested_folder
from commlens.profiler.location import Agreement, make_run_folder


class Store:
    """The one method of torch's stores that is used, with its compare-and-set semantics."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.lock = threading.Lock()

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        with self.lock:
            if self.values.get(key, "") == expected:
                self.values[key] = desired
            return self.values[key].encode()


class DeadStore:
    def compare_set(self, *_: Any) -> bytes:
        raise RuntimeError("connection closed")


class SlowStore:
    def __init__(self) -> None:
        self.release = threading.Event()

    def compare_set(self, *_: Any) -> bytes:
        self.release.wait(30)
        return b"late"


@pytest.fixture(autouse=True)
def _fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_warned", set())


def test_all_ranks_get_the_first_ones_name() -> None:
    store = Store()
    names = {Agreement(store).run_id() for _ in range(8)}
    assert len(names) == 1


def test_the_torch_store_agrees_too() -> None:
    dist = pytest.importorskip("torch.distributed")
    store = dist.HashStore()
    assert Agreement(store).run_id() == Agreement(store).run_id()


def test_a_new_recording_of_the_same_job_has_a_new_name() -> None:
    store = Store()
    assert Agreement(store, 1).run_id() != Agreement(store, 2).run_id()


def test_without_a_store_ranks_of_one_job_still_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "29400")
    first = Agreement(DeadStore()).run_id()
    assert Agreement(DeadStore()).run_id() == first
    monkeypatch.setenv("MASTER_PORT", "29401")
    assert Agreement(DeadStore()).run_id() != first


def test_a_store_that_does_not_answer_is_not_waited_for() -> None:
    store = SlowStore()
    asked = time.monotonic()
    agreement = Agreement(store)
    assert time.monotonic() - asked < 5, "construction is on the job's thread and must not wait"
    assert agreement.run_id(patience_s=0.01) != "late"
    store.release.set()


def test_missing_parents_are_made(tmp_path: Path) -> None:
    assert make_run_folder(str(tmp_path / "a" / "b"), "run") == tmp_path / "a" / "b" / "run"


def test_an_impossible_folder_falls_back_to_a_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    made = make_run_folder(str(tmp_path / "file" / "out"), "run")
    assert made.is_dir()
    assert made.is_relative_to(tmp_path / "tmp")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/x", "S3://bucket", "gs://bucket/runs", "memory://x"])
def test_other_storage_is_recorded_into_the_usual_folder_which_rank_0_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMMLENS", address)
    monkeypatch.setattr("commlens.profiler.recorder.start", asked.append)
    for rank in (1, 0, 0):  # init_process_group may be called again
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
        _after_init()
        assert (capsys.readouterr().err == "") == (rank == 1 or len(asked) == 3)
    assert asked == [str(tmp_path / "commlens-runs")] * 3


def test_what_is_said_of_other_storage_is_one_line_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("COMMLENS", "s3://key:secret@bucket/x")
    monkeypatch.setattr("commlens.profiler.recorder.start", lambda folder: None)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    _after_init()
    assert capsys.readouterr().err == (
        f"commlens: a job does not write to s3://, as COMMLENS asks: recording into {tmp_path / 'commlens-runs'};"
        " copy the run when the job has ended (aws s3 sync)\n"
    )


@pytest.mark.parametrize("value", ["file:///{}", "local://{}", "{}"])
def test_a_folder_of_this_machine_may_be_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("COMMLENS", value.format(tmp_path).replace("////", "///"))
    assert requested_folder() == str(tmp_path)


def test_no_place_at_all_is_an_error_for_the_boundary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file" / "tmp"))
    with pytest.raises(OSError):
        make_run_folder(str(tmp_path / "file" / "out"), "run")
