"""Verdicts on rounds of a job with and without a change."""

from pathlib import Path

import numpy as np
import pytest
from synthetic import MS, START, Phase, RankTruth, write_run

from commlens.analyzers.verification import (
    CONFIRMED,
    INCONCLUSIVE,
    NO_EFFECT,
    WORSE,
    compare_steps,
    step_times,
)
from commlens.trace import open_run


def rounds(*medians: float, sigma: float = 0.5, steps: int = 40, seed: int = 0) -> list[np.ndarray]:
    """Rounds of normal step times with exactly these medians."""
    random = np.random.default_rng(seed)
    drawn = [random.normal(0, sigma, steps) for _ in medians]
    return [median + noise - np.median(noise) for median, noise in zip(medians, drawn, strict=True)]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((100, 101), (80, 80.5), CONFIRMED),
        ((80, 80.5), (100, 101), WORSE),
        ((100, 100.1), (100.1, 99.95), NO_EFFECT),
        ((100, 110), (98, 104), INCONCLUSIVE),  # rounds alike differ by more than the gain
        ((100, 120), (80, 100), INCONCLUSIVE),  # the gain is 20 in both pairs, and so is the spread
        ((100,), (50,), INCONCLUSIVE),  # one round tells nothing of the next
    ],
)
def test_verdicts(before: tuple[float, ...], after: tuple[float, ...], verdict: str) -> None:
    found = compare_steps(rounds(*before), rounds(*after, seed=1))
    assert found.verdict == verdict
    assert found.before_ms == pytest.approx(np.mean(before), abs=1e-6)
    assert found.gain_ms == pytest.approx(np.mean(before) - np.mean(after), abs=1e-6)
    assert found.low_ms <= found.gain_ms <= found.high_ms
    assert found.spread_ms == pytest.approx(max(np.ptp(before), np.ptp(after)), abs=1e-6)


def test_noise_between_steps_widens_the_interval_until_nothing_is_said() -> None:
    found = [compare_steps(rounds(100, 100, sigma=s), rounds(97, 97, sigma=s, seed=1)) for s in (0.5, 3, 30)]
    widths = [each.high_ms - each.low_ms for each in found]
    assert widths == sorted(widths)
    assert [each.verdict for each in found] == [CONFIRMED, CONFIRMED, INCONCLUSIVE]


def test_slow_steps_that_come_together_widen_it_too() -> None:
    """A third of the steps is slow. Evenly spread they are as many in each resampling; in one block they are not."""
    spread, block = np.tile([100.0, 101, 110], 20), np.sort(np.tile([100.0, 101, 110], 20))
    after = [np.full(60, 50.0)] * 2
    narrow, wide = (compare_steps([steps, steps], after) for steps in (spread, block))
    assert (wide.gain_ms, narrow.gain_ms) == (51.0, 51.0)
    assert wide.high_ms - wide.low_ms > narrow.high_ms - narrow.low_ms


def test_steps_without_noise_have_an_interval_of_no_width() -> None:
    found = compare_steps([np.full(10, 10.0)] * 2, [np.full(10, 8.0)] * 2)
    assert (found.low_ms, found.gain_ms, found.high_ms, found.verdict) == (2.0, 2.0, 2.0, CONFIRMED)


def test_too_few_steps_are_inconclusive() -> None:
    assert compare_steps([np.full(4, 10.0)] * 2, [np.full(40, 5.0)] * 2).verdict == INCONCLUSIVE


def test_the_answer_is_the_same_every_time() -> None:
    assert compare_steps(rounds(9, 9), rounds(8, 8)) == compare_steps(rounds(9, 9), rounds(8, 8))


@pytest.mark.parametrize(("between", "within"), [(1, 4), (3, 1)])
def test_the_interval_keeps_its_word(between: float, within: float) -> None:
    """Rounds and steps with normal noise, two rounds a side: 90 % should hold the gain, no gain be seen in 10 %."""
    random = np.random.default_rng(5)

    def side(mean: float) -> list[np.ndarray]:
        return [random.normal(random.normal(mean, between), within, 30) for _ in range(2)]

    gained = [compare_steps(side(100), side(95)) for _ in range(100)]
    held = sum(found.low_ms <= 5 <= found.high_ms for found in gained)
    wrong = sum(compare_steps(side(100), side(100)).verdict in (CONFIRMED, WORSE) for _ in range(100))
    assert held >= 84  # 90 % less two standard errors
    assert wrong <= 10


@pytest.mark.parametrize(
    ("before", "after"), [([], []), ([np.ones(3)], []), ([np.ones(3)], [np.zeros(0)]), ([np.ones(3)], [np.ones(3)] * 2)]
)
def test_sides_that_cannot_be_compared(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="rounds of both sides"):
        compare_steps(before, after)


def stepping(*lengths_ms: int) -> RankTruth:
    ends = START + np.cumsum([1, *lengths_ms]) * MS
    return RankTruth(phases=[Phase("optimizer", int(end) - MS // 2, int(end), name="SGD") for end in ends])


def test_steps_of_a_run_are_means_over_ranks_without_the_warm_up(tmp_path: Path) -> None:
    ranks = {0: stepping(*[50] * 4, *range(10, 20)), 1: stepping(*[50] * 4, *range(12, 22))}
    run = open_run(write_run(tmp_path / "run", ranks))  # 15 steps: the first, 4 of 50 ms, 10 that differ
    np.testing.assert_allclose(step_times(run, cut=5), np.arange(11, 21))
    np.testing.assert_allclose(step_times(run, cut=12), np.arange(11, 21))  # a third of 15
    np.testing.assert_allclose(step_times(run, cut=0), [50, 50, 50, *range(11, 21)])  # the first two never count


def test_a_rank_that_ended_early_shortens_all(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", {0: stepping(*range(10, 20)), 1: stepping(*range(10, 16))}))
    np.testing.assert_allclose(step_times(run, cut=2), [11, 12, 13, 14, 15])


def test_a_run_without_steps(tmp_path: Path) -> None:
    assert step_times(open_run(write_run(tmp_path / "run", {0: RankTruth()})), 10).size == 0
