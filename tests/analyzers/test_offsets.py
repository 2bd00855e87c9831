"""Clock offsets of two hosts: the true one must lie within what is stated, always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commlens.analyzers.across.hulls import MAX_SLOPE, Points, lines_between
from commlens.analyzers.across.offsets import Bounds, Contradiction, Offset, fit_offset
from commlens.analyzers.intervals import Ints

EPOCH = 1_760_000_000_123_456_789
US, MS, S = 1_000, 1_000_000, 1_000_000_000
TRANSFER = 80 * US


@dataclass(frozen=True)
class Job:
    """Bounds as a job on two hosts yields them, and the offset that made them."""

    bounds: Bounds
    truth: Callable[[Ints], Ints]
    drift_ppm: float
    late: bool

    @property
    def everywhere(self) -> Ints:
        """Times from the first to the last collective, B's clock."""
        first, last = int(self.bounds.time_ns.min()), int(self.bounds.time_ns.max())
        return first + (np.linspace(0, 1, 33) * (last - first)).astype(np.int64)

    def error_ns(self, offset: Offset) -> int:
        return int(np.abs(offset.at(self.everywhere) - self.truth(self.everywhere)).max())


def offset_of(bounds: Bounds) -> Offset:
    offset = fit_offset(bounds)
    assert isinstance(offset, Offset), offset
    return offset


def contradiction_of(bounds: Bounds) -> Contradiction:
    found = fit_offset(bounds)
    assert isinstance(found, Contradiction), found
    return found


def run_job(
    seed: int,
    steps: int | None = None,
    late_ms: float | None = None,
    late_host: int | None = None,
    drift_ppm: float | None = None,
    bend_ns: float = 0,
    period_ns: float | None = None,
) -> Job:
    """One small collective a step; see the module's numbers. `late_ms` is by how much one rank is always last.

    `bend_ns` is how far x strays from a straight line in the middle of the run.
    """
    random = np.random.default_rng(seed)
    ranks = int(random.integers(2, 9))
    on_b = np.arange(ranks) >= random.integers(1, ranks)
    shape = (steps or int(random.integers(30, 401)), ranks)
    period = period_ns or 10 ** random.uniform(7, 8.7)
    begin = np.cumsum(period * random.uniform(0.9, 1.1, shape[0]))[:, None]
    arrived = begin + 10 ** random.uniform(3, 7.5) * random.random(shape)
    if late_ms:
        rank = int(random.choice(np.flatnonzero(on_b == bool(late_host))))
        others = np.delete(arrived, rank, axis=1).max(axis=1)
        arrived[:, rank] = others + late_ms * MS * random.uniform(0.9, 1.1, shape[0])
    transfer = TRANSFER * random.uniform(0.75, 1.25, (shape[0], 1))
    done = arrived.max(axis=1, keepdims=True) + transfer * (1 + random.uniform(0, 1) * random.random(shape))
    done += np.where(random.random(shape) < 0.02, random.exponential(2 * MS, shape), 0)

    base = int(random.integers(-5 * S, 5 * S))
    drift = (random.uniform(-100, 100) if drift_ppm is None else drift_ppm) / 1e6
    end = float(begin[-1, 0])

    def bent(since: Ints) -> np.ndarray:
        share = np.clip(since / end, 0, 1)
        return drift * since + bend_ns * 4 * share * (1 - share)

    def read(true: np.ndarray) -> Ints:
        on_clock_b = true - base
        for _ in range(4):  # solves t + x(t) = true
            on_clock_b = true - base - bent(on_clock_b)
        return EPOCH + np.where(on_b, on_clock_b, true).astype(np.int64)

    return Job(
        bounds=bounds_of(read(arrived), read(done), on_b),
        truth=lambda times: base + np.rint(bent(times - EPOCH)).astype(np.int64),
        drift_ppm=drift * 1e6,
        late=bool(late_ms),
    )


def bounds_of(issued: Ints, ended: Ints, on_b: np.ndarray) -> Bounds:
    """From times on each rank's own clock, shape (collectives, ranks)."""
    end_a, end_b = (ended[:, own].min(axis=1) for own in (~on_b, on_b))
    issued_a, issued_b = (issued[:, own].max(axis=1) for own in (~on_b, on_b))
    return Bounds(end_b, issued_a - end_b, end_a - issued_b, end_a - end_b, (ended - issued).min(axis=1))


def rows(*each: tuple[int, int, int]) -> Bounds:
    """Bounds from (time, lower, upper); both hold at `time`, since the end on B is at once with its issue."""
    time, lower, upper = (np.array(column, np.int64) for column in zip(*each, strict=True))
    return Bounds(EPOCH + time, lower, upper, upper, np.full(time.size, TRANSFER))


def set_ahead(bounds: Bounds, ns: int | Ints) -> Bounds:
    """The same with A's clock so much ahead."""
    names = ("lower_ns", "upper_ns", "ends_ns")
    return replace(bounds, **{name: getattr(bounds, name) + ns for name in names})


def joined(*parts: Bounds) -> Bounds:
    return Bounds(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Bounds)))


def random_job(seed: int) -> Job:
    random = np.random.default_rng([seed, 1])
    late_ms = 10 ** random.uniform(-1, 1.7) if seed % 2 else None
    return run_job(seed, late_ms=late_ms, late_host=seed // 2 % 2)


def test_the_true_offset_of_a_thousand_jobs_is_within_the_stated_uncertainty() -> None:
    stated: dict[str, list[int]] = {}
    for seed in range(1000):
        job = random_job(seed)
        offset = offset_of(job.bounds)
        assert job.error_ns(offset) <= offset.uncertainty_ns, seed
        assert len(offset.pieces) == 1, seed
        kind = ("late " if job.late else "ordinary ") + ("long" if offset.constraints >= 100 else "short")
        stated.setdefault(kind, []).append(offset.uncertainty_ns)
    for kind, values in sorted(stated.items()):
        print(kind, len(values), "us:", (np.percentile(values, [5, 50, 95, 99, 100]) / US).round(1))
    assert max(stated["ordinary long"]) < 200 * US
    assert np.median(stated["ordinary long"]) < 100 * US
    assert np.median(stated["ordinary short"]) < 150 * US
    assert np.median(stated["late long"] + stated["late short"]) < 200 * US
    assert max(stated["late long"] + stated["late short"]) < 600 * US


@pytest.mark.parametrize("host", [0, 1])
def test_a_rank_that_is_always_late_is_not_taken_for_a_clock(host: int) -> None:
    for seed in range(20):
        job = run_job(seed, steps=100, late_ms=20, late_host=host)
        offset = offset_of(job.bounds)
        assert offset.method == "bounds and ends"
        assert job.error_ns(offset) <= offset.uncertainty_ns < 300 * US


def test_a_clock_that_is_off_is_not_taken_for_a_late_rank() -> None:
    for seed in range(20):
        job = run_job(seed, steps=100)
        moved = 20 * MS
        shifted = replace(
            job.bounds, **{n: getattr(job.bounds, n) + moved for n in ("lower_ns", "upper_ns", "ends_ns")}
        )
        offset = offset_of(shifted)
        assert offset.method == "bounds"
        assert np.abs(offset.at(job.everywhere) - job.truth(job.everywhere) - moved).max() <= 200 * US


def test_ends_that_do_not_agree_are_not_believed() -> None:
    for seed in range(20):
        job = run_job(seed, steps=100, late_ms=50, late_host=seed % 2)
        anywhere = np.random.default_rng(seed).integers(job.bounds.lower_ns, job.bounds.upper_ns + 1)
        offset = offset_of(replace(job.bounds, ends_ns=anywhere))
        assert offset.method == "bounds"
        assert offset.uncertainty_ns > 20 * MS
        assert job.error_ns(offset) <= offset.uncertainty_ns


def test_ends_of_few_collectives_are_no_majority() -> None:
    job = run_job(3, steps=7, late_ms=30, late_host=0)
    assert offset_of(job.bounds).method == "bounds"
    assert offset_of(run_job(3, steps=8, late_ms=30, late_host=0).bounds).method == "bounds and ends"


def test_large_collectives_do_not_drown_the_ends_of_small_ones() -> None:
    random = np.random.default_rng(0)
    small = run_job(5, steps=200, late_ms=30, late_host=1)
    sloppy = random.integers(0, 10 * MS, (3, 200))
    large = [
        replace(
            small.bounds,
            time_ns=small.bounds.time_ns + 3 * MS * (k + 1),
            lower_ns=small.bounds.lower_ns - 20 * MS,
            upper_ns=small.bounds.upper_ns + 20 * MS,
            ends_ns=small.bounds.ends_ns + sloppy[k],
            slack_ns=small.bounds.slack_ns + 20 * MS,
        )
        for k in range(3)
    ]
    offset = offset_of(joined(small.bounds, *large))
    assert offset.method == "bounds and ends"
    assert small.error_ns(offset) <= offset.uncertainty_ns < 400 * US


@pytest.mark.parametrize("drift_ppm", [-100.0, -3.0, 0.0, 40.0])
def test_drift_is_recovered(drift_ppm: float) -> None:
    job = run_job(11, steps=300, drift_ppm=drift_ppm, period_ns=S)
    assert offset_of(job.bounds).drift_ppm == pytest.approx(drift_ppm, abs=0.5)


@pytest.mark.parametrize("late_ms", [None, 15.0])
@pytest.mark.parametrize("bend_us", [150, 500, 1000])
def test_a_drift_that_changes_is_followed(late_ms: float | None, bend_us: int) -> None:
    for seed in range(20):
        job = run_job(seed, steps=400, bend_ns=bend_us * US, late_ms=late_ms, late_host=seed % 2, period_ns=S / 4)
        offset = offset_of(job.bounds)
        assert len(offset.pieces) > 1
        assert job.error_ns(offset) <= offset.uncertainty_ns < 500 * US


def test_single_small_collectives_among_large_ones_are_not_taken_for_a_bend() -> None:
    small = np.arange(36) % 6 == 0
    half = np.where(small, TRANSFER, 20 * MS)
    bounds = rows(*((k * 100 * MS, -width, width) for k, width in enumerate(half.tolist())))
    ends = np.where(small, np.where(np.arange(36) % 12, 60 * US, -60 * US), 0)
    assert len(offset_of(replace(bounds, ends_ns=ends, slack_ns=half)).pieces) == 1


@pytest.mark.parametrize(
    ("steps", "bend_us", "late_ms"),
    [(15, 160, 15.0), *((n, us, ms) for n, us in ((30, 100), (50, 200), (60, 400), (400, 100)) for ms in (None, 15.0))],
)
def test_few_collectives_do_not_hide_a_changing_drift(steps: int, bend_us: int, late_ms: float | None) -> None:
    for seed in range(60):
        job = run_job(seed, steps, late_ms, seed % 2, bend_ns=bend_us * US, period_ns=100 * S / steps)
        offset = offset_of(job.bounds)
        assert job.error_ns(offset) <= offset.uncertainty_ns < 500 * US, seed


def test_mean_drift_counts_each_piece_by_its_length() -> None:
    job = run_job(2, steps=400, drift_ppm=20, bend_ns=2 * MS, period_ns=S)
    offset = offset_of(job.bounds)
    first, last = job.everywhere[[0, -1]]
    ends = offset.at(np.array([first, last]))
    assert len(offset.pieces) > 2
    assert offset.drift_ppm == pytest.approx((ends[1] - ends[0]) / (last - first) * 1e6, abs=1.5)


def test_a_piece_answers_for_the_time_up_to_the_next() -> None:
    # Half a second at 50 ppm, a minute without collectives, half a second at -50 ppm on another line.
    steps = [(k * 10 * MS, k * 500) for k in range(50)] + [(60 * S + k * 10 * MS, 40 * MS - k * 500) for k in range(50)]
    offset = offset_of(rows(*((time, x - TRANSFER, x + TRANSFER) for time, x in steps)))
    assert len(offset.pieces) == 2
    # Lines may be steeper or flatter by 160 us / 0.49 s = 327 ppm: nearly 20 ms a minute later.
    assert offset.uncertainty_ns == pytest.approx(60 * S * 327e-6, rel=0.01)
    assert np.abs(offset.at(np.array([EPOCH, EPOCH + 60 * S])) - [0, 40 * MS]).max() <= TRANSFER
    assert offset.drift_ppm == pytest.approx((60 * 50 - 0.49 * 50) / 60.49, abs=0.1)


def test_one_method_is_named_for_all_pieces() -> None:
    late, ordinary = (run_job(seed, steps=100, late_ms=ms, late_host=0).bounds for seed, ms in ((1, 30), (2, None)))
    bounds = joined(late, replace(ordinary, time_ns=ordinary.time_ns + 10_000 * S))
    offset = offset_of(bounds)
    assert {piece.method for piece in offset.pieces} == {"bounds", "bounds and ends"}
    assert offset.method == "bounds and ends"


def test_noise_is_not_taken_for_a_bend() -> None:
    single = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        tight = np.arange(100) % 4 == 0
        half = np.where(tight, TRANSFER, 20 * MS)
        bounds = rows(*((k * 100 * MS, -width, width) for k, width in enumerate(half.tolist())))
        ends = np.where(tight, 0, random.integers(-20 * MS, 20 * MS, 100))
        offset = offset_of(replace(bounds, ends_ns=ends))
        single += len(offset.pieces) == 1
        assert np.abs(offset.at(bounds.time_ns)).max() <= offset.uncertainty_ns
    assert single >= 15


def test_no_collectives_say_nothing() -> None:
    assert fit_offset(Bounds(*(np.zeros(0, np.int64) for _ in range(5)))) is None


def test_one_collective_bounds_the_offset_by_itself() -> None:
    offset = offset_of(rows((0, -70, 130)))
    assert offset.at(np.array([EPOCH])).tolist() == [30]
    assert 100 <= offset.uncertainty_ns <= 104
    assert (offset.method, offset.constraints, offset.drift_ppm) == ("bounds", 1, 0)


@pytest.mark.parametrize("drift_ppm", [0, 33, -97.1])
def test_offsets_keep_every_nanosecond(drift_ppm: float) -> None:
    """Also where transfers take no time, so that nothing but the rounding of clocks is between the bounds."""
    times = np.arange(100, dtype=np.int64) * 7_777_777_777
    truth = 123_456_789 + np.rint(times * (drift_ppm * 1e-6)).astype(np.int64)
    bounds = replace(rows(*zip(times.tolist(), truth.tolist(), truth.tolist(), strict=True)), slack_ns=times * 0)
    offset = offset_of(bounds)
    assert np.abs(offset.at(bounds.time_ns) - truth).max() <= (1 if drift_ppm else 0)
    assert offset.uncertainty_ns <= 5


def test_a_collective_that_crosses_itself_contradicts() -> None:
    found = contradiction_of(rows((0, 10, 0)))
    assert found == Contradiction(1, 10)
    assert "1 of the collectives" in found.reason
    assert "\n" not in found.reason


def test_collectives_that_no_drift_joins_contradict() -> None:
    # In one millisecond a clock may move by 500 ns.
    found = contradiction_of(rows((0, 0, 10), (MS, 10_000, 10_010)))
    assert found.count == 1
    assert found.worst_ns == pytest.approx(10_000 - 10 - 500, abs=2)


def test_the_fewest_contradicting_collectives_are_counted() -> None:
    # Only a drift near 300 ppm fits the good ones.
    good = [(k * S, k * 300 * US - TRANSFER, k * 300 * US + TRANSFER) for k in range(11)]
    bad = [(k * 2 * S + S // 2, 20 * MS + k * 17 * MS, 21 * MS + k * 17 * MS) for k in range(4)]
    assert contradiction_of(rows(*good, *bad)).count == 4


def test_contradictions_are_counted_throughout() -> None:
    for order in (1, -1):
        good = [(k * 10 * MS, -TRANSFER, TRANSFER) for k in range(64)]
        wrong = dict(zip((13, 40, 60)[::order], (2 * MS, 9 * MS, 5 * MS), strict=True))
        bounds = rows(*((t, low + wrong.get(k, 0), high + wrong.get(k, 0)) for k, (t, low, high) in enumerate(good)))
        found = contradiction_of(bounds)
        assert found.count == 3
        assert found.worst_ns == pytest.approx(9 * MS, rel=0.05)


def test_a_clock_that_was_set_contradicts() -> None:
    bounds = run_job(4, steps=200, period_ns=20 * MS).bounds
    found = contradiction_of(set_ahead(bounds, np.where(np.arange(200) >= 90, 50 * MS, 0)))
    assert 1 <= found.count <= 8
    assert 40 * MS < found.worst_ns <= 50 * MS


def test_one_impossible_collective_of_many_is_left_out() -> None:
    job = run_job(6, steps=400)
    spoiled = job.bounds.rows(slice(None))
    spoiled.lower_ns[[7, 8]] = spoiled.upper_ns[[7, 8]] + 5 * MS
    offset = offset_of(spoiled)
    assert (offset.dropped, offset.constraints) == (2, 398)
    assert job.error_ns(offset) <= offset.uncertainty_ns < 200 * US
    spoiled.lower_ns[9] = spoiled.upper_ns[9] + 7 * MS
    assert contradiction_of(spoiled) == Contradiction(3, 7 * MS)


def test_a_collective_that_ends_before_its_issue_on_one_host_bounds_nothing() -> None:
    job = run_job(6, steps=100)
    spoiled = job.bounds.rows(slice(None))
    # Issued on B 3 ms after its own end: x would come out 3 ms too small.
    spoiled.upper_ns[50] = spoiled.ends_ns[50] - 3 * MS
    spoiled.lower_ns[50] = spoiled.upper_ns[50] - 9 * MS
    offset = offset_of(spoiled)
    assert offset.dropped == 1
    assert job.error_ns(offset) <= offset.uncertainty_ns < 200 * US


def test_each_bound_holds_when_it_was_read() -> None:
    # B notices every second end 20 s late, when x has moved by 2 ms: the upper bound still speaks of B's issue.
    issued = EPOCH + np.arange(100, dtype=np.int64) * 60 * S
    ended = issued + np.where(np.arange(100) % 2, 20 * S, TRANSFER)
    issued_a = issued + np.rint((issued - EPOCH) * 1e-4).astype(np.int64)
    ended_a = issued_a + TRANSFER
    bounds = Bounds(ended, issued_a - ended, ended_a - issued, ended_a - ended, np.full(100, TRANSFER))
    offset = offset_of(bounds)
    assert np.abs(offset.at(ended) - (ended - EPOCH) * 1e-4).max() <= offset.uncertainty_ns < 200 * US
    assert keeps(offset, bounds)


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    bounds = run_job(seed, late_ms=5 if seed % 2 else None, bend_ns=seed // 2 * 500 * US).bounds
    order = np.random.default_rng(seed).permutation(bounds.time_ns.size)
    assert fit_offset(bounds.rows(order)) == fit_offset(bounds)


@pytest.mark.parametrize("seed", range(6))
def test_setting_one_clock_moves_the_offset_by_just_that(seed: int) -> None:
    job = run_job(seed, late_ms=5 if seed % 2 else None)
    moved = 987_654_321_987_654_321
    later = replace(set_ahead(job.bounds, -moved), time_ns=job.bounds.time_ns + moved)
    before, after = offset_of(job.bounds), offset_of(later)
    assert np.array_equal(after.at(job.everywhere + moved), before.at(job.everywhere) - moved)
    assert (after.uncertainty_ns, after.drift_ppm) == (before.uncertainty_ns, before.drift_ppm)


def test_each_clock_read_from_the_other_agrees() -> None:
    for seed in range(20):
        b = run_job(seed, steps=100).bounds
        reverse = Bounds(b.time_ns + b.ends_ns, -b.upper_ns, -b.lower_ns, -b.ends_ns, b.slack_ns)
        forth, back = offset_of(b), offset_of(reverse)
        difference = forth.at(b.time_ns) + back.at(b.time_ns + forth.at(b.time_ns))
        assert np.abs(difference).max() <= forth.uncertainty_ns + back.uncertainty_ns


def test_a_hundred_thousand_collectives() -> None:
    job = run_job(8, steps=100_000, period_ns=20 * MS)
    offset = offset_of(job.bounds)
    assert job.error_ns(offset) <= offset.uncertainty_ns < 100 * US
    assert keeps(offset, job.bounds)


def keeps(offset: Offset, bounds: Bounds) -> bool:
    """Whether x keeps to every bound, each when it was read."""
    issued = bounds.time_ns - (bounds.upper_ns - bounds.ends_ns)
    above = offset.at(bounds.time_ns) >= bounds.lower_ns - 1
    return bool(np.all(above & (offset.at(issued) <= bounds.upper_ns + 1)))


SMALL = st.integers(0, 2_000)
# Few enough rows for one piece; (time, how far lower is below the ends, upper above them, ends).
ANY_ROWS = st.lists(st.tuples(st.integers(0, 100 * MS), SMALL, SMALL, SMALL), min_size=1, max_size=15)


@settings(deadline=None)
@given(ANY_ROWS)
def test_an_offset_keeps_to_all_bounds_or_there_is_none(drawn: list[tuple[int, int, int, int]]) -> None:
    time, below, above, ends = (np.array(column, np.int64) for column in zip(*drawn, strict=True))
    bounds = Bounds(EPOCH + time, ends - below, ends + above, ends, np.full(time.size, 100))
    found = fit_offset(bounds)
    if isinstance(found, Contradiction):
        assert 1 <= found.count < time.size
        assert found.worst_ns > 0
    else:
        assert found is not None
        assert found.method == "bounds"
        assert keeps(found, bounds)


@settings(deadline=None)
@given(ANY_ROWS, st.integers(-S, S), st.integers(-400, 400))
def test_a_true_clock_is_never_contradicted_nor_missed(
    drawn: list[tuple[int, int, int, int]], base: int, drift_ppm: int
) -> None:
    time, lead_a, lead_b, later = (np.array(column, np.int64) for column in zip(*drawn, strict=True))
    # Everyone has come at `time` on B's clock; leads are how much earlier, `later` how much later B's end.
    end_b, issue_b = time + later, time - lead_b

    def on_a(times: Ints) -> Ints:
        return times + base + np.rint(times * (drift_ppm / 1e6)).astype(np.int64)

    issue_a, end_a = on_a(time - lead_a), on_a(time + lead_a)
    bounds = Bounds(EPOCH + end_b, issue_a - end_b, end_a - issue_b, end_a - end_b, np.minimum(later + lead_b, lead_a))
    offset = offset_of(bounds)
    truth = on_a(end_b) - end_b
    assert np.abs(offset.at(bounds.time_ns) - truth).max() <= offset.uncertainty_ns
    assert keeps(offset, bounds)


POINTS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(-4, 4)), min_size=1, max_size=7)


@settings(max_examples=200, deadline=None)
@given(POINTS, POINTS)
def test_lines_between_points_are_what_trying_all_corners_finds(
    low: list[tuple[int, int]], high: list[tuple[int, int]]
) -> None:
    below, above = (Points(*(np.array(points, float).T * 1_000)) for points in (low, high))
    above = Points(above.times, above.values + 6_000)
    lines = lines_between(below, above)
    slopes = np.linspace(-MAX_SLOPE, MAX_SLOPE, 501)
    assert lines.room >= room_of(below, above, slopes).max() - 1
    corners = all_corners(below, above)
    if not corners:
        assert lines.room <= 0
        return
    assert max(0, room_of(below, above, np.array([lines.best.slope]))[0]) == pytest.approx(lines.room, abs=1e-6)
    intercepts, slopes = np.array(corners).T
    for time in (0.0, 3e6, 1e7):
        reached, best = intercepts + slopes * time, lines.best.intercept + lines.best.slope * time
        assert lines.half_width(time) == pytest.approx(max(reached.max() - best, best - reached.min()), abs=1)


def room_of(below: Points, above: Points, slopes: np.ndarray) -> np.ndarray:
    ceilings = above.values - slopes[:, None] * above.times
    floors = below.values - slopes[:, None] * below.times
    return np.asarray(ceilings.min(axis=1) - floors.max(axis=1)) / 2


def all_corners(below: Points, above: Points) -> list[tuple[float, float]]:
    """Allowed lines, as (intercept, slope), through two points or through one as steep as can be."""
    points = [*zip(*below, strict=True), *zip(*above, strict=True)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if a[0] != b[0]]
    steep = [slope for slope in slopes if abs(slope) <= MAX_SLOPE]
    lines = [(v - slope * t, slope) for slope in [*steep, -MAX_SLOPE, MAX_SLOPE] for t, v in points]
    return [
        (a, b)
        for a, b in lines
        if np.all(a + b * below.times >= below.values - 1e-9) and np.all(a + b * above.times <= above.values + 1e-9)
    ]
