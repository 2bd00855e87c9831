"""The newest rows of a file that is being written, without reading what was read before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_run import Maker, batch

from commlens.trace import RankWriter, tail
from commlens.trace.recent import RecentRun
from commlens.trace.stream import parse
from commlens.trace.tail import Tail


def events(follower: Tail) -> list[int]:
    rows, whole = parse(follower.content(), "collectives")
    assert whole
    return rows["event"].to_pylist()


@pytest.fixture
def writer(tmp_path: Path) -> RankWriter:
    return RankWriter(tmp_path, 0)


@pytest.fixture
def follower(writer: RankWriter) -> Tail:
    return Tail(writer.path / "collectives.arrows")


def test_rows_come_as_they_are_written(writer: RankWriter, follower: Tail) -> None:
    assert events(follower) == []
    for first in (0, 5, 10):
        writer.append("collectives", batch(first, 5))
        assert events(follower) == list(range(first + 5))
        assert events(follower) == list(range(first + 5))


def test_only_the_newest_batches_are_kept(writer: RankWriter, follower: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_BATCHES", 2)
    for first in (0, 5, 10):
        writer.append("collectives", batch(first, 5))
    assert events(follower) == list(range(5, 15))
    writer.append("collectives", batch(15, 5))
    assert events(follower) == list(range(10, 20))
    monkeypatch.setattr(tail, "_BYTES", 1)
    assert events(Tail(writer.path / "collectives.arrows")) == list(range(15, 20))


def test_what_was_read_is_not_read_again(writer: RankWriter, follower: Tail) -> None:
    writer.append("collectives", batch(0, 5))
    assert events(follower) == list(range(5))
    path = writer.path / "collectives.arrows"
    end = path.stat().st_size
    writer.append("collectives", batch(5, 5))
    with path.open("r+b") as file:
        file.write(b"\0" * end)
    assert events(follower) == list(range(10))


def test_words_that_come_later_are_known(writer: RankWriter, follower: Tail) -> None:
    for first, words in ((0, ["world"]), (5, ["world", "pairs"])):
        codes = np.full(5, len(words) - 1, np.int16)
        writer.append("collectives", batch(first, 5, group=(codes, words)))
        follower.content()
    rows, _ = parse(follower.content(), "collectives")
    assert rows["group"].to_pylist() == ["world"] * 5 + ["pairs"] * 5


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_a_batch_that_is_still_being_written_waits(writer: RankWriter, follower: Tail, cut: int) -> None:
    writer.append("collectives", batch(0, 5))
    path = writer.path / "collectives.arrows"
    end = path.stat().st_size
    writer.append("collectives", batch(5, 5))
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(end + min(cut, len(whole) - end - 1))
    assert events(follower) == list(range(5))
    with path.open("r+b") as file:
        file.write(whole)
    assert events(follower) == list(range(10))


def test_a_file_that_was_rewritten_is_read_anew(writer: RankWriter, follower: Tail) -> None:
    for _ in range(3):  # the same events again: rewritten without what was replaced
        writer.append("collectives", batch(0, 5))
    assert events(follower) == list(range(5))
    writer.close()
    assert events(follower) == list(range(5))


def test_a_run_is_followed_from_its_first_moment(make: Maker, tmp_path: Path) -> None:
    run = make.run("run", ranks=(0,), rows=5)
    followed = RecentRun([tmp_path])
    assert followed.read().ranks[0].table("collectives").num_rows == 5
    make.rank(run, 1, rows=3)
    now = followed.read()
    assert {number: rank.table("collectives").num_rows for number, rank in now.ranks.items()} == {0: 5, 1: 3}
    assert now.ranks[0].table("kernels").num_rows == 0


def test_a_run_of_which_nothing_is_written_yet_has_no_ranks(tmp_path: Path) -> None:
    (tmp_path / "run" / "rank-00000").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{")
    assert RecentRun([tmp_path / "run"]).read().ranks == {}
