"""The simulated data-centre jobs and the models' tables are what they say."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from analyzers.data_centres import MACHINES, Setup, all_reduce, compute_bound, job_on, model_of, setups, straggler
from analyzers.model_tables import Table, bert, gpt2, resnet, vgg16
from analyzers.whatif_model import step_ms
from synthetic import write_run

import commlens
from commlens.analyzers.whatif.altered import alter
from commlens.analyzers.whatif.asked import Simulator, simulator_of
from commlens.analyzers.whatif.model import Model
from commlens.trace.changes import parse, parse_all


@pytest.fixture(scope="module")
def grid() -> list[Setup]:
    return list(setups(seed=0))


@pytest.mark.parametrize(
    ("table", "tensors", "elements", "gflop"),
    [
        # torchvision 0.20: parameters, and GFLOPS (multiply-adds; twice that is ours) of each model's weights' page.
        (resnet(50), 161, 25_557_032, 4.09),
        (resnet(101), 314, 44_549_160, 7.80),
        (vgg16(), 32, 138_357_544, 15.47),
        # transformers' BertModel (bert-base-uncased) and GPT2LMHeadModel (gpt2, gpt2-xl).
        (bert(), 199, 109_482_240, None),
        (gpt2(), 148, 124_439_808, None),
        (gpt2(48, 1600), 580, 1_557_611_200, None),
    ],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
def test_tables_have_the_published_sizes(table: Table, tensors: int, elements: int, gflop: float | None) -> None:
    assert (len(table.shapes), table.elements) == (tensors, elements)
    assert (table.ready[:-1] >= table.ready[1:]).all()
    assert 0 < table.ready[-1] < table.ready[0] <= 1 + 1e-12
    if gflop is not None:
        assert table.forward_flop / 2e9 == pytest.approx(gflop, rel=0.02)


def test_the_grid_is_large_and_spans_hidden_and_exposed_communication(grid: list[Setup]) -> None:
    assert len(grid) >= 200
    assert len({setup.name for setup in grid}) == len(grid)
    assert {setup.workers for setup in grid} == {8, 16, 64, 256, 512}
    assert sum(setup.exposed < 0.02 for setup in grid) > 50
    assert sum(setup.exposed > 0.1 for setup in grid) > 40


def test_the_same_seed_gives_the_same_grid(grid: list[Setup]) -> None:
    assert [each.step_ms for each in islice(setups(seed=0), 5)] == [each.step_ms for each in grid[:5]]
    assert [each.step_ms for each in islice(setups(seed=1), 5)] != [each.step_ms for each in grid[:5]]


def test_every_step_takes_at_least_its_compute_and_no_more_than_without_overlap(grid: list[Setup]) -> None:
    for setup in grid:
        job = setup.job
        compute = job.forward_ms + job.backward_ms + job.optimizer_ms
        one = job.alpha_ms * len(setup.model.nodes) + job.ns_per_byte * sum(p.num_bytes for p in job.parameters) / 1e6
        assert 0.98 * compute <= setup.step_ms <= 1.02 * compute + one
        assert 0 < setup.exposed_ms <= one


def test_all_reduce_costs_by_hand() -> None:
    alpha_ms, ns_per_byte = all_reduce(MACHINES[1], 16)  # 2 hosts of 8 V100, 120 GB/s inside, 11 GB/s between
    assert alpha_ms == pytest.approx((8.4 + 14 * 3.4 + 2 * 14) / 1e3)
    assert ns_per_byte == pytest.approx(1.75 / 120 + 1 / 11)


def test_one_bucket_is_sent_after_the_backward() -> None:
    job = job_on(MACHINES[1], 16, resnet(50), 64)
    one = alter(model_of(job), parse_all("ddp.bucket_cap_mb=1000"))
    assert isinstance(one, Model)
    sent = job.alpha_ms + job.ns_per_byte * 4 * 25_557_032 / 1e6
    assert step_ms(one) == pytest.approx(job.forward_ms + job.backward_ms + sent + job.optimizer_ms)


@pytest.mark.parametrize("number", [0, 9, 37, 200])
def test_a_recorded_setup_becomes_its_model(grid: list[Setup], tmp_path: Path, number: int) -> None:
    setup = grid[number]
    found = _recorded(setup, tmp_path)
    assert found.refusal is None
    assert found.baseline is not None
    assert found.baseline.model.layout == setup.model.layout
    # A recording leaves its first steps out, and steps scatter by half a percent.
    assert found.baseline.replayed_ns / 1e6 == pytest.approx(setup.step_ms, rel=4e-3)


def test_a_compute_bound_job_exposes_less_than_two_percent() -> None:
    assert compute_bound().exposed < 0.02


def test_a_straggler_costs_what_it_is_late(tmp_path: Path) -> None:
    setup = straggler(late_ms=40)
    healed = alter(setup.model, [parse("straggler.remove=1")])
    assert isinstance(healed, Model)
    assert setup.step_ms - step_ms(healed) == pytest.approx(40, rel=0.05)
    found = _recorded(setup, tmp_path)
    assert found.baseline is not None
    assert found.baseline.model.late == (7,)


def _recorded(setup: Setup, path: Path) -> Simulator:
    return simulator_of(commlens.open_run(write_run(path / "run", setup.truths())))
