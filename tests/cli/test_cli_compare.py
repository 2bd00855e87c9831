"""`commlens compare`, as a user and a CI system meet it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from blocking_job import even_job, slower
from command_line import commlens
from synthetic import MS, RankTruth, write_run

from commlens.render.words import milliseconds

HOSTILE = '<b>&"\x1b[31m]]>::error::,%\n'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A healthy job of four ranks, and the same with rank 2 late by 20 ms and other message sizes."""
    path = tmp_path_factory.mktemp("runs")
    late = replace(slower(even_job(seed=1), 2, 20 * MS), bytes=[4096, 8192, 8192])
    return write_run(path / "even", even_job().truths()), write_run(path / "late", late.truths())


def hostile_run(path: Path, transfer_ns: int = 2 * MS) -> Path:
    """A job whose group has such a name."""
    job = even_job(ranks=2)
    job = replace(job, transfer=job.transfer * 0 + transfer_ns)
    truths = {}
    for rank, truth in job.truths().items():
        info = truth.info | {
            "groups": [truth.info["groups"][0] | {"name": HOSTILE}],
            "environment": {f"NCCL_{HOSTILE}": f"{HOSTILE}{transfer_ns}"},
        }
        truths[rank] = replace(truth, collectives=[replace(row, group=HOSTILE) for row in truth.collectives], info=info)
    return write_run(path, truths)


def test_the_text(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert commlens(monkeypatch, "compare", *runs) == 0
    out, err = capsys.readouterr()
    assert err == ""
    words = " ".join(out.split())
    assert "Steps became longer: from 102 to 122 ms (+19." in words
    assert "Most of it: exposed wait, +1" in words
    assert "New finding: rank 2 is always late" in words
    step = next(line for line in out.splitlines() if line.startswith("step "))
    assert step.split()[:4] == ["step", "102", "122", "+19.9"]
    assert step.split()[-1] == "longer"
    assert next(line for line in out.splitlines() if line.startswith("exposed transfer")).split()[-1] != "longer"
    assert max(len(line) for line in out.splitlines() if str(runs[0].parent) not in line) <= 80


@pytest.mark.parametrize("columns", ["50", "80", "200"])
def test_numbers_of_the_text_are_those_of_the_json(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert commlens(monkeypatch, "compare", *runs) == 0
    lines = capsys.readouterr().out.splitlines()
    assert commlens(monkeypatch, "compare", *runs, "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    rows = {"step": said["step"], "exposed wait": said["time_budget"]["exposed_wait_ms"]}
    rows["compute"] = said["time_budget"]["compute_ms"]
    for name, pair in rows.items():
        cells = next(line for line in lines if line.startswith(f"{name} ")).removeprefix(name).split()
        assert cells[:2] == [milliseconds(pair["before_ms"]), milliseconds(pair["after_ms"])]
        assert cells[2] == f"{'+' if pair['change_ms'] > 0 else '-'}{milliseconds(abs(pair['change_ms']))}"
        if columns != "50":
            assert f"{pair['change_percent']:+.1f} %" in " ".join(cells)
        assert cells[-1] == pair["verdict"]


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["25%"], 0),
        (["19"], 3),
        (["5.5 %", "wait=90%"], 3),
        (["transfer=1%"], 0),
        (["wait=100ms", "25%"], 0),
        (["x"], 2),
        (["-3%"], 2),
        (["hidden=3%"], 2),
    ],
)
def test_gates(
    runs: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gates: list[str],
    code: int,
) -> None:
    options = [part for gate in gates for part in ("--max-regress", gate)]
    assert commlens(monkeypatch, "compare", *runs, *options, "--format", "json") == code
    out, err = capsys.readouterr()
    assert err.count("\n") == (1 if code == 2 else len(gates))
    if code != 2:
        assert json.loads(out)["findings"]["appeared"][0]["ranks"] == [2]


def test_junit_and_annotations(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = ["--max-regress", "5%", "--max-regress", "transfer=50%", "--max-regress", "unsplit=5%"]
    output = ["--junit", tmp_path / "gates.xml", "--annotations", "github"]
    for _ in range(2):  # the second time over its own file
        assert commlens(monkeypatch, "compare", *runs, *gates, *output) == 3
        err = capsys.readouterr().err
    suite = ElementTree.parse(tmp_path / "gates.xml").getroot().find("testsuite")
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [f"--max-regress {gate}" for gate in gates[1::2]]
    assert [[part.tag for part in case] for case in cases] == [["failure"], [], ["error"]]
    marks = [line for line in err.splitlines() if line.startswith("::error ")]
    assert [mark.split("::")[1] for mark in marks] == [
        "error title=commlens%3A --max-regress 5%25%3A tripped",
        "error title=commlens%3A --max-regress unsplit=5%25%3A cannot be judged",
    ]


def test_a_file_that_is_not_ours_is_not_replaced(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "thesis.xml"
    other.write_text("<thesis/>")
    for path in (other, tmp_path):
        assert commlens(monkeypatch, "compare", *runs, "--max-regress", "5%", "--junit", path) == 1
    assert other.read_text() == "<thesis/>"
    assert "is not JUnit XML of commlens" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--strict"], ["--junit", "x.xml"], ["--annotations", "github"]])
def test_options_of_gates_want_a_gate(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert commlens(monkeypatch, "compare", *runs, *option) == 2
    assert "give --max-regress as well" in capsys.readouterr().err


def test_what_is_not_alike_is_refused_unless_forced(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_run(tmp_path / "empty", {0: RankTruth()})
    junit = tmp_path / "gates.xml"
    assert commlens(monkeypatch, "compare", runs[0], empty, "--max-regress", "5%", "--junit", junit) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "commlens: gate --max-regress 5%: cannot be judged: the second run has no step" in err
    assert 'errors="1"' in junit.read_text()
    assert commlens(monkeypatch, "compare", runs[0], empty) == 1
    assert (
        "commlens: not comparable: the second run has no step that could be analysed (--force"
        in capsys.readouterr().err
    )
    assert commlens(monkeypatch, "compare", runs[0], empty, "--force") == 0
    out = capsys.readouterr().out
    assert "Not comparable: the second run has no step" in out
    assert commlens(monkeypatch, "compare", runs[0], empty, "--force", "--max-regress", "5%") == 1
    assert "step is not known in both runs" in capsys.readouterr().err


def test_runs_alike_bring_their_spread_in(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of the first job that differ by as much as the second run does."""
    noise = [part for k in (1, 2) for part in ("--noise", write_run(tmp_path / str(k), longer_job(k * 15 * MS)))]
    assert commlens(monkeypatch, "compare", *runs, "--max-regress", "5%") == 3
    capsys.readouterr()
    assert commlens(monkeypatch, "compare", *runs, *noise, "--max-regress", "5%") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "No difference between steps can be told" in out
    assert "What 3 runs of the first job differ by is in them." in out


def longer_job(ns: int) -> dict[int, RankTruth]:
    job = even_job(seed=ns)
    return replace(job, work=job.work + ns // 3).truths()


def test_runs_that_tell_no_noise(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commlens(monkeypatch, "compare", *runs, "--noise", runs[0]) == 2
    assert "is given twice" in capsys.readouterr().err
    assert commlens(monkeypatch, "compare", runs[0], runs[0]) == 2
    capsys.readouterr()
    empty = write_run(tmp_path / "empty", {0: RankTruth()})
    assert commlens(monkeypatch, "compare", *runs, "--noise", empty) == 1
    assert "tells no noise of it: " in capsys.readouterr().err


def test_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paths = hostile_run(tmp_path / "one"), hostile_run(tmp_path / "two", 4 * MS)
    junit = tmp_path / "gates.xml"
    gates: list[Any] = ["--max-regress", "1%", "--junit", junit, "--annotations", "github"]
    assert commlens(monkeypatch, "compare", *paths, *gates) == 3
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err + junit.read_text()
    assert '<b>&"?[31m]]>' in out
    assert len([line for line in err.splitlines() if line.startswith("::")]) == 1
    ElementTree.parse(junit)
