"""When the training thread stands still."""

from __future__ import annotations

from pathlib import Path

from synthetic import Collective, Phase, RankTruth, write_run

from commlens import open_run
from commlens.analyzers.blocked import Blocked, find_blocked
from commlens.analyzers.columns import read_columns

BACKWARDS = [Phase("backward", 100, 200), Phase("backward", 300, 400)]


def blocked_of(tmp_path: Path, *rows: Collective, groups: tuple[str, ...] = ("0",)) -> Blocked:
    run = open_run(write_run(tmp_path, {0: RankTruth(rows, BACKWARDS)}))
    return find_blocked(read_columns(run.ranks[0]), None, groups)


def spans(blocked: Blocked) -> list[tuple[int, int]]:
    return list(zip(blocked.starts.tolist(), blocked.ends.tolist(), strict=True))


def test_a_wait_that_was_seen(tmp_path: Path) -> None:
    blocked = blocked_of(tmp_path, Collective(10, 50, waited_ns=20, blocked_ns=30))
    assert spans(blocked) == [(20, 50)]
    assert blocked.known.tolist() == [True]


def test_another_threads_wait_does_not_stop_training(tmp_path: Path) -> None:
    blocked = blocked_of(tmp_path, Collective(10, 50, waited_ns=20, blocked_ns=30, thread=3))
    assert blocked.merged.starts.size == 0
    assert blocked.known.tolist() == [True]


def test_the_reducer_waits_in_order_after_its_last_collective(tmp_path: Path) -> None:
    rows = [Collective(110, 130), Collective(120, 160), Collective(140, 150), Collective(145, 190)]
    # From 145 on: the first is done, the second ends at 160, the third ended meanwhile, the last at 190.
    assert spans(blocked_of(tmp_path, *rows)) == [(145, 160), (160, 190)]


def test_the_reducer_never_waits_past_its_backward(tmp_path: Path) -> None:
    rows = [Collective(110, 260), Collective(310, 330), Collective(320, 350)]
    assert spans(blocked_of(tmp_path, *rows)) == [(110, 200), (320, 330), (330, 350)]


def test_only_groups_of_a_ddp_model_and_only_inside_backward(tmp_path: Path) -> None:
    rows = [Collective(20, 90), Collective(110, 150, group="1"), Collective(250, 260)]
    blocked = blocked_of(tmp_path, *rows)
    assert blocked.merged.starts.size == 0
    assert blocked.known.tolist() == [False, False, False]


def test_an_unknown_end_is_not_waited_for(tmp_path: Path) -> None:
    blocked = blocked_of(tmp_path, Collective(110), Collective(120, 180))
    assert blocked.known.tolist() == [False, True]
    assert blocked.row.tolist() == [1]
    assert spans(blocked) == [(120, 180)]
