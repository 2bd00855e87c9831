"""Whatever a run repeats, it is simulated or refused with a reason, and its predictions are numbers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import Collective, Phase, RankTruth, write_run

from commlens import open_run
from commlens.analyzers.whatif.asked import simulator_of, what_if
from commlens.analyzers.whatif.usual import usual_sets
from commlens.trace.changes import parse_all
from commlens.trace.schema import OPS, TIMINGS

STEPS, LENGTH = 9, 10_000
SETS = (
    "ddp.bucket_cap_mb=0.001",
    "ddp.no_sync_every=2",
    "wire.dtype=bf16",
    "overlap=none",
    "straggler.remove",
    "ddp.find_unused_parameters=1,ddp.bucket_cap_mb=0.001",
    "ddp.static_graph=1",
    "ddp.broadcast_buffers=0",
    "ddp.gradient_as_bucket_view=1",
    "ddp.comm_hook=powersgd",
    "ddp.comm_hook=quantize",
    "sync.period=3",
    "world_size=5,link.bandwidth=x2",
    "allreduce.hierarchical=2",
    "fsdp.reshard_after_forward=0,fsdp.unit_merge=2",
    "fsdp.prefetch=1",
    "fsdp.reduce_dtype=bf16",
    "fsdp.shard_size=1",
)
PART = st.fixed_dictionaries(
    {
        "op": st.sampled_from([op for op in OPS if op not in ("send", "recv")]),
        "group": st.sampled_from(["0", "0", "1"]),
        "bytes": st.sampled_from([0, 8, 4096, 40_000]),
        "gap": st.integers(0, 900),
        "takes": st.one_of(st.just(-1), st.integers(0, 900)),
        "waits": st.sampled_from([None, 0, 300, LENGTH]),
        "timing": st.sampled_from(TIMINGS[1:]),
    }
)


@st.composite
def jobs(draw: st.DrawFn) -> dict[int, RankTruth]:
    parts = draw(st.lists(PART, max_size=6))
    ddp = draw(st.booleans())
    return {rank: draw(rank_of(rank, parts, ddp)) for rank in range(draw(st.integers(2, 3)))}


@st.composite
def rank_of(draw: st.DrawFn, rank: int, parts: list[dict[str, object]], ddp: bool) -> RankTruth:
    late = draw(st.lists(st.integers(0, 500), min_size=STEPS, max_size=STEPS))
    rows, phases = [], []
    for step in range(STEPS):
        at = begun = step * LENGTH + late[step] + 1
        for part in parts:
            at += int(str(part["gap"]))
            rows.append(_row(part, at))
        phases += [Phase("backward", begun, at + 400), Phase("optimizer", at + 400, step * LENGTH + 9_000)]
    members = [rank] if draw(st.booleans()) else [0, 1]
    groups = [{"name": "0", "workers": draw(st.sampled_from([None, 1, 2, 3]))}, {"name": "1", "ranks": members}]
    parameters = [{"num_bytes": 4096, "dtype": "float32"}, {"num_bytes": 40_000, "dtype": "float32"}]
    flags = {"find_unused_parameters": draw(st.booleans())}
    model = {"kind": "DDP", "group": "0", "flags": flags, "parameters": draw(st.sampled_from([parameters, []]))}
    models = [model] if ddp else [{"kind": "FSDP2"}]
    boot = draw(st.sampled_from(["a", "a", "b"]))
    return RankTruth(rows, phases, info={"boot_id": boot, "groups": groups, "models": models})


def _row(part: dict[str, object], at: int) -> Collective:
    size, takes, waits = int(str(part["bytes"])), int(str(part["takes"])), part["waits"]
    return Collective(
        issued_ns=at,
        completed_ns=at + takes if takes >= 0 else -1,
        started_ns=at,
        waited_ns=at + int(str(waits)) if waits is not None else -1,
        blocked_ns=max(takes - int(str(waits)), 0) if waits is not None else -1,
        op=str(part["op"]),
        group=str(part["group"]),
        in_bytes=size,
        out_bytes=size,
        timing=str(part["timing"]),
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(jobs())
def test_anything_is_simulated_or_refused(truths: dict[int, RankTruth]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        simulator = simulator_of(open_run(write_run(Path(folder), truths)))
    result = what_if(simulator, [*usual_sets(simulator), *([*parse_all(text)] for text in SETS)])
    json.dumps(result.to_dict(), allow_nan=False)
    for scenario in result.scenarios:
        assert (scenario.predicted is None) == (scenario.abstention is not None)
