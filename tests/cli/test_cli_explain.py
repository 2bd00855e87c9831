"""`commlens report --explain ID`, predicted gains in the report, and the track record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from analyzers.data_centres import EVEN, MACHINES, job_on, truths_of
from analyzers.model_tables import resnet
from command_line import commlens
from synthetic import write_run

from commlens.analyzers.whatif.buckets import BucketSettings
from commlens.trace.ledger import Entry, append


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-50 with tiny buckets on a network of 2 ms a message."""
    from dataclasses import replace

    job = replace(
        job_on(MACHINES[0], 8, resnet(50), 64),
        alpha_ms=2.0,
        ns_per_byte=0.2,
        settings=BucketSettings(bucket_cap_mb=0.01),
    )
    return write_run(tmp_path_factory.mktemp("explain") / "run", truths_of(job, EVEN, (0.0,) * 8, 1))


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("COMMLENS_LEDGER", str(path))
    monkeypatch.setenv("COLUMNS", "80")
    return path


def tried(verdict: str, gain_ms: float, predicted_ms: float, fix: str = "ddp.bucket_cap_mb=8") -> Entry:
    measured = {"before_ms": 100.0, "after_ms": 100 - gain_ms, "gain_ms": gain_ms}
    span = {"low_ms": gain_ms - 1, "high_ms": gain_ms + 1}
    wanted = {"step_ms": 0.0, "gain_ms": predicted_ms, "low_ms": predicted_ms - 1, "high_ms": predicted_ms + 1}
    return Entry("2026-11-21", fix, verdict, measured | span, wanted)


def test_the_report_names_the_fix_and_the_gain(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commlens(monkeypatch, "report", run) == 0
    out = capsys.readouterr().out
    assert "bucket-size" in out and "90 % interval" in out and "--fix" in out
    assert "on this account" not in out


def test_the_track_record_is_quoted(
    run: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append(tried("confirmed", 20, 21), ledger)
    append(tried("no effect", 0, 9), ledger)
    append(tried("worse", -5, 3, "ddp.static_graph=1"), ledger)
    ledger.write_bytes(ledger.read_bytes() + b"not a line\n")
    assert commlens(monkeypatch, "report", run, "--format", "json") == 0
    record = {each["change"]: each for each in json.loads(capsys.readouterr().out)["track_record"]}
    assert record["ddp.bucket_cap_mb"] == {
        "change": "ddp.bucket_cap_mb", "tried": 2, "confirmed": 1, "predicted": 2, "within": 1, "error_percent": 5.0
    }  # fmt: skip
    assert record["ddp.static_graph"]["confirmed"] == 0
    assert commlens(monkeypatch, "report", run) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "tried 2 times before on this account, confirmed 1 of 2; predicted gains were off by 5 % of the step" in out


def test_a_page_for_a_finding_and_for_a_technique(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commlens(monkeypatch, "report", run, "--explain", "bucket-size") == 0
    assert "wrong if" in capsys.readouterr().out
    for name in ("powersgd", "C9"):
        assert commlens(monkeypatch, "report", run, "--explain", name) == 0
        out = capsys.readouterr().out
        assert "low rank: PowerSGD" in out and "not for" in out and "lossy" in out


def test_an_unknown_page_says_what_there_is(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commlens(monkeypatch, "report", run, "--explain", "nothing") == 2
    assert "no finding and no technique is called 'nothing'; this report has bucket-size" in capsys.readouterr().err
