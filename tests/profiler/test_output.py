"""A recorder that has nothing to write still leaves signs of life, and nothing after its end."""

from __future__ import annotations

import time
from pathlib import Path

import torch.distributed as dist

from commlens.profiler.output import Output
from commlens.trace import open_run
from commlens.trace.schema import ALIVE_EVERY_S, ALIVE_FILE

SECOND = 1_000_000_000
DAY = 86_400
INFO = {"rank": 0, "world_size": 1}


def placed(folder: Path) -> Output:
    output = Output(str(folder), 0, dist.HashStore(), 1)
    assert output.is_placed()
    output.describe({"world_size": 1, "start_ns": 1}, INFO)
    return output


def add_second(output: Output, time_ns: int, events: int = 0, under_way: bool = False) -> None:
    output.add_overhead(time_ns, events, 0, 0, time.thread_time_ns(), under_way)


def alive_ns(output: Output) -> int | None:
    value = open_run(output.folder.parent).ranks[0].info.get("alive_ns")
    assert value is None or isinstance(value, int)
    return value


def test_a_quiet_day_takes_no_room_and_its_last_seconds_are_known(tmp_path: Path) -> None:
    output = placed(tmp_path)
    start = time.time_ns()
    add_second(output, start)
    for second in (*range(1, 31), *range(DAY, DAY + 31)):
        add_second(output, start + second * SECOND)
        signed = alive_ns(output)
        assert signed is not None and start + second * SECOND - signed <= ALIVE_EVERY_S * SECOND
    files = {path.name: path.stat().st_size for path in output.folder.iterdir()}
    assert files.pop("rank.json")
    assert files == {ALIVE_FILE: 21}


def test_a_row_is_a_sign_of_its_own(tmp_path: Path) -> None:
    output = placed(tmp_path)
    start = time.time_ns() + SECOND
    add_second(output, start)
    for second in range(1, 20):
        add_second(output, start + second * SECOND, events=second % 2, under_way=not second % 2)
    assert alive_ns(output) == start
    assert open_run(output.folder.parent).ranks[0].table("overhead").num_rows == 19


def test_a_recording_that_ended_or_was_abandoned_is_signed_no_more(tmp_path: Path) -> None:
    ended, abandoned = placed(tmp_path / "ended"), placed(tmp_path / "abandoned")
    for output in (ended, abandoned):
        add_second(output, time.time_ns() + SECOND)
        assert alive_ns(output) is not None
    ended.close({**INFO, "end": {"ns": time.time_ns(), "how": "exit"}})
    abandoned.abandon()
    assert alive_ns(ended) is None
    assert sorted(path.name for path in ended.folder.iterdir()) == ["rank.json"]
    assert alive_ns(abandoned) is not None
