"""The planted faults among the samples: each is the first finding, with its fix first, and gone where it is fixed.

On the lab's link, so that what communication costs does not depend on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from job_runs import FIRST, LAST, Launch
from lab import plan
from lab.plan import Plan
from lab.run import torchrun

import commlens
from commlens import Report

pytestmark = pytest.mark.job

SAMPLES = Path(__file__).parents[2] / "samples"
ON_LINK = Path(__file__).with_name("on_link.py")
STEPS = 14
SLOW, FAR = Plan(alpha_us=300, gb_s=0.05), Plan(alpha_us=8000, gb_s=0.2)  # a slow link, and one of high latency


@dataclass(frozen=True)
class Planted:
    """A sample with a fault.

    Attributes:
        sample: its name.
        finding: id of the first finding.
        change: what the first action says, its `fix` or else a part of its `change`.
        link: that it runs on.
        options: of the sample, for a size that suits the link.
        faulty: more options, which plant the fault.
        fixed: those which leave it out.
    """

    sample: str
    finding: str
    change: str
    link: Plan
    options: tuple[str, ...]
    faulty: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ("--fixed",)


def sized(hidden: int, layers: int, batch: int) -> tuple[str, ...]:
    return ("--hidden", str(hidden), "--layers", str(layers), "--batch", str(batch))


PLANTED = [
    Planted("fault_tiny_buckets", "bucket-size", "ddp.bucket_cap_mb", FAR, sized(32, 24, 8)),
    Planted("fault_giant_bucket", "bucket-size", "ddp.bucket_cap_mb", SLOW, sized(384, 6, 384)),
    Planted("fault_no_overlap", "no-overlap", "DistributedDataParallel(model)", SLOW, sized(384, 6, 384)),
    Planted("fault_no_sync", "redundant-sync", "with model.no_sync()", SLOW, sized(192, 4, 16)),
    Planted("fault_fp32_wire", "wire-dtype", "ddp.comm_hook=bf16", SLOW, sized(256, 6, 8)),
    Planted("fault_buffer_broadcast", "buffer-broadcast", "ddp.broadcast_buffers=0", FAR, sized(32, 4, 8)),
    Planted("fault_unused_search", "find-unused", "ddp.find_unused_parameters=0", SLOW, sized(384, 6, 384)),
    Planted("fault_per_parameter", "per-parameter-all-reduce", "DistributedDataParallel(model)", FAR, sized(32, 12, 8)),
    Planted("fault_one_unit", "fsdp-unit-size", "for layer in model.layers: fully_shard", SLOW, sized(384, 6, 384)),
    Planted(
        "pipeline", "pipeline-bubble", "n_microbatches=8", SLOW, sized(192, 4, 96), ("--micro", "1"), ("--micro", "8")
    ),
    Planted("moe_all_to_all", "expert-imbalance", "", SLOW, ("--hidden", "64"), ("--skew", "3"), ("--skew", "0")),
]


def record(planted: Planted, more: tuple[str, ...], folder: Path) -> Report:
    env = {plan.VARIABLE: planted.link.to_json(), "COMMLENS": str(folder)}
    sample = str(SAMPLES / f"{planted.sample}.py")
    ended = torchrun(ON_LINK, (sample, "--steps", str(STEPS), *planted.options, *more), 2, env, 150)
    assert ended.rc == 0, ended.output[-3000:]
    (run,) = folder.iterdir()
    return commlens.analyze(commlens.open_run(run))


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.sample)
def test_a_planted_fault_is_found_first_and_gone_when_fixed(planted: Planted, tmp_path: Path) -> None:
    faulty = record(planted, planted.faulty, tmp_path / "faulty")
    assert [each.id for each in faulty.findings][:1] == [planted.finding]
    first = faulty.findings[0]
    action = first.actions[0]
    assert (action.fix or action.change).startswith(planted.change) or planted.change in action.change
    assert first.layer == "strategy" and first.could_be_wrong_if and len(first.evidence) > 1
    budget = faulty.time_budget
    assert first.ceiling_ms is not None and budget.step_ms is not None and budget.exposed_ms is not None
    assert 0 < first.ceiling_ms < 1.1 * max(budget.exposed_ms, 0.02 * budget.step_ms)
    if action.fix is not None:
        verify = action.verify or ""
        assert f"--fix {action.fix} -- torchrun --nproc-per-node 2 " in verify and f"{planted.sample}.py" in verify

    fixed = record(planted, planted.fixed, tmp_path / "fixed")
    assert fixed.run.steps.analyzed == STEPS - 2
    # Even a job without a fault may be advised what the simulator says would save more.
    assert planted.finding not in [each.id for each in fixed.findings if " would save " not in each.title]


TURNS = (
    FIRST
    + r"""
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

dist.init_process_group("gloo")


class Turns(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(8, 8), nn.Linear(8, 8), 0

    def forward(self, x):
        self.calls += 1
        return self.first(x) if self.calls % 2 else self.second(self.first(x))


model = DDP(Turns(), find_unused_parameters=True)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(14):
    optimizer.zero_grad()
    model(torch.randn(2, 8)).sum().backward()
    optimizer.step()
"""
    + LAST
)


def test_parameters_that_are_unused_in_every_other_step_are_seen(launch: Launch, tmp_path: Path) -> None:
    job = launch(TURNS, env={"COMMLENS": str(tmp_path / "runs")})
    assert job.rc == 0 and not job.warnings, job.stderr
    (run,) = (tmp_path / "runs").iterdir()
    for rank in commlens.open_run(run).ranks.values():
        (model,) = rank.info["models"]
        assert set(model["unused_bytes"]) == {0, 4 * (8 * 8 + 8)} and model["autocast"] is None
