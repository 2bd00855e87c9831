"""`commlens whatif`: what it prints and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from blocking_job import BlockingJob, even_job, slower
from synthetic import write_run
from typer.testing import CliRunner

import commlens
from commlens.analyzers.whatif.asked import simulator_of, what_if
from commlens.cli.app import app
from commlens.errors import UsageError
from commlens.render.whatif import print_what_if
from commlens.render.words import open_console
from commlens.trace.changes import parse_all

SIZES = (1_000_000, 4_000_000, 16_000_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four ranks, three all_reduces a step of 1 ms + 1 ns a byte; rank 1 is 10 ms late."""
    job = slower(even_job(steps=30), 1, 10_000_000)
    job = BlockingJob(job.work, np.array([1_000_000 + size for size in SIZES]), bytes=SIZES)
    return write_run(tmp_path_factory.mktemp("whatif") / "run", job.truths())


def answer(run: Path, *arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["whatif", str(run), *arguments, "--format", "json"], catch_exceptions=False)
    assert result.exit_code == 0
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_changes_are_predicted_together_and_each_by_itself(run: Path) -> None:
    found = answer(run, "--set", "link.bandwidth=x2", "--set", "straggler.remove")
    assert set(found) == {"schema_version", "baseline", "scenarios", "notes", "abstention"}
    both, link, late = found["scenarios"]  # type: ignore[misc]
    assert both["set"] == ["link.bandwidth=x2", "straggler.remove=1"]
    assert set(both["predicted"]) == {"step_ms", "gain_ms", "low_ms", "high_ms"}
    assert both["predicted"]["gain_ms"] == pytest.approx(10 + sum(SIZES) / 2e6, abs=0.5)
    gains = [each["predicted"]["gain_ms"] for each in (link, late)]
    assert sum(gains) == pytest.approx(both["predicted"]["gain_ms"], abs=0.1)
    baseline = found["baseline"]
    assert baseline["replayed_ms"] == pytest.approx(baseline["measured_ms"], rel=1e-3)  # type: ignore[index]


def test_a_sweep_goes_in_equal_factors_and_keeps_what_is_set(run: Path) -> None:
    found = answer(run, "--set", "straggler.remove=1", "--sweep", "link.bandwidth=x1:x4:3")
    assert [each["set"][1] for each in found["scenarios"]] == [  # type: ignore[attr-defined]
        "link.bandwidth=x1", "link.bandwidth=x2", "link.bandwidth=x4"
    ]  # fmt: skip
    steps = [each["predicted"]["step_ms"] for each in found["scenarios"]]  # type: ignore[attr-defined]
    assert steps == sorted(steps, reverse=True)


def test_without_changes_the_usual_questions_are_asked(run: Path) -> None:
    asked = {each["set"][0] for each in answer(run)["scenarios"]}  # type: ignore[attr-defined]
    assert asked == {
        "overlap=perfect", "link.bandwidth=x2", "link.latency=x0.5", "imbalance.remove=1", "straggler.remove=1"
    }  # fmt: skip


def test_what_is_no_change_is_a_mistake_of_the_user(run: Path) -> None:
    for arguments in (["--set", "ddp.bucket=1"], ["--sweep", "link.bandwidth=4:1"], ["--sweep", "overlap=a:b"]):
        with pytest.raises(UsageError):
            CliRunner().invoke(app, ["whatif", str(run), *arguments], catch_exceptions=False)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_page_fits_and_says_what_it_rests_on(run: Path, width: int) -> None:
    sets = [parse_all("link.bandwidth=x2"), parse_all("ddp.bucket_cap_mb=50")]
    page = io.StringIO()
    print_what_if(what_if(simulator_of(commlens.open_run(run)), sets), open_console(page, width))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert lines[0].startswith("A step took ")
    assert "link.bandwidth=x2" in text
    assert "ddp.bucket_cap_mb=50: not predicted, no DDP model reduces gradients in this run" in text
    assert "assumed: compute is as fast beside communication" in text


def test_a_file_is_written_once(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.txt"
    arguments = ["whatif", str(run), "--set", "overlap=perfect", "-o", str(target)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert "overlap=perfect" in target.read_text()
    with pytest.raises(commlens.errors.WriteError):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_every_technique_is_judged_with_all(run: Path) -> None:
    found = answer(run, "--all")
    considered = {each["id"]: each for each in found["considered"]}  # type: ignore[attr-defined]
    assert len(considered) > 70
    assert considered["mend-straggler"]["verdict"] == "advised"
    assert considered["half-gradients"]["verdict"] in ("rejected", "not known")
    names = {each["set"][0].partition("=")[0] for each in found["scenarios"]}  # type: ignore[attr-defined]
    assert {"link.bandwidth", "link.latency", "world_size"} <= names


def test_all_as_text_says_why_not(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, ["whatif", str(run), "--all"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Rejected, and the number that says so" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert not any(line.endswith(" ") for line in result.stdout.splitlines())


def test_all_goes_with_no_changes(run: Path) -> None:
    with pytest.raises(UsageError, match="leave out"):
        CliRunner().invoke(app, ["whatif", str(run), "--all", "--set", "overlap=none"], catch_exceptions=False)


def test_a_program_asks_the_same(run: Path) -> None:
    both, faster = commlens.simulate(
        commlens.open_run(run), "straggler.remove,link.bandwidth=x2", "link.bandwidth=x2"
    ).scenarios
    assert both.predicted is not None and faster.predicted is not None
    assert both.predicted.gain_ms > faster.predicted.gain_ms > 0
    with pytest.raises(UsageError, match="no change"):
        commlens.simulate(commlens.open_run(run), "nothing=1")
