"""COMMLENS_FIX: real jobs run with changes that nobody wrote into them, or run as they are."""

from __future__ import annotations

import json
import sys
from collections import Counter
from inspect import signature
from pathlib import Path

import pytest
from job_runs import FIRST, LAST, Job, Launch, execute
from torch.nn.parallel import DistributedDataParallel

from commlens.trace import open_run

pytestmark = pytest.mark.job

# A model of 16 tensors of 16 KiB and 256 B; says what DDP made of it after a few steps.
JOB = (
    """
import json, os, sys
{first}
"""
    + FIRST
    + """
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
dist.init_process_group("gloo")
{before}
torch.manual_seed(0)
model = DDP(nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)]), {arguments})
{after}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(6):
    optimizer.zero_grad()
    loss = model(torch.full((2, 64), 1.0 + dist.get_rank())).square().mean()
    loss.backward()
    optimizer.step()
seen = model._get_ddp_logging_data()
seen = {{name: seen.get(name) for name in {names}}}
seen["loss"], seen["variables"] = loss.item(), {{name: os.environ.get(name) for name in {variables}}}
os.write(1, f"seen {{json.dumps(seen)}}\\n".encode())
dist.barrier()
"""
    + LAST
)
NAMES = ["rebuilt_bucket_sizes", "bucket_cap_bytes", "gradient_as_bucket_view", "static_graph", "comm_hook"]
VARIABLES = ["DDP_SET_LAST_BUCKET_CAP", "GLOO_MARK"]
PAIR = 64 * 64 * 4 + 64 * 4  # bytes of a layer
MIB = 2**20


def script(arguments: str = "", first: str = "", before: str = "", after: str = "") -> str:
    return JOB.format(arguments=arguments, first=first, before=before, after=after, names=NAMES, variables=VARIABLES)


def seen(job: Job) -> dict[str, object]:
    """What both ranks saw alike."""
    said = [json.loads(line) for line in job.said("seen")]
    losses = {each.pop("loss") for each in said}
    assert (job.rc, len(said), len(losses)) == (0, 2, 2), job.stderr[-2000:]
    assert said[0] == said[1]
    return dict(said[0])


def fixed(launch: Launch, fix: str, text: str, **env: str) -> Job:
    return launch(text, 2, env={"COMMLENS_FIX": fix, **env})


def test_what_is_asked_for_reaches_ddp_and_is_written_down(launch: Launch, tmp_path: Path) -> None:
    fix = "ddp.bucket_cap_mb=0.02,ddp.gradient_as_bucket_view=1,ddp.static_graph=1,ddp.comm_hook=bf16,env.GLOO_MARK=a"
    job = fixed(launch, fix, script("bucket_cap_mb=25"), COMMLENS=str(tmp_path / "out"))
    assert seen(job) == {
        "rebuilt_bucket_sizes": ", ".join([str(2 * PAIR)] * 4),
        "bucket_cap_bytes": int(0.02 * MIB),
        "gradient_as_bucket_view": 1,
        "static_graph": 1,
        "comm_hook": "bf16_compress",
        "variables": {"DDP_SET_LAST_BUCKET_CAP": None, "GLOO_MARK": "a"},
    }
    ddp = fix.removesuffix(",env.GLOO_MARK=a")
    assert job.warnings == [
        "commlens: rank 0: the fix env.GLOO_MARK=a is applied",
        f"commlens: rank 0: the fix {ddp} is applied, in place of bucket_cap_mb=25",
    ]
    run = open_run(tmp_path / "out")
    assert [rank.info["fix"] for rank in run.ranks.values()] == [{"applied": fix.split(","), "failed": {}}] * 2
    assert run.ranks[0].info["models"][0]["accepts"] == list(signature(DistributedDataParallel).parameters)[1:]
    reduced = run.ranks[0].table("collectives")
    gradients = [row for row in reduced.to_pylist() if row["op"] == "all_reduce" and row["step"] >= 2]
    assert {(row["dtype"], row["in_bytes"]) for row in gradients} == {("bfloat16", PAIR)}  # two layers, half the bytes


def test_alone_it_records_nothing_and_overrides_the_environment(launch: Launch, tmp_path: Path) -> None:
    fix = "ddp.last_bucket_cap=1,ddp.comm_hook=fp16"
    job = fixed(launch, fix, script("bucket_cap_mb=0.05"), DDP_SET_LAST_BUCKET_CAP="0")
    facts = seen(job)
    assert facts["comm_hook"] == "fp16_compress_hook"
    assert facts["variables"] == {"DDP_SET_LAST_BUCKET_CAP": "1", "GLOO_MARK": None}
    # Filled from the last gradient on, so that the rest, one bias, is sent first. Without: four layers in each of two.
    assert facts["rebuilt_bucket_sizes"] == f"256, {4 * PAIR}, {4 * PAIR - 256}"
    assert job.warnings == [f"commlens: rank 0: the fix {fix} is applied"]
    assert [path.name for path in tmp_path.iterdir()] == ["job.py"]


SHARDED = Path(__file__).parents[2] / "samples" / "fsdp2.py"
SMALL = ("--steps", "5", "--hidden", "64", "--layers", "3", "--digest")


def sharded(launch: Launch, fix: str | None, runs: Path) -> tuple[Job, dict[str, Counter[str]]]:
    """The sample, and how many collectives of each kind and data type rank 0 issued in its last step."""
    job = launch(SHARDED, 2, *SMALL, env={"COMMLENS_FIX": fix, "COMMLENS": str(runs)})
    assert job.rc == 0, job.stderr
    rank = open_run(runs).ranks[0]
    assert rank.info["fix"] == (fix and {"applied": fix.split(","), "failed": {}})
    rows = [row for row in rank.table("collectives").to_pylist() if row["step"] == 4]
    return job, {
        op: Counter(row["dtype"] for row in rows if row["op"] == op) for op in ("all_gather", "reduce_scatter")
    }


def test_fsdp2_is_changed_without_its_code(launch: Launch, tmp_path: Path) -> None:
    plain, before = sharded(launch, None, tmp_path / "plain")
    kept, after = sharded(launch, "fsdp.reshard_after_forward=0", tmp_path / "kept")
    # Three blocks and the root: all four are gathered in forward, the blocks again in backward.
    assert before["all_gather"].total() == 7 and after["all_gather"].total() == 4
    assert before["reduce_scatter"] == after["reduce_scatter"] == {"float32": 4}
    assert kept.said("digest") == plain.said("digest")
    assert kept.warnings == ["commlens: rank 0: the fix fsdp.reshard_after_forward=0 is applied"]
    both = "fsdp.reduce_dtype=bfloat16,fsdp.prefetch=1"
    _, halved = sharded(launch, both, tmp_path / "halved")
    assert halved["reduce_scatter"] == {"bfloat16": 4} and halved["all_gather"].total() == 7
    _, again = sharded(launch, "fsdp.reshard_after_forward=1", tmp_path / "again")
    assert again == before


LAYERS = """
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
model = nn.Sequential(*[fully_shard(nn.Linear(8, 8), mesh=mesh) for _ in range(3)])
model(torch.ones(2, 8)).sum().backward()
"""


def test_a_fix_that_would_change_nothing_is_not_called_applied(launch: Launch, tmp_path: Path) -> None:
    """Each layer is a model of its own, whose parameters its backward needs first."""
    job = fixed(launch, "fsdp.prefetch=1", FIRST + LAYERS + LAST, COMMLENS=str(tmp_path / "out"))
    assert job.rc == 0, job.stderr
    assert len(job.warnings) == 2 and all("no FSDP2 units below its root" in line for line in job.warnings)
    for rank in open_run(tmp_path / "out").ranks.values():
        assert rank.info["fix"]["applied"] == [] and list(rank.info["fix"]["failed"]) == ["fsdp.prefetch=1"]


def test_a_fix_for_fsdp2_in_a_job_without_it(launch: Launch, tmp_path: Path) -> None:
    fix = "fsdp.reshard_after_forward=0"
    assert fixed(launch, fix, script(), COMMLENS=str(tmp_path / "out")).rc == 0
    for rank in open_run(tmp_path / "out").ranks.values():
        assert rank.info["fix"] == {"applied": [], "failed": {fix: "no FSDP2 model ran"}}


def test_losses_are_kept_where_they_are_asked_for(launch: Launch, tmp_path: Path) -> None:
    for asked in ("1", None):
        runs = tmp_path / f"out-{asked}"
        job = launch(script(), 2, env={"COMMLENS": str(runs), "COMMLENS_LOSSES": asked})
        said = {json.loads(line)["loss"] for line in job.said("seen")}
        kept = [rank.info["losses"] for rank in open_run(runs).ranks.values()]
        if asked is None:
            assert kept == [None, None]
        else:
            assert {each["last"][-1] for each in kept} == said and [len(each["first"]) for each in kept] == [6, 6]


def test_a_fix_takes_the_place_of_the_jobs_own_hook(launch: Launch) -> None:
    own = "from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook\n"
    own += "model.register_comm_hook(None, fp16_compress_hook)"
    assert seen(launch(script(after=own)))["comm_hook"] == "fp16_compress_hook"
    for hook, seen_hook in (("none", None), ("bf16", "bf16_compress")):
        job = fixed(launch, f"ddp.comm_hook={hook}", script(after=own))
        assert seen(job)["comm_hook"] == seen_hook
        assert [line for line in job.warnings if "own communication hook is left out" in line]


OLDER = """
from torch.nn.parallel import DistributedDataParallel as Whole
whole = Whole.__init__
def older(self, module, bucket_cap_mb=25):
    whole(self, module, bucket_cap_mb=bucket_cap_mb)
Whole.__init__ = older
"""


@pytest.mark.parametrize(
    ("fix", "changed", "why"),
    [
        (
            "ddp.bucket_cap_mb=50,ddp.gradient_as_bucket_view=1",
            {"first": OLDER},
            "DistributedDataParallel of this torch has no argument gradient_as_bucket_view",
        ),
        ("ddp.bucket_cap_mb=50,ddp.comm_hook=powersgd", {}, "torch's hook for it hangs or fails over Gloo"),
        ("ddp.bucket_cap_mb=50,ddp.no_sync_every=4", {}, "it is changed in the job's code"),
        ("ddp.bucket_cap_mb=50,env.RANK=3", {}, "the launcher sets it for each rank"),
        ("ddp.bucket_cap_mb=none", {}, "ddp.bucket_cap_mb takes MiB above 0, not 'none'"),
    ],
)
def test_what_cannot_be_applied_leaves_the_job_as_it_is(
    launch: Launch, tmp_path: Path, fix: str, changed: dict[str, str], why: str
) -> None:
    text = script("bucket_cap_mb=25", **changed)
    job = fixed(launch, fix, text, COMMLENS=str(tmp_path / "out"))
    facts = seen(job)
    assert (facts["bucket_cap_bytes"], facts["comm_hook"]) == (25 * MIB, None)
    assert len(job.warnings) == 2  # one line a rank
    assert all("the fix is not applied, the job runs without" in line and why in line for line in job.warnings)
    for rank in open_run(tmp_path / "out").ranks.values():
        assert rank.info["fix"]["applied"] == []
        assert any(why in reason for reason in rank.info["fix"]["failed"].values())


def test_a_model_that_refuses_is_made_as_the_job_asked(launch: Launch) -> None:
    first = "import torch.nn.parallel.distributed as home\nmake = home.DistributedDataParallel.__init__\n"
    first += "import functools\n@functools.wraps(make)\ndef strict(self, *args, **kwargs):\n"
    first += "    make(self, *args, **kwargs)\n"
    first += "    if kwargs.get('static_graph'): raise ValueError('not static')\n"
    first += "home.DistributedDataParallel.__init__ = strict\n"
    job = fixed(launch, "ddp.static_graph=1", script("bucket_cap_mb=25", first=first))
    assert seen(job)["bucket_cap_bytes"] == 25 * MIB
    assert all("ValueError: not static" in line for line in job.warnings)
    plain = launch(script("bucket_cap_mb=25"))
    assert job.said("seen") == plain.said("seen")  # the losses too: the first reducer left nothing behind


def test_plain_scripts_are_not_touched(tmp_path: Path) -> None:
    code = (
        "import sys, os; before = sorted(n for n in sys.modules if n.startswith('commlens'))\n"
        "import torch; from torch.nn.parallel import DistributedDataParallel as DDP\n"
        "print(before, hasattr(DDP.__init__, '__wrapped__'), os.environ.get('GLOO_MARK'))"
    )
    job = execute([sys.executable, "-c", code], {"COMMLENS_FIX": "ddp.bucket_cap_mb=50,env.GLOO_MARK=1"}, tmp_path)
    assert (job.stdout.strip(), job.stderr) == ("['commlens', 'commlens._boot'] False None", "")


def test_without_a_model_the_run_says_so(launch: Launch, tmp_path: Path) -> None:
    text = "import torch, torch.distributed as dist\ndist.init_process_group('gloo')\ndist.all_reduce(torch.ones(4))\n"
    job = fixed(launch, "ddp.bucket_cap_mb=50", f"{text}dist.destroy_process_group()\n", COMMLENS=str(tmp_path / "o"))
    assert (job.rc, job.warnings) == (0, [])
    said = {"applied": [], "failed": {"ddp.bucket_cap_mb=50": "no DistributedDataParallel was made"}}
    assert [rank.info["fix"] for rank in open_run(tmp_path / "o").ranks.values()] == [said, said]
