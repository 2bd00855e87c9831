"""The catalogue of techniques, judged for jobs whose answer is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from analyzers.data_centres import EVEN, MACHINES, Setup, compute_bound, job_on, setups, straggler, truths_of
from analyzers.model_tables import resnet
from blocking_job import even_job
from synthetic import training_rank, write_run

from commlens import Report, analyze, open_run
from commlens.analyzers.advisor.advise import TECHNIQUES, seen
from commlens.analyzers.advisor.job import Job
from commlens.analyzers.advisor.prices import likely_gain_ms
from commlens.analyzers.advisor.suggested import with_suggestions
from commlens.analyzers.advisor.technique import HALF, MORE, NOTHING, VERDICTS, Seen
from commlens.analyzers.advisor.worth import Base, gate
from commlens.analyzers.findings.context import Context
from commlens.analyzers.own_work import GAPS, HOST_BOUND
from commlens.analyzers.report import Considered, Predicted
from commlens.analyzers.whatif.buckets import BucketSettings
from commlens.trace.change_kinds import LOSSY, RISKS

ROWS = {
    *(f"S{number}" for number in range(1, 11)),
    *(f"A{number}" for number in range(1, 10)),
    *(f"O{number}" for number in range(1, 23)),
    *(f"C{number}" for number in range(1, 15)),
    *(f"R{number}" for number in range(1, 10)),
    *(f"I{number}" for number in range(1, 13)),
}


def report_of(tmp_path: Path, setup: Setup) -> Report:
    return analyze(open_run(write_run(tmp_path / setup.name.replace("/", "-"), setup.truths())))


def of(report: Report, id: str) -> Considered:
    (found,) = (each for each in report.considered if each.id == id)
    return found


def advised(report: Report) -> set[str]:
    return {each.id for each in report.considered if each.verdict == "advised"}


# --- the catalogue ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "settings", "change"),
    [
        ("fsdp-merge", ("fsdp.unit_merge=4",), "fully_shard([block_a, block_b, block_c, block_d])"),
        ("fsdp-merge", (), "fully_shard([block_a, block_b])"),
        ("larger-buckets", ("ddp.bucket_cap_mb=100",), "DistributedDataParallel(model, bucket_cap_mb=100)"),
    ],
)
def test_what_to_write_is_what_was_simulated(id: str, settings: tuple[str, ...], change: str) -> None:
    (technique,) = (each for each in TECHNIQUES if each.id == id)
    assert technique.considered("advised", "", set=settings).change == change


def test_one_collective_is_no_collectives(tmp_path: Path) -> None:
    ranks = dict.fromkeys(range(2), training_rank(20, collectives=1))
    report = analyze(open_run(write_run(tmp_path / "run", ranks)))
    assert of(report, "all-reduce").reason == "the job sends 1 reduction a step"
    assert of(report, "fused-small-collectives").reason == "the job sends 1 collective a step below 64 KiB"


def test_every_row_of_the_surveys_is_there() -> None:
    assert {technique.row.rstrip("b") for technique in TECHNIQUES} == ROWS
    for names in ([each.id for each in TECHNIQUES], [each.row for each in TECHNIQUES]):
        assert max(Counter(names).values()) == 1


def test_every_technique_says_what_it_risks() -> None:
    for each in TECHNIQUES:
        assert each.risk in RISKS and each.layer in ("strategy", "ccl", "network", "host"), each.id
        assert each.loses == NOTHING or each.risk == LOSSY, each.id
    assert {each.id for each in TECHNIQUES if each.loses == HALF} == {"half-gradients", "reduce-dtype"}
    assert {"powersgd", "one-bit", "local-sgd"} <= {each.id for each in TECHNIQUES if each.loses == MORE}


def test_nothing_tells_to_force_ll128() -> None:
    assert not any("NCCL_PROTO" in each.change for each in TECHNIQUES)


def test_the_likely_gain_is_the_normal_distributions() -> None:
    # 5th percentile 10 - 1.6449 * 2, 20th percentile 10 - 0.8416 * 2
    assert likely_gain_ms(Predicted(90.0, 10.0, 6.7102, 13.29)) == pytest.approx(8.3168, abs=1e-3)


# --- jobs -------------------------------------------------------------------------------------------------------


def test_a_compute_bound_job_is_left_alone(tmp_path: Path) -> None:
    report = report_of(tmp_path, compute_bound())
    assert not advised(report) and not report.findings
    assert "less than 3 %" in of(report, "powersgd").reason


def test_a_straggler_comes_first_and_nothing_is_compressed(tmp_path: Path) -> None:
    report = report_of(tmp_path, straggler())
    assert report.findings[0].id == "straggler-rank" and report.findings[0].ranks == (7,)
    assert advised(report) == {"mend-straggler"}


def slow(
    tmp_path: Path, bandwidth_gb_s: float, alpha_ms: float = 0.2, cap_mb: float = 25.0, backend: str = "nccl"
) -> Report:
    """ResNet-50 on eight V100s, over a link of so many GB/s."""
    job = job_on(MACHINES[0], 8, resnet(50), 64)
    job = replace(
        job, alpha_ms=alpha_ms, ns_per_byte=1.75 / bandwidth_gb_s, settings=BucketSettings(bucket_cap_mb=cap_mb)
    )
    return analyze(open_run(write_run(tmp_path / "run", truths_of(job, EVEN, (0.0,) * 8, 2), backend=backend)))


def test_where_the_network_is_scarce_lossless_comes_before_16_bits_before_less(tmp_path: Path) -> None:
    report = slow(tmp_path, 0.5)  # 4 Gbit/s: communication takes four times what compute takes
    bits, low_rank = of(report, "half-gradients"), of(report, "powersgd")
    assert bits.verdict == low_rank.verdict == "advised"
    assert bits.predicted is not None and low_rank.predicted is not None
    assert low_rank.predicted.gain_ms > bits.predicted.gain_ms
    order = [action.risk for finding in report.findings for action in finding.actions]
    assert order[0] == "exact" or "exact" not in order


def test_more_loss_is_worth_what_it_adds_to_16_bits_and_comes_after_them(tmp_path: Path) -> None:
    """A hook takes the place of another: both are not set together."""
    report = slow(tmp_path, 0.5)
    found = {finding.id: finding for finding in report.findings}
    bits, low_rank = of(report, "half-gradients"), of(report, "powersgd")
    assert bits.predicted is not None and low_rank.predicted is not None
    added = low_rank.predicted.gain_ms - bits.predicted.gain_ms
    assert found["compression"].ceiling_ms == pytest.approx(added, abs=1e-3)
    assert " ms more of each " in found["compression"].title
    assert found["compression"].actions[0].predicted == low_rank.predicted  # the action is the whole change
    assert [id for id in found if id in ("wire-dtype", "compression")] == ["wire-dtype", "compression"]
    assert found["wire-dtype"].ceiling_ms == pytest.approx(bits.predicted.gain_ms, abs=1e-3)


def test_hooks_that_hang_over_gloo_are_not_advised_there(tmp_path: Path) -> None:
    report = slow(tmp_path, 0.5, backend="gloo")
    assert of(report, "half-gradients").verdict == "advised"
    for id in ("powersgd", "quantized-gradients"):
        assert of(report, id).verdict == "rejected" and "Gloo" in of(report, id).reason


def test_what_is_advised_and_loses_something_comes_after_what_does_not(tmp_path: Path) -> None:
    found = [finding.actions[0].risk for finding in slow(tmp_path, 0.5).findings]
    assert "lossy" in found and found == sorted(found)


def test_findings_of_one_kind_are_all_kept(tmp_path: Path) -> None:
    """Two groups with uneven experts are two findings, whatever is advised beside them."""
    report = slow(tmp_path, 2.0)
    twice = replace(report, findings=(*report.findings, replace(report.findings[0], group="other")))
    infos = {0: {}}
    context = Context((), None, (), (), (), None, (), infos=infos)  # type: ignore[arg-type]
    kept = with_suggestions(Job(twice, context, lambda: None), ())  # type: ignore[arg-type, return-value]
    assert sorted(map(str, (each.group for each in kept))) == sorted(str(each.group) for each in twice.findings)


def test_a_change_that_gains_nothing_is_not_advised_however_it_was_found(tmp_path: Path) -> None:
    job = Job(slow(tmp_path, 2.0), None, lambda: None)  # type: ignore[arg-type, return-value]
    (technique,) = (each for each in TECHNIQUES if each.id == "static-graph")
    for gain, verdict in ((-3.0, "rejected"), (0.5 * (job.step_ms or 0), "advised")):
        predicted = Predicted(100.0, gain, gain - 1, gain + 1)
        said = seen(job, technique, Seen("all are used", 9.0, "ddp.find_unused_parameters=0", predicted))
        assert said.verdict == verdict and said.set == ("ddp.find_unused_parameters=0",)


def test_devices_that_stand_still_for_launches_come_before_communication(tmp_path: Path) -> None:
    report = slow(tmp_path, 0.5)
    step = report.time_budget.step_ms or 0.0
    for idle, gated in ((0.09, False), (0.11, True)):
        budget = replace(report.time_budget, other_parts_ms={HOST_BOUND: idle / 2 * step, GAPS: idle / 2 * step})
        job = Job(replace(report, time_budget=budget), Context((), None, (), (), (), None, ()), lambda: None)  # type: ignore[arg-type, return-value]
        (cap,) = (each for each in TECHNIQUES if each.id == "half-gradients")
        refused = gate(job, cap, Base())
        assert (refused is not None and "launches come first" in refused.reason) == gated


def test_only_gradients_count_for_what_is_sent_in_16_bits_already(tmp_path: Path) -> None:
    """Activations of tensor parallelism in bfloat16 say nothing of gradients in float32."""
    report = slow(tmp_path, 0.5)
    other = replace(report.collectives[0], group="tp", dtype="bfloat16", count_per_step=1000.0)
    infos = {0: {"models": [{"kind": "DDP", "group": "0"}]}}
    job = Job(
        replace(report, collectives=(*report.collectives, other)),
        Context((), None, (), (), (), None, (), infos=infos),  # type: ignore[arg-type]
        lambda: None,  # type: ignore[arg-type, return-value]
    )
    assert job.half_share == 0


def test_a_tiny_cap_is_found_and_a_better_one_priced(tmp_path: Path) -> None:
    report = slow(tmp_path, 10.0, alpha_ms=2.0, cap_mb=0.01)
    first = report.findings[0]
    assert first.id == "bucket-size"
    action = first.actions[0]
    assert action.fix is not None and action.fix.startswith("ddp.bucket_cap_mb")
    assert action.predicted is not None and action.predicted.low_ms > 0
    step = report.time_budget.step_ms
    assert step is not None and action.predicted.gain_ms > 0.45 * step
    assert f"--fix {action.fix}" in (action.verify or "")


def test_a_list_of_caps_is_for_a_torch_that_has_them(tmp_path: Path) -> None:
    report = slow(tmp_path, 2.0)
    assert of(report, "bucket-list").verdict == "not known" and "not recorded" in of(report, "bucket-list").reason


def test_what_was_simulated_and_rejected_says_its_number(tmp_path: Path) -> None:
    report = slow(tmp_path, 4.0)
    tried = [each for each in report.considered if each.verdict == "rejected" and each.predicted is not None]
    assert tried
    assert all("predicted to gain" in each.reason and each.set for each in tried)


def test_a_run_that_cannot_be_simulated_is_judged_without_prices(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", {0: training_rank(8)}, world_size=2))
    report = analyze(run)
    assert len(report.considered) == len(TECHNIQUES)
    assert all(each.predicted is None for each in report.considered)
    assert {each.verdict for each in report.considered} <= set(VERDICTS)


def test_an_even_job_is_not_told_to_compress(tmp_path: Path) -> None:
    report = analyze(open_run(write_run(tmp_path / "run", even_job().truths())))
    lossy = [each.id for each in report.considered if each.verdict == "advised" and each.risk == LOSSY]
    assert lossy == []


def test_compression_is_hardly_ever_advised_where_networks_are_fast(tmp_path: Path) -> None:
    """A part of the grid; all of it with bench/false_positives.py."""
    strong = {each.id for each in TECHNIQUES if each.loses == MORE}
    some = list(islice(setups(seed=1), 5, None, 25))
    assert len(some) >= 12
    assert sum(bool(advised(report_of(tmp_path, setup)) & strong) for setup in some) <= 0.05 * len(some)


def test_the_page_of_the_catalogue_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "advice.md").read_text()
    for each in TECHNIQUES:
        cells = (each.row, f"`{each.id}`", each.name, each.layer, each.risk, each.price or "-", each.not_for or "-")
        assert f"| {' | '.join(cells)} |" in page
