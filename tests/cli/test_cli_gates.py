"""`commlens report --fail-on`: exit codes, JUnit XML and annotations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from blocking_job import even_job, slower
from command_line import commlens
from synthetic import MS, training_rank, write_run

from commlens.analyzers.gating import PASSED, TRIPPED, UNJUDGED, Outcome
from commlens.render.gates import gate_lines, github_commands, junit

SUITE = ("name", "timestamp", "hostname", "tests", "failures", "errors", "time", "id", "package")


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    """45 of 100 ms exposed; nobody waits for anybody."""
    return write_run(tmp_path / "run", {rank: training_rank(14) for rank in range(2)})


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["exposed>50%"], 0),
        (["exposed>40%"], 3),
        (["exposed>50%", "step>120ms", "finding:straggler-rank"], 0),
        (["exposed>50%", "step>99ms"], 3),
        (["finding:slow-group"], 1),
        (["finding:slow-group", "exposed>40%"], 3),
        (["exposed>15"], 2),
        (["finding:oops"], 2),
    ],
)
def test_exit_codes(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gates: list[str], code: int
) -> None:
    options = [part for gate in gates for part in ("--fail-on", gate)]
    assert commlens(monkeypatch, "report", run_path, "--format", "json", *options) == code
    out, err = capsys.readouterr()
    if code == 2:
        assert (out, err.count("\n")) == ("", 1)  # before anything was analysed
        return
    assert json.loads(out)["time_budget"]["exposed_ms"] == 45
    assert [line.split(": ")[1] for line in err.splitlines()[: len(gates)]] == [f"gate {gate}" for gate in gates]
    assert err.splitlines()[len(gates) :] == (
        ["commlens: not every gate could be judged, so this is no pass (see above)"] if code == 1 else []
    )


def test_a_late_rank_trips_its_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path / "late", slower(even_job(ranks=3), 2, 20 * MS).truths())
    assert commlens(monkeypatch, "report", path, "--fail-on", "finding:straggler-rank") == 3
    out, err = capsys.readouterr()
    assert "rank 2 is always late" in " ".join(out.split())
    assert err.startswith("commlens: gate finding:straggler-rank: tripped: rank 2 is always late")


def test_a_report_in_a_file_has_gates_too(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, gates = tmp_path / "report.txt", tmp_path / "gates.xml"
    assert commlens(monkeypatch, "report", run_path, "-o", out, "--fail-on", "exposed>40%", "--junit", gates) == 3
    assert "Where a step goes" in out.read_text(encoding="utf-8")
    assert ElementTree.parse(gates).getroot()[0].get("failures") == "1"
    assert commlens(monkeypatch, "report", run_path, "--junit", gates) == 2
    assert "give --fail-on as well" in capsys.readouterr().err


def hostile() -> list[Outcome]:
    said = 'group <b>&"\x1b[31m\x00\ud800]]>\n::error title=a,b:c::100 %'
    return [Outcome(f"finding:{said}", state, said) for state in (PASSED, TRIPPED, UNJUDGED)]


def test_junit_has_what_readers_of_junit_want() -> None:
    """Elements and attributes, and their order, of the schema that Ant's JUnit task's output follows."""
    root = ElementTree.fromstring(junit(hostile(), "report of <run>", "2026-01-02T03:04:05").split("\n", 1)[1])
    assert (root.tag, root.attrib) == ("testsuites", {})
    (suite,) = root
    assert all(suite.get(name) is not None for name in SUITE)
    assert [child.tag for child in suite] == [
        "properties",
        "testcase",
        "testcase",
        "testcase",
        "system-out",
        "system-err",
    ]
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    cases = suite.findall("testcase")
    assert all(case.get(name) for case in cases for name in ("name", "classname", "time"))
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["error"]]
    for case in cases[1:]:
        assert case[0].get("type")
        assert case[0].get("message") == 'group <b>&"?[31m??]]> ::error title=a,b:c::100 %'


def test_annotations_are_one_line_each_and_escaped() -> None:
    tripped, unjudged = github_commands(hostile())
    assert tripped.startswith("::error title=commlens%3A finding%3Agroup <b>&")
    head, _, said = tripped.removeprefix("::error title=").partition("::")
    assert not set(":,\n\r") & set(head)
    assert said.endswith("100 %25")
    assert "\n" not in tripped + unjudged
    assert unjudged.partition("::error title=")[2].partition("::")[0].endswith("cannot be judged")


def test_lines_of_any_length_are_cut() -> None:
    (line,) = gate_lines([replace(hostile()[0], said="x" * 10_000)])
    assert line.endswith("...")
    assert len(line) < 5000
