"""The calibration file, and how a run offers it."""

import json
from pathlib import Path

import pytest
from synthetic_run import Maker

from commlens.errors import NewerFormatError, TraceError, WriteError
from commlens.trace import open_run
from commlens.trace.calibration import (
    CALIBRATION_FILE,
    INTER,
    INTRA,
    Calibration,
    CalibrationEntry,
    MadeWith,
    calibrated_as,
    read_calibration,
    write_calibration,
)

ENTRY = CalibrationEntry("all_reduce", (0, 1), 2, INTRA, (256, 1024), (12.5, 14.25))
MADE = Calibration(
    "commlens calibrate x -- torchrun",
    MadeWith("2.13.0", "gloo"),
    (ENTRY, CalibrationEntry("send", (), 2, None, (64,), (3.0,))),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "peaks.json"
    write_calibration(path, MADE)
    assert read_calibration(path) == MADE
    other = Calibration("again", MadeWith("", ""), ())
    write_calibration(path, other)
    assert read_calibration(path) == other
    assert [each.name for each in tmp_path.iterdir()] == ["peaks.json"]


def test_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="cannot write"):
        write_calibration(tmp_path / "none" / "peaks.json", MADE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"entries": [{"op": "all_reduce"}]}, "it lacks 'ranks'"),
        ({"entries": 3}, "not iterable"),
        ({"made_with": None}, "damaged"),
        ({"kind": "other"}, "is no calibration"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, change: dict[str, object], why: str) -> None:
    path = tmp_path / CALIBRATION_FILE
    write_calibration(path, MADE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TraceError, match=why) as caught:
        read_calibration(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "commlens calibrate" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("op", "all_ruduce", "all_ruduce"),
        ("scope", "here", "'here'"),
        ("bytes", [256], "do not go together"),
        ("bytes", [1024, 256], "do not ascend"),
        ("bytes", [0, 256], "do not go together"),
        ("time_us", [1.0, 0.0], "not positive"),
        ("time_us", [1.0, float("nan")], "not positive"),
        ("time_us", [1.0, float("inf")], "not positive"),
        ("time_us", ["x", 1.0], "could not convert"),
    ],
)
def test_numbers_no_measurement_gives_are_refused(tmp_path: Path, field: str, value: object, why: str) -> None:
    path = tmp_path / CALIBRATION_FILE
    write_calibration(path, Calibration("x", MadeWith("", ""), (ENTRY,)))
    content = json.loads(path.read_text())
    content["entries"][0][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(TraceError, match=why):
        read_calibration(path)


def test_a_cut_file_a_newer_one_and_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / CALIBRATION_FILE
    write_calibration(path, MADE)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="truncated or damaged"):
        read_calibration(path)
    path.write_text(whole.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(NewerFormatError, match="pip install -U commlens"):
        read_calibration(path)
    with pytest.raises(TraceError, match="No such file"):
        read_calibration(tmp_path / "none.json")
    path.write_bytes(b"\x00\xff binary")
    with pytest.raises(TraceError, match="neither a calibration nor a log of nccl-tests"):
        read_calibration(path)


def test_messages_between_two_ranks_are_calibrated_as_sends() -> None:
    assert [calibrated_as(op) for op in ("recv", "send", "all_reduce")] == ["send", "send", "all_reduce"]


def test_a_run_offers_the_calibration_in_its_folder(make: Maker) -> None:
    path = make.run()
    assert open_run(path).calibration is None
    write_calibration(path / CALIBRATION_FILE, MADE)
    assert open_run(path).calibration == MADE


def test_a_merged_run_offers_that_of_the_first_folder_with_one(make: Maker) -> None:
    first, second = make.run("a", run_id="same"), make.run("b", run_id="same")
    make.rank(first, 1, run_id="same")
    for path in (first, second):
        for info in path.glob("rank-*/rank.json"):
            info.write_text(json.dumps(json.loads(info.read_text()) | {"run_id": "same"}))
    write_calibration(second / CALIBRATION_FILE, MADE)
    assert open_run([first, second]).calibration == MADE
    write_calibration(first / CALIBRATION_FILE, Calibration("first", MadeWith("", ""), (ENTRY,)))
    merged = open_run([first, second]).calibration
    assert merged is not None
    assert merged.source == "first"


def test_a_damaged_calibration_is_a_note(make: Maker) -> None:
    path = make.run()
    (path / CALIBRATION_FILE).write_text("{")
    run = open_run(path)
    assert run.calibration is None
    assert [note for note in run.notes if "calibration" in note] == [
        f"the calibration is left out: {path / CALIBRATION_FILE} is truncated or damaged;"
        " make it again with: commlens calibrate"
    ]


def test_scopes_are_the_two_words_of_the_design() -> None:
    assert (INTRA, INTER) == ("intra-node", "inter-node")
