"""What fixes the step's end, on steps of 10 ms with one all_reduce of which every time is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import MS, US, Collective, Phase, RankTruth, write_run

from commlens import analyze, open_run

STEPS = 12


def one_rank(begun: int, over: int, waited: int, blocked: int, timing: str) -> RankTruth:
    """Times in us from the begin of each step: issue, end, and the wait of the thread that trains."""
    rows, phases = [], []
    for step in range(STEPS):
        at = 1_000 * MS + step * 10 * MS
        rows.append(
            Collective(
                issued_ns=at + begun * US,
                started_ns=at + begun * US,
                completed_ns=at + over * US,
                waited_ns=at + waited * US,
                blocked_ns=blocked * US,
                timing=timing,
            )
        )
        phases.append(Phase("optimizer", at + 9 * MS, at + 10 * MS, "SGD"))
    return RankTruth(rows, phases, info={"boot_id": "one"})


def path_of(path: Path, *ranks: RankTruth) -> dict[tuple[str, int], float]:
    """ms of a step by kind and rank, and that they are the whole step."""
    report = analyze(open_run(write_run(path, dict(enumerate(ranks)))))
    found = report.critical_path
    assert found is not None
    parts: dict[tuple[str, int], float] = {}
    for part in found.parts:
        parts[part.kind, part.rank] = parts.get((part.kind, part.rank), 0) + part.ms
    assert sum(parts.values()) == pytest.approx(found.step_ms) == pytest.approx(10)
    return parts


@pytest.mark.parametrize(
    ("begun", "over", "waited", "blocked", "timing", "transfer_ms"),
    [
        (1_000, 3_000, 8_000, 20, "host", 0.02),  # over long before the wait, which takes 20 us all the same
        (1_000, 8_000, 8_000, 20, "host", 0.02),  # over as the wait begins: the rank's own work took as long
        (1_000, 8_500, 8_000, 500, "host", 7.5),  # the wait ends with it: all since the arrival
        (1_000, 8_001, 8_000, 20, "host", 7.02),  # by a microsecond too
        (1_000, 8_020, 8_000, 20, "wait", 0.02),  # an end that is known from the wait alone says little
        (1_000, 8_900, 8_000, 900, "wait", 7.9),  # unless the wait was long
    ],
)
def test_a_transfer_is_on_the_path_where_it_held_the_rank_up(
    tmp_path: Path, begun: int, over: int, waited: int, blocked: int, timing: str, transfer_ms: float
) -> None:
    ranks = [one_rank(begun, over, waited, blocked, timing)] * 2
    parts = path_of(tmp_path, *ranks)
    transfer = sum(ms for (kind, _), ms in parts.items() if kind == "transfer")
    assert transfer == pytest.approx(transfer_ms)


def test_what_is_waited_for_is_on_the_path(tmp_path: Path) -> None:
    early, late = one_rank(1_000, 6_500, 1_000, 5_500, "host"), one_rank(6_000, 6_500, 6_000, 500, "host")
    parts = path_of(tmp_path, early, late)
    transfer = sum(ms for (kind, _), ms in parts.items() if kind == "transfer")
    assert transfer == pytest.approx(0.5)
    assert parts["other", 1] >= 6  # up to its arrival
    assert parts.get(("other", 0), 0) + parts["other", 1] == pytest.approx(8.5)


def test_a_hidden_collective_does_not_blame_the_rank_that_came_last(tmp_path: Path) -> None:
    """Rank 1 arrives last, and both have work of their own until it is long over."""
    early, late = one_rank(1_000, 5_000, 8_000, 10, "host"), one_rank(4_000, 5_000, 8_000, 10, "host")
    parts = path_of(tmp_path, early, late)
    assert {rank for (_, rank), ms in parts.items() if ms} == {0}  # of two that end together the first
