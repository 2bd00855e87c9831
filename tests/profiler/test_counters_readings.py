"""Which readings are kept, and when sources are read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from commlens.profiler.counters import settings
from commlens.profiler.counters.readings import KEEP_ALIVE_NS, Readings, devices_and_words
from commlens.profiler.counters.schedule import SHARE, Raw, Schedule
from commlens.profiler.counters.source import Key, Pair, Source
from commlens.profiler.live import _warned

A, B = ("lo", "tx_bytes"), ("lo", "rx_bytes")


class Plain(Source):
    """Says what it is given; costs what it is told to."""

    def __init__(self, name: str = "plain", every_ms: int = 0) -> None:
        super().__init__()
        self.name, self.every_ms = name, every_ms
        self.cpu = None
        self.cost_ns = 0
        self.read_at: list[int] = []
        self.said: Any = [(A, 1)]

    def refresh(self) -> None:
        return

    def read(self) -> Any:
        if self.cpu is not None:
            self.cpu.ns += self.cost_ns
        return self.said


class Ticks:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def rows(kept: Readings) -> dict[Key, list[tuple[int, int]]]:
    found: dict[Key, list[tuple[int, int]]] = {}
    drained = kept.drain()
    for at, code, value in zip(*drained, strict=True):
        found.setdefault(kept.keys[code], []).append((at, value))
    return found


def take(kept: Readings, source: Source, series: Iterable[tuple[int, list[Pair]]]) -> None:
    for at, raw in series:
        kept.take(source, at, raw)


def test_of_equal_values_the_first_and_the_last_are_kept() -> None:
    kept, source = Readings(), Plain()
    take(kept, source, [(at, [(A, value), (B, 5)]) for at, value in enumerate([1, 1, 1, 2, 3, 3, 3])])
    kept.end()
    assert rows(kept) == {A: [(0, 1), (2, 1), (3, 2), (4, 3), (6, 3)], B: [(0, 5), (6, 5)]}


def test_nothing_is_written_twice_at_the_end() -> None:
    kept, source = Readings(), Plain()
    take(kept, source, [(0, [(A, 1)]), (1, [(A, 2)])])
    kept.end()
    kept.end()
    assert rows(kept) == {A: [(0, 1), (1, 2)]}


def test_interpolating_between_rows_gives_every_reading_back() -> None:
    rng = np.random.default_rng(3)
    kept, source = Readings(), Plain()
    truth = np.cumsum(rng.integers(0, 3, 500) * rng.integers(0, 2, 500))
    found: list[tuple[int, int]] = []
    for at, value in enumerate(truth.tolist()):
        kept.take(source, at, [(A, value), (B, 0)])
        if rng.random() < 0.1:
            found += rows(kept).get(A, [])
    kept.end()
    found += rows(kept)[A]
    times, values = zip(*found, strict=True)
    assert np.array_equal(np.interp(np.arange(500), times, values), truth)
    assert len(found) < 500


def test_what_vanished_is_not_carried_on() -> None:
    kept, source = Readings(), Plain()
    take(kept, source, [(0, [(A, 1), (B, 1)]), (1, [(A, 2)]), (2, [(A, 2)])])
    kept.end()
    assert rows(kept)[B] == [(0, 1)]


def test_a_reset_is_written_as_it_is_and_nonsense_is_not() -> None:
    kept, source = Readings(), Plain()
    take(kept, source, [(0, [(A, 10)]), (1, [(A, 3)]), (2, [(A, 2**63)]), (3, [(A, -1)]), (4, [(A, 4)])])
    assert rows(kept)[A] == [(0, 10), (1, 3), (4, 4)]


def test_a_value_that_stays_is_written_now_and_then() -> None:
    kept, source = Readings(), Plain()
    for at in range(0, 3 * KEEP_ALIVE_NS, KEEP_ALIVE_NS // 4):
        kept.take(source, at, [(A, 1)])
        kept.keep_alive(at)
    times = [at for at, _ in rows(kept)[A]]
    assert max(later - earlier for earlier, later in pairwise(times)) <= 1.5 * KEEP_ALIVE_NS


def test_vocabularies_only_grow_at_their_ends() -> None:
    keys = [A, B, ("eth0", "tx_bytes"), ("gpu0", "power_mw")]
    whole = devices_and_words(keys)
    assert whole == (["lo", "eth0", "gpu0"], ["tx_bytes", "rx_bytes", "power_mw"], [(0, 0), (0, 1), (1, 0), (2, 2)])
    for count in range(len(keys)):
        devices, words, places = devices_and_words(keys[:count])
        assert (devices, words, places) == (
            whole[0][: len(devices)],
            whole[1][: len(words)],
            whole[2][:count],
        )


def sampled(schedule: Schedule, samples: int) -> list[list[str]]:
    found = []
    for _ in range(samples):
        kept: list[Raw] = []
        schedule.sample(kept.append)
        found.append([source.name for source, _, _ in kept])
    return found


def test_sources_are_read_in_their_turn() -> None:
    schedule = Schedule(100, [Plain("fast"), Plain("slow", 250)])
    assert sampled(schedule, 4) == [["fast", "slow"], ["fast"], ["fast"], ["fast", "slow"]]
    kept: list[Raw] = []
    schedule.sample(kept.append, everything=True)
    assert len(kept) == 2


def test_a_source_that_costs_too_much_is_read_less_often() -> None:
    clock, cheap, dear = Ticks(), Plain("cheap"), Plain("dear")
    for source, cost_ns in ((cheap, int(SHARE * 100e6 * 0.9)), (dear, int(SHARE * 100e6 * 3.5))):
        source.cpu, source.cost_ns = clock, cost_ns
    schedule = Schedule(100, [cheap, dear], clock, clock)
    sampled(schedule, 400)
    assert schedule.described() == [{"source": "cheap", "every_ms": 100}, {"source": "dear", "every_ms": 400}]
    assert [each["every_ms"] for each in schedule.slowed] == [200, 400]
    assert {each["source"] for each in schedule.slowed} == {"dear"}


def test_one_dear_reading_changes_nothing() -> None:
    clock, source = Ticks(), Plain()
    source.cpu = clock
    schedule = Schedule(100, [source], clock, clock)
    for number in range(300):
        source.cost_ns = 10**9 if number % 64 == 0 else 1000
        schedule.sample(lambda raw: None)
    assert schedule.slowed == []


def test_who_asks_for_shorter_intervals_pays_for_them() -> None:
    clock, source = Ticks(), Plain()
    source.cpu, source.cost_ns = clock, int(SHARE * 100e6 * 0.9)
    schedule = Schedule(10, [source], clock, clock)
    sampled(schedule, 400)
    assert schedule.slowed == []


@pytest.mark.parametrize(
    ("said", "interval_ms"),
    [(None, 100), ("", 100), ("250", 250), ("0", 0), ("off", 0), ("OFF", 0), (" 20 ", 20), ("60000", 60000)],
)
def test_the_interval_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str | None, interval_ms: int
) -> None:
    monkeypatch.delenv(settings.VARIABLE, raising=False)
    if said is not None:
        monkeypatch.setenv(settings.VARIABLE, said)
    assert settings.interval_ms() == interval_ms
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("said", ["fast", "1", "-5", "1e3", "100ms", "9" * 5000, "١٠٠"])
def test_nonsense_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    _warned.clear()
    monkeypatch.setenv(settings.VARIABLE, said)
    assert [settings.interval_ms(), settings.interval_ms()] == [100, 100]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("commlens: COMMLENS_COUNTERS=")
    assert len(line) < 200
