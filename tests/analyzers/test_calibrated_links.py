"""Finding slow-link by a calibration: only where transfers had the link as much to themselves as the calibration's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from synthetic import MS, START, Collective, Phase, RankTruth, write_run

import commlens
from commlens.analyzers.findings.looked_for import SLOW, looked_for
from commlens.trace.calibration import INTRA, Calibration, CalibrationEntry, MadeWith

STEPS, STEP_MS = 12, 100
BYTES, ALONE_MS = 1000 * 1000, 10.0
PEAK = CalibrationEntry("all_reduce", (0, 1), 2, INTRA, (BYTES // 2, BYTES), (ALONE_MS * 500, ALONE_MS * 1000))


def rank(spans: list[tuple[int, int]]) -> RankTruth:
    """Of steps of 100 ms, whose all_reduces of 1 MB run and are waited for in these spans of ms."""
    rows, phases = [], []
    for step in range(STEPS):
        t = START + step * STEP_MS * MS
        for n, (start, end) in enumerate(spans):
            begun, done = t + start * MS, t + end * MS
            row = Collective(begun, done, waited_ns=begun, blocked_ns=done - begun, in_bytes=BYTES, out_bytes=BYTES)
            rows.append(dataclasses.replace(row, seq=step * len(spans) + n))
        phases += [Phase("backward", t, t + 90 * MS), Phase("optimizer", t + 90 * MS, t + STEP_MS * MS, "SGD")]
    groups = [{"name": "0", "desc": "default_pg", "ranks": [0, 1], "size": 2, "workers": 2}]
    return RankTruth(rows, phases, info={"groups": groups, "boot_id": "one", "host": "one"})


@pytest.mark.parametrize(
    ("spans", "slow"),
    [
        ([(20, 30), (40, 50)], False),  # as calibrated
        ([(20, 45), (50, 75)], True),  # one after the other, each 2.5 times as long
        ([(20, 45), (20, 45)], False),  # as long, but both at once: half the link each
        ([(20, 45), (43, 68)], True),  # only their ends meet
    ],
)
def test_links_are_held_against_a_calibration(tmp_path: Path, spans: list[tuple[int, int]], slow: bool) -> None:
    run = commlens.open_run(write_run(tmp_path / "run", {0: rank(spans), 1: rank(spans)}))
    calibrated = dataclasses.replace(run, calibration=Calibration("test", MadeWith("2.13", "gloo"), (PEAK,)))
    found = [each for each in commlens.analyze(calibrated).findings if each.id == "slow-link"]
    assert bool(found) == slow
    if slow:
        assert found[0].title == "all groups run at 40 % of their calibrated speed"
        assert found[0].ceiling_ms == pytest.approx(30, abs=2)
    assert not any(each.id == "slow-link" for each in commlens.analyze(run).findings)


@pytest.mark.parametrize(("second", "compared"), [((50, 75), True), ((20, 45), False)])
def test_what_is_not_held_against_a_calibration_is_said(
    tmp_path: Path, second: tuple[int, int], compared: bool
) -> None:
    run = commlens.open_run(write_run(tmp_path / "run", {0: rank([(20, 45), second]), 1: rank([(20, 45), second])}))
    report = commlens.analyze(
        dataclasses.replace(run, calibration=Calibration("test", MadeWith("2.13", "gloo"), (PEAK,)))
    )
    told = [each for each in report.abstentions if each.analysis == "calibrated-links"]
    assert (dict(looked_for(report))[SLOW], not told) == (None if compared else "see the end", compared)
    if told:
        assert told[0].reason.startswith("transfers of group 0 (desc 0) run beside each other")
    without = commlens.analyze(run)
    assert not any(each.analysis == "calibrated-links" for each in without.abstentions)
    assert "there is no calibration" in str(dict(looked_for(without))[SLOW])
