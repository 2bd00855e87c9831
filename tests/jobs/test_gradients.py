"""When gradients became ready, in real jobs: whole, in DDP's own order, inside backward, and nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_runs import Launch

from commlens.analyzers.whatif.buckets import BucketSettings, Parameter, buckets
from commlens.trace import Rank, open_run

pytestmark = pytest.mark.job

SAMPLED = (4, 8, 16)
START = """
import sys, time
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))

def train(model, backwards, after=lambda: None, steps=18):
    torch.manual_seed(1 + dist.get_rank())
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        loss = backwards(torch.randn(4, 64))
        after()
        optimizer.step()
        sys.stdout.write(f"loss {dist.get_rank()} {step:02d} {loss.item().hex()}\\n")
        sys.stdout.flush()
    time.sleep(0.3)  # a rank that leaves right after a collective is aborted by torch itself now and then
    dist.destroy_process_group()
"""
DATA_PARALLEL = (
    START
    + """
model[1].requires_grad_(False)
model[4].weight = model[2].weight
ddp = DDP(model, bucket_cap_mb=0.01)

def backwards(x):
    with ddp.no_sync():
        ddp(x).square().mean().backward()
    loss = ddp(x + 1).square().mean()
    loss.backward()
    return loss

train(ddp, backwards)
"""
)
BY_HAND = (
    START
    + """
network = torch.compile(model, backend="aot_eager") if "compile" in sys.argv else model

def backwards(x):
    for part in x.chunk(2):
        loss = network(part).square().mean()
        loss.backward()
    return loss

def average():
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()

train(model, backwards, average)
"""
)


def recorded_and_alone(launch: Launch, script: str, runs: Path, *options: str) -> list[Rank]:
    """The ranks of the recorded job, which computed what it computes alone."""
    alone = launch(script, 2, *options)
    recorded = launch(script, 2, *options, env={"COMMLENS": str(runs)})
    assert (alone.rc, recorded.rc, recorded.warnings) == (0, 0, []), recorded.stderr
    assert recorded.said("loss") == alone.said("loss") and len(alone.said("loss")) == 36
    run = open_run(runs)
    assert list(run.ranks) == [0, 1]
    return list(run.ranks.values())


def samples(rank: Rank) -> dict[int, list[dict[str, Any]]]:
    """Rows by step, in the order of the file."""
    rows: list[dict[str, Any]] = rank.table("gradients").to_pylist()
    return {step: [row for row in rows if row["step"] == step] for step in sorted({row["step"] for row in rows})}


def backward_phases(rank: Rank, step: int) -> list[dict[str, Any]]:
    return [each for each in rank.table("phases").to_pylist() if (each["phase"], each["step"]) == ("backward", step)]


def assert_inside(rows: list[dict[str, Any]], phase: dict[str, Any]) -> None:
    times = [row["ready_ns"] for row in rows]
    assert times == sorted(times)
    assert phase["start_ns"] <= times[0] and times[-1] <= phase["end_ns"]


def test_ddp_with_frozen_and_tied_parameters_and_accumulation(launch: Launch, tmp_path: Path) -> None:
    for rank in recorded_and_alone(launch, DATA_PARALLEL, tmp_path / "runs"):
        (model,) = rank.info["models"]
        trainable = [place for place, each in enumerate(model["parameters"]) if each["trainable"]]
        assert len(trainable) == 9 and rank.info["hooks"]["gradients"] == "ok"
        found = samples(rank)
        assert tuple(found) == SAMPLED
        for step, rows in found.items():
            assert [row["parameter"] for row in rows] == model["ready_order"]
            assert sorted(row["parameter"] for row in rows) == trainable
            assert {row["model"] for row in rows} == {0}
            unsynchronised, synchronised = backward_phases(rank, step)
            assert unsynchronised["end_ns"] < rows[0]["ready_ns"]
            assert_inside(rows, synchronised)
        check_buckets(model)


def check_buckets(model: dict[str, Any]) -> None:
    """What DDP logged is what the simulator makes of the recorded description."""
    parameters = [
        Parameter(each["num_bytes"], each["dtype"], trainable=each["trainable"]) for each in model["parameters"]
    ]
    layout = buckets(parameters, model["ready_order"], BucketSettings(bucket_cap_mb=0.01))
    assert [list(bucket) for bucket in layout] == model["bucket_parameters"] and len(layout) > 2
    assert [sum(parameters[place].num_bytes for place in bucket) for bucket in layout] == model["bucket_bytes"]


@pytest.mark.parametrize("options", [(), ("compile",)], ids=["eager", "compiled"])
def test_a_plain_model_in_each_of_its_backwards(launch: Launch, tmp_path: Path, options: tuple[str, ...]) -> None:
    for rank in recorded_and_alone(launch, BY_HAND, tmp_path / "runs", *options):
        assert rank.info["hooks"]["gradients"] == "ok"
        found = samples(rank)
        assert tuple(found) == SAMPLED
        for step, rows in found.items():
            phases = backward_phases(rank, step)
            assert len(phases) == 2 and len(rows) == 2 * 12
            for phase, half in zip(phases, (rows[:12], rows[12:]), strict=True):
                assert sorted(row["parameter"] for row in half) == list(range(12))
                assert_inside(half, phase)
