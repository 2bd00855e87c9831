"""What is given away names nobody: not in any string of the report, not in any form it is written in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import commlens
from counted_job import link, two_hosts
from page_runs import RUNS, report_of
from synthetic import write_run

from commlens import Report, analyze, open_run
from commlens.analyzers.redact import redact
from commlens.ui.html import to_html

HOST, USER, LINK, SCRIPT = "zqhost-17.corp.example", "zquser", "zqnic0", "zqscript.py"
COMMAND = [f"/home/{USER}/zqproject/{SCRIPT}", "--name", "zqargument", "--data=/mnt/zqdata"]
RARE = "zq"
# As they stand within sentences, and how they may be written otherwise.
SAID = {
    "host": HOST,
    "its short name": "zqhost-17",
    "in capitals": "ZQHOST-17",
    "within a file's name": "zqhost-17_3344.pt.trace.json.gz",
    "user": USER,
    "somebody's mail": "zqother@zqmail.example",
    "link": LINK,
    "path": "/mnt/zqdisk/a b",
    "folder of a user": f"/home/{USER}/x",
    "home": "~/zqfolder/file",
    "path on Windows": r"C:\zqusers\x",
    "file": "zqtrace-0.json",
    "file below": "zqfolder/zqtrace-0.json.gz",
    "address": "http://zqserver.example:8080/x",
    "store": "tcp://zqserver:29500",
    "command": " ".join(COMMAND),
}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two hosts with rare names, read links, and a note that names a file."""
    path = tmp_path_factory.mktemp("zqtmp") / "zqruns" / "20260101-zqscript-ab12"
    job = two_hosts(steps=40, links=(link(LINK),), carries={LINK: 1.0})
    truths = {}
    for rank, truth in job.truths().items():
        host = HOST if rank == 0 else "zqhost-18.corp.example"
        truths[rank] = replace(truth, info=truth.info | {"host": host, "run_id": path.name})
    write_run(path, truths)
    head = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(head | {"command": COMMAND, "run_id": path.name}))
    return path


@pytest.fixture(scope="module")
def report(named: Path) -> Report:
    found = analyze(open_run(named))
    notes = (*found.coverage.notes, f"left out: {named}/zqother.txt: of no format", "rank 0 wrote to /tmp/zqfallback")
    return replace(found, coverage=replace(found.coverage, notes=notes))


def planted(value: Any, plant: Callable[[str], str]) -> Any:
    """Any part of a report with every string changed."""
    if isinstance(value, str):
        return plant(value)
    if isinstance(value, tuple):
        return tuple(planted(each, plant) for each in value)
    if isinstance(value, dict):
        return {planted(key, plant): planted(each, plant) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: planted(getattr(value, each.name), plant) for each in fields(value)})
    return value


def dumped(report: Report) -> str:
    return json.dumps(report.to_dict()).casefold()


def test_the_run_has_what_is_to_be_removed(report: Report) -> None:
    assert report.run.hosts and report.links and report.run.command
    for name in (HOST, USER, LINK, SCRIPT, "zqruns", "zqother", "zqfallback"):
        assert name in dumped(report)


@pytest.mark.parametrize("what", SAID)
def test_no_string_of_the_report_tells_it(report: Report, what: str) -> None:
    """Planted in every string: facts, titles, evidence, actions, notes, abstentions, keys."""
    for plant in (lambda text: f"{text} on {SAID[what]}, twice: ({SAID[what]})", lambda _: SAID[what]):
        spoilt = replace(planted(report, plant), run=replace(planted(report.run, plant), hosts=report.run.hosts))
        spoilt = replace(spoilt, ranks=report.ranks, links=report.links)
        spoilt = replace(spoilt, run=replace(spoilt.run, command=report.run.command, path=report.run.path))
        assert RARE not in dumped(redact(spoilt))


def test_the_same_name_has_the_same_placeholder(report: Report) -> None:
    told = redact(report)
    assert told.run.hosts == ("host-1", "host-2")
    assert [line.host for line in told.ranks] == ["host-1", "host-2"]
    assert {(line.host, line.device) for line in told.links} == {("host-1", "link-1"), ("host-2", "link-1")}
    assert (told.run.path, told.run.run_id, told.run.command) == ("run-1", "run-1", ("command-1",))
    assert any(re.fullmatch(r"left out: run-1/file-\d: of no format", note) for note in told.coverage.notes)
    assert redact(told).to_dict() == redact(redact(told)).to_dict()


@pytest.mark.parametrize("name", RUNS)
def test_everything_else_stays(name: str) -> None:
    """Numbers, ranks, operations and what was found are the same."""
    before, after = report_of(name), redact(report_of(name))

    def numbers(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [each for part in value.values() for each in numbers(part)]
        if isinstance(value, list):
            return [each for part in value for each in numbers(part)]
        return [] if isinstance(value, str) else [value]

    assert numbers(before.to_dict()) == numbers(after.to_dict())
    assert [finding.id for finding in after.findings] == [finding.id for finding in before.findings]
    assert [line.op for line in after.collectives] == [line.op for line in before.collectives]
    assert (after.critical_path is None) == (before.critical_path is None)
    if before.critical_path and after.critical_path:
        assert list(after.critical_path.by_kind) == list(before.critical_path.by_kind)


def test_ordinary_words_are_no_names() -> None:
    """Of the house's own sentences nothing is taken for a path, a file or an address."""
    for text in (
        "alpha + bytes / bandwidth, 1.5 GB/s and ms/step, 3/4 of them",
        "make buckets of 0.87 MiB: ddp.bucket_cap_mb=50, torch.nn.parallel.DistributedDataParallel(model)",
        "steps 4-9: 12:30, torch 2.13.0+cpu, NCCL 2.27.3, ranks 0-3, 8; group 0#2 (default_pg)",
        "see run.json and rank.json; transfer = alpha: beta; at::native::add, c10::cuda::f; 12:30:45",
    ):
        report = report_of("healthy")
        spoken = replace(report, coverage=replace(report.coverage, notes=(text,)))
        assert redact(spoken).coverage.notes == (text,)


ADDRESSES = (
    "10.1.2.3",
    "10.1.2.3:29500",
    "fe80::1c2d:3e4f",
    "fe80::1%eth9",
    "2001:db8:0:1:2:3:4:5",
    "aa:bb:cc:dd:ee:0f",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(address: str) -> None:
    report = report_of("healthy")
    told = redact(replace(report, coverage=replace(report.coverage, notes=(f"no answer from {address}, 3 times",))))
    assert told.coverage.notes == ("no answer from address-1, 3 times",)


def test_a_host_called_like_a_word_leaves_sentences_alone() -> None:
    report = report_of("healthy")  # its host is called "host"
    assert report.run.hosts == ("host",)
    told = redact(replace(report, coverage=replace(report.coverage, notes=("the host waits",))))
    assert told.run.hosts == ("host-1",)
    assert told.coverage.notes == ("the host waits",)


@pytest.mark.parametrize("form", ["text", "json", "html"])
def test_in_every_form_of_the_report(
    named: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert commlens(monkeypatch, "report", named, "--format", form) == 0
    assert RARE in _read(capsys.readouterr().out)
    assert commlens(monkeypatch, "report", named, "--format", form, "--redact") == 0
    out, err = capsys.readouterr()
    assert RARE not in _read(out)
    assert RARE not in err
    assert "host-2" in out


def _read(text: str) -> str:
    """Without the packed script of plotly, in which anything may occur by chance."""
    head, mark, tail = text.casefold().partition('id="plotly-js">')
    return head + mark + tail.partition("</script>")[2]


def test_figures_are_made_of_what_is_left(report: Report) -> None:
    assert RARE in _read(to_html(report))
    assert RARE not in _read(to_html(redact(report)))
