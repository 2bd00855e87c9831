"""Totals between readings, and the bytes that must cross between hosts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlens.analyzers.counted.crossing import NOTHING, factors, share
from commlens.analyzers.counted.series import Series, series_of
from commlens.analyzers.intervals import Intervals, merge
from commlens.trace.schema import OPS

START = 1_790_000_000_000_000_000


def series(*rows: tuple[int, int]) -> Series:
    times, values = zip(*rows, strict=True)
    return series_of(np.array(times, np.int64) + START, np.array(values, np.int64))


def window(start: int, end: int) -> Intervals:
    return merge([START + start], [START + end])


def test_a_total_grows_in_a_line_between_readings() -> None:
    total = series((0, 100), (10, 100), (20, 300))
    assert total.grown_in(window(0, 10)) == 0
    assert total.grown_in(window(12, 17)) == 100
    assert total.grown_in(window(-50, 50)) == 200
    assert total.grown_in(merge([START + 10, START + 18], [START + 11, START + 30])) == 60


def test_where_a_total_begins_anew_nothing_is_counted() -> None:
    total = series((0, 100), (10, 200), (20, 50), (30, 90))
    assert total.grown_in(window(0, 30)) == 140
    assert [each.tolist() for each in total.resets] == [[START + 10], [START + 20]]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 2**60)), min_size=1, max_size=20), st.randoms())
def test_the_order_of_rows_is_irrelevant(rows: list[tuple[int, int]], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert series(*mixed).grown_in(window(-1, 60)) == series(*rows).grown_in(window(-1, 60)) >= 0


def test_a_gauge_holds_until_its_next_reading() -> None:
    gauge = series((0, 0b1000), (10, 0b0100), (40, 0))
    assert gauge.mean_in(window(0, 40)) == pytest.approx((8 * 10 + 4 * 30) / 40)
    assert gauge.share_in(window(5, 25), 0b0100) == pytest.approx(15 / 20)
    assert gauge.largest_in(window(12, 40)) == 4
    assert gauge.mean_in(window(50, 60)) is None


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9), st.sampled_from(OPS), st.booleans(), st.booleans())
def test_bytes_that_cross_are_bounded_and_balance(machines: list[str], op: str, gloo: bool, even: bool) -> None:
    """The least is no more than the most, and what a ring sends is received."""
    root = machines[0]
    each = {name: factors(op, share(machines, name), root_here=name == root, even=even, gloo=gloo) for name in "abc"}
    for own in each.values():
        assert own.tx_low <= own.tx_high + 1e-9
        assert own.rx_low <= own.rx_high + 1e-9
    if op in ("all_reduce", "all_gather", "reduce_scatter"):
        assert sum(own.tx_high for own in each.values()) == pytest.approx(sum(own.rx_high for own in each.values()))
    if len(set(machines)) == 1:
        assert set(each.values()) == {NOTHING}


def test_an_interleaved_ring_crosses_more_often() -> None:
    together, mixed = share(["a", "a", "b", "b"], "a"), share(["a", "b", "a", "b"], "a")
    assert (together.edges, mixed.edges) == (1, 2)
    once, twice = (factors("all_reduce", each, gloo=True).tx_high for each in (together, mixed))
    assert twice == 2 * once == 3.0
    assert factors("all_reduce", together).tx_high == 2.0  # NCCL's trees
