"""Faults planted in jobs on emulated hosts, and what must be found: the catalogue.

    path = record(CATALOGUE["slow-pair-30%+clocks"], folder)

The seed draws which host, pair or rank has the fault, and how the clocks go. A clock variant plants the same fault
on hosts whose clocks differ: the answer is the same.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from lab import seen
from lab.hosts import lab_hosts
from lab.scenario import Expected
from lab.skew import Clock

JOB = Path(__file__).with_name("jobs") / "hosts_job.py"
MAGNITUDES = (0.15, 0.3, 0.6)
STEPS = 27  # commlens leaves out the first two
STEP_MS = 36.0  # of both healthy jobs, measured
_MBIT_S = 400.0
_PAIR_BYTES = 250_000
_PAIRED = ("--pair-bytes", str(_PAIR_BYTES), "--world-bytes", "1000", "--compute-ms", "15")
_WORLD = ("--world-bytes", "100000", "100000", "--compute-ms", "25")


@dataclass(frozen=True)
class HostScenario:
    """A job on emulated hosts, and the answer that is expected.

    Attributes:
        magnitude: what the fault adds to a step, as a share of the healthy step; 0 for a healthy job.
        expected: the right answer: for a slow host link the ranks of that host, for a slow pair its group.
        hosts: the hosts at fault, both for a pair.
        rates: Mbit/s of each host's link.
        arguments: of the job.
        pairs: Mbit/s of pairs of hosts that have less.
        clocks: how the hosts' clocks go; empty for true clocks.
        visible_ms: reads the size of the fault from the recorded columns, without a common clock.
    """

    name: str
    seed: int
    magnitude: float
    expected: Expected
    hosts: tuple[int, ...]
    rates: tuple[float, ...]
    ranks_per_host: int
    arguments: tuple[str, ...]
    pairs: tuple[tuple[tuple[int, int], float], ...] = ()
    clocks: tuple[Clock, ...] = ()
    visible_ms: Callable[[Path], float] | None = None

    @property
    def planned_ms(self) -> float:
        """Size of the fault, ms per step."""
        return self.magnitude * STEP_MS


def record(scenario: HostScenario, folder: Path) -> Path:
    """The run folder, in `folder`, of a recording of this scenario.

    Raises:
        LabError: A rank failed, or did not end in time.
    """
    before = set(folder.iterdir()) if folder.is_dir() else set()
    with lab_hosts(scenario.rates, dict(scenario.pairs)) as lab:
        lab.launch(
            JOB,
            *scenario.arguments,
            ranks_per_host=scenario.ranks_per_host,
            env={"COMMLENS": str(folder)},
            clocks=scenario.clocks,
        )
    (run,) = set(folder.iterdir()) - before
    return run


def healthy_pairs(name: str, seed: int, magnitude: float = 0.0) -> HostScenario:
    """Four hosts of one rank: each pair in turn, then a small all_reduce of all; links and compute are equal."""
    arguments = ("--steps", str(STEPS), "--seed", str(seed), *_PAIRED)
    return HostScenario(name, seed, magnitude, Expected(), (), (_MBIT_S,) * 4, 1, arguments)


def healthy_world(name: str, seed: int, magnitude: float = 0.0) -> HostScenario:
    """Three hosts of two ranks: two all_reduces of all; links and compute are equal."""
    arguments = ("--steps", str(STEPS), "--seed", str(seed), *_WORLD)
    return HostScenario(name, seed, magnitude, Expected(), (), (_MBIT_S,) * 3, 2, arguments)


def slow_host(name: str, seed: int, magnitude: float) -> HostScenario:
    """Both ranks of a host compute longer."""
    host = random.Random(seed).randrange(3)
    return _computing_longer(healthy_world(name, seed, magnitude), "--slow-hosts", host, (2 * host, 2 * host + 1))


def straggler(name: str, seed: int, magnitude: float) -> HostScenario:
    """One rank of six computes longer."""
    rank = random.Random(seed).randrange(6)
    return _computing_longer(healthy_world(name, seed, magnitude), "--slow-ranks", rank, (rank,))


def slow_link(name: str, seed: int, magnitude: float) -> HostScenario:
    """A host's link is slower: so are the three pairs it is in, one after another."""
    host, base = random.Random(seed).randrange(4), healthy_pairs(name, seed, magnitude)
    slower = _rate_that_adds(base.planned_ms / 3)
    return replace(
        base,
        expected=Expected(("slow-link",), ranks=(host,)),
        hosts=(host,),
        rates=tuple(slower if each == host else _MBIT_S for each in range(4)),
        visible_ms=_slower_than_others(lambda members: host in members),
    )


def slow_pair(name: str, seed: int, magnitude: float) -> HostScenario:
    """The path between two hosts is slower; their links are as fast as all others."""
    pair, base = tuple(sorted(random.Random(seed).sample(range(4), 2))), healthy_pairs(name, seed, magnitude)
    return replace(
        base,
        expected=Expected(("slow-link",), members=pair),
        hosts=pair,
        pairs=(((pair[0], pair[1]), _rate_that_adds(base.planned_ms)),),
        visible_ms=_slower_than_others(lambda members: members == pair),
    )


def with_clocks(scenario: HostScenario, offset_s: float = 5.0, suffix: str = "+clocks") -> HostScenario:
    """The same job on hosts whose clocks are off by up to `offset_s` and drift by 20 to 80 ppm either way."""
    draw = random.Random(f"{scenario.seed}{suffix}")
    clocks = tuple(
        Clock(round(draw.uniform(-offset_s, offset_s), 6), round(draw.choice((-1, 1)) * draw.uniform(20, 80), 1))
        for _ in scenario.rates
    )
    return replace(scenario, name=scenario.name + suffix, clocks=clocks)


def _computing_longer(healthy: HostScenario, option: str, which: int, ranks: tuple[int, ...]) -> HostScenario:
    return replace(
        healthy,
        expected=Expected(("straggler-rank",), ranks=ranks),
        hosts=tuple(sorted({rank // healthy.ranks_per_host for rank in ranks})),
        arguments=(*healthy.arguments, option, str(which), "--extra-ms", str(healthy.planned_ms)),
        visible_ms=_longer_than_others(ranks),
    )


def _rate_that_adds(extra_ms: float) -> float:
    """Mbit/s at which a pair's all_reduce takes so much longer; with two ranks it moves its bytes once each way."""
    usual_ms = _PAIR_BYTES * 8 / _MBIT_S / 1e3
    return round(_MBIT_S * usual_ms / (usual_ms + extra_ms), 1)


def _longer_than_others(ranks: tuple[int, ...]) -> Callable[[Path], float]:
    """How much longer these ranks take from a step's last collective to the next step's first."""

    def measure(path: Path) -> float:
        times: dict[bool, list[float]] = {True: [], False: []}
        rows = [row for row in seen.rows_of(path) if row["step"] >= seen.SKIPPED_STEPS]
        for before, after in itertools.pairwise(rows):
            if before["rank"] == after["rank"] and before["step"] < after["step"]:
                times[after["rank"] in ranks].append((after["issued_ns"] - before["completed_ns"]) / 1e6)
        return median(times[True]) - median(times[False])

    return measure


def _slower_than_others(guilty: Callable[[tuple[int, ...]], bool]) -> Callable[[Path], float]:
    """How much longer a step's all_reduces of the guilty pairs take than those of other pairs, on one host's way."""

    def measure(path: Path) -> float:
        members, parts = seen.groups(path), {}
        for row in seen.rows_of(path):
            if row["step"] >= seen.SKIPPED_STEPS and len(members[row["group"]]) == 2:
                took = (row["completed_ns"] - row["started_ns"]) / 1e6
                parts.setdefault((members[row["group"]], row["seq"]), []).append(took)
        # The shortest of the parts is that of the rank that came last: it waited for nobody.
        of_pair: dict[tuple[int, ...], list[float]] = {}
        for (pair, _), took in parts.items():
            of_pair.setdefault(pair, []).append(min(took))
        middle = {pair: median(took) for pair, took in of_pair.items()}
        usual = median(took for pair, took in middle.items() if not guilty(pair))
        return sum(took - usual for pair, took in middle.items() if guilty(pair))

    return measure


_KINDS: dict[str, Callable[[str, int, float], HostScenario]] = {
    "slow-host": slow_host,
    "straggler": straggler,
    "slow-host-link": slow_link,
    "slow-pair": slow_pair,
}


def _true_clocks() -> Iterator[HostScenario]:
    yield healthy_pairs("healthy-pairs", 100)
    yield healthy_world("healthy-world", 101)
    for number, (kind, make) in enumerate(_KINDS.items()):
        for step, magnitude in enumerate(MAGNITUDES):
            yield make(f"{kind}-{magnitude:.0%}", 110 + 10 * number + step, magnitude)


def _all() -> Iterator[HostScenario]:
    for scenario in _true_clocks():
        yield scenario
        yield with_clocks(scenario)
        # Clocks off by as little as the waits themselves: nothing in them looks wrong.
        yield with_clocks(scenario, 0.01, "+near-clocks")


CATALOGUE: dict[str, HostScenario] = {scenario.name: scenario for scenario in _all()}
