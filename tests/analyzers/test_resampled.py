"""Drawing steps again in blocks, and Student's t."""

import numpy as np
import pytest

from commlens.analyzers.resampled import (
    block_length,
    block_places,
    drawn_means,
    drawn_medians,
    student,
    times_drawn,
    widening,
)


@pytest.mark.parametrize(
    ("share", "freedom", "quantile"),  # of printed tables
    [
        (0.95, 1, 6.3138),
        (0.95, 2, 2.9200),
        (0.975, 3, 3.1824),
        (0.99, 7, 2.9980),
        (0.975, 10, 2.2281),
        (0.95, 120, 1.6577),
        (0.95, 5000, 1.6449),
    ],
)
def test_student(share: float, freedom: int, quantile: float) -> None:
    assert student(share, freedom) == pytest.approx(quantile, abs=1e-4)


@pytest.mark.parametrize("count", [5, 30, 31])
def test_statistics_of_draws_are_those_of_the_drawn_values(count: int) -> None:
    random = np.random.default_rng(count)
    values, places = random.normal(size=count), block_places(count, 3, 200, random)
    drawn = times_drawn(places, count)
    assert drawn_medians(values, drawn) == pytest.approx(np.median(values[places], axis=1))
    assert drawn_means(values, drawn) == pytest.approx(values[places].mean(axis=1))


def test_a_draw_without_any_of_the_values_has_no_statistic() -> None:
    drawn = np.array([[0, 0], [1, 2]])
    values = np.array([1.0, 4.0])
    for statistic, second in ((drawn_medians, 4.0), (drawn_means, 3.0)):
        assert statistic(values, drawn) == pytest.approx([np.nan, second], nan_ok=True)


def test_steps_that_are_alike_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    fresh, drift = random.normal(size=100), np.cumsum(random.normal(size=100))
    assert block_length(fresh) == 5  # 100^(1/3), rounded
    assert 5 < block_length(drift) <= 25
    assert widening(fresh, 5) < 1.2 < widening(drift, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_steps_have_blocks_of_one(count: int) -> None:
    assert block_length(np.arange(float(count))) == 1


def test_blocks_go_round_the_end() -> None:
    places = block_places(4, 3, 50, np.random.default_rng(0))
    assert places.shape == (50, 4)
    assert set(np.diff(places[:, :3]).ravel().tolist()) == {1, -3}
