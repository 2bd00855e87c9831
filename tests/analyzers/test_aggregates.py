"""What sums tell: who is waited for, which group is slow, what they leave open; and what is no sum."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aggregated_job import INNER, ONLY, AggregatedJob
from blocking_job import BlockingJob, even_job, slower
from command_line import commlens
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import MS, START, RankTruth, collective_columns, write_run

from commlens import analyze, open_run
from commlens.analyzers import Report
from commlens.analyzers.aggregated.rank_sums import read_sums
from commlens.render.headline import headline
from commlens.render.report import print_report
from commlens.render.words import open_console
from commlens.trace import RankWriter
from commlens.trace.aggregates import aggregated, bin_bounds, bin_of, stretch_bounds, stretch_of
from commlens.trace.schema import MISSING, TABLES

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from scale_cluster import found_faults
from scale_plan import Shape
from scale_run import FAULTS, make_run


def report_of(path: Path, job: AggregatedJob, **options: Any) -> Report:
    return analyze(open_run(job.write(path, **options)))


def text_of(report: Report, width: int = 100) -> str:
    stream = io.StringIO()
    print_report(report, open_console(stream, width))
    return stream.getvalue()


def test_what_is_summed_and_what_is_not_told(tmp_path: Path) -> None:
    job = AggregatedJob()
    report = report_of(tmp_path, job)
    told = report.aggregates
    assert told is not None and told.only
    assert (told.ranks, told.from_step, told.dropped) == (16, 0, 0)
    assert told.collectives == job.ranks * job.steps * (INNER + 1)
    assert told.steps == job.steps - 2
    assert report.findings == ()
    assert {"time-budget", "critical-path", "wait-transfer-split"} <= {each.analysis for each in report.abstentions}
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()
    assert all(line.compared is not None and line.compared > 0.98 for line in told.lines)
    told_first = headline(report)
    assert told_first.startswith("What communication costs of a step cannot be told: of all steps only sums")
    assert "By sums of collectives no rank is late all the time" in told_first


def test_durations_are_those_of_the_collectives(tmp_path: Path) -> None:
    job = AggregatedJob(hosts=2, per_host=2)
    issued, ended, optimizer = job._times()
    told = report_of(tmp_path, job).aggregates
    assert told is not None
    inner = next(line for line in told.lines if line.group == "tp0")
    lasted = (ended - issued)[:2, :, :INNER] / MS
    assert inner.count == lasted.size and inner.count_per_step == INNER
    assert inner.duration_ms_mean == pytest.approx(lasted.mean(), rel=1e-6)
    late = lasted[:, 2:]
    assert inner.duration_ms_p50 == pytest.approx(np.median(late), rel=0.1)
    assert inner.duration_ms_p95 == pytest.approx(np.quantile(late, 0.95), rel=0.1)
    assert inner.duration_ms_longest == pytest.approx(lasted.max(), rel=1e-6)
    assert told.step_ms_mean == pytest.approx(np.diff(optimizer[:, 1:]).mean() / MS, rel=1e-6)
    waited = (issued.reshape(2, 2, -1, INNER + 1).max(axis=1)[:, None] - issued.reshape(2, 2, -1, INNER + 1)) / MS
    assert inner.transfer_ms_at_most is not None and inner.wait_ms_at_least is not None
    assert inner.transfer_ms_at_most >= 1.0
    assert inner.wait_ms_at_least <= waited[0, :, 2:, :INNER].mean() + 1e-6


@pytest.mark.parametrize(
    ("late", "said"),
    [([5], "rank 5 (host host1) is always late"), ([4, 5, 6, 7], "host host1 (ranks 4-7) is always late")],
)
def test_who_is_late(tmp_path: Path, late: list[int], said: str) -> None:
    report = report_of(tmp_path, AggregatedJob(late=late))
    (found,) = report.findings
    assert (found.id, found.ranks, found.confidence, found.ceiling_ms) == (
        "straggler-rank",
        tuple(late),
        "medium",
        None,
    )
    assert found.title.startswith(said)
    assert found.evidence[0].value == pytest.approx(3, abs=0.15)
    assert report.aggregates is not None
    waits = {each.rank: each.wait_ms_per_step_at_least or 0 for each in report.aggregates.per_rank}
    assert max(waits[rank] for rank in late) < 0.1 < 2.5 < min(w for rank, w in waits.items() if rank not in late)


def test_a_slow_group_is_not_a_late_host(tmp_path: Path) -> None:
    report = report_of(tmp_path, AggregatedJob(slow_groups=[2]))
    (found,) = report.findings
    assert (found.id, found.group, found.ranks, found.confidence) == ("slow-group", "tp2", (8, 9, 10, 11), "medium")
    assert found.evidence[0].value == pytest.approx(4, abs=0.2) and found.evidence[1].value == pytest.approx(1, abs=0.2)


def test_a_straggler_a_slow_host_and_a_slow_group_at_once(tmp_path: Path) -> None:
    job = AggregatedJob(hosts=6, late=[8, 9, 10, 11], late_ns=4 * MS, later={17: 20 * MS}, slow_groups=[0])
    found = {(each.id, each.ranks) for each in report_of(tmp_path, job).findings}
    assert found == {("straggler-rank", (17,)), ("straggler-rank", (8, 9, 10, 11)), ("slow-group", (0, 1, 2, 3))}


@pytest.mark.parametrize("faults", [FAULTS, *((fault,) for fault in FAULTS), ()], ids=str)
def test_in_a_job_of_tensor_pipeline_and_data_parallel_ranks(tmp_path: Path, faults: tuple[str, ...]) -> None:
    planted = make_run(tmp_path / "run", Shape(64, 80, 40), faults=faults, packed=True, sums=True)
    report = analyze(open_run(tmp_path / "run"))
    assert report.aggregates is not None and report.aggregates.collectives == 64 * 80 * 40
    assert found_faults(report.to_dict(), planted) == dict.fromkeys(faults, True)
    assert len(report.findings) == len(faults)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_nobody_is_blamed_for_chance(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    job = AggregatedJob(hosts=3, per_host=2, steps=120, noise_ns=2 * MS, seed=seed)
    assert report_of(tmp_path_factory.mktemp("even"), job).findings == ()


def test_with_ranks_that_were_not_recorded_nothing_is_sure(tmp_path: Path) -> None:
    report = report_of(tmp_path, AggregatedJob(late=[5]), ranks=range(4, 8), sampled_ranks="4:8")
    assert report.run.ranks_missing == () and len(report.run.ranks_sampled_out) == 12
    (found,) = report.findings
    assert (found.ranks, found.confidence) == ((5,), "low")
    assert "12 ranks were not recorded (COMMLENS_RANKS=4:8)" in found.could_be_wrong_if[-1]
    text = text_of(report)
    assert "left out on purpose (COMMLENS_RANKS=4:8)" in text and "missing" not in text


def test_few_steps_tell_no_habit(tmp_path: Path) -> None:
    report = report_of(tmp_path, AggregatedJob(late=[5], steps=30))
    assert report.findings == ()
    why = {each.analysis: each.reason for each in report.abstentions}
    assert "too few to tell a habit from chance" in why["stragglers"]


def test_sums_of_other_collectives_are_not_compared(tmp_path: Path) -> None:
    job = AggregatedJob(hosts=2, per_host=2, late=[1])
    job.write(tmp_path / "run", ranks=[0, 1, 2])
    AggregatedJob(hosts=2, per_host=2, steps=120).write(tmp_path / "other", ranks=[3])
    (tmp_path / "other/rank-00003").rename(tmp_path / "run/rank-00003")
    told = analyze(open_run(tmp_path / "run")).aggregates
    assert told is not None
    shares = {line.group: line.compared or 0 for line in told.lines}
    assert shares["tp0"] > 0.98 > 0.8 > shares["tp1"] and shares["dp1"] < 0.8


def test_sections_fit_any_width(tmp_path: Path) -> None:
    report = report_of(tmp_path, AggregatedJob(late=[5]))
    for width in (60, 80, 100, 200):
        text = text_of(report, width)
        assert max(map(len, text.splitlines())) <= width
        assert "Sums of all steps (COMMLENS_QUOTA)" in text and "5 (100 %)" in text


def test_without_steps_sums_are_of_the_whole_run(tmp_path: Path) -> None:
    """Without an optimizer the recorder knows no step: all collectives are of step 0."""
    told_of = {}
    for known in (True, False):
        report = report_of(tmp_path / str(known), AggregatedJob(steps=200 if known else 198, known_steps=known))
        told = report.aggregates
        assert told is not None and told.stepless is not known
        told_of[known] = {(line.group, line.bytes): line for line in told.lines}
    assert told.steps == 0 and told.step_ms_mean is None
    for key, line in told_of[False].items():
        calls = 4 * (198 if key[0].startswith("dp") else 198 * INNER)
        assert (line.count, line.count_per_step, line.total_bytes) == (calls, None, calls * (line.bytes or 0))
        like = told_of[True][key]
        assert line.duration_ms_p50 == pytest.approx(like.duration_ms_p50, rel=0.09)
        assert line.duration_ms_p95 == pytest.approx(like.duration_ms_p95, rel=0.09)
    why = {each.analysis: each.reason for each in report.abstentions}
    assert why["stragglers"].startswith("no whole step after the job's first two is in the sums")
    text = text_of(report)
    section = text[text.index("Sums over the whole run (COMMLENS_QUOTA)") :]
    for words in ("count", "bytes", "p50", "p95", "count and bytes: over the whole"):
        assert words in section
    for absent in ("transfer:", "wait:", "last:", "per\n"):
        assert absent not in section[: section.index("What this rests on")]


def _aggregates(job: BlockingJob, rank: int, from_step: int) -> dict[str, dict[str, Any]]:
    """The sums of a job's later steps."""
    truth = job.truths()[rank]
    columns = collective_columns(truth.collectives)
    count = job.work.shape[2]
    step = np.arange(len(truth.collectives)) // count
    chosen = step >= from_step
    names = {"group", "op", "dtype"}
    own = {
        name: (values[0][chosen], values[1]) if isinstance(values, tuple) else values[chosen]
        for name, values in columns.items()
        if name in names or not isinstance(values, tuple)
    }
    return aggregated(own | {"step": step[chosen]})


def test_a_quota_reached_midway_leaves_the_steps_before_as_they_are(tmp_path: Path) -> None:
    before = slower(even_job(4, 22), 2, 8 * MS)
    job = slower(even_job(4, 100), 2, 8 * MS)
    whole = analyze(open_run(write_run(tmp_path / "before", before.truths())))
    told = {"quota_bytes": 1000, "from_step": 22}
    truths = {
        rank: RankTruth(truth.collectives, truth.phases, info={**truth.info, "aggregates": told})
        for rank, truth in before.truths().items()
    }
    path = write_run(tmp_path / "mixed", truths)
    for rank in range(4):
        for table, columns in _aggregates(job, rank, 22).items():
            writer = RankWriter(tmp_path / "side", rank * 10 + len(table))
            writer.append(table, columns)
            writer.close()
            (writer.path / f"{table}.arrows").rename(path / f"rank-{rank:05d}/{table}.arrows")
    report = analyze(open_run(path))
    assert report.aggregates is not None and not report.aggregates.only
    assert report.aggregates.from_step == 22
    assert report.aggregates.collectives == 4 * 78 * 3
    assert report.time_budget == whole.time_budget and report.collectives == whole.collectives
    late = [each for each in report.findings if each.id == "straggler-rank"]
    assert [each.ranks for each in late] == [(2,)]  # told once, by the steps that are known better
    why = {each.analysis: each.reason for each in report.abstentions}
    assert "from step 22 on only sums were recorded" in why["aggregated-steps"]
    assert "Sums of the steps from 22 on" in text_of(report)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_garbage_is_left_out(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("garbage")
    write_run(path, {rank: RankTruth(info={"aggregates": ONLY}) for rank in range(2)})
    number = st.integers(-(2**31), 2**31 - 1)
    for rank in range(2):
        writer = RankWriter(path, rank)
        for table in ("aggregates", "aggregate_bins"):
            count = data.draw(st.integers(1, 8))
            writer.append(table, {name: _drawn(data, kind, count, number) for name, kind in TABLES[table].items()})
        writer.close()
    report = analyze(open_run(path))
    json.dumps(report.to_dict(), allow_nan=False)
    assert text_of(report)


def _drawn(data: st.DataObject, kind: str, count: int, number: st.SearchStrategy[int]) -> Any:
    if kind.startswith("name"):
        codes = data.draw(st.lists(st.integers(-1, 1), min_size=count, max_size=count))
        return np.array(codes), data.draw(st.sampled_from([["all_reduce", "step"], ["step", "0"], ["x", "send"]]))
    if kind == "int64" and data.draw(st.booleans()):
        number = st.integers(-(2**63), 2**63 - 1)
    values = data.draw(st.lists(st.one_of(st.integers(-1, 20), number), min_size=count, max_size=count))
    return np.clip(np.array(values), -(2**15), 2**15 - 1) if kind == "int16" else np.array(values, np.int64)


def test_a_damaged_description_is_no_quota(tmp_path: Path) -> None:
    AggregatedJob(hosts=2, per_host=2).write(tmp_path)
    for path in tmp_path.glob("rank-*/rank.json"):
        path.write_text(path.read_text().replace('"quota_bytes": 0', '"quota_bytes": "none"'))
    run = open_run(tmp_path)
    assert all(read_sums(rank) is None for rank in run.ranks.values())
    assert analyze(run).aggregates is None
    assert any("aggregates" in note for note in run.notes)


def test_long_jobs_are_put_together_alike_on_all_ranks(tmp_path: Path) -> None:
    truth = {rank: RankTruth(info={"aggregates": ONLY}) for rank in range(2)}
    write_run(tmp_path, truth)
    steps = np.arange(0, 3_000_000, 500)
    for rank in range(2):
        own = steps if rank else steps[:-3]
        zeros = np.zeros(own.size, np.int64)
        columns = {"group": (zeros, ["0"]), "op": (zeros, ["all_reduce"]), "dtype": (zeros, ["float32"])}
        columns |= {"seq": own, "in_bytes": zeros + 8, "out_bytes": zeros + 8, "step": own}  # type: ignore[dict-item]
        times = START + own * MS
        columns |= {"issued_ns": times - rank, "completed_ns": times + MS}
        writer = RankWriter(tmp_path, rank)
        for table, values in aggregated(columns).items():
            writer.append(table, values)
        writer.close()
    run = open_run(tmp_path)
    read = [read_sums(run.ranks[rank]) for rank in range(2)]
    assert all(each is not None and 8 < each.from_steps.size <= 34 for each in read)
    assert read[0] is not None and read[1] is not None
    assert set(read[0].from_steps.tolist()) <= set(read[1].from_steps.tolist())
    assert int(read[1].numbers[:, 0].sum()) == steps.size


def test_stretches_cover_every_step_once() -> None:
    first, end = stretch_of(np.arange(5000))
    assert (first <= np.arange(5000)).all() and (np.arange(5000) < end).all()
    bounds = np.unique(first)
    assert bounds.tolist() == stretch_bounds()[: bounds.size].tolist()
    assert np.unique(end)[:-1].tolist() == bounds[1:].tolist()
    assert (bounds[:4].tolist(), int(bounds[-1])) == ([0, 2, 16, 32], 4608)
    assert stretch_of(np.array([MISSING]))[0].tolist() == [0]


@given(st.integers(1, 2**60))
def test_a_duration_lies_in_its_bin(ns: int) -> None:
    low, high = bin_bounds(bin_of(np.array([ns])))
    assert low[0] * (1 - 1e-12) <= ns <= high[0] * (1 + 1e-12)


def test_those_who_look_at_the_recording_are_told_of_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = AggregatedJob(hosts=2, per_host=2).write(tmp_path)
    assert commlens(monkeypatch, "doctor", path) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4,000 more as sums only (COMMLENS_QUOTA)" in said and "only sums were recorded" in said
    assert commlens(monkeypatch, "watch", path, "--once") == 0
    assert "ranks 0-3: only sums since COMMLENS_QUOTA was reached" in " ".join(capsys.readouterr().out.split())
