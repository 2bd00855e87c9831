"""Hangs read from dumps of the Flight Recorder: states instead of ends, a file's time instead of signs of life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_hangs import SECOND, WORLD, Told, at, calls, evidence, find, only

from commlens.trace.schema import MISSING


def dumped(kinds: str, open_: int = 0, state: str = "scheduled", age_s: float = 600.0) -> Told:
    """A dump made `age_s` after the last collective, of which the last `open_` had not completed."""
    rows = [replace(row, completed_ns=MISSING, timing="enqueue_only") for row in calls(kinds)]
    states: dict[str, Sequence[int]] = {state: list(range(len(rows) - open_, len(rows)))} if open_ else {}
    told: dict[str, Any] = {"states": states, "written_ns": at(len(rows)) + int(age_s * SECOND)}
    return Told(rows, info={"imported": "flight_recorder", "flight_recorder": told})


@pytest.mark.parametrize("ahead", [0, 5])
def test_a_rank_that_did_not_come(tmp_path: Path, ahead: int) -> None:
    ranks = {rank: dumped("a" * (20 + ahead), 1 + ahead) for rank in WORLD} | {2: dumped("a" * 19)}
    finding = only(tmp_path, ranks)
    assert (finding.id, finding.ranks, finding.confidence) == ("hang", (2,), "medium")
    assert finding.title == (
        "rank 2 was alive but did not come: ranks 0-1, 3 waited in all_reduce of 4.0 MB float32"
        " (sequence 19 of group 0 (desc 0))"
    )  # for how long no dump says
    assert evidence(finding) == {
        "sequence number": 19,
        "ranks that wait": 3,
        "number that rank 2 had issued at least": 18,
    }
    assert any("different moments" in doubt for doubt in finding.could_be_wrong_if)


def test_a_transfer_that_does_not_end(tmp_path: Path) -> None:
    finding = only(tmp_path, {rank: dumped("a" * 20, 1, "started") for rank in WORLD})
    assert finding.title.endswith("did not end, although every rank of the group issued it")


def test_a_rank_without_a_dump(tmp_path: Path) -> None:
    finding = only(tmp_path, {rank: dumped("a" * 20, 1) for rank in (0, 1, 2)})
    assert (finding.ranks, finding.confidence) == ((3,), "low")


def test_ranks_that_disagree(tmp_path: Path) -> None:
    ranks = {rank: dumped("aaaacaaaaa", 3) for rank in WORLD} | {2: dumped("aaaacaabaa", 3)}
    finding = only(tmp_path, ranks)
    assert (finding.id, finding.ranks) == ("desync", (2,))


@pytest.mark.parametrize("ranks", [{rank: dumped("a" * 20) for rank in WORLD}, {0: dumped("a" * 30, 10, age_s=1)}])
def test_no_hang(tmp_path: Path, ranks: dict[int, Told]) -> None:
    """All had completed; and dumps of a job that ran, each made when the next collective had just been issued."""
    others = {rank: dumped("a" * 20, 0, age_s=1) for rank in WORLD}
    assert find(tmp_path, others | ranks)[0] == ()


def test_too_short(tmp_path: Path) -> None:
    ranks = {rank: dumped("a" * 20, 1, age_s=2) for rank in WORLD} | {2: dumped("a" * 19)}
    findings, _, (abstention,) = find(tmp_path, ranks)
    assert findings == ()
    assert abstention.reason == (
        "ranks 0-1, 3 were in all_reduce of 4.0 MB float32 (sequence 19 of group 0 (desc 0)) for 2.0 s at most, when"
        " this was dumped: too short to call it a hang; the dump of rank 2 does not show it"
    )
    assert abstention.needs.startswith("dumps made later")


def test_progress_counts_what_completed(tmp_path: Path) -> None:
    _, (progress,), _ = find(tmp_path, {rank: dumped("a" * 20, 5) for rank in WORLD})
    assert [(each.last_issued, each.last_completed) for each in progress.per_rank] == [(19, 14)] * 4
