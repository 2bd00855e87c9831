"""The simulator against answers found by hand, closed forms, brute force, and laws that every prediction obeys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from analyzers.whatif_model import (
    FORWARD,
    MS,
    OPTIMIZER,
    SLACK,
    baseline,
    changed,
    check_ceiling,
    ddp_model,
    ddp_truths,
    link,
    step_ms,
)
from blocking_job import BlockingJob, even_job, slower
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import training_rank, write_run

import commlens
from commlens.analyzers.across.joined import join
from commlens.analyzers.across.transfers import measured
from commlens.analyzers.ranks import rank_facts
from commlens.analyzers.whatif.altered import alter
from commlens.analyzers.whatif.asked import Simulator, find_simulator, simulator_of, what_if
from commlens.analyzers.whatif.buckets import BucketSettings
from commlens.analyzers.whatif.coefficients import DRAWS, calibrated_line, measured_line
from commlens.analyzers.whatif.gates import extrapolated, no_prediction, too_noisy, unsure_sharing
from commlens.analyzers.whatif.model import Model
from commlens.analyzers.whatif.optimum import best_cap, best_caps, cuts
from commlens.analyzers.whatif.predicted import predict, replay
from commlens.analyzers.whatif.queue import Queues
from commlens.analyzers.whatif.ready import UNSTABLE, GradientTimes
from commlens.analyzers.whatif.relaid import INTERPOLATED
from commlens.analyzers.whatif.sharing import Sharing, beside, find_sharing
from commlens.trace import Run
from commlens.trace.calibration import INTRA, CalibrationEntry
from commlens.trace.changes import parse, parse_all

KB = 1000
FIXED = FORWARD + OPTIMIZER


def cap(size: float) -> str:
    return f"ddp.bucket_cap_mb={size / 2**20!r}"


# --- the link ---------------------------------------------------------------------------------------------------


def _ends(workers: int, sharing: float, launched: list[float], costs: list[float]) -> list[float]:
    queues = Queues([link(workers, sharing)], np.zeros(1, np.int64), len(costs))
    only = np.zeros(1, np.int64)
    for slot, (at, cost) in enumerate(zip(launched, costs, strict=True)):
        queues.take(slot, only, np.full((1, 1), at), np.full((1, 1), cost))
    return [float(queues.ends_ns(slot, only)[0, 0]) for slot in range(len(costs))]


@pytest.mark.parametrize(
    ("workers", "sharing", "launched", "costs", "ends"),
    [
        (1, 0.0, [0, 5, 40], [10, 10, 10], [10, 20, 50]),
        (2, 0.0, [0, 5, 6], [10, 10, 10], [10, 15, 20]),
        # Alone until 5, then both at half speed: 5 left of the first take 10; then the second goes on alone.
        (2, 1.0, [0, 5], [10, 10], [15, 20]),
        # A short one beside a long one: it takes twice its time, and the long one that much more.
        (2, 1.0, [0, 10], [100, 10], [110, 30]),
        # The third waits for a worker.
        (2, 1.0, [0, 0, 0], [10, 10, 10], [20, 20, 30]),
        (3, 1.0, [0, 0, 0], [10, 10, 10], [10, 10, 10]),
    ],
)
def test_collectives_queue_for_workers_and_share_the_link(
    workers: int, sharing: float, launched: list[float], costs: list[float], ends: list[float]
) -> None:
    assert _ends(workers, sharing, launched, costs) == ends


@given(
    costs=st.lists(st.integers(1, 100), min_size=1, max_size=8),
    gaps=st.lists(st.integers(0, 50), min_size=8, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_a_fully_shared_link_moves_everything_as_fast_as_one_after_the_other(costs: list[int], gaps: list[int]) -> None:
    launched = np.cumsum(gaps[: len(costs)]).tolist()
    assert max(_ends(2, 1.0, launched, costs)) == pytest.approx(_ends(1, 0.0, launched, costs)[-1])


def test_time_beside_another_transfer() -> None:
    starts, ends = np.array([0, 5, 30, 32]), np.array([10, 20, 40, 34])
    assert beside(starts, ends).tolist() == [5, 5, 2, 2]
    assert beside(starts[:1], ends[:1]).tolist() == [0]


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_sharing_is_measured_where_some_ran_side_by_side(factor: float) -> None:
    draw = np.random.default_rng(1)
    size = draw.integers(10_000, 1_000_000, 300)
    solo = 1e6 + 8 * size
    together = solo * draw.choice([0.0, 0.5, 0.9], 300)
    taken = solo + factor / (1 + factor) * together
    found = find_sharing(size, (taken * draw.normal(1, 0.01, 300)).astype(np.int64), together.astype(np.int64))
    assert found.measured
    assert found.factor[0] == pytest.approx(factor, abs=0.08)


def test_sharing_that_nobody_saw_is_full_and_its_draws_leave_both_open() -> None:
    size = np.full(50, 1000)
    found = find_sharing(size, np.full(50, 5000), np.zeros(50, np.int64))
    assert (found.measured, found.factor[0], set(found.factor[1:].tolist())) == (False, 1.0, {0.0, 1.0})


# --- costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha_ms", "ns_per_byte"),
    [(0.908, 0.740), (0.523, 0.857), (0.236, 0.406), (0.0975, 0.306), (0.042, 0.206)],
)
def test_the_fitted_constants_of_mg_wfbp_are_recovered(alpha_ms: float, ns_per_byte: float) -> None:
    # Source: the clusters that the MG-WFBP repository was fitted to (10 GbE and 56 Gb/s, 4 to 16 nodes).
    draw = np.random.default_rng(0)
    size = np.repeat(2 ** np.arange(12, 27), 20)
    taken = (alpha_ms * MS + ns_per_byte * size) * draw.normal(1, 0.02, size.size)
    line = measured_line(size, taken.astype(np.int64))
    assert not isinstance(line, str)
    assert line.alpha_ns[0] == pytest.approx(alpha_ms * MS, rel=0.02)
    assert line.beta[0] == pytest.approx(ns_per_byte, rel=0.02)


def test_one_size_gives_no_line_but_a_reason() -> None:
    assert "one message size only" in str(measured_line(np.full(20, 4096), np.full(20, 10**6)))


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_a_calibration_tells_latency_from_bandwidth_where_one_size_cannot(slower: float) -> None:
    sizes = tuple(4**power for power in range(5, 13))
    entry = CalibrationEntry("all_reduce", (0, 1), 2, INTRA, sizes, tuple(1000 + size * 0.01 for size in sizes))
    line = calibrated_line(entry, np.full(20, 10**6), np.full(20, int(slower * 11 * MS)))
    assert line is not None
    assert line.calibrated
    assert line.alpha_ns[0] == pytest.approx(slower * MS, rel=0.01)
    assert line.beta[0] == pytest.approx(slower * 10, rel=0.01)
    # Each draw meets what was measured; the more had to be scaled, the less is known of its parts.
    assert line.alpha_ns + line.beta * 10**6 == pytest.approx(slower * 11 * MS)
    assert (line.alpha_ns.std() > 0.1 * MS) == (slower > 1)


# --- closed forms -----------------------------------------------------------------------------------------------


def test_a_bucket_that_is_larger_than_all_is_sent_when_backward_ends() -> None:
    model = ddp_model([100 * KB] * 10, alpha_ms=2, ns_per_byte=10, backward_ms=50)
    assert len(model.nodes) == 1
    assert step_ms(model) == pytest.approx(FIXED + 50 + 2 + 10)


@pytest.mark.parametrize("count", [1, 2, 4, 10, 20])
def test_communication_bound_steps_follow_the_closed_form(count: int) -> None:
    # T = T_b b/M + alpha M/b + beta M for uniform gradients on a serial link.
    model = ddp_model([10 * KB] * 200, alpha_ms=2, ns_per_byte=100, backward_ms=100)
    expected = FIXED + 100 / count + 2 * count + 200
    assert step_ms(changed(model, cap(2e6 / count))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 4, 10, 20])
def test_compute_bound_steps_expose_the_last_bucket_only(count: int) -> None:
    model = ddp_model([10 * KB] * 200, alpha_ms=1, ns_per_byte=10, backward_ms=100)
    assert step_ms(changed(model, cap(2e6 / count))) == pytest.approx(FIXED + 100 + 1 + 20 / count, rel=1e-9)


def test_the_best_cap_of_a_communication_bound_step_is_the_closed_forms() -> None:
    # b* = M sqrt(alpha / T_b): 2 MB * sqrt(1 / 100) = 200 kB.
    model = ddp_model([10 * KB] * 200, alpha_ms=1, ns_per_byte=100, backward_ms=100)
    found = best_cap(baseline(model))
    assert not isinstance(found, str)
    assert found.step_ms == pytest.approx(FIXED + 100 / 10 + 10 + 200, rel=1e-9)


def test_the_best_cap_of_a_compute_bound_step_is_the_smallest_that_does_not_queue() -> None:
    # b* = alpha / (T_b/M - beta) = 1 ms / (50 - 10 ns/B) = 25 kB; of 10 kB gradients it takes 4 to come out even.
    model = ddp_model([10 * KB] * 200, alpha_ms=1, ns_per_byte=10, backward_ms=100)
    found = best_cap(baseline(model))
    assert not isinstance(found, str)
    assert found.step_ms == pytest.approx(FIXED + 100 + 1 + 0.4, rel=1e-9)


def test_a_list_of_caps_is_never_worse_than_one_cap() -> None:
    draw = np.random.default_rng(3)
    sizes = (KB * 2 ** draw.uniform(2, 10, 60)).astype(int).tolist()
    base = baseline(ddp_model(sizes, alpha_ms=1, ns_per_byte=10, backward_ms=100))
    one = best_cap(base)
    several = best_caps(base, one)
    assert not isinstance(one, str)
    assert not isinstance(several, str)
    assert several.step_ms <= one.step_ms


@given(
    ready=st.lists(st.integers(0, 50), min_size=1, max_size=7),
    alpha=st.integers(0, 10),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_planned_buckets_are_the_best_of_all(ready: list[int], alpha: int, data: st.DataObject) -> None:
    n = len(ready)
    sizes = np.array(data.draw(st.lists(st.integers(1, 20), min_size=n, max_size=n)), float)
    times = np.sort(np.array(ready, float))
    every = [[*inner, n] for k in range(n) for inner in combinations(range(1, n), k)]
    best = min(_sent(times, sizes, alpha, ends) for ends in every)
    assert _sent(times, sizes, alpha, cuts(times, sizes, alpha, 1.0)) == pytest.approx(best)


def _sent(ready: np.ndarray, sizes: np.ndarray, alpha: float, ends: list[int]) -> float:
    done, begin = 0.0, 0
    for end in ends:
        done = max(done, ready[end - 1]) + alpha + sizes[begin:end].sum()
        begin = end
    return done


def test_planned_buckets_beat_greedy_merging_every_gradient_and_one_bucket() -> None:
    # MG-WFBP merges a gradient into the next where its own message could not begin before that is ready, or
    # where waiting for it costs less than a latency.
    draw = np.random.default_rng(5)
    for _ in range(20):
        ready, sizes = np.sort(draw.uniform(0, 100, 30)), draw.uniform(0.1, 8, 30)
        ours = _sent(ready, sizes, 2.0, cuts(ready, sizes, 2.0, 1.0))
        others = [_greedy(ready, sizes, 2.0), list(range(1, 31)), [30]]
        assert all(ours <= _sent(ready, sizes, 2.0, ends) + 1e-9 for ends in others)


def _greedy(ready: np.ndarray, sizes: np.ndarray, alpha: float) -> list[int]:
    ends, done = [], 0.0
    for i in range(ready.size - 1):
        begin = max(done, ready[i])
        if not (begin > ready[i + 1] or ready[i + 1] - begin < alpha):
            done = begin + alpha + sizes[(ends[-1] if ends else 0) : i + 1].sum()
            ends.append(i + 1)
    return [*ends, ready.size]


# --- changes ----------------------------------------------------------------------------------------------------

SIZES = [100 * KB] * 20


@pytest.fixture
def model() -> Model:
    """Four buckets of 0.5 MB: 2 + 5 ms each, ready every 12.5 ms; the last one is exposed."""
    return ddp_model(SIZES, 2, 10, 50, BucketSettings(bucket_cap_mb=0.5e6 / 2**20))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("link.bandwidth=x2", 50 + 2 + 2.5),
        ("link.bandwidth=0.2", 50 + 2 + 2.5),
        ("link.latency=x0.5", 50 + 1 + 5),
        ("link.latency=1000", 50 + 1 + 5),
        ("ddp.comm_hook=fp16", 50 + 2 + 2.5),
        ("wire.dtype=bf16", 50 + 2 + 2.5),
        ("ddp.comm_hook=fp16,link.bandwidth=x2", 50 + 2 + 1.25),
        ("overlap=none", 50 + 4 * 7),
        ("overlap=perfect", 50),
        ("ddp.no_sync_every=4", 50 + 7 / 4),
        ("ddp.bucket_cap_mb_list=1.25+0.6", 35 + 2 + 14 + 2 + 6),
        ("ddp.bucket_cap_mb=1000", 50 + 2 + 20),
    ],
)
def test_what_a_change_makes_of_the_step(model: Model, text: str, expected: float) -> None:
    assert step_ms(changed(model, text)) == pytest.approx(FIXED + expected)


def test_the_small_bucket_goes_last() -> None:
    settings = BucketSettings(first_bucket_bytes=100 * KB)
    model = ddp_model(SIZES, 2, 10, 50, settings)
    assert step_ms(model) == pytest.approx(FIXED + 50 + 2 + 19)
    # 1.9 MB are sent at 95 % of backward and take 21 ms, the last 0.1 MB wait for them.
    assert step_ms(changed(model, "ddp.last_bucket_cap=1")) == pytest.approx(FIXED + 0.95 * 50 + 21 + 3)


def test_late_ranks_are_made_like_the_others() -> None:
    model = ddp_model(SIZES, 2, 10, 50, late_ms=[0, 0, 30, 0])
    assert step_ms(model) == pytest.approx(FIXED + 30 + 50 + 22)
    late = replace(model, late=(2,))
    assert step_ms(changed(late, "straggler.remove=1")) == pytest.approx(FIXED + 50 + 22)
    assert step_ms(changed(model, "imbalance.remove=1")) == pytest.approx(FIXED + 7.5 + 50 + 22)
    assert alter(model, [parse("straggler.remove=1")]) == "no rank is always the one that others wait for"


def test_micro_batches_that_all_reduce_may_do_so_once() -> None:
    model = ddp_model(SIZES, 2, 10, 50, rounds=2)
    assert step_ms(model) == pytest.approx(FIXED + 2 * (50 + 22))
    assert step_ms(changed(model, "ddp.no_sync_every=2")) == pytest.approx(FIXED + 100 + 22)
    assert "does not go with that" in str(alter(model, [parse("ddp.no_sync_every=3")]))


def test_what_cannot_be_simulated_is_said(model: Model) -> None:
    assert alter(model, [parse("env.NCCL_ALGO=Tree")]) == "env.NCCL_ALGO cannot be simulated"
    assert "shapes" in str(alter(model, [parse("ddp.comm_hook=powersgd")]))


# --- laws -------------------------------------------------------------------------------------------------------

_PARTS: dict[str, st.SearchStrategy[object]] = {
    "sizes": st.lists(st.integers(1, 500), min_size=1, max_size=12).map(lambda sizes: [KB * size for size in sizes]),
    "alpha_ms": st.floats(0, 5),
    "ns_per_byte": st.floats(0.1, 50),
    "backward_ms": st.floats(1, 100),
    "settings": st.floats(0.01, 2).map(lambda cap: BucketSettings(bucket_cap_mb=cap)),
    "late_ms": st.lists(st.floats(0, 40), min_size=2, max_size=4),
    "steps": st.just(5),
}
serial = st.builds(ddp_model, **_PARTS)
models = st.builds(ddp_model, **_PARTS, on=st.builds(link, st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0])))


@given(model=models, factor=st.floats(1, 10))
@settings(max_examples=60, deadline=None)
def test_a_faster_link_is_never_slower(model: Model, factor: float) -> None:
    assert step_ms(changed(model, f"link.bandwidth=x{factor}")) <= step_ms(model) + SLACK


@given(model=models)
@settings(max_examples=60, deadline=None)
def test_perfect_overlap_is_a_lower_bound_and_an_infinite_cap_is_one_bucket(model: Model) -> None:
    assert step_ms(changed(model, "overlap=perfect")) <= step_ms(model) + SLACK
    assert len(changed(model, "ddp.bucket_cap_mb=1e6").nodes) == 1


@given(model=serial)
@settings(max_examples=60, deadline=None)
def test_no_overlap_is_never_faster(model: Model) -> None:
    assert step_ms(changed(model, "overlap=none")) >= step_ms(model) - SLACK


@given(model=models, late=st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_step_without_a_straggler_is_never_slower(model: Model, late: int) -> None:
    with_late = replace(model, late=(late,))
    assert step_ms(changed(with_late, "straggler.remove=1")) <= step_ms(model) + SLACK


@given(
    model=models,
    text=st.sampled_from(
        [
            "link.bandwidth=x3",
            "ddp.bucket_cap_mb=0.3",
            "ddp.comm_hook=fp16",
            "overlap=perfect",
            "imbalance.remove=1",
            "ddp.no_sync_every=2",
            "ddp.no_sync_every=2,imbalance.remove=1",
            "link.latency=x0.1",
        ]
    ),
)
@settings(max_examples=80, deadline=None)
def test_no_gain_exceeds_its_ceiling(model: Model, text: str) -> None:
    check_ceiling(model, changed(model, text))


# --- recorded runs ----------------------------------------------------------------------------------------------


def simulator(tmp_path: Path, job: BlockingJob) -> Simulator:
    return simulator_of(commlens.open_run(write_run(tmp_path / "run", job.truths())))


def test_a_recorded_job_is_replayed_to_the_nanosecond(tmp_path: Path) -> None:
    found = simulator(tmp_path, even_job(seed=4))
    assert found.refusal is None
    assert found.baseline is not None
    assert found.baseline.replayed_ns == pytest.approx(found.baseline.measured_ns, abs=2000)


def test_a_straggler_is_worth_what_was_planted(tmp_path: Path) -> None:
    found = simulator(tmp_path, slower(even_job(steps=30), 2, 12_000_000))
    (scenario,) = what_if(found, [[parse("straggler.remove=1")]]).scenarios
    assert scenario.predicted is not None
    assert scenario.predicted.gain_ms == pytest.approx(12, abs=0.4)
    assert scenario.predicted.low_ms < 12 < scenario.predicted.high_ms + 0.4
    assert "look at the late ranks first" in found.notes[0]


CAPS = BucketSettings(bucket_cap_mb=0.5)
# Gradients of two sizes, so that buckets are of several.
UNEVEN = [100 * KB] * 10 + [900 * KB, 200 * KB]


def recorded_ddp(tmp_path: Path, **options: float) -> Run:
    truths = ddp_truths(UNEVEN, 2, 10, 60, CAPS, **options)  # type: ignore[arg-type]
    return commlens.open_run(write_run(tmp_path / "run", truths))


@pytest.mark.parametrize("late_ms", [(0.0, 0.0), (0.0, 7.0, 3.0)])
def test_a_recorded_ddp_job_becomes_its_model(tmp_path: Path, late_ms: tuple[float, ...]) -> None:
    found = simulator_of(recorded_ddp(tmp_path, late_ms=late_ms))  # type: ignore[arg-type]
    same = ddp_model(UNEVEN, 2, 10, 60, CAPS, late_ms=late_ms)
    assert found.baseline is not None
    assert found.baseline.replayed_ns / MS == pytest.approx(step_ms(same), abs=1e-3)
    assert found.baseline.model.layout == same.layout
    for text in ("ddp.bucket_cap_mb=0.2", "ddp.bucket_cap_mb=2", "ddp.comm_hook=fp16", "link.bandwidth=x2"):
        (scenario,) = what_if(found, [parse_all(text)]).scenarios
        assert scenario.predicted is not None
        assert scenario.predicted.step_ms == pytest.approx(step_ms(changed(same, text)), rel=0.01)
    assert INTERPOLATED in what_if(found, [parse_all("ddp.bucket_cap_mb=2")]).scenarios[0].assumptions


def with_gradients(run: Run, reversed_steps: Sequence[int] = ()) -> Simulator:
    """The simulator of `recorded_ddp` where all gradients were ready about 20 ms into backward on rank 0."""
    begun = run.ranks[0].columns("phases", ["start_ns"])["start_ns"][::2]
    count = len(UNEVEN)
    rows = [
        (0, count - 1 - place if step not in reversed_steps else place, begun[step] + round((20 + place / 1000) * MS))
        for step in (4, 8)
        for place in range(count)
    ]
    times = GradientTimes(*np.array(rows, np.int64).T)
    others = [times.of(-1) for _ in range(1, len(run.ranks))]  # without a row
    ranks = [rank_facts(rank) for rank in run.ranks.values()]
    infos = {number: rank.info for number, rank in run.ranks.items()}
    joined = join(ranks)
    return find_simulator(ranks, joined, measured(ranks, joined), infos, gradients=lambda: [times, *others])


def test_recorded_gradient_times_are_believed(tmp_path: Path) -> None:
    found = with_gradients(recorded_ddp(tmp_path))
    (scenario,) = what_if(found, [parse_all("ddp.bucket_cap_mb=0.01")]).scenarios
    assert scenario.predicted is not None
    # Twelve messages, one after the other, from 20 ms on: 12 * 2 ms + 2.1 MB * 10 ns/B.
    assert scenario.predicted.step_ms == pytest.approx(FIXED + 20 + 12 * 2 + 21, abs=0.05)
    assert INTERPOLATED not in scenario.assumptions


def test_buckets_are_not_laid_out_anew_where_gradients_come_in_any_order(tmp_path: Path) -> None:
    found = with_gradients(recorded_ddp(tmp_path), reversed_steps=(8,))
    caps, link = what_if(found, [parse_all("ddp.bucket_cap_mb=1"), parse_all("link.bandwidth=x2")]).scenarios
    assert caps.abstention == UNSTABLE
    assert link.predicted is not None


def test_buckets_that_no_setting_explains_are_not_laid_out_anew(tmp_path: Path) -> None:
    truths = ddp_truths(UNEVEN, 2, 10, 60, CAPS)
    for truth in truths.values():
        model = truth.info["models"][0]
        model["bucket_parameters"] = [[11, 10], [9, 8, 7, 6, 5, 4], [3, 2, 1, 0]]
        model["flags"]["bucket_bytes_cap"] = 10 * 2**20
    found = simulator_of(commlens.open_run(write_run(tmp_path / "run", truths)))
    (scenario,) = what_if(found, [parse_all("ddp.bucket_cap_mb=1")]).scenarios
    assert "not those that DDP makes" in str(scenario.abstention)


def test_sizes_split_latency_from_bandwidth(tmp_path: Path) -> None:
    sizes = (1_000_000, 4_000_000, 16_000_000)
    job = even_job(steps=30, bytes=sizes)
    job = BlockingJob(job.work, np.array([1_000_000 + size for size in sizes]), bytes=sizes)
    found = simulator(tmp_path, job)
    faster, sooner = what_if(found, [[parse("link.bandwidth=x2")], [parse("link.latency=x0.5")]]).scenarios
    assert faster.predicted is not None
    assert sooner.predicted is not None
    assert faster.predicted.gain_ms == pytest.approx(sum(sizes) / 2 / 1e6, rel=0.01)
    assert sooner.predicted.gain_ms == pytest.approx(1.5, rel=0.05)


def test_one_message_size_cannot_tell_what_bandwidth_does(tmp_path: Path) -> None:
    (scenario,) = what_if(simulator(tmp_path, even_job()), [[parse("link.bandwidth=x2")]]).scenarios
    assert scenario.predicted is None
    assert "one message size only" in str(scenario.abstention)


def test_runs_that_cannot_be_simulated_say_why(tmp_path: Path) -> None:
    few = simulator(tmp_path / "few", even_job(steps=6))
    assert few.refusal == "4 steps are alike on all ranks; it takes 5 to simulate one"
    lost = even_job().truths()
    part = commlens.open_run(write_run(tmp_path / "lost", {0: lost[0], 1: lost[1]}, world_size=4))
    assert simulator_of(part).refusal == "2 of 4 ranks were not recorded"
    alone = commlens.open_run(write_run(tmp_path / "alone", {0: training_rank(12)}))
    assert simulator_of(alone).refusal == "only one rank was recorded"
    result = what_if(few, [[parse("overlap=perfect")]])
    assert (result.baseline.measured_ms, result.scenarios[0].predicted, result.abstention) == (None, None, few.refusal)


def test_a_recorded_step_that_the_model_does_not_explain_predicts_nothing(model: Model) -> None:
    assert no_prediction(replay(model)) is None
    reason = no_prediction(replay(replace(model, step_ns=model.step_ns * 1.2)))
    assert reason is not None
    assert "17 % off" in reason


def test_noise_hides_small_gains_and_leaves_large_ones(model: Model) -> None:
    loud = replace(replay(model), variation=0.2)
    assert "steps vary by 20 %" in str(too_noisy(loud, -1.0, 1.0))
    assert too_noisy(loud, 0.5, 1.0) is None
    assert too_noisy(replay(model), -1.0, 1.0) is None


def test_messages_far_from_the_measured_sizes_are_told(model: Model) -> None:
    line = measured_line(np.repeat([10**5, 6 * 10**5], 20), np.repeat([3 * 10**6, 8 * 10**6], 20))
    assert not isinstance(line, str)
    known = replace(model, nodes=tuple(replace(node, lines=(line,)) for node in model.nodes))
    assert extrapolated(known) is None
    assert "intervals twice as wide" in str(extrapolated(changed(known, "ddp.bucket_cap_mb=1000")))


def test_sharing_that_was_not_seen_is_told_only_where_it_matters(model: Model) -> None:
    unseen = replace(model, links=(link(2, 1.0),))
    unseen = replace(unseen, links=(replace(unseen.links[0], sharing=Sharing(np.ones(1 + DRAWS), measured=False)),))
    base = replay(unseen)
    assert unsure_sharing(base, unseen) is None
    assert "was not seen" in str(unsure_sharing(base, changed(unseen, "link.bandwidth=x0.2")))


def test_predictions_are_the_same_every_time(model: Model) -> None:
    after = changed(model, "link.bandwidth=x2")
    assert predict(replay(model), after) == predict(replay(model), after)


def test_shared_cores_leave_room_for_slower_compute_where_more_overlaps() -> None:
    # One message after backward, 1 + 20 ms; or 40 of 1.5 ms each beside it, but for the last: 58.5 ms that overlap.
    model = ddp_model(
        [10 * KB] * 200, alpha_ms=1, ns_per_byte=10, backward_ms=100, settings=BucketSettings(bucket_cap_mb=10)
    )
    apart, crowded = replay(model), replay(model, crowded=True)
    cut, same = changed(model, cap(50 * KB)), changed(model, "ddp.bucket_cap_mb=9")
    alone, shared = predict(apart, cut)[0], predict(crowded, cut)[0]
    assert shared.gain_ms == alone.gain_ms == pytest.approx(19.5)
    assert alone.low_ms - shared.low_ms == pytest.approx(0.665 * 58.5, rel=0.1)
    nothing = predict(crowded, same)[0]  # overlaps no more: two runs on shared cores differ by 2 %
    assert nothing.gain_ms == 0 and -nothing.low_ms == pytest.approx(1.645 * 0.02 * step_ms(model), rel=0.3)
    whole = predict(replay(cut, crowded=True), changed(cut, "ddp.bucket_cap_mb=10"))[0]
    assert whole.gain_ms == pytest.approx(-19.5) and whole.high_ms > 0
