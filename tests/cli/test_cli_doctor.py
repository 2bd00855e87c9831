"""`commlens doctor` of a run, and what it says of a machine, from facts as they were collected elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import commlens
from healthy_run import ENVIRONMENT, LAST_NS, rank, write_healthy

from commlens.analyzers.health.machine import Built, Network, Torch, Trial
from commlens.analyzers.health.sights import sights
from commlens.analyzers.settings.interfaces import gloo_choice
from commlens.analyzers.settings.setting import KINDS, NOTED
from commlens.cli import machine
from commlens.render.checks import SCHEMA_VERSION, Check, Part, print_part
from commlens.render.machine import (
    SIGHTS,
    attaching_part,
    built_part,
    interfaces_part,
    sights_part,
    torch_part,
    trial_part,
    versions_part,
)
from commlens.render.words import open_console
from commlens.trace.schema import ALIVE_FILE


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    commlens(monkeypatch, "doctor", *arguments, "--format", "json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def check(found: dict[str, Any], title: str, name: str) -> dict[str, Any]:
    (section,) = [each for each in found["sections"] if each["title"] == title]
    return next(each for each in section["checks"] if each["name"] == name)


def test_a_healthy_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_healthy(tmp_path / "run")
    assert commlens(monkeypatch, "doctor", run, "--strict") == 0
    text = capsys.readouterr().out
    assert text.endswith("Healthy.\n")
    assert "FAIL" not in text
    assert "2 ranks have the same settings" in text


def test_the_json_of_a_healthy_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(monkeypatch, capsys, write_healthy(tmp_path / "run"))
    assert set(found) == {
        "schema_version",
        "producer",
        "about",
        "run",
        "healthy",
        "sections",
        "conflicts",
        "differences",
    }
    assert (found["schema_version"], found["about"], found["healthy"]) == (1, "run", True)
    assert found["producer"].startswith("commlens ")
    assert found["conflicts"] == found["differences"] == []
    assert check(found, "Recording", "ranks") == {
        "ok": True,
        "name": "ranks",
        "answer": "2 of 2",
        "next": "",
        "warning": False,
    }


def test_a_warning_fails_only_where_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_healthy(tmp_path / "run", rank(environment={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "ib0"}))
    assert commlens(monkeypatch, "doctor", run) == 0
    assert "Healthy: 2 warnings." in capsys.readouterr().out
    assert commlens(monkeypatch, "doctor", run, "--strict") == 1
    capsys.readouterr()
    found = said(monkeypatch, capsys, run)
    assert found["conflicts"] == [
        {
            "settings": {"GLOO_SOCKET_IFNAME": "ib0"},
            "kind": "breaks",
            "note": "there is no interface 'ib0' on this host",
            "next": "GLOO_SOCKET_IFNAME=eth0",
            "ranks": [1],
        }
    ]
    assert found["differences"][0]["values"] == [{"value": "not set", "ranks": [0]}, {"value": "ib0", "ranks": [1]}]


def test_a_run_that_was_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_healthy(tmp_path / "run", rank(end=None), world_size=4)
    assert commlens(monkeypatch, "doctor", run) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "FAIL ranks 2 of 4; nothing is known of ranks 2-3 next: give every part" in text
    assert "FAIL end rank 1 wrote no end, the last sign" in text
    assert ": killed, frozen, or busy in its own code" in text  # recorders used to leave no signs of that
    assert "Not healthy: 2 checks failed, 0 warnings." in text
    assert said(monkeypatch, capsys, run)["healthy"] is False
    (run / "rank-00001" / ALIVE_FILE).write_text(f"{LAST_NS:020d}\n")
    assert commlens(monkeypatch, "doctor", run) == 1
    assert ": killed, or frozen as a whole" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_an_exception_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = {"how": "exception", "error": "ValueError: planted", "ns": LAST_NS, "left_ns": LAST_NS}
    run = write_healthy(tmp_path / "run", rank(end=end))
    assert commlens(monkeypatch, "doctor", run) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "FAIL end rank 1 ended by ValueError: planted next: read the traceback" in text
    assert "Not healthy: 1 check failed" in text
    assert commlens(monkeypatch, "report", run) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "An exception ended the job: rank 1 ended by ValueError: planted" in text
    assert "cannot be told" not in text.partition("Findings")[0]
    write_healthy(tmp_path / "short", rank(end=None, gave_up={"error": "OSError: no space"}))
    assert commlens(monkeypatch, "doctor", tmp_path / "short") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "FAIL end of rank 1 recording stopped early (OSError: no space)" in text


def test_no_run_and_what_may_not_be_read_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commlens(monkeypatch, "doctor", tmp_path / "none") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    run = write_healthy(tmp_path / "run")
    for folder in ("rank-00000", "rank-00001"):  # one that can be read would be told of
        (run / folder / "phases.arrows").unlink()
        (run / folder / "phases.arrows").mkdir()
    assert commlens(monkeypatch, "doctor", run) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "cannot read" in err


def lines(part: Part, width: int) -> list[str]:
    page = io.StringIO()
    print_part(part, open_console(page, width))
    return page.getvalue().splitlines()


def test_wide_and_narrow_terminals_show_everything() -> None:
    known = Check(False, "a rather long name", "an answer of several words", "something to do about it")
    part = Part("Title", (known, Check(None, "warned", "x", warning=True)))
    assert lines(part, 100)[1:3] == [
        "  FAIL a rather long name an answer of several words",
        "                          next: something to do about it",
    ]
    narrow = lines(part, 30)
    assert max(map(len, narrow)) <= 30
    words = " ".join(" ".join(narrow).split())
    assert "FAIL a rather long name an answer of several words next: something to do about it warn warned x" in words


def only(part: Part) -> Check:
    (found,) = part.checks
    return found


def test_a_machine_without_torch() -> None:
    assert versions_part({"torch": None}).checks == (Check(False, "torch", "not installed", "pip install torch"),)
    assert only(attaching_part(None)).ok is False
    broken = only(torch_part(Torch(error="libcudart.so.12: cannot open shared object file")))
    assert (broken.ok, broken.answer) == (False, "libcudart.so.12: cannot open shared object file")
    assert only(torch_part(Torch(distributed=False))).ok is False
    assert not Torch(backends=("nccl",)).usable


def test_a_trial_that_shows_what_is_missing() -> None:
    assert only(trial_part(Trial(error="the job did not end within 120 s"))).ok is False
    trial = Trial(
        attached=True,
        seen=frozenset({"all_reduce"}),
        endless=("all_reduce",),
        phases={"forward": False, "backward": True},
        hooks={"forward": "no module"},
    )
    found = {each.name: each for each in trial_part(trial).checks}
    assert "broadcast" in found["collectives"].answer
    assert (found["collectives"].ok, found["their ends"].ok, found["backward"].ok) == (False, False, True)
    assert found["forward"].answer == "not seen: no module"


def test_what_is_seen_with_and_without_compiled_parts() -> None:
    def shown(native: bool, plugin: bool, gpus: bool = True, other: str = "") -> dict[str, Check]:
        return {each.name: each for each in sights_part(sights(("gloo", "nccl"), native, plugin), gpus, other).checks}

    bare = shown(native=False, plugin=False)
    assert (bare["NCCL without the plugin"].warning, bare["NCCL without the plugin"].next) == (True, "commlens build")
    assert "abstain" in bare["NCCL without the plugin"].answer
    assert "estimated" in bare["Gloo, synchronous"].answer
    assert "CUDA graphs" in bare
    built = shown(native=True, plugin=True)
    assert "(device)" in built["NCCL with the plugin"].answer
    assert "Gloo's thread began it" in built["Gloo, native recorder"].answer
    assert not any(each.warning for each in built.values())
    assert "other.so" in shown(native=True, plugin=False, other="other.so")["NCCL without the plugin"].next
    assert not shown(native=True, plugin=False, gpus=False)["NCCL without the plugin"].warning
    assert "CUDA graphs" not in shown(native=True, plugin=False, gpus=False)


def test_the_page_says_what_the_doctor_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8").replace("`", "")
    page = " ".join(text.split())
    for _, end, start in SIGHTS.values():
        assert end in page
        assert start in page
    assert all(f'"{kind}"' in page for kind in KINDS if kind != NOTED)
    assert f"JSON (schema {SCHEMA_VERSION})" in page


def test_parts_that_are_not_built_say_what_builds_them() -> None:
    parts = [Built("native recorder", compiler="/usr/bin/c++"), Built("NCCL plugin", obstacle="no compiler is there")]
    recorder, plugin = built_part(parts, Torch(backends=("gloo",))).checks
    assert recorder.next == "commlens build (by /usr/bin/c++)"
    assert plugin.answer == "not built: no compiler is there"


def test_a_machine_without_interfaces() -> None:
    part = interfaces_part(Network((), (), (), ""), [gloo_choice({}, (), "")])
    assert part.checks[0].warning
    assert part.checks[1].answer.startswith("lo (reaches only this host)")


def test_the_facts_of_this_machine_can_be_collected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.versions()["numpy"]
    assert set(machine.torch_facts().backends) >= {"gloo"}
    assert machine.cores() >= 1
    assert machine.own_address() == "" or machine.own_address().count(".") == 3
    monkeypatch.setattr(machine.site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr(machine.site, "getusersitepackages", lambda: str(tmp_path / "none"))
    assert machine.attached_by() is None
    (tmp_path / "commlens.pth").touch()
    assert machine.attached_by() == str(tmp_path)


def test_a_folder_that_cannot_be_looked_into_holds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    too_long = tmp_path / ("x" * 300)  # to look there is an error, for root too
    monkeypatch.setattr(machine.site, "getsitepackages", lambda: [str(too_long)])
    monkeypatch.setattr(machine.site, "getusersitepackages", lambda: str(tmp_path / "none"))
    assert machine.attached_by() is None
