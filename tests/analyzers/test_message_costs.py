"""What messages cost where they run beside each other, and nobody saw what one takes alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic import MS, START, Collective, Phase, RankTruth, write_run

import commlens
from commlens.analyzers.whatif.answers import Scenario
from commlens.analyzers.whatif.asked import simulator_of
from commlens.analyzers.whatif.coefficients import Line
from commlens.trace.changes import parse_all

STEPS, STEP_MS = 12, 60
MB = 1000 * 1000
# A link that carries what was sent first first, 0.2 MB a ms, with two all_reduces under way. Each sends its halves one
# after the other: (ms issued, ms there, bytes). 9.5 MB take 47.5 ms; the last one moves nothing until 42.5.
IN_TURNS = [
    (0.0, 15.75, 2.1 * MB),
    (3.0, 21.0, 2.1 * MB),
    (5.0, 36.75, 2.1 * MB),
    (7.0, 42.0, 2.1 * MB),
    (8.0, 47.5, 1.1 * MB),
]


def rank(rows: Sequence[tuple[float, float, float]], tiny: bool) -> RankTruth:
    """Of steps of 60 ms; the first step's messages of 8 bytes take 20 us."""
    collectives, phases = [], []
    for step in range(STEPS):
        t = START + step * STEP_MS * MS
        if step == 0 and tiny:
            for n in (0, 1):
                at = t + n * MS
                collectives.append(Collective(at, at + 20_000, op="all_gather", in_bytes=8, out_bytes=16, seq=n))
        for issued, there, size in rows:
            times = t + round((8 + issued) * MS), t + round((8 + there) * MS)
            collectives.append(Collective(*times, in_bytes=round(size), out_bytes=round(size), seq=len(collectives)))
        phases.append(Phase("backward", t + 3 * MS, t + 57 * MS))
        phases.append(Phase("optimizer", t + 57 * MS, t + STEP_MS * MS, "SGD"))
    group = {"name": "0", "ranks": [0, 1], "size": 2, "workers": 2}
    return RankTruth(collectives, phases, info={"host": "host", "boot_id": "boot", "groups": [group], "models": []})


def line(tmp_path: Path, rows: Sequence[tuple[float, float, float]], tiny: bool = True) -> Line:
    run = commlens.open_run(write_run(tmp_path / "run", {0: rank(rows, tiny), 1: rank(rows, tiny)}))
    simulator = simulator_of(run)
    assert simulator.baseline is not None
    found = simulator.baseline.model.links[0].lines["all_reduce"]
    assert isinstance(found, Line)
    return found


def test_a_link_that_carries_messages_in_turns_is_no_link_of_high_latency(tmp_path: Path) -> None:
    told = line(tmp_path, IN_TURNS)
    assert told.alpha_ns[0] == pytest.approx(0.04 * MS)  # an all_reduce of two ranks: twice an all_gather's
    assert 9.5 * MB * told.beta[0] == pytest.approx(47.5 * MS, rel=0.06)
    assert "smallest messages" in told.borrowed


def test_without_small_messages_the_line_through_two_sizes_is_all_there_is(tmp_path: Path) -> None:
    assert line(tmp_path, IN_TURNS, tiny=False).alpha_ns[0] > 2 * MS


def test_messages_one_after_the_other_tell_by_themselves(tmp_path: Path) -> None:
    """2 ms and 0.2 MB a ms, however little small messages took when the job began."""
    apart = [(0.0, 12.5, 2.1 * MB), (13.0, 20.5, 1.1 * MB)]
    told = line(tmp_path, apart)
    assert told.alpha_ns[0] == pytest.approx(2 * MS, rel=1e-3) and told.beta[0] == pytest.approx(5.0, rel=1e-3)
    assert told.borrowed == ""


def test_many_sizes_on_one_line_tell_by_themselves_too(tmp_path: Path) -> None:
    """Two at once share the link by halves: 2 ms and 0.2 MB a ms each, were it alone."""
    sizes = [0.4, 0.8, 1.2, 1.6]
    alone = [2 + size * 5 for size in sizes]
    rows = []
    at = 0.0
    for one, other in ((0, 1), (2, 3)):
        both = 2 * alone[one]  # until the shorter one is there
        rows += [(at, at + both, sizes[one] * MB), (at, at + alone[one] + alone[other], sizes[other] * MB)]
        at += alone[one] + alone[other]
    told = line(tmp_path, rows)
    assert told.borrowed == "" and told.alpha_ns[0] == pytest.approx(2 * MS, rel=0.1)


def test_predictions_say_where_latency_comes_from(tmp_path: Path) -> None:
    run = commlens.open_run(write_run(tmp_path / "run", {0: rank(IN_TURNS, True), 1: rank(IN_TURNS, True)}))
    faster = simulator_of(run).scenario(parse_all("link.bandwidth=x2"))
    assert faster.predicted is None or any("smallest messages" in each for each in faster.assumptions)


LATENCY_US, NORM_US, MS_A_MB = 2000, 50, 5


def with_norm(norm_bytes: int) -> RankTruth:
    """Steps of three blocking messages of 2 ms and 0.2 MB a ms, and of a norm that another group reduces in 50 us."""
    collectives, phases = [], []
    for step in range(STEPS):
        t = at = START + step * STEP_MS * MS
        for n, size in enumerate((0.5 * MB, MB, 2 * MB, norm_bytes)):
            group, at = str(n // 3), at + MS
            takes = 1000 * (NORM_US if n == 3 else LATENCY_US) + (0 if n == 3 else round(size / MB * MS_A_MB * MS))
            times, told = (at, at + takes, at, at, takes), {"group": group, "seq": step if n == 3 else step * 3 + n}
            collectives.append(Collective(*times, in_bytes=round(size), out_bytes=round(size), **told))
            at += takes
        phases.append(Phase("backward", t + 1, at + MS))
        phases.append(Phase("optimizer", at + MS, t + STEP_MS * MS, "SGD"))
    groups = [{"name": name, "ranks": [0, 1], "size": 2, "workers": 1} for name in ("0", "1")]
    return RankTruth(collectives, phases, info={"host": "host", "boot_id": "boot", "groups": groups, "models": []})


def asked(tmp_path: Path, norm_bytes: int, changes: str) -> Scenario:
    run = commlens.open_run(write_run(tmp_path / "run", {0: with_norm(norm_bytes), 1: with_norm(norm_bytes)}))
    return simulator_of(run).scenario(parse_all(changes))


@pytest.mark.parametrize(
    ("changes", "gain_ms"),
    [
        ("link.bandwidth=x2", 3.5 * MS_A_MB / 2),
        ("link.latency=x0.5", (3 * LATENCY_US + NORM_US) / 2 / 1e3),
        ("link.bandwidth=x0.5,link.latency=x2", -3.5 * MS_A_MB - (3 * LATENCY_US + NORM_US) / 1e3),
    ],
)
def test_a_message_of_a_few_bytes_is_latency_whatever_the_bandwidth(
    tmp_path: Path, changes: str, gain_ms: float
) -> None:
    scenario = asked(tmp_path, 4, changes)
    assert scenario.predicted is not None, scenario.abstention
    assert scenario.predicted.gain_ms == pytest.approx(gain_ms, rel=1e-3)
    assert any("are latency, whatever the bandwidth is" in each for each in scenario.assumptions)


@pytest.mark.parametrize("norm_bytes", [8, 64 << 10])
def test_a_message_whose_bytes_could_be_seen_is_not(tmp_path: Path, norm_bytes: int) -> None:
    """8 bytes take 0.8 us at 10 MB/s, more than 1 % of 50 us."""
    scenario = asked(tmp_path, norm_bytes, "link.bandwidth=x2")
    assert scenario.predicted is None
    assert f"one message size only ({norm_bytes} bytes)" in str(scenario.abstention)


def test_latency_alone_tells_nothing_of_larger_messages(tmp_path: Path) -> None:
    scenario = asked(tmp_path, 4, "world_size=4")
    assert scenario.predicted is None and "one message size only (4 bytes)" in str(scenario.abstention)
