"""The sampler's thread: one a node, another when it ends, nothing lost at the end, nothing that holds the job."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from commlens.profiler.counters import sampler
from commlens.profiler.counters.election import Seat
from commlens.profiler.counters.sampler import Counters
from commlens.profiler.counters.source import Source, link
from commlens.profiler.live import _warned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
A = ("lo", "tx_bytes")
PATIENCE_S = 60.0

RANK = """
import os, sys
from commlens.profiler.counters import sampler
sampler.SEAT_S, sampler.IDLE_MS = 0.02, 20
counters = sampler.Counters(lambda: sys.argv[1], lambda: None, 0, 20)
counters.begin()
for line in sys.stdin:
    if line == "is\\n":
        print(int(counters.is_sampling), flush=True)
    elif line == "fork\\n":
        child = os.fork()
        if child == 0:
            counters.abandon()
            os.read(int(sys.argv[2]), 1)  # until the test closes its end
            os._exit(0)
        print(child, flush=True)
    elif line == "stop\\n":
        counters.stop()
        print(counters.described()["counters"].get("sampled_by"), flush=True)
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


class Rank:
    """A process that takes part in the readings of a run."""

    def __init__(self, run: str, *extra: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RANK, run, *map(str, extra)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=extra,
        )

    def ask(self, what: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    @property
    def samples(self) -> bool:
        return self.ask("is") == "1"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()  # for its end alone: a child of it may hold the pipes
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def run_id() -> str:
    return f"test-{os.getpid()}-{time.time_ns()}"


@pytest.fixture
def begin(run_id: str) -> Iterator[Callable[..., Rank]]:
    ranks: list[Rank] = []

    def one(*extra: int, run: str = "") -> Rank:
        ranks.append(Rank(run or run_id, *extra))
        return ranks[-1]

    yield one
    for rank in ranks:
        rank.kill()


def test_one_of_several_processes_samples_and_another_when_it_is_killed(begin: Callable[..., Rank]) -> None:
    ranks = [begin() for _ in range(4)]
    while len(ranks) > 1:
        until(lambda: any(rank.samples for rank in ranks))
        sampling = [rank for rank in ranks if rank.samples]
        assert len(sampling) == 1
        sampling[0].kill()
        ranks.remove(sampling[0])
    until(lambda: ranks[0].samples)


def test_the_next_takes_over_when_the_sampler_stops(begin: Callable[..., Rank]) -> None:
    first = begin()
    until(lambda: first.samples)
    second = begin()
    assert not second.samples
    assert first.ask("stop") == "None"
    until(lambda: second.samples)


def test_every_run_on_a_node_has_a_sampler(begin: Callable[..., Rank], run_id: str) -> None:
    for rank in (begin(run=f"{run_id}-a"), begin(run=f"{run_id}-b")):
        until(lambda rank=rank: rank.samples)


def test_a_forked_child_does_not_hold_the_seat(begin: Callable[..., Rank]) -> None:
    held, release = os.pipe()
    first = begin(held)
    until(lambda: first.samples)
    child = int(first.ask("fork"))
    second = begin()
    first.kill()
    until(lambda: second.samples)
    os.kill(child, 0)  # it lives
    os.close(release)
    os.close(held)


def test_a_rank_that_does_not_sample_says_who_does(begin: Callable[..., Rank]) -> None:
    first = begin()
    until(lambda: first.samples)
    assert begin().ask("stop") == "another process of this run on this node"


class Counting(Source):
    """Says how often it was read."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def refresh(self) -> None:
        if not self.links:
            self.links.append(link("lo", "ethernet", "frames", "when read"))

    def read(self) -> Any:
        self.count += 1
        return [(A, self.count)]


@pytest.fixture
def counters(run_id: str) -> Iterator[Callable[..., Counters]]:
    made: list[Counters] = []

    def one(*sources: Source, interval_ms: int = 10, changed: Callable[[], None] = lambda: None) -> Counters:
        made.append(Counters(lambda: run_id, changed, 3, interval_ms, list, lambda: list(sources)))
        return made[-1]

    yield one
    for each in made:
        each.stop()


def test_nothing_is_lost_at_the_end(counters: Callable[..., Counters]) -> None:
    source, changes = Counting(), []
    running = counters(source, changed=lambda: changes.append(1))
    running.begin()
    until(lambda: source.count >= 5)
    source.count += 1_000_000
    running.stop()
    assert not running._thread.is_alive()
    rows = running.drain(ended=True)
    first = [value for value in rows.values if value < 1_000_000]
    assert first == list(range(1, len(first) + 1))
    assert rows.values[-1] == source.count > 1_000_000  # a reading after stop was called
    assert rows.times == sorted(rows.times)
    assert running.readings.keys == [A]
    assert len(changes) == 2  # its own connections, and the node's devices
    said = running.described()
    assert [each["name"] for each in said["links"]] == ["lo"]
    assert said["counters"]["samples"] == len(rows.values)
    assert said["counters"]["cost_us_per_sample"] > 0
    assert "sampled_by" not in said["counters"]
    assert said["counters"]["sampler_rank"] == 3


def test_a_batch_is_made_every_few_seconds(counters: Callable[..., Counters]) -> None:
    source = Counting()
    running = counters(source)
    running.begin()
    until(lambda: source.count >= 2)
    assert running.drain().values
    seen = source.count
    until(lambda: source.count > seen + 2)
    assert running.drain().values == []
    running.stop()
    assert running.drain(ended=True).values[-1] == source.count


def test_a_call_that_hangs_holds_nobody(counters: Callable[..., Counters], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "PATIENCE_S", 0.01)
    let_go, hanging = threading.Event(), Counting()
    before = Counting()

    def hang() -> None:
        hanging.count += 1
        let_go.wait(PATIENCE_S)

    monkeypatch.setattr(hanging, "read", hang)
    running = counters(before, hanging)
    running.begin()
    until(lambda: hanging.count == 1)
    running.stop()
    assert running._thread.is_alive()
    assert running.drain(ended=True).values == [1]
    let_go.set()
    running._thread.join(PATIENCE_S)
    assert not running._thread.is_alive()


def test_a_driver_that_does_not_answer_costs_its_own_counters_only(
    counters: Callable[..., Counters], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "PATIENCE_S", 0.01)
    let_go, begun, quick, slow = threading.Event(), threading.Event(), Counting(), Counting()
    slow.slow_to_begin, slow.name = True, "gpu bytes"

    def hang() -> None:
        begun.set()
        let_go.wait(PATIENCE_S)

    monkeypatch.setattr(slow, "refresh", hang)
    running = counters(quick, slow)
    running.begin()
    assert begun.wait(PATIENCE_S)
    said = running.described()["counters"]
    assert said["sampler_rank"] == 3
    assert said["unsupported"] == [
        {"device": "gpu bytes", "counter": "all", "reason": "its driver has not answered yet"}
    ]
    running.stop()
    assert running.drain(ended=True).values == [1]
    let_go.set()
    running._thread.join(PATIENCE_S)


def test_a_source_that_fails_ends_the_readings_with_one_line(
    counters: Callable[..., Counters], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _warned.clear()
    source = Counting()
    monkeypatch.setattr(source, "read", lambda: 1 // 0)
    running = counters(source)
    running.begin()
    running._thread.join(PATIENCE_S)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "commlens: counters are no longer read (ZeroDivisionError: integer division or modulo by zero)"
    assert running.described()["counters"]["sampled_by"].startswith("stopped: ZeroDivisionError")
    assert running.drain(ended=True).values == []


def test_what_is_not_understood_costs_that_reading_only(
    counters: Callable[..., Counters], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, fine = Counting(), Counting()
    monkeypatch.setattr(source, "decode", lambda raw: int("nonsense"))
    running = counters(source, fine)
    running.begin()
    until(lambda: fine.count >= 3)
    running.stop()
    assert running.drain(ended=True).values[:3] == [1, 2, 3]
    (refused,) = running.described()["counters"]["unsupported"]
    assert refused["reason"].startswith("not understood: ValueError")


def test_off_starts_nothing(counters: Callable[..., Counters]) -> None:
    running = counters(Counting(), interval_ms=0)
    running.begin()
    assert not running._thread.is_alive()
    running.stop()
    assert running.described() == {"links": [], "counters": {"sampled_by": "nobody: COMMLENS_COUNTERS is off"}}


def test_memory_is_bounded_and_what_it_costs_is_said(
    counters: Callable[..., Counters], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_MOST_HELD", 3)
    source = Counting()
    running = counters(source)
    running.begin()
    until(lambda: source.count >= 6)
    running.stop()
    values = running.drain(ended=True).values
    assert values == [source.count - 2, source.count - 1, source.count]
    assert running.described()["counters"]["lost"] == source.count - 3


def test_where_sockets_have_no_names_local_rank_0_has_the_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    seat = Seat("x")
    monkeypatch.setattr(seat, "_name", "/nowhere/at/all")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not seat.take()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert seat.take()
    seat.leave()


def test_the_seat_is_free_when_it_is_left(run_id: str) -> None:
    first, second = Seat(run_id), Seat(run_id)
    assert first.take()
    assert first.take()
    assert not second.take()
    first.leave()
    assert second.take()
    second.leave()
