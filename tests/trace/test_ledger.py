"""The ledger: appended, readable after damage, where the user keeps state."""

import json
from pathlib import Path

import pytest

from commlens.errors import TraceError, WriteError
from commlens.trace.ledger import Entry, append, ledger_path, read
from commlens.trace.models import model_signature

MEASURED = {"before_ms": 100.0, "after_ms": 80.0, "gain_ms": 20.0, "low_ms": 18.0, "high_ms": 22.0}
PREDICTED = {"step_ms": 81.0, "gain_ms": 19.0, "low_ms": 17.0, "high_ms": 21.0}
FIRST = Entry("2026-01-02T03:04:05+00:00", "ddp.bucket_cap_mb=50", "confirmed", MEASURED, PREDICTED, "2.13", "gloo", 2)
SECOND = Entry("2026-01-03T03:04:05+00:00", "ddp.comm_hook=bf16", "worse", MEASURED, model="abc")


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger.jsonl"
    assert read(path) == ([], 0)
    append(FIRST, path)
    append(SECOND, path)
    assert read(path) == ([FIRST, SECOND], 0)
    assert path.read_text().count("\n") == 2


def test_a_line_broken_off_costs_that_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(FIRST, path)
    path.write_bytes(path.read_bytes()[:-20])
    append(SECOND, path)
    assert read(path) == ([SECOND], 1)


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\x00\xfe",
        b"[]",
        b"3",
        b"{}",
        b"[" * 100_000,
        json.dumps({"date": "d", "fix": "f", "verdict": "v"}).encode(),
        json.dumps({"date": "d", "fix": 1, "verdict": "v", "measured": MEASURED}).encode(),
        json.dumps({"date": "d", "fix": "f", "verdict": "v", "measured": MEASURED | {"gain_ms": "20"}}).encode(),
        json.dumps({"date": "d", "fix": "f", "verdict": "v", "measured": MEASURED, "predicted": 3}).encode(),
        b'{"date": "d", "fix": "f", "verdict": "v", "measured": {"gain_ms": NaN, "low_ms": 1, "high_ms": 2}}',
    ],
)
def test_damage_is_passed_over_and_counted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    append(FIRST, path)
    with path.open("ab") as file:
        file.write(line + b"\n\n")
    append(SECOND, path)
    assert read(path) == ([FIRST, SECOND], 1)


def test_fields_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(SECOND, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}) + "\n")
    assert read(path) == ([SECOND], 0)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMMLENS_LEDGER", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert ledger_path() == Path("/home/someone/.local/state/commlens/ledger.jsonl")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert ledger_path() == Path("/state/commlens/ledger.jsonl")
    monkeypatch.setenv("COMMLENS_LEDGER", "~/mine.jsonl")
    assert ledger_path() == Path("/home/someone/mine.jsonl")


def test_a_place_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="COMMLENS_LEDGER"):
        append(FIRST, tmp_path)
    with pytest.raises(TraceError, match="COMMLENS_LEDGER"):
        read(tmp_path)


def test_the_signature_is_of_shapes_not_of_names() -> None:
    def info(name: str, *shape: int) -> dict[str, object]:
        parameter = {"name": name, "shape": list(shape), "dtype": "float32", "trainable": True}
        return {"models": [{"kind": "DDP", "name": name, "parameters": [parameter]}]}

    assert model_signature(info("a", 3, 4)) == model_signature(info("b", 3, 4))
    assert model_signature(info("a", 3, 4)) != model_signature(info("a", 4, 3))
    assert model_signature({"models": []}) is None
    assert model_signature({"models": [{"parameters": []}]}) is None
