"""The collectives table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import MS, START, Collective, RankTruth, training_rank, without_phases, write_run

from commlens import analyze, open_run
from commlens.analyzers.across.transfers import ALIGNED
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.collectives import BASIS
from commlens.analyzers.grouped import by_key, percentiles


def lines_of(path: Path, ranks: dict[int, RankTruth]) -> tuple[CollectiveLine, ...]:
    return analyze(open_run(write_run(path, ranks))).collectives


def test_one_line_per_size_with_its_share_of_the_standstill(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, {rank: training_rank(6) for rank in range(2)})
    assert [line.bytes for line in lines] == [1024, 2048]
    for line in lines:
        assert (line.op, line.group, line.group_desc) == ("all_reduce", "0", "desc 0")
        assert (line.dtype, line.timing) == ("float32", "host")
        assert (line.count, line.count_per_step) == (8, 1)
        assert line.duration_ms_p50 == line.duration_ms_p95 == line.exposed_ms_per_step == 22.5
        assert line.algbw_gb_s == line.busbw_gb_s == pytest.approx(line.bytes / 22.5e6, abs=1e-6)  # n = 2
        assert line.bandwidth_basis == ALIGNED
        assert (line.transfer_ms_p50, line.wait_ms_p50, line.wait_ms_mean) == (22.5, 0, 0)


def test_without_the_other_rank_bandwidths_are_lower_bounds(tmp_path: Path) -> None:
    for line in lines_of(tmp_path, {0: training_rank(6)}):
        assert line.bandwidth_basis == BASIS
        assert line.algbw_gb_s == pytest.approx(line.bytes / 22.5e6, abs=1e-6)
        assert (line.transfer_ms_p50, line.wait_ms_p50) == (None, None)


def test_standstill_of_the_lines_adds_up_to_the_budgets(tmp_path: Path) -> None:
    report = analyze(open_run(write_run(tmp_path, {r: training_rank(6, collectives=r + 1) for r in range(3)})))
    total = sum(line.exposed_ms_per_step or 0 for line in report.collectives)
    assert report.time_budget.exposed_ms == pytest.approx(total, abs=1e-4)


def barrier(at_ns: int) -> Collective:
    return Collective(at_ns, at_ns + 4 * MS, waited_ns=at_ns, blocked_ns=4 * MS, op="barrier")


def test_costliest_first(tmp_path: Path) -> None:
    rank = training_rank(6)
    rows = [*(barrier(START + k * 100 * MS + 95 * MS) for k in range(6)), *rank.collectives]
    lines = lines_of(tmp_path, {0: RankTruth(rows, rank.phases, ddp=True)})
    assert [line.exposed_ms_per_step for line in lines] == [22.5, 22.5, 4.0]
    assert (lines[-1].op, lines[-1].algbw_gb_s, lines[-1].busbw_gb_s) == ("barrier", None, None)


def test_without_steps_the_whole_trace_is_counted(tmp_path: Path) -> None:
    rows = [Collective(START + k * MS, START + k * MS + 10, in_bytes=8) for k in range(2)]
    (line,) = lines_of(tmp_path, {0: RankTruth(rows)})
    assert (line.count, line.count_per_step, line.exposed_ms_per_step) == (2, None, None)


def test_unknown_ends_give_no_duration_and_no_bandwidth(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, {0: RankTruth([Collective(START)])})
    assert (line.duration_ms_p50, line.algbw_gb_s, line.busbw_gb_s, line.bandwidth_basis) == (None,) * 4


def exchange(sent: int) -> RankTruth:
    times = [(k, START + k) for k in range(3)]
    return RankTruth([Collective(t, t + 5, op="all_to_all", in_bytes=sent, out_bytes=sent, seq=k) for k, t in times])


def test_uneven_all_to_all_is_one_line_without_bus_bandwidth(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path / "uneven", {0: exchange(100), 1: exchange(300)})
    assert (line.bytes, line.bytes_vary, line.busbw_gb_s) == (200, True, None)
    (line,) = lines_of(tmp_path / "even", {0: exchange(100), 1: exchange(100)})
    assert not line.bytes_vary
    assert line.busbw_gb_s is not None


def test_inferred_steps_count_but_charge_nothing(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, {0: without_phases(training_rank(10))})
    assert {line.count_per_step for line in lines} == {1}
    assert {line.exposed_ms_per_step for line in lines} == {None}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**15)), min_size=1),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_percentiles_are_numpys(rows: list[tuple[int, int]], q: float) -> None:
    keys, values = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    (found,) = percentiles(values, by_key(keys, 5), q)
    for key in range(5):
        own = values[keys == key]
        expected = np.quantile(own, q) if own.size else np.nan
        np.testing.assert_allclose(found[key], expected, rtol=1e-12)
