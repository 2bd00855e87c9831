"""The samples, and what models do: recorded, nothing changes, and what is recorded of the models is true."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from job_runs import FIRST, LAST, Job, Launch, execute

from commlens.trace import Rank, Run, open_run

pytestmark = pytest.mark.job

SAMPLES = Path(__file__).parents[2] / "samples"
STEPS = 6
SMALL = {
    "ddp": ("--hidden", "128", "--layers", "6", "--bucket-cap-mb", "0.1"),
    "fsdp2": ("--hidden", "64", "--layers", "3"),
    "tensor_parallel": ("--hidden", "64", "--layers", "2"),
    "manual_allreduce": ("--hidden", "64", "--layers", "4"),
    "moe_all_to_all": ("--hidden", "64", "--tokens", "64"),
    "pipeline": ("--hidden", "64", "--layers", "2"),
}
# Four ranks where that is another thing: a stage between two others, and splits for several peers.
RANKS = {"pipeline": 4, "moe_all_to_all": 4}
JOBS = [
    *((name, (), RANKS.get(name, 2)) for name in SMALL),
    ("ddp", ("--accumulate", "6"), 2),
    ("fsdp2", ("--no-reshard",), 2),
    ("manual_allreduce", ("--async",), 2),
    ("pipeline", ("--batched",), 2),
]


def finished(job: Job) -> Job:
    assert job.rc == 0, job.stderr
    return job


def both(start: Callable[[Path | None], Job], runs: Path) -> tuple[Job, Job]:
    """The job alone, and recorded into `runs`."""
    return finished(start(None)), finished(start(runs))


def recording(runs: Path | None) -> dict[str, str | None]:
    return {"COMMLENS": str(runs) if runs is not None else None}


def sample(launch: Launch, name: str, nproc: int, *options: str, runs: Path | None = None) -> Job:
    """Runs a small sample, recorded into `runs` if given."""
    args = ("--digest", "--steps", str(STEPS), *SMALL[name], *options)
    script = SAMPLES / f"{name}.py"
    return finished(launch(script, nproc, *args, env=recording(runs), timeout=240))


def opened(runs: Path, nproc: int) -> Run:
    """The one run in the folder, whole."""
    folders = list(runs.iterdir())
    assert len(folders) == 1
    run = open_run(folders[0])
    assert list(run.ranks) == list(range(nproc)) and not run.damaged and not run.notes
    return run


def rows(rank: Rank, **wanted: Any) -> list[dict[str, Any]]:
    """Collectives with these values, in the order of issue."""
    found: list[dict[str, Any]] = rank.table("collectives").to_pylist()
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def phases(rank: Rank, phase: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rank.table("phases").to_pylist()
    return [row for row in found if row["phase"] == phase]


def check_nothing_changed(recorded: Job, alone: Job, nproc: int) -> None:
    assert recorded.said("digest") == alone.said("digest")
    assert len(alone.said("digest")) == nproc
    assert not recorded.warnings


def check_phases(rank: Rank, backwards: int = 1) -> None:
    """As many optimizer steps as the job made; forward and backward are seen."""
    steps = phases(rank, "optimizer")
    assert [row["step"] for row in steps] == list(range(STEPS))
    assert all(row["end_ns"] >= row["start_ns"] for row in rank.table("phases").to_pylist())
    assert all(first["end_ns"] <= second["start_ns"] for first, second in pairwise(steps))
    assert len(phases(rank, "backward")) == STEPS * backwards
    assert phases(rank, "forward")


def check_report(runs: Path) -> None:
    command = [sys.executable, "-m", "commlens", "report", str(runs)]
    report = execute(command, {}, runs)
    assert report.rc == 0, report.stderr


@pytest.mark.parametrize(("name", "options", "nproc"), JOBS, ids=[" ".join((n, *o, str(p))) for n, o, p in JOBS])
def test_a_sample_computes_the_same_and_is_seen_whole(
    launch: Launch, tmp_path: Path, name: str, options: tuple[str, ...], nproc: int
) -> None:
    alone = sample(launch, name, nproc, *options)
    recorded = sample(launch, name, nproc, *options, runs=tmp_path / "runs")
    check_nothing_changed(recorded, alone, nproc)
    run = opened(tmp_path / "runs", nproc)
    backwards = {"pipeline": 4, "ddp": 6 if options else 1}.get(name, 1)
    for rank in run.ranks.values():
        check_phases(rank, backwards)
        assert all(row["completed_ns"] is not None for row in rows(rank))
        check_model(rank, name)
    check_report(tmp_path / "runs")


def check_model(rank: Rank, name: str) -> None:
    """What rank.json and the rows say of the sample's model."""
    (model,) = rank.info["models"]
    assert model["kind"] == {"ddp": "DDP", "fsdp2": "FSDP2"}.get(name, "module")
    hooks = dict(rank.info["hooks"])
    settable = {"ddp": "bucket_cap_mb", "fsdp2": "set_modules_to_forward_prefetch"}.get(name)
    assert settable in model["accepts"] if settable else model["accepts"] == []
    sharded = {"fsdp2": "(FSDP2)", "tensor_parallel": "(DTensor)"}.get(name)
    assert sharded in hooks["gradients"] if sharded else hooks["gradients"] == "ok"
    assert hooks.pop("recorder") == "dispatcher"
    assert hooks | {"gradients": "ok"} == dict.fromkeys(
        ("collectives", "waits", "backward", "optimizer", "forward", "gradients"), "ok"
    )
    if name == "ddp":
        check_ddp(rank, model)
    if name == "fsdp2":
        check_fsdp2(rank, model)


def check_ddp(rank: Rank, model: dict[str, Any]) -> None:
    """Buckets in the order they are sent, each once a step, whatever is accumulated."""
    sizes = {parameter["name"]: parameter["num_bytes"] for parameter in model["parameters"]}
    assert len(sizes) == 12 and sizes["module.0.linear.weight"] == 4 * 128 * 128
    assert sum(model["bucket_bytes"]) == sum(sizes.values()) and len(model["bucket_bytes"]) > 2
    for step in range(2, STEPS):
        reduced = rows(rank, step=step, op="all_reduce")
        assert [row["bucket"] for row in reduced] == list(range(len(model["bucket_bytes"])))
        assert [row["in_bytes"] for row in reduced] == model["bucket_bytes"]
        assert {row["group"] for row in reduced} == {model["group"]}
    others = [row for row in rows(rank) if row["op"] != "all_reduce"]
    assert all(row["bucket"] is None for row in others)


def check_fsdp2(rank: Rank, model: dict[str, Any]) -> None:
    """The same collectives every step, of which each layer scatters its gradients once."""
    assert model["name"] == "FSDPModel" and len(model["parameters"]) == 21
    steps = [
        Counter((row["op"], row["in_bytes"], row["out_bytes"]) for row in rows(rank, step=step))
        for step in range(STEPS)
    ]
    assert all(step == steps[0] for step in steps)
    assert sum(count for (op, *_), count in steps[0].items() if op == "reduce_scatter") == 4


def test_spawned_ranks_are_one_run(tmp_path: Path) -> None:
    nproc = 2  # each starts a process of its own for its data, which imports torch anew
    command = [sys.executable, str(SAMPLES / "spawn.py"), "--nprocs", str(nproc), "--steps", str(STEPS), "--digest"]
    command += ["--hidden", "64", "--layers", "3", "--batch", "8"]
    alone, recorded = both(lambda runs: execute(command, recording(runs), tmp_path, 240), tmp_path / "runs")
    check_nothing_changed(recorded, alone, nproc)
    for rank in opened(tmp_path / "runs", nproc).ranks.values():
        check_phases(rank)
    check_report(tmp_path / "runs")


TWO_MODELS = (
    FIRST
    + r"""
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

dist.init_process_group("gloo")
torch.manual_seed(0)
make = lambda *sizes: nn.Sequential(*(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])))
generator, critic = DDP(make(8, 64, 32)), DDP(make(32, 128, 128, 1))
of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3)
of_generator = torch.optim.SGD(generator.parameters(), lr=1e-2)
torch.manual_seed(1 + dist.get_rank())
for step in range(6):
    real, fake = torch.randn(16, 32), generator(torch.randn(16, 8))
    of_critic.zero_grad()
    loss = (critic(torch.cat([fake.detach(), real])) * torch.ones(32, 1).index_fill(0, torch.arange(16), -1)).mean()
    loss.backward()
    of_critic.step()
    of_generator.zero_grad()
    lost = -critic.module(fake).mean()
    lost.backward()
    of_generator.step()
    print(f"digest {dist.get_rank()} {step} {loss.item().hex()} {lost.item().hex()}\n", end="", flush=True)
"""
    + LAST
)


def test_two_models_with_two_optimizers(launch: Launch, tmp_path: Path) -> None:
    alone, recorded = both(lambda runs: launch(TWO_MODELS, env=recording(runs)), tmp_path / "runs")
    check_nothing_changed(recorded, alone, 2 * STEPS)
    for rank in opened(tmp_path / "runs", 2).ranks.values():
        names = [row["name"] for row in phases(rank, "optimizer")]
        assert Counter(names) == {"Adam": STEPS, "SGD": STEPS}
        assert [row["step"] for row in phases(rank, "optimizer") if row["name"] == "Adam"] == list(range(STEPS))
        assert len(phases(rank, "backward")) == 2 * STEPS
        models = rank.info["models"]
        totals = {sum(parameter["num_bytes"] for parameter in model["parameters"]) for model in models}
        assert [model["kind"] for model in models] == ["DDP", "DDP"] and totals == {
            4 * (8 * 64 + 64 + 64 * 32 + 32),
            4 * (32 * 128 + 128 + 128 * 128 + 128 + 128 + 1),
        }
        assert {sum(model["bucket_bytes"]) for model in models} == totals
        for step in range(2, STEPS):  # one bucket each, told apart by its size
            reduced = rows(rank, step=step, op="all_reduce")
            assert {row["in_bytes"] for row in reduced} == totals and all(row["bucket"] == 0 for row in reduced)


COMPILED = (
    FIRST
    + r"""
import torch, torch.distributed as dist
import torch.distributed._functional_collectives as functional
from functools import partial
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

dist.init_process_group("gloo")
make = lambda: nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
same = lambda function: function


class Reducing(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = make()

    def forward(self, x):
        return self.inner(x) + functional.all_reduce(x, "sum", dist.group.WORLD)


def run(name, build, compiled=same, optimizer=torch.optim.SGD):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    model = build()
    optimizer = optimizer(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = compiled(step)
    for _ in range(6):
        loss = step(torch.randn(4, 16))
    counters = torch._dynamo.utils.counters
    found = {each: dict(sorted(counters[each].items())) for each in ("recompiles", "stats")}
    print(f"digest {dist.get_rank()} {name} {loss.item().hex()} {found}\n", end="", flush=True)
    print(f"breaks {dist.get_rank()} {name} {sum(counters['graph_break'].values())}\n", end="", flush=True)


for backend in ("eager", "aot_eager"):
    compiled = partial(torch.compile, backend=backend)
    run(f"{backend} model", lambda: compiled(make()))
    run(f"{backend} fullgraph", lambda: compiled(make(), fullgraph=True))
    run(f"{backend} collective", lambda: compiled(Reducing(), fullgraph=True))
    run(f"{backend} around DDP", lambda: compiled(DDP(make())))
    run(f"{backend} in DDP", lambda: DDP(compiled(make())))
    run(f"{backend} step", lambda: DDP(make()), compiled)
    run(f"{backend} Adam", make, compiled, torch.optim.Adam)
"""
    + LAST
)


def test_compiled_models_compile_as_before(launch: Launch, tmp_path: Path) -> None:
    alone, recorded = both(lambda runs: launch(COMPILED, env=recording(runs), timeout=300), tmp_path / "runs")
    check_nothing_changed(recorded, alone, 2 * 14)
    # In a compiled step our reading of the clock takes the place of one of the optimizer's own breaks.
    breaks = [[int(line.rsplit(" ", 1)[1]) for line in job.said("breaks")] for job in (recorded, alone)]
    assert len(breaks[1]) == 2 * 14 and all(ours <= theirs for ours, theirs in zip(*breaks, strict=True)), breaks
    for rank in opened(tmp_path / "runs", 2).ranks.values():
        assert len(phases(rank, "optimizer")) == 14 * STEPS
        assert len(phases(rank, "backward")) >= 14 * STEPS  # AOT autograd traces with a backward of its own


COPIED = (
    FIRST
    + r"""
import copy, io, sys
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

dist.init_process_group("gloo")
model = DDP(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
bare = nn.Sequential(nn.Linear(4, 4))
optimizer = torch.optim.AdamW([*model.parameters(), *bare.parameters()])
for step in range(6):
    bare(model(torch.ones(2, 4))).sum().backward()
    optimizer.step()
for each in (model.module, bare, model, optimizer):
    saved = io.BytesIO()
    torch.save(each, saved)
    assert b"commlens" not in saved.getvalue()
    saved.seek(0)
    torch.load(saved, weights_only=False)
for each in (model.module, bare):
    twin = copy.deepcopy(each)
    twin(torch.ones(2, 4)).sum().backward()
    assert type(twin) is type(each)
print(f"done {dist.get_rank()}\n", end="", flush=True)
"""
    + LAST
)


def test_models_are_saved_and_copied_as_before(launch: Launch, tmp_path: Path) -> None:
    recorded = finished(launch(COPIED, env=recording(tmp_path / "runs")))
    assert len(recorded.said("done")) == 2 and not recorded.warnings
    assert all(phases(rank, "forward") for rank in opened(tmp_path / "runs", 2).ranks.values())
