"""Which calibrated time a message is compared with."""

import pytest

from commlens.analyzers.across.peaks import efficiency, peak_time_ns
from commlens.trace.calibration import INTER, INTRA, Calibration, CalibrationEntry, MadeWith

SIZES = (1000, 4000, 16000)


def entry(op: str, ranks: tuple[int, ...], scope: str | None, *times_us: float, size: int = 0) -> CalibrationEntry:
    return CalibrationEntry(op, ranks, size or len(ranks), scope, SIZES[: len(times_us)], times_us)


def made(*entries: CalibrationEntry) -> Calibration:
    return Calibration("test", MadeWith("2.13", "gloo"), entries)


PAIR = made(entry("all_reduce", (0, 1), INTRA, 10.0, 20.0, 80.0))


def us(
    calibration: Calibration | None, op: str, bytes: float, ranks: tuple[int, ...] = (0, 1), scope: str | None = INTRA
) -> float | None:
    found = peak_time_ns(calibration, op, ranks, len(ranks), scope, bytes)
    return found if found is None else found / 1e3


@pytest.mark.parametrize(
    ("bytes", "expected"),
    [
        (1000, 10),
        (2000, 200**0.5),  # half way from 1000 to 4000 in logarithms: the geometric mean of the times
        (4000, 20),
        (8000, 40),
        (16000, 80),
        (64000, 320),  # beyond: by the bandwidth of the largest
        (500, 10),  # below: the latency of the smallest
        (499, None),
        (64001, None),
    ],
)
def test_times_between_and_beyond_the_sizes_measured(bytes: int, expected: float | None) -> None:
    assert us(PAIR, "all_reduce", bytes) == (pytest.approx(expected) if expected else None)


def test_nothing_is_known_of_other_operations_groups_and_scopes() -> None:
    assert us(PAIR, "all_gather", 4000) is None
    assert us(PAIR, "all_reduce", 4000, (0, 1, 2)) is None
    assert us(PAIR, "all_reduce", 4000, (2, 3), scope=INTER) is None
    assert us(None, "all_reduce", 4000) is None
    assert us(made(), "all_reduce", 4000) is None


def test_the_same_ranks_come_first_then_the_fastest_group_alike() -> None:
    several = made(
        entry("all_reduce", (0, 1), INTRA, 10.0),
        entry("all_reduce", (2, 3), INTRA, 7.0),
        entry("all_reduce", (4, 5), INTRA, 8.0),
        entry("all_reduce", (0, 4), INTER, 90.0),
    )
    assert us(several, "all_reduce", 1000, (1, 0)) == 10
    assert us(several, "all_reduce", 1000, (6, 7)) == 7
    assert us(several, "all_reduce", 1000, (1, 5), scope=INTER) == 90


def test_a_log_without_ranks_serves_groups_of_its_size_and_scope() -> None:
    log = made(entry("all_reduce", (), INTRA, 5.0, size=4))
    assert us(log, "all_reduce", 1000, (0, 1, 2, 3)) == 5
    assert us(log, "all_reduce", 1000, (0, 1, 2, 3), scope=None) == 5
    assert us(log, "all_reduce", 1000, (0, 1, 2, 3), scope=INTER) is None
    unknown = made(entry("all_reduce", (), None, 6.0, size=4), *log.entries)
    assert us(unknown, "all_reduce", 1000, (0, 1, 2, 3), scope=INTER) == 6
    assert us(unknown, "all_reduce", 1000, (0, 1, 2, 3)) == 5


def test_sends_and_receives_are_one_and_between_two() -> None:
    direct = made(entry("send", (0, 1), INTRA, 3.0))
    for op in ("send", "recv"):
        assert peak_time_ns(direct, op, (1, 0), 8, INTRA, 1000) == 3000
        assert peak_time_ns(direct, op, (4, 5), 8, INTRA, 1000) == 3000


def test_efficiency_is_calibrated_over_measured_and_may_exceed_one() -> None:
    assert efficiency(50, 100) == 0.5
    assert efficiency(110, 100) == 1.1
    assert efficiency(None, 100) is None
    assert efficiency(50, None) is None
    assert efficiency(50, 0) is None
